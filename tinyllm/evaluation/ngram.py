"""The baseline to beat: counts of which byte follows the last four, without a network.

A transformer that does not beat this baseline has learned nothing beyond such counts.
"""

import numpy as np


def ngram_nats(training, text, order=5):
    """-log p of every byte of `text`, from counts of n-grams up to `order` in `training` -> (len(text),).

    Witten & Bell 1991: p(w | h) = (c(h w) + t(h) p(w | h')) / (c(h) + t(h)), where h' is the context h
    without its first byte and t(h) the number of different bytes seen after h: the more varied they are, the
    more weight the shorter context gets. The recursion starts from 1/256 for every byte.
    """
    train_bytes, text_bytes = (np.frombuffer(data, np.uint8).astype(np.int64) for data in (training, text))
    p = np.full(len(text_bytes), 1 / 256)
    train_code, text_code = train_bytes, text_bytes  # the last n + 1 bytes as one number
    for n in range(min(order, len(train_bytes), len(text_bytes))):
        grams, count = np.unique(train_code[n:], return_counts=True)
        contexts, first = np.unique(grams >> 8, return_index=True)
        total = np.add.reduceat(count, first)  # c(h)
        kinds = np.diff(np.append(first, len(grams)))  # t(h)
        c_hw = _lookup(grams, count, text_code[n:])
        c_h, t_h = (_lookup(contexts, values, text_code[n:] >> 8) for values in (total, kinds))
        known = c_h > 0
        p[n:][known] = ((c_hw + t_h * p[n:]) / np.maximum(c_h + t_h, 1))[known]
        if n + 1 < order:
            train_code, text_code = (
                _prepend(train_code, train_bytes, n + 1),
                _prepend(text_code, text_bytes, n + 1),
            )
    return -np.log(p)


def _prepend(code, data, n):
    """Codes of n bytes -> codes of n + 1 bytes, with the byte n places earlier in front."""
    longer = code.copy()
    longer[n:] += data[: len(data) - n] << (8 * n)
    return longer


def _lookup(keys, values, wanted):
    """The values of the `wanted` keys (keys are sorted), 0 for keys that do not occur."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
