"""From a gradient to better parameters: Muon for the matrices inside the blocks, AdamW for the rest.

Gradients of different parameters differ in size by orders of magnitude, so no single learning rate suits them
all. Both methods here make the size of a step independent of the size of the gradient.

Their state is two vectors of the same length as the trained part of the parameter buffer. `parts` cuts the
buffer into pieces that can be updated independently, and each worker (parallel.py) updates its share of them.

Muon is worth its extra code. On tiny Shakespeare, with learning rates that decay from the first step, AdamW
(`ARGS="--method adamw"`) reaches a validation loss of 1.677 nats per character in 2,000 steps (55 s). Muon
reaches 1.645 in 1,000 steps (43 s) and 1.560 in 2,000, or 1.554 with the plateau of `Rates`. Muon is used in
stages 1 and 2, in the supervised part of stage 4 and for the reward model. Reinforcement learning uses AdamW
only (for the reason, see s4_reason.py).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

CHUNK = 32768  # AdamW updates the buffer in pieces that stay in a core's cache


@dataclass(frozen=True)
class Rates:
    """Peak learning rates, and their schedule over `steps` steps: linear warm-up, plateau, linear decay
    (Zhai et al. 2022). If `steps` is 0, the rates are constant.

    Each stage chooses its own peak rates. Some skills, such as following a story, are learned suddenly, and
    only while the learning rate is high. A rate that falls from the first step may then be too low.
    """

    method: str = "muon"  # optimizer of the block matrices: muon or adamw
    muon: float = 0.01
    adamw: float = 3e-3
    decay: float = 0.1  # decoupled weight decay of the matrices
    steps: int = 0
    warmup: int = 100  # steps of linear warm-up; at most a tenth of all steps
    falling: float = 0.5  # share of all steps, at the end, over which the rate decays linearly to 0

    def scale(self, step):
        """The multiplier of the rates at `step`."""
        if not self.steps:
            return 1.0
        warmup = min(self.warmup, self.steps // 10)
        fall = max(1, min(self.steps - warmup, self.falling * self.steps))
        return min(1.0, (step + 1) / (warmup + 1), (self.steps - step) / fall)


class Part(NamedTuple):
    """A piece of the flat buffer that is updated on its own."""

    start: int
    stop: int
    shape: tuple  # the shape of a matrix for Muon, () for AdamW
    decays: bool  # whether weight decay applies: to matrices, not to gains


def parts(config, method="muon", begin=0):
    """Cut the buffer, from `begin` on, into Parts: block matrices for Muon, chunks of the rest for AdamW."""
    pieces, places = [], config.places(begin)
    for name, shape in config.shapes().items():
        start, stop = places[name]
        if method == "muon" and name.startswith("layers.") and len(shape) == 2:
            pieces.append(Part(start, stop, shape, True))
        else:
            chunks = range(start, stop, CHUNK)
            pieces += [Part(at, min(at + CHUNK, stop), (), len(shape) == 2) for at in chunks]
    return [piece for piece in pieces if piece.start >= 0]  # what lies before `begin` is frozen


def update(part, params, gradient, moments, updates, rates, scale):
    """One step on one Part of the flat vectors, in place.

    moments: two vectors, initially 0; updates: number of updates so far; scale: multiplier of the rates.
    """
    w, g, m, v = (vector[part.start : part.stop] for vector in (params, gradient, *moments))
    if part.shape:
        muon(*(vector.reshape(part.shape) for vector in (w, g, m)), scale * rates.muon, rates.decay)
    else:
        adamw(w, g, m, v, updates, scale * rates.adamw, rates.decay if part.decays else 0.0)


def adamw(w, g, m, v, updates, rate, decay, beta1=0.9, beta2=0.99, eps=1e-8):
    """One step on vectors, in place.   Kingma & Ba 2015; decoupled decay: Loshchilov & Hutter 2019.

    m <- b1 m + (1 - b1) g        exponential moving average of the gradient
    v <- b2 v + (1 - b2) g^2      the same average of its square
    w <- w - rate (m' / (sqrt(v') + eps) + decay w)

    where m' = m / (1 - b1^t) at update t, and v' likewise with b2. m and v start at 0, so at first they are
    too small. The division corrects this.
    """
    t = updates + 1
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * (g * g)
    d = np.sqrt(v)
    d *= 1 / math.sqrt(1 - beta2**t)
    d += eps
    np.divide(m, d, out=d)
    d *= rate / (1 - beta1**t)
    w *= 1 - rate * decay
    w -= d


def muon(w, g, m, rate, decay, momentum=0.9):
    """One step on a matrix, in place: add momentum, then equalise the singular values.   Jordan et al. 2024.

    A few directions dominate a gradient matrix. With equal singular values all directions are learned
    equally fast. The factor for tall matrices makes their outputs change as much as those of wide matrices.
    """
    m *= momentum
    m += g
    direction = orthogonalise(g + momentum * m)  # Nesterov momentum
    direction *= rate * math.sqrt(max(1, w.shape[0] / w.shape[1]))
    w *= 1 - rate * decay
    w -= direction


def orthogonalise(g, rounds=5):
    """Approximate U V^T for g = U S V^T: the same directions with all singular values near 1.

    Newton-Schulz: X <- a X + (b A + c A^2) X with A = X X^T applies the polynomial a s + b s^3 + c s^5
    to every singular value s. With the coefficients in the code, five rounds bring all but the smallest
    values from (0, 1] into about [0.7, 1.2].

    All factors B = a + b A + c A^2 are polynomials in the A of the first round. If X is at least twice as
    wide as tall, they are at most half as large as X. So they are first multiplied together, and X is
    multiplied by the product once. For shape (128, 352) this takes 0.7 times as long as multiplying X in
    every round.
    """
    x = g.T if g.shape[0] > g.shape[1] else g  # so that A = X X^T is as small as possible
    x = x * (1 / (math.sqrt(float(np.vdot(x, x))) + 1e-7))
    long = x.shape[1] >= 2 * x.shape[0]
    a, y = x @ x.T, None if long else x
    for left in reversed(range(rounds)):
        b = a @ a
        b *= 2.0315
        b -= 4.7750 * a
        b.flat[:: len(b) + 1] += 3.4445  # the diagonal
        y = b if y is None else b @ y
        if left:
            a = b @ a @ b if long else y @ y.T  # the order of the factors keeps `a` symmetric
    y = y @ x if long else y
    return y.T if g.shape[0] > g.shape[1] else y


def clip(gradient, limit=1.0):
    """If the norm of a gradient exceeds `limit`, scale it down to `limit`, in place -> the original norm.
    Pascanu et al. 2013.

    `gradient` has to be the sum over all workers. If each worker clipped its own share, the direction of the
    sum would change and depend on how the batch was split.
    """
    norm = math.sqrt(float(gradient @ gradient))
    if norm > limit:
        gradient *= limit / norm
    return norm
