"""Induction heads wired in by hand: the model of stage 0 can continue repeated text before any training.

Every lookup needs induction: to answer about Ada, find what followed "Ada" before. Two heads do it together
(Elhage et al. 2021; Olsson et al. 2022):

    a head of layer 0    looks one token back, and writes what it sees there next to the present token
    a head of layer 1    looks for the place where the present token was written so, and copies its token

Neither is of use without the other, so training finds the pair late: given nothing but repeated random
tokens, this model continues 8 of 100 places correctly after 200 steps, and 69 after 60 steps if it starts
with roughly wired pairs.

A pair fails where the present token is a comma, which stands everywhere. So a second pair looks two tokens
back, for what stood before the comma; a third looks three back, a fourth four.
"""

import math

import numpy as np

from tinyllm.transformer import DEVIATION

SPREAD, CONSTANT = 0.1, 0.4  # deviation of the embeddings; channel 0, the same for every token
BACK, MATCH = 20, 12  # attention scores of the right place in layers 0 and 1
COPY = 3  # strength of the copy, in embeddings


def wire(model, rng):
    """Set the embeddings and some heads of layers 0 and 1 of a new model -> the model.

    Models of one layer, or with heads too narrow or too wide, are left unchanged.
    """
    c, p = model.config, model.params
    C, D, G = c.width, c.head_dim, c.heads // c.kv_heads
    if c.layers < 2 or not 4 <= D < C:
        return model
    p["embedding"] *= SPREAD / DEVIATION
    p["embedding"][:, 0] = CONSTANT
    size = math.sqrt(((C - 1) * SPREAD**2 + CONSTANT**2) / C)  # what RMSNorm divides by
    loud = size * math.sqrt(C / D)  # a frame times this writes as much as there is already

    # Key/value head k of layer 0 looks k + 1 tokens back, whatever stands there: queries and keys read
    # channel 0 alone, and the keys are turned ahead by k + 1 positions, so that the rotary turns line up at
    # that distance. All read the same of a token, each writes it to a place of its own.
    fast = max(1, D // 8)  # pairs of channels that turn fast enough to tell 1 from 2
    looking = min(4, c.kv_heads)
    seen, written = frame(rng, D, C), [frame(rng, D, C) for _ in range(looking)]
    for k in range(looking):
        wq, wk, wv, wo = head(p, 0, k, D, G)
        turn = (k + 1) * c.theta ** (-2 * np.arange(fast) / D)
        strength = math.sqrt(BACK * math.sqrt(D) / fast) * size / CONSTANT
        wq[:, : 2 * fast], wk[: 2 * fast] = 0, 0
        wq[:, : 2 * fast : 2, 0] = strength
        wk[: 2 * fast : 2, 0], wk[1 : 2 * fast : 2, 0] = strength * np.cos(turn), strength * np.sin(turn)
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
