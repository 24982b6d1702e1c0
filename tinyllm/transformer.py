"""The transformer: a Llama-style stack of layers (Touvron et al. 2023) over one flat parameter buffer.

    ids (B, T) -> embedding -> [ x + attention(norm(x)), then x + mlp(norm(x)) ] * layers -> norm -> head

The head gives logits (B, T, V), or one score per position (B, T) for reward models.

Parameters are named views of ONE vector, and gradients are views of another. So clipping, summing over
workers and saving are single operations. If every matrix were a separate array, each of these operations
would be a loop over all layers.

Shapes as in layers.py.
"""

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from tinyllm import layers

DEVIATION = 0.02  # standard deviation of initial weights


@dataclass(frozen=True)
class Config:
    """The shape of a model: everything needed to interpret its weights."""

    vocab: int  # rows of the embedding table, special tokens included
    context: int = 256  # longest training sequence, in tokens
    layers: int = 4
    width: int = 128  # C
    heads: int = 4  # H
    kv_heads: int = 0  # K: 0 means as many as heads; a smaller number shrinks the KV cache
    head_dim: int = 0  # D: 0 means width / heads
    hidden: int = 0  # F: 0 means 8/3 of the width, rounded up to a multiple of 32
    theta: float = 10000.0  # base of the rotary angles
    eps: float = 1e-5  # added under the square root of RMSNorm
    tied: bool = True  # the head multiplies by the embedding table
    causal: bool = True  # False: every position sees all others (masked language model)
    head: str = "tokens"  # or "score": one number per position

    def __post_init__(self):
        for name in ("vocab", "context", "layers", "width", "heads", "theta"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.head_dim and self.width % self.heads:
            raise ValueError(
                f"{self.heads} heads do not divide the width {self.width}: "
                f"choose a width that is a multiple of {self.heads}"
            )
        derived = {
            "kv_heads": self.kv_heads or self.heads,
            "head_dim": self.head_dim or self.width // self.heads,
            "hidden": self.hidden or math.ceil(8 * self.width / 96) * 32,
            "tied": self.tied or self.head == "score",  # with a score head, the embedding is the only table
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.kv_heads} key/value heads do not divide {self.heads} heads")
        if self.head_dim % 2:
            raise ValueError(f"rotary positions: width / heads (head_dim) must be even, not {self.head_dim}")

    def shapes(self):
        """Name -> shape of every parameter, in buffer order: matrices first, then gains (1-D)."""
        C, D, F = self.width, self.head_dim, self.hidden
        shapes = {"embedding": (self.vocab, C)}
        for i in range(self.layers):
            # wq, wk and wv are neighbours. So they form one matrix and need one matmul, like gate and up.
            shapes[f"layers.{i}.attention.wq"] = (self.heads * D, C)
            shapes[f"layers.{i}.attention.wk"] = (self.kv_heads * D, C)
            shapes[f"layers.{i}.attention.wv"] = (self.kv_heads * D, C)
            shapes[f"layers.{i}.attention.wo"] = (C, self.heads * D)
            shapes[f"layers.{i}.mlp.gate"] = (F, C)
            shapes[f"layers.{i}.mlp.up"] = (F, C)
            shapes[f"layers.{i}.mlp.down"] = (C, F)
        if self.head == "score":
            shapes["score"] = (1, C)
        elif not self.tied:
            shapes["head"] = (self.vocab, C)
        for i in range(self.layers):
            shapes[f"layers.{i}.attention.norm"] = (C,)
            shapes[f"layers.{i}.mlp.norm"] = (C,)
        return shapes | {"norm": (C,)}

    def size(self):
        """Number of parameters."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    def places(self, begin=0):
        """Name -> (start, stop) of the parameter in the buffer, counted from the index `begin`."""
        sizes = [math.prod(shape) for shape in self.shapes().values()]
        return dict(zip(self.shapes(), pairwise(accumulate(sizes, initial=-begin))))

    def begin(self, last_layers):
        """Buffer index where the trained part begins. last_layers: 0 trains all, None trains nothing."""
        if last_layers is None:
            return self.size()
        first = f"layers.{max(0, self.layers - last_layers)}.attention.wq" if last_layers else "embedding"
        return self.places()[first][0]


class Parameters(dict):
    """Name -> view of `flat`, the one buffer that holds all parameters.

    `blocks` lists the arrays of each layer, with neighbouring matrices joined. Gradients are stored in a
    second object of this class. If only the last layers are trained, that object has a shorter buffer
    (see Config.begin), and blocks for these layers only.
    """

    def __init__(self, config, flat=None, dtype=np.float32):
        self.flat = np.zeros(config.size(), dtype) if flat is None else flat
        places = config.places(begin=config.size() - self.flat.size)
        for name, shape in config.shapes().items():
            start, stop = places[name]
            if start >= 0:
                self[name] = self.flat[start:stop].reshape(shape)

        def joined(first, last):
            return self.flat[places[first][0] : places[last][1]].reshape(-1, config.width)

        self.blocks = []
        for i in range(config.layers):
            a, m = f"layers.{i}.attention.", f"layers.{i}.mlp."
            if a + "wq" in self:
                block = {"attention.norm": self[a + "norm"], "mlp.norm": self[m + "norm"]}
                block |= {"wqkv": joined(a + "wq", a + "wv"), "wo": self[a + "wo"]}
                block |= {"gate_up": joined(m + "gate", m + "up"), "down": self[m + "down"]}
                self.blocks.append(block)


class Transformer:
    """A model: its Config and its Parameters. `forward` and `backward` change neither."""

    def __init__(self, config, params=None):
        self.config = config
        self.params = Parameters(config) if params is None else params
        self.folded = None  # see sampling.fold
        self.frozen = 0  # how many of the first layers are frozen; if any are, so is the embedding
        # The name of the matrix that the head multiplies by.
        self.head_name = "score" if config.head == "score" else "embedding" if config.tied else "head"

    def initialise(self, rng):
        """Draw every matrix from a normal distribution, in place -> self. Gains are 1.

        The standard deviation is 0.02, and 0.02 / sqrt(2 layers) for the two matrices of a layer that write
        into the residual stream, so that its variance does not grow with depth (Radford et al. 2019).
        """
        for name, w in self.params.items():
            if w.ndim == 1:
                w[:] = 1
            else:
                writers = 2 * self.config.layers if name.endswith(("wo", "down")) else 1
                w[:] = rng.standard_normal(w.shape) * (DEVIATION / math.sqrt(writers))
        return self

    def forward(self, ids, at=None):
        """ids (B, T) -> logits (B, T, V) or scores (B, T), and the cache for `backward`.

        at (B, T), booleans: compute the output only at these N positions -> logits (N, V) or scores (N,), in
        order. Attention still uses the keys and values of all positions. After the attention of the last
        layer, the rest of the forward pass is computed for the N positions alone.
        """
        c, p = self.config, self.params
        B, T = ids.shape
        H, K, D = c.heads, c.kv_heads, c.head_dim
        rotations = layers.rotations_at(T, D, c.theta, p.flat.dtype)
        x, embedded = layers.embedding_forward(ids.reshape(-1), p["embedding"])  # (N, C)
        at = None if at is None else at.reshape(-1)
        caches = []
        for w in p.blocks:
            n, norm1 = layers.rmsnorm_forward(x, w["attention.norm"], c.eps)
            qkv, to_qkv = layers.linear_forward(n, w["wqkv"])  # (N, (H + 2K) D)
            qkv = qkv.reshape(B, T, H + 2 * K, D)
            qk, _ = layers.rope_forward(qkv[:, :, : H + K], rotations)
            a, attention = layers.attention_forward(qk[:, :, :H], qk[:, :, H:], qkv[:, :, H + K :], c.causal)
            a = a.reshape(B * T, H * D)
            if at is not None and w is p.blocks[-1]:
                a, x = a[at], x[at]
            a, from_heads = layers.linear_forward(a, w["wo"])  # (N, C)
            a += x
            n, norm2 = layers.rmsnorm_forward(a, w["mlp.norm"], c.eps)
            h, to_hidden = layers.linear_forward(n, w["gate_up"])  # (N, 2F)
            h, swiglu = layers.swiglu_forward(h)
            x, from_hidden = layers.linear_forward(h, w["down"])  # (N, C)
            x += a
            cache = norm1, to_qkv, attention, from_heads, norm2, to_hidden, swiglu, from_hidden
            caches.append(cache if len(caches) >= self.frozen else None)
        x, norm = layers.rmsnorm_forward(x, p["norm"], c.eps)
        out, head = layers.linear_forward(x, p[self.head_name])
        if at is None:
            out = out.reshape(B, T, -1)
        if c.head == "score":
            out = out[..., 0]
        return out, (B, T, at, rotations, embedded, caches, norm, head)

    def backward(self, dout, cache, grads):
        """Given dout = dL/dout, write the gradient of every trained parameter into `grads` (Parameters).

        If the first layers are frozen, the backward pass does not reach them, and `grads` has no blocks for
        them.
        """
        c = self.config
        B, T, at, rotations, embedded, caches, norm, head = cache
        dout = dout.reshape(-1, len(head[1]))
        if self.head_name in grads:
            dx, _ = layers.linear_backward(dout, head, grads[self.head_name])
        else:  # tied to a frozen embedding
            dx = dout @ head[1]
        dx, grads["norm"][:] = layers.rmsnorm_backward(dx, norm)
        for g, cache in zip(reversed(grads.blocks), reversed(caches)):
            norm1, to_qkv, attention, from_heads, norm2, to_hidden, swiglu, from_hidden = cache
            d, _ = layers.linear_backward(dx, from_hidden, g["down"])
            d, _ = layers.linear_backward(layers.swiglu_backward(d, swiglu), to_hidden, g["gate_up"])
            d, g["mlp.norm"][:] = layers.rmsnorm_backward(d, norm2)
            dx += d  # a + mlp(norm(a)): the gradient takes both paths
            d, _ = layers.linear_backward(dx, from_heads, g["wo"])
            if at is not None and g is grads.blocks[-1]:
                d, dx = scatter(d, at), scatter(dx, at)
            dq, dk, dv = layers.attention_backward(d.reshape(B, T, c.heads, c.head_dim), attention)
            dq, dk = layers.rope_backward(dq, rotations), layers.rope_backward(dk, rotations)
            dqkv = np.concatenate([dq, dk, dv], axis=2)  # (B, T, H + 2 K, D)
            d, _ = layers.linear_backward(dqkv.reshape(B * T, -1), to_qkv, g["wqkv"])
            d, g["attention.norm"][:] = layers.rmsnorm_backward(d, norm1)
            dx += d  # x + attention(norm(x)): both paths again
        if "embedding" not in grads:
            return
        d = layers.embedding_backward(dx, embedded)
        if self.head_name == "embedding":
            grads["embedding"] += d  # tied: the table is used at both ends of the model
        else:
            grads["embedding"][:] = d

    def logits(self, ids):
        """ids (B, T) or (T,) -> logits (..., V), or scores in the shape of ids. No cache is kept."""
        ids = np.asarray(ids)
        out = self.forward(np.atleast_2d(ids))[0]
        return out.reshape(*ids.shape, *out.shape[2:])


def scatter(rows, at):
    """An array that holds `rows` (N, ...) at the N positions where `at` is true, and 0 elsewhere."""
    full = np.zeros((*at.shape, *rows.shape[1:]), rows.dtype)
    full[at] = rows
    return full
