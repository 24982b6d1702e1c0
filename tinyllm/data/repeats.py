"""Random tokens that repeat themselves: practice for induction, which is to continue as it went before.

To answer a question about Ada, a model has to find what the text said after "Ada" earlier. Two attention
heads do that together, an induction head (Elhage et al. 2021; Olsson et al. 2022), and texts that can be
learned by heart make a model forget them. Nothing but looking back can predict these rows.

Special tokens take part. No text of stage 1 has a <|user|>, so nothing else trains its embedding before
stage 2, and with one seed it attracted the head that should look one token back.
"""

import numpy as np

KINDS = ("list", "phrases", "pairs")


def repeats(vocab, rows, length, seed):
    """Random tokens below `vocab`, repeated -> ids and weights, both (rows, length).

    A row repeats a list in the same order; or a list with a phrase of one to three tokens after each item;
    or pairs, in a new order each time. Weights are 1 where the earlier tokens determine the next one.
    """
    rng, place = np.random.default_rng(seed), np.arange(length)
    ids, weights = np.zeros((rows, length), np.int32), np.zeros((rows, length), np.float32)
    most = max(3, min(length // 3, vocab - 3))
    for row in range(rows):
        kind, items, size = rng.choice(KINDS), 1, rng.integers(2, most)
        if kind == "pairs":
            items, size = rng.integers(1, max(2, min(40, most) // 3)), 2
        tokens = rng.choice(vocab, items * size + 3, replace=False)
        phrase, tokens = tokens[: rng.integers(1, 4)], tokens[3:].reshape(items, size)
        if kind == "phrases":
            tokens = tokens[:, : max(1, size // (1 + len(phrase)))].T
            tokens = np.hstack([tokens, np.tile(phrase, (len(tokens), 1))]).reshape(1, -1)
        times = -(-length // tokens.size)
        ids[row] = np.concatenate([rng.permutation(tokens).ravel() for _ in range(times)])[:length]
        weights[row] = (place > tokens.size) & ((items == 1) | (place % size > 0))
    return ids, weights
