"""Induction: to go on as it went before. "Ada has a duck. ... Ada has a" -> "duck".

All that needs a lookup needs this first: who is asked about Ada has to find what was said behind Ada. It
takes two heads (Elhage et al. 2021; Olsson et al. 2022):

    a head of layer 0    looks one token back, and writes what it sees there beside what stands here
    a head of layer 1    looks for where the present token is written so, and copies what stands there

Neither is of use without the other, so training finds the pair late: this model, given nothing but repeated
random tokens, goes on rightly in 8 of 100 places after 200 steps. Born with rough pairs (`wire`), in 69 after
60; and what it is not asked for, in texts that are easier learned by heart, it forgets, so that some rows of
every batch ask for it (`repeats`).

Special tokens are among them. No text of stage 1 has a <|user|>: nothing held it in its place, and with one
seed it drew to itself the head that should look one token back. Then conversations had no induction, and
stage 2 did not learn to see whether a question had just said what is known.

One pair goes wrong where the present token is a comma, which stands everywhere: so a second looks two tokens
back, and for what stands here before the comma; a third three back, a fourth four.
"""

import math

import numpy as np

from tinyllm.transformer import DEVIATION

SPREAD, ALWAYS = 0.1, 0.4          # deviation of the embeddings; their channel 0, the same for every token
BACK, MATCH = 20, 12               # scores of the right place in the two kinds of heads
COPY = 3                           # how loud the copy is, in embeddings


def wire(model, rng):
    """Set the embeddings and some heads of layers 0 and 1 of a new model -> the model.

    Models of one layer, or with heads too narrow or too wide for it, stay as they are.
    """
    c, p = model.config, model.params
    C, D, G = c.width, c.head_dim, c.heads // c.kv_heads
    if c.layers < 2 or not 4 <= D < C:
        return model
    p["embedding"] *= SPREAD / DEVIATION
    p["embedding"][:, 0] = ALWAYS
    size = math.sqrt(((C - 1) * SPREAD**2 + ALWAYS**2) / C)                          # what RMSNorm divides by
    loud = size * math.sqrt(C / D)                  # a frame times this writes as much as there is already

    # Key/value head k of layer 0 looks k + 1 tokens back, whatever stands there: queries and keys read
    # channel 0 alone, and the keys are turned ahead by k + 1 positions, so that the rotary turns line up at
    # that distance. All read the same of a token, each writes it to a place of its own.
    fast = max(1, D // 8)                           # pairs of channels that turn fast enough to tell 1 from 2
    looking = min(4, c.kv_heads)
    seen, written = frame(rng, D, C), [frame(rng, D, C) for _ in range(looking)]
    for k in range(looking):
        wq, wk, wv, wo = head(p, 0, k, D, G)
        turn = (k + 1) * c.theta ** (-2 * np.arange(fast) / D)
        strength = math.sqrt(BACK * math.sqrt(D) / fast) * size / ALWAYS
        wq[:, :2 * fast], wk[:2 * fast] = 0, 0
        wq[:, :2 * fast:2, 0] = strength
        wk[:2 * fast:2, 0], wk[1:2 * fast:2, 0] = strength * np.cos(turn), strength * np.sin(turn)
        wv[:], wo[:, 0] = seen, written[k].T * loud

    # Head k of layer 1 looks for where k + 1 tokens back stands what stands k tokens back from here, and
    # copies what stands there. Only pairs that hardly turn: it may be anywhere.
    slow = D // 2
    strength = math.sqrt(MATCH * math.sqrt(D) / (D - slow)) * size / SPREAD
    for k in range(looking):
        wq, wk, wv, wo = head(p, 1, k, D, G)
        wq[:], wk[:] = 0, 0
        wq[:, slow:] = strength * (written[k - 1] if k else seen)[slow:]
        wk[slow:] = strength * written[k][slow:]
        wv[:] = frame(rng, D, C)
        wo[:, 0] = wv.T * (COPY * loud)
    return model


def head(p, layer, k, D, G):
    """Views of the matrices of a key/value head: wq (G, D, C), wk and wv (D, C), wo (C, G, D)."""
    wq, wk, wv, wo = (p[f"layers.{layer}.attention.{name}"] for name in ("wq", "wk", "wv", "wo"))
    C = len(wo)
    one = slice(k * D, (k + 1) * D)
    return wq.reshape(-1, G, D, C)[k], wk[one], wv[one], wo.reshape(C, -1, G, D)[:, k]


def frame(rng, D, C):
    """D orthonormal rows (D, C) in random directions, none of which touches channel 0."""
    rows = np.linalg.qr(rng.standard_normal((C - 1, D)))[0].T
    return np.concatenate([np.zeros((D, 1)), rows], axis=1)


def repeats(vocab, rows, length, key):
    """Random tokens below `vocab`, said again and again -> ids and weights, both (rows, length).

    A row says a list in the same order each time, or the same with a phrase of up to three tokens behind
    each item, or pairs in another order each time. Weights are 1 where the token follows from what was said
    before. All follows from `key`.
    """
    rng, place = np.random.default_rng(key), np.arange(length)
    ids, weights = np.zeros((rows, length), np.int32), np.zeros((rows, length), np.float32)
    most = max(3, min(length // 3, vocab - 3))
    for row in range(rows):
        kind, items, size = rng.choice(("list", "phrases", "pairs")), 1, rng.integers(2, most)
        if kind == "pairs":
            items, size = rng.integers(1, max(2, min(40, most) // 3)), 2
        said = rng.choice(vocab, items * size + 3, replace=False)
        phrase, said = said[:rng.integers(1, 4)], said[3:].reshape(items, size)
        if kind == "phrases":
            said = said[:, : max(1, size // (1 + len(phrase)))].T
            said = np.hstack([said, np.tile(phrase, (len(said), 1))]).reshape(1, -1)
        times = -(-length // said.size)
        ids[row] = np.concatenate([rng.permutation(said).ravel() for _ in range(times)])[:length]
        weights[row] = (place > said.size) & ((items == 1) | (place % size > 0))
    return ids, weights
