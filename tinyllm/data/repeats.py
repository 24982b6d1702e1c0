"""Repeated random tokens: practice for induction, which is to continue a sequence as it continued before.

To answer a question about Ada, a model has to find what followed "Ada" earlier in the text. Two attention
heads do that together (Elhage et al. 2021; Olsson et al. 2022), and a model that can memorise its texts
unlearns it. These rows can only be predicted by looking back.

Special tokens take part. No text of stage 1 contains <|user|>, so nothing else trains its embedding before
stage 2; with one seed it drew the attention of the head that should look one token back.
"""

import numpy as np

KINDS = ("list", "phrases", "pairs")


def repeats(vocab, rows, length, seed):
    """Random tokens below `vocab`, repeated -> ids and weights, both (rows, length).

    A row repeats a list in the same order; or a list with the same phrase of one to three tokens after each
    item; or pairs, in a new order each time. Weights are 1 on tokens that the earlier ones determine.
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
