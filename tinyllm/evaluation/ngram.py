"""The baseline to beat, which is no network: counts of how often each byte follows the four bytes before it.

A transformer that does not beat this baseline has learned nothing beyond such counts.
"""

import numpy as np


def ngram_nats(training, text, order=5):
    """-log p of every byte of `text`, from counts of sequences of 1 to `order` bytes in `training`
    -> (len(text),).

    Witten & Bell 1991: p(w | h) = (c(h w) + t(h) p(w | h')) / (c(h) + t(h)), where h' is the context h
    without its first byte and t(h) the number of different bytes seen after h. The more different bytes
    follow h, the more weight the shorter context gets. The recursion starts from 1/256 for every byte.
    """
    training, text = (np.frombuffer(data, np.uint8).astype(np.int64) for data in (training, text))
    p = np.full(len(text), 1 / 256)
    for n in range(min(order, len(training), len(text))):
        grams, count = np.unique(_grams(training, n), return_counts=True)
        contexts, first = np.unique(grams >> 8, return_index=True)
        total = np.add.reduceat(count, first)  # c(h)
        kinds = np.diff(np.append(first, len(grams)))  # t(h)
        wanted = _grams(text, n)
        c_hw = _lookup(grams, count, wanted)
        c_h, t_h = (_lookup(contexts, values, wanted >> 8) for values in (total, kinds))
        p[n:] = np.where(c_h > 0, (c_hw + t_h * p[n:]) / np.maximum(c_h + t_h, 1), p[n:])
    return -np.log(p)


def _grams(data, n):
    """For each byte from index n on: the byte and the n bytes before it, packed into one number."""
    return sum(data[n - i : len(data) - i] << (8 * i) for i in range(n + 1))


def _lookup(keys, values, wanted):
    """For each of the `wanted` keys, its value, or 0 if the key is not in `keys`, which must be sorted."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
