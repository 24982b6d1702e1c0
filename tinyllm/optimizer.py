"""From a gradient to better parameters: Muon for the matrices inside the blocks, AdamW for the rest.

Both keep their state in vectors as long as the parameter buffer, and `parts` cuts the buffer into
pieces that can be updated independently, so workers (parallel.py) can share them out.

Muon stays because it wins: on the Shakespeare example AdamW (`ARGS="--method adamw"`) reaches 1.677
nats per character in 2,000 steps and 55 s, Muon 1.645 in 1,000 steps and 43 s, and 1.560 in 2,000.
"""

import math
from typing import NamedTuple

import numpy as np

CHUNK = 32768                # AdamW goes through the buffer in pieces that stay in the cache of a core


class Part(NamedTuple):
    """A piece of the flat buffer that is updated on its own."""
    start: int
    stop: int
    shape: tuple             # of the matrix, for Muon; () for a piece that AdamW takes
    decays: bool             # matrices do; gains and biases are not pulled towards 0


def parts(config, method="muon"):
    """The whole buffer in Parts: each block matrix for Muon, all else (or everything) in chunks for AdamW."""
    found, start = [], 0
    for name, shape in config.shapes().items():
        stop = start + math.prod(shape)
        if method == "muon" and name.startswith("layers.") and len(shape) == 2:
            found.append(Part(start, stop, shape, True))
        else:
            found += [Part(a, min(a + CHUNK, stop), (), len(shape) == 2) for a in range(start, stop, CHUNK)]
        start = stop
    return found


def update(part, params, gradient, moments, step, muon_rate, adamw_rate, decay):
    """One step on one Part of the flat vectors, in place. moments: two vectors, zeros before step 0."""
    w, g, m, v = (vector[part.start:part.stop] for vector in (params, gradient, *moments))
    if part.shape:
        muon(*(vector.reshape(part.shape) for vector in (w, g, m)), muon_rate, decay)
    else:
        adamw(w, g, m, v, step, adamw_rate, decay if part.decays else 0.0)


def adamw(w, g, m, v, step, rate, decay, beta1=0.9, beta2=0.99, eps=1e-8):
    """One step on vectors, in place.   Kingma & Ba 2015; decoupled decay: Loshchilov & Hutter 2019.

    m <- b1 m + (1 - b1) g        mean of the gradient, forgetting old ones
    v <- b2 v + (1 - b2) g^2      mean of its square
    w <- w - rate (m' / (sqrt(v') + eps) + decay w)    with m' = m / (1 - b1^t), v' likewise: both
                                                       started at 0 and are still too small
    """
    t = step + 1
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * (g * g)
    d = np.sqrt(v)
    d *= 1 / math.sqrt(1 - beta2 ** t)
    d += eps
    np.divide(m, d, out=d)
    d *= rate / (1 - beta1 ** t)
    w *= 1 - rate * decay
    w -= d


def muon(w, g, m, rate, decay, momentum=0.9):
    """One step on a matrix, in place: momentum, then all directions at full strength.   Jordan et al. 2024.

    A gradient matrix is dominated by a few directions; with all singular values made equal, the rare
    ones learn as fast. sqrt(rows / columns) lets a tall matrix change its outputs as much as a wide one.
    """
    m *= momentum
    m += g
    direction = orthogonalise(g + momentum * m)                                      # Nesterov: look ahead
    direction *= rate * math.sqrt(max(1, w.shape[0] / w.shape[1]))
    w *= 1 - rate * decay
    w -= direction


def orthogonalise(g, rounds=5):
    """Near U V^T for g = U S V^T: the same directions with all singular values about 1.

    Newton-Schulz: X <- a X + (b A + c A^2) X with A = X X^T applies the polynomial a s + b s^3 + c s^5
    to every singular value s; these numbers drive values from (0, 1] into about [0.7, 1.2] in five rounds.
    """
    x = g.T if g.shape[0] > g.shape[1] else g                                        # the small side in A
    x = x * (1 / (math.sqrt(float(np.vdot(x, x))) + 1e-7))
    for _ in range(rounds):
        a = x @ x.T
        b = a @ a
        b *= 2.0315
        b -= 4.7750 * a
        x = 3.4445 * x + b @ x
    return x.T if g.shape[0] > g.shape[1] else x


def clip(gradient, limit=1.0):
    """Scale the whole gradient down to norm `limit`, in place -> the norm before.   Pascanu et al. 2013."""
    norm = math.sqrt(float(gradient @ gradient))
    if norm > limit:
        gradient *= limit / norm
    return norm


def schedule(step, steps, warmup, falling=1.0):
    """The share of the peak learning rate at `step`: a linear rise over `warmup` steps, and a linear fall to
    0 over the last `falling` of the steps, a share of them (1: from the peak on; 0: no fall)."""
    return min(1.0, (step + 1) / (warmup + 1), (steps - step) / max(1, min(steps - warmup, falling * steps)))
