"""From ids to more ids: batched generation with a key/value cache.

Rows of a batch walk in step: all are at the same position, and a row whose prompt is longer than the
others' is fed its own next prompt token while the others already write. So prompts of different
lengths need no padding, no masks and no shifted positions, and a row comes out the same in any batch.

Shapes as in layers.py; S positions in the cache.
"""

import math

import numpy as np

from tinyllm.layers import causal_mask, rope_turns


class Decoder:
    """The forward pass of transformer.py, one token (or one prompt) at a time, remembering keys and values.

    What is constant is multiplied into the matrices once: the gains of the norms and sqrt(C) of their
    mean, 1 / sqrt(D), the 1/2 in front of the gate. Build a new Decoder after the parameters have
    changed. At batch 1 a step is about a hundred NumPy calls on small arrays and the calls are what it
    costs, so there are as few as possible; ufunc.reduce saves the layer of Python around .max and .sum.
    """

    def __init__(self, model, rows, room):
        c, p = model.config, model.params
        H, K, D, F = c.heads, c.kv_heads, c.head_dim, c.hidden
        self.config, self.dtype, self.length = c, p.flat.dtype, 0
        root = math.sqrt(c.width)
        fold = lambda w, gain, rows, factor: (w * (gain * root)) * np.repeat(
            np.array([factor, 1], self.dtype), [rows, len(w) - rows])[:, None]
        self.blocks = [(fold(w["wqkv"], w["attention.norm"], H * D, 1 / math.sqrt(D)).T, w["wo"].T,
                        fold(w["gate_up"], w["mlp.norm"], F, 0.5).T, w["down"].T) for w in p.blocks]
        self.embedding = p["embedding"]
        self.head = (p["embedding" if c.tied else "head"] * (p["norm"] * root)).T
        self.eps = np.array([c.width * c.eps], self.dtype)
        self.turns = rope_turns(room, D, c.theta, self.dtype)
        # Keys lie as the product with a query reads them, (B, K, D, S): that takes 0.7 of the time.
        self.keys = np.empty((c.layers, rows, K, D, room), self.dtype)
        self.values = np.empty((c.layers, rows, K, room, D), self.dtype)

    def keep(self, rows):
        """Go on with these rows only."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]

    def _normed(self, x):
        """x / sqrt(sum(x^2) + C eps): the norm without its gain and its sqrt(C)."""
        return x / np.sqrt(np.vecdot(x, x) + self.eps)[:, None]

    def extend(self, ids):
        """ids (B, T), the next T tokens of every row -> logits (B, V) after the last of them."""
        c = self.config
        B, T = ids.shape
        H, K, D, F = c.heads, c.kv_heads, c.head_dim, c.hidden
        start, stop = self.length, self.length + T
        self.length = stop
        turns = self.turns[start:stop]
        mask = np.pad(causal_mask(T, self.dtype).T, ((0, 0), (start, 0))) if T > 1 else None      # (T, S)
        x = self.embedding[ids.reshape(-1)]                                          # (B T, C)
        for (wqkv, wo, gate_up, down), keys, values in zip(self.blocks, self.keys, self.values):
            qkv = (self._normed(x) @ wqkv).reshape(B, T, H + 2 * K, D)
            qk = qkv[:, :, :H + K].view(turns.dtype)
            qk *= turns
            keys[..., start:stop] = qkv[:, :, H:H + K].transpose(0, 2, 3, 1)
            values[:, :, start:stop] = qkv[:, :, H + K:].transpose(0, 2, 1, 3)
            q = qkv[:, :, :H].reshape(B, T, K, H // K, D).transpose(0, 2, 3, 1, 4).reshape(B, K, -1, D)
            p = q @ keys[..., :stop]                                                 # (B, K, G T, S)
            if T > 1:
                p = (p.reshape(B, K, -1, T, stop) + mask).reshape(p.shape)
            p -= np.maximum.reduce(p, axis=3, keepdims=True)
            p = np.exp(p)
            a = (p @ values[:, :, :stop]) / np.add.reduce(p, axis=3, keepdims=True)
            a = a.reshape(B, K, -1, T, D).transpose(0, 3, 1, 2, 4)                   # (B, T, K, G, D)
            x += a.reshape(B * T, H * D) @ wo
            h = self._normed(x) @ gate_up
            gate, up = h[:, :F], h[:, F:]                           # the gate is halved already
            x += ((np.tanh(gate) * gate + gate) * up) @ down        # silu(2g) = g (1 + tanh(g))
        return self._normed(x.reshape(B, T, -1)[:, -1]) @ self.head


def choose(logits, draws, temperature=1.0, top_k=0, top_p=1.0, allowed=None):
    """logits (B, V), draws (B,) uniform in [0, 1) -> ids (B,) and their log-probabilities (B,).

    temperature 0 takes the most likely token; top_k keeps the k most likely (0: all); top_p keeps the
    fewest that together have probability p (Holtzman et al. 2020); allowed (B, V) forbids tokens. Then
    the draw picks by inversion of the cumulative distribution, so one number decides, whatever else is
    in the batch. The log-probabilities are the model's own, as if nothing of this had been asked for.
    """
    shifted = logits - np.maximum.reduce(logits, axis=1, keepdims=True)
    p = np.exp(shifted)
    log_z = np.log(np.add.reduce(p, axis=1))
    may = shifted if allowed is None else np.where(allowed, shifted, -np.inf)
    if temperature == 0:
        ids = may.argmax(axis=1)
    else:
        if temperature != 1 or top_k or top_p < 1 or allowed is not None:
            p = _truncated(may, temperature, top_k, top_p)
        total = np.cumsum(p, axis=1)
        ids = np.add.reduce(total <= draws[:, None] * total[:, -1:], axis=1)
    return ids, shifted[np.arange(len(ids)), ids] - log_z


def _truncated(logits, temperature, top_k, top_p):
    """Logits -> probabilities up to a factor, 0 for what may not be drawn."""
    logits = logits * (1 / temperature)
    if 0 < top_k < logits.shape[1]:
        logits[logits < np.partition(logits, -top_k, axis=1)[:, -top_k, None]] = -np.inf
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    if top_p < 1:
        order = np.argsort(-p, axis=1, kind="stable")
        ranked = np.take_along_axis(p, order, axis=1)
        before = np.cumsum(ranked, axis=1) - ranked
        ranked[before >= top_p * p.sum(axis=1, keepdims=True)] = 0
        np.put_along_axis(p, order, ranked, axis=1)
    return p


def window_start(length, context):
    """Where the visible context begins once `length` tokens are there: 0 until they fill the context.

    Then the older half is dropped and the rest is read again from position 0, as in training; so no
    position beyond the context is ever used, and the cost is spread over context / 2 tokens.
    """
    half = max(1, context // 2)
    return 0 if length <= context else -(-(length - context) // half) * half


def generate(model, prompts, max_tokens, rng=None, temperature=1.0, top_k=0, top_p=1.0, stop=(), mask=None,
             draws=None):
    """Continue every prompt (a sequence of at least one id) by up to max_tokens tokens.

    Ends a row after any token in `stop`, which is kept. mask(row, tokens) -> boolean (V,) or None, called
    for each row and step with what the row has written so far, says which tokens may come next.
    Returns one (tokens, log_probs) per prompt. log_probs are the model's own: those of softmax(logits)
    without temperature, truncation or mask, which is what the trainer computes for the same tokens.
    Raises ValueError for an empty prompt or a mask that allows nothing.
    """
    lengths = np.array([len(prompt) for prompt in prompts], int)
    if lengths.size == 0:
        return []
    if lengths.min() == 0:
        raise ValueError("a prompt is empty: begin it with the begin token")
    if draws is None:
        shape = (len(prompts), max_tokens)
        draws = rng.random(shape) if temperature else np.zeros(shape)
    tokens = np.zeros((len(prompts), lengths.max() + max_tokens), int)               # (rows, positions)
    for row, prompt in enumerate(prompts):
        tokens[row, :len(prompt)] = prompt
    log_probs = np.zeros(tokens.shape)
    stops = np.isin(np.arange(model.config.vocab), stop)
    ends = lengths + max_tokens
    alive = np.arange(len(prompts) if max_tokens else 0)
    context, decoder, begin = model.config.context, None, 0
    length = lengths.min()                                   # so many tokens every row has
    while alive.size:
        start = window_start(length, context)
        if decoder is None or start != begin:
            decoder, begin = Decoder(model, alive.size, context), start
            logits = decoder.extend(tokens[alive, start:length])
        else:
            logits = decoder.extend(tokens[alive, length - 1:length])
        # The others are still being fed their prompt, or have ended and wait to be dropped.
        writing = (lengths[alive] <= length) & (length < ends[alive])
        rows, logits = alive[writing], logits[writing]
        if rows.size:
            allowed = None if mask is None else np.stack(
                [_may(mask, row, tokens[row, lengths[row]:length], logits.shape[1]) for row in rows.tolist()])
            ids, said = choose(logits, draws[rows, length - lengths[rows]],
                               temperature, top_k, top_p, allowed)
            tokens[rows, length], log_probs[rows, length] = ids, said
            ends[rows[stops[ids]]] = length + 1
        length += 1
        left = np.flatnonzero(ends[alive] > length)
        if left.size <= alive.size // 2:                     # to drop rows copies the cache: not for each one
            decoder.keep(left)
            alive = alive[left]
    return [(tokens[r, lengths[r]:ends[r]].tolist(), log_probs[r, lengths[r]:ends[r]].tolist())
            for r in range(len(prompts))]


def _may(mask, row, written, vocab):
    may = mask(row, written)
    if may is None:
        return np.ones(vocab, bool)
    if not may.any():
        raise ValueError("the mask allows no token at all")
    return may
