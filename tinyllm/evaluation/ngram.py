"""The model to beat: a table that counts which byte follows the last four. No network, no training.

A transformer that does not beat it has learned nothing that counting does not know.
"""

import numpy as np


def ngram_nats(training, text, order=5):
    """-log p of every byte of `text`, counting n-grams up to `order` in `training` -> (len(text),).

    Witten & Bell 1991: p(w | h) = (c(h w) + t(h) p(w | h')) / (c(h) + t(h)), where h' is the context h
    without its first byte and t(h) the number of different bytes seen after h: the more varied they
    were, the more is left to the shorter context. It starts from 1/256 for every byte.
    """
    seen, asked = (np.frombuffer(data, np.uint8).astype(np.int64) for data in (training, text))
    p = np.full(len(asked), 1 / 256)
    seen_code, asked_code = seen, asked                    # the last n + 1 bytes as one number
    for n in range(min(order, len(seen), len(asked))):
        grams, count = np.unique(seen_code[n:], return_counts=True)
        contexts, first = np.unique(grams >> 8, return_index=True)
        total = np.add.reduceat(count, first)                                        # c(h)
        kinds = np.diff(np.append(first, len(grams)))                                # t(h)
        c_hw = _lookup(grams, count, asked_code[n:])
        c_h, t_h = (_lookup(contexts, values, asked_code[n:] >> 8) for values in (total, kinds))
        known = c_h > 0
        p[n:][known] = ((c_hw + t_h * p[n:]) / np.maximum(c_h + t_h, 1))[known]
        if n + 1 < order:
            seen_code, asked_code = _prepend(seen_code, seen, n + 1), _prepend(asked_code, asked, n + 1)
    return -np.log(p)


def _prepend(code, data, n):
    """Codes of n bytes -> codes of n + 1 bytes: the byte n places earlier goes in front."""
    longer = code.copy()
    longer[n:] += data[:len(data) - n] << (8 * n)
    return longer


def _lookup(keys, values, wanted):
    """values at the places where keys (sorted) equal `wanted`, 0 where they do not occur."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
