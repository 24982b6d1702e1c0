"""The transformer: a Llama-shaped stack of layers over one flat parameter buffer.

    ids (B, T) -> embedding -> [ x + attention(norm(x)), then x + mlp(norm(x)) ] * layers -> norm -> head

The head gives logits (B, T, V), or one score per position (B, T) for reward and value models.
Parameters are views of ONE vector, and so are their gradients: the optimizer, clipping, the sum over
workers and the checkpoint are each one operation on a vector and know nothing about layers.

Shapes as in layers.py. Touvron et al. 2023 for the shape of the model.
"""

import math
from dataclasses import dataclass

import numpy as np

from tinyllm.layers import (
    attention_backward,
    attention_forward,
    embedding_backward,
    embedding_forward,
    linear_backward,
    linear_forward,
    rmsnorm_backward,
    rmsnorm_forward,
    rope_backward,
    rope_forward,
    rope_turns,
    swiglu_backward,
    swiglu_forward,
)

DEVIATION = 0.02             # of new weights


@dataclass(frozen=True)
class Config:
    """The shape of a model: everything that has to be known before its weights mean anything."""
    vocab: int                   # rows of the embedding table, special tokens included
    context: int = 256           # longest sequence that it is trained on, in tokens
    layers: int = 4
    width: int = 128             # C
    heads: int = 4               # H
    kv_heads: int = 0            # K: 0 means as many as heads; fewer save memory in the cache
    head_dim: int = 0            # D: 0 means width / heads
    hidden: int = 0              # F: 0 means 8/3 of the width, rounded up to a multiple of 32
    theta: float = 10000.0       # base of the rotary angles
    eps: float = 1e-5            # under the root of RMSNorm
    tied: bool = True            # the head reads with the embedding table
    causal: bool = True          # False: every position sees all others (masked language model)
    head: str = "tokens"         # or "score": one number per position

    def __post_init__(self):
        fill = lambda name, value: object.__setattr__(self, name, getattr(self, name) or value)
        for name in ("vocab", "context", "layers", "width", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.head_dim and self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide the width {self.width}: "
                             f"choose a width that is a multiple of {self.heads}, or give head_dim")
        fill("kv_heads", self.heads)
        fill("head_dim", self.width // self.heads)
        fill("hidden", -(-8 * self.width // 96) * 32)
        if self.head == "score":
            object.__setattr__(self, "tied", True)                 # no second table to tell apart
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.kv_heads} key/value heads do not divide {self.heads} heads")
        if self.head_dim % 2:
            raise ValueError(f"rotary positions turn pairs: head_dim must be even, not {self.head_dim}")

    def shapes(self):
        """Name -> shape of every parameter, in buffer order: matrices first, then gains (1-D)."""
        C, D, F = self.width, self.head_dim, self.hidden
        shapes = {"embedding": (self.vocab, C)}
        for i in range(self.layers):
            shapes |= {f"layers.{i}.attention.wq": (self.heads * D, C),      # wq, wk, wv lie one after the
                       f"layers.{i}.attention.wk": (self.kv_heads * D, C),   # other: together they are one
                       f"layers.{i}.attention.wv": (self.kv_heads * D, C),   # matrix and one matmul
                       f"layers.{i}.attention.wo": (C, self.heads * D),
                       f"layers.{i}.mlp.gate": (F, C),                       # gate and up likewise
                       f"layers.{i}.mlp.up": (F, C),
                       f"layers.{i}.mlp.down": (C, F)}
        if self.head == "score":
            shapes["score"] = (1, C)
        elif not self.tied:
            shapes["head"] = (self.vocab, C)
        for i in range(self.layers):
            shapes |= {f"layers.{i}.attention.norm": (C,), f"layers.{i}.mlp.norm": (C,)}
        return shapes | {"norm": (C,)}

    def size(self):
        """Number of parameters."""
        return sum(math.prod(shape) for shape in self.shapes().values())


class Parameters(dict):
    """Name -> view of `flat`, the one buffer that holds them all. Gradients are a second such object."""

    def __init__(self, config, flat=None, dtype=np.float32):
        self.flat = np.zeros(config.size(), dtype) if flat is None else flat
        assert self.flat.shape == (config.size(),)
        start = 0
        for name, shape in config.shapes().items():
            self[name] = self.flat[start:(start := start + math.prod(shape))].reshape(shape)
        self.blocks = []
        for i in range(config.layers):
            a, m = f"layers.{i}.attention.", f"layers.{i}.mlp."
            self.blocks.append({"attention.norm": self[a + "norm"], "wqkv": self._joined(a + "wq", a + "wv"),
                                "wo": self[a + "wo"], "mlp.norm": self[m + "norm"],
                                "gate_up": self._joined(m + "gate", m + "up"), "down": self[m + "down"]})

    def _joined(self, first, last):
        """Neighbours in the buffer, with rows of the same length, as one matrix."""
        here = self.flat.__array_interface__["data"][0]
        start, end = self[first], self[last]
        begin = (start.__array_interface__["data"][0] - here) // self.flat.itemsize
        stop = (end.__array_interface__["data"][0] - here) // self.flat.itemsize + end.size
        return self.flat[begin:stop].reshape(-1, start.shape[1])


class Transformer:
    """A model: its Config and its Parameters. `forward` and `backward` are pure in both."""

    def __init__(self, config, params=None):
        self.config = config
        self.params = Parameters(config) if params is None else params

    def initialise(self, rng):
        """Normal weights, standard deviation 0.02, and 0.02 / sqrt(2 layers) where a layer writes into the
        residual stream, so that its variance does not grow with depth (Radford et al. 2019). Gains are 1."""
        for name, w in self.params.items():
            if w.ndim == 1:
                w[:] = 1
            else:
                writers = 2 * self.config.layers if name.endswith(("wo", "down")) else 1
                w[:] = rng.standard_normal(w.shape) * (DEVIATION / math.sqrt(writers))
        return self

    def forward(self, ids):
        """ids (B, T) -> logits (B, T, V) or scores (B, T), and the cache for `backward`."""
        c, p = self.config, self.params
        B, T = ids.shape
        H, K, D = c.heads, c.kv_heads, c.head_dim
        dtype = p.flat.dtype
        turns = rope_turns(T, D, c.theta, dtype)
        x, embedded = embedding_forward(ids.reshape(-1), p["embedding"])             # (N, C)
        caches = []
        for w in p.blocks:
            n, norm1 = rmsnorm_forward(x, w["attention.norm"], c.eps)
            qkv, into = linear_forward(n, w["wqkv"])                                 # (N, (H + 2K) D)
            qkv = qkv.reshape(B, T, H + 2 * K, D)
            qk, _ = rope_forward(qkv[:, :, :H + K], turns)
            a, attention = attention_forward(qk[:, :, :H], qk[:, :, H:], qkv[:, :, H + K:], c.causal)
            a, out_of = linear_forward(a.reshape(B * T, H * D), w["wo"])             # (N, C)
            a += x
            n, norm2 = rmsnorm_forward(a, w["mlp.norm"], c.eps)
            h, up = linear_forward(n, w["gate_up"])                                  # (N, 2F)
            h, swiglu = swiglu_forward(h)
            x, down = linear_forward(h, w["down"])                                   # (N, C)
            x += a
            caches.append((norm1, into, attention, out_of, norm2, up, swiglu, down))
        x, norm = rmsnorm_forward(x, p["norm"], c.eps)
        if c.head == "score":
            out, head = linear_forward(x, p["score"])
            out = out.reshape(B, T)
        else:
            out, head = linear_forward(x, p["embedding" if c.tied else "head"])
            out = out.reshape(B, T, -1)
        return out, (B, T, turns, embedded, caches, norm, head)

    def backward(self, dout, cache, grads):
        """Write dL/dparameters, every one of them, into `grads` (a Parameters), given dout = dL/dout."""
        c = self.config
        B, T, turns, embedded, caches, norm, head = cache
        H, K, D = c.heads, c.kv_heads, c.head_dim
        name = "score" if c.head == "score" else "embedding" if c.tied else "head"
        dx, _ = linear_backward(dout.reshape(B * T, -1), head, grads[name])
        dx, grads["norm"][:] = rmsnorm_backward(dx, norm)
        for g, (norm1, into, attention, out_of, norm2, up, swiglu, down) in zip(
                reversed(grads.blocks), reversed(caches), strict=True):
            d, _ = linear_backward(dx, down, g["down"])
            d, _ = linear_backward(swiglu_backward(d, swiglu), up, g["gate_up"])
            d, g["mlp.norm"][:] = rmsnorm_backward(d, norm2)
            dx += d                                    # a + mlp(norm(a)): the gradient took both roads
            d, _ = linear_backward(dx, out_of, g["wo"])
            dq, dk, dv = attention_backward(d.reshape(B, T, H, D), attention)
            dqkv = np.empty((B, T, H + 2 * K, D), dx.dtype)
            rope_backward(dq, turns, dqkv[:, :, :H])
            rope_backward(dk, turns, dqkv[:, :, H:H + K])
            dqkv[:, :, H + K:] = dv
            d, _ = linear_backward(dqkv.reshape(B * T, -1), into, g["wqkv"])
            d, g["attention.norm"][:] = rmsnorm_backward(d, norm1)
            dx += d                                    # x + attention(norm(x)): likewise
        d = embedding_backward(dx, embedded)
        if name == "embedding":
            grads["embedding"] += d                    # tied: the table is read at both ends of the model
        else:
            grads["embedding"][:] = d

    def logits(self, ids):
        """ids (B, T) or (T,) -> logits of the same shape with one more axis, V. No cache is kept."""
        ids = np.asarray(ids)
        out = self.forward(np.atleast_2d(ids))[0]
        return out.reshape(*ids.shape, -1) if self.config.head == "tokens" else out.reshape(ids.shape)
