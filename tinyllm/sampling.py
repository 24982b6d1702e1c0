"""Batched generation of tokens with a KV cache.

Calling Transformer.forward for every new token would compute all earlier positions again. Their keys and
values do not change, so the Decoder keeps them and computes only the new position.

All rows of a batch are at the same position: while short prompts are already being continued, a longer one is
still fed its next token. So prompts of different lengths need no padding, masks or shifted positions, and the
result for a row is the same in any batch, up to rounding.

Shapes as in layers.py; S positions in the cache.
"""

import math
import re
from functools import partial

import numpy as np

from tinyllm.data.conversation import decode_reply, encode_prompt
from tinyllm.layers import causal_mask, rotations_at


def fold(model, in_place=False):
    """-> the matrices of each block, the head, and the gain of the head's input, in the form a Decoder needs.

    At batch size 1 a step is about a hundred NumPy calls on small arrays, and their overhead dominates. So
    all constants are folded into the matrices once.

        transformer.forward                              Decoder.extend
        n = g * x / sqrt(mean(x^2) + eps);  n @ wqkv.T   x / sqrt(sum(x^2) + C eps) @ (wqkv * g * sqrt(C)).T
        q * (1 / sqrt(D))                                the rows of wq carry 1 / sqrt(D)
        silu(a) = a / 2 * (1 + tanh(a / 2))              the rows of gate carry 1/2
        attention over T queries                         the same over one query and S cached keys
        n @ embedding.T                                  the gain of the last norm carries sqrt(C)

    A second set of matrices may take too much memory in a real model. in_place: the new matrices replace the
    parameters, and from then on the model can only decode. The head is unchanged: it may be the embedding.
    """
    c, p, dtype = model.config, model.params, model.params.flat.dtype
    root = math.sqrt(c.width)

    def transposed(w):
        """A copy: with a view w.T, products are slower, and a step of 16 rows takes 1.17 times as long."""
        copy = w.T.copy()
        if in_place:
            w.reshape(-1)[:] = copy.reshape(-1)
            copy = w.reshape(copy.shape)
        return copy

    def folded(w, gain, rows, factor):
        """w times the gain of the norm before it, and its first rows times a factor; transposed."""
        factors = np.ones((len(w), 1), dtype)
        factors[:rows] = factor
        w = np.multiply(w, gain * root, out=w if in_place else None)
        w *= factors
        return transposed(w)

    blocks = [
        (
            folded(w["wqkv"], w["attention.norm"], c.heads * c.head_dim, 1 / math.sqrt(c.head_dim)),
            transposed(w["wo"]),
            folded(w["gate_up"], w["mlp.norm"], c.hidden, 0.5),
            transposed(w["down"]),
        )
        for w in p.blocks
    ]
    matrices = blocks, p[model.head_name].T, p["norm"] * root
    if in_place:
        model.folded = matrices
    return matrices


class Decoder:
    """The forward pass of transformer.py for the next tokens of every row, with a KV cache.

    It uses the matrices of `fold`. Build a new Decoder after the parameters have changed.
    """

    def __init__(self, model, rows, room):
        c = model.config
        self.config, self.dtype, self.length = c, model.params.flat.dtype, 0
        self.embedding = model.params["embedding"]
        self.blocks, self.head, self.gain = model.folded or fold(model)
        self.eps = np.array([c.width * c.eps], self.dtype)
        self.rotations = rotations_at(room, c.head_dim, c.theta, self.dtype)
        self.cache = np.empty((c.layers, 2, rows, c.kv_heads, room, c.head_dim), self.dtype)  # keys, values

    def keep(self, rows):
        """Continue with these rows only."""
        self.cache = self.cache[:, :, rows]

    def _normed(self, x):
        """x / sqrt(sum(x^2) + C eps): RMSNorm without its gain and its sqrt(C)."""
        return x / np.sqrt(np.vecdot(x, x) + self.eps)[:, None]

    def extend(self, ids):
        """ids (B, T), the next T tokens of every row -> logits (B, V) after the last of them."""
        c = self.config
        B, T = ids.shape
        H, K, D, F = c.heads, c.kv_heads, c.head_dim, c.hidden
        start, stop = self.length, self.length + T
        self.length = stop
        rotations = self.rotations[start:stop]
        x = self.embedding[ids.reshape(-1)]  # (B T, C)
        for (wqkv, wo, gate_up, down), cache in zip(self.blocks, self.cache):
            qkv = (self._normed(x) @ wqkv).reshape(B, T, H + 2 * K, D)
            qk = qkv[:, :, : H + K].view(rotations.dtype)
            qk *= rotations
            cache[:, :, :, start:stop] = qkv[:, :, H:].reshape(B, T, 2, K, D).transpose(2, 0, 3, 1, 4)
            keys, values = cache[:, :, :, :stop]  # (B, K, S, D)
            q = qkv[:, :, :H].reshape(B, T, K, H // K, D).transpose(0, 2, 3, 1, 4).reshape(B, K, -1, D)
            p = q @ keys.swapaxes(2, 3)  # (B, K, G T, S)
            if T > 1:
                p.reshape(B, K, -1, T, stop)[..., start:] += causal_mask(T, p.dtype).T
            p -= np.maximum.reduce(p, axis=3, keepdims=True)  # avoids the Python overhead of .max
            p = np.exp(p)
            a = (p @ values) / np.add.reduce(p, axis=3, keepdims=True)
            a = a.reshape(B, K, -1, T, D).transpose(0, 3, 1, 2, 4)  # (B, T, K, G, D)
            x += a.reshape(B * T, H * D) @ wo
            h = self._normed(x) @ gate_up
            gate, up = h[:, :F], h[:, F:]  # gate = a / 2
            x += ((np.tanh(gate) * gate + gate) * up) @ down  # silu(a) = a/2 + a/2 * tanh(a/2)
        return (self._normed(x.reshape(B, T, -1)[:, -1]) * self.gain) @ self.head


def choose(logits, draws, temperature=1.0, top_k=0, top_p=1.0, allowed=None):
    """logits (B, V), draws (B,) uniform in [0, 1) -> ids (B,) and their log-probs (B,).

    temperature 0 takes the most likely token; top_k keeps the k most likely (0: all); top_p keeps the fewest
    whose probabilities add up to at least p (Holtzman et al. 2020); allowed (B, V) is False for forbidden
    tokens. The draw then picks a token by inverting the cumulative distribution, so one number per row
    decides, whatever else is in the batch. The log-probs are the model's own, without temperature, truncation
    or mask.
    """
    shifted = logits - np.maximum.reduce(logits, axis=1, keepdims=True)
    p = np.exp(shifted)
    log_z = np.log(np.add.reduce(p, axis=1))
    candidates = shifted if allowed is None else np.where(allowed, shifted, -np.inf)
    if temperature == 0:
        ids = candidates.argmax(axis=1)
    else:
        if temperature != 1 or top_k or top_p < 1 or allowed is not None:
            p = _truncated(candidates, temperature, top_k, top_p)
        cumulative = np.cumsum(p, axis=1)
        ids = np.add.reduce(cumulative <= draws[:, None] * cumulative[:, -1:], axis=1)
    return ids, shifted[np.arange(len(ids)), ids] - log_z


def _truncated(logits, temperature, top_k, top_p):
    """Logits -> unnormalised probabilities, 0 for excluded tokens."""
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
    """Where the visible part of `length` tokens begins: at 0 as long as they fit into the context.

    After that the older half is dropped and the rest is computed again from position 0, as in training. So no
    position beyond the context is ever used, and the cost is spread over context / 2 tokens.
    """
    half = max(1, context // 2)
    return 0 if length <= context else math.ceil((length - context) / half) * half


def generate(model, prompts, max_tokens, draws=None, temperature=1.0, top_k=0, top_p=1.0, stop=(), mask=None):
    """Continue every prompt (a sequence of at least one id) by up to max_tokens tokens.

    Each call begins with an empty cache. draws: uniform numbers (rows, max_tokens) that decide every choice;
    None: greedy. A row ends after any token in `stop`, which is kept. mask(row, tokens) is called for each
    row and step with the tokens that the row has written so far -> boolean (V,), the tokens that may come
    next, or None for all.
    Returns one (tokens, log_probs) per prompt. The log-probs are those of softmax(logits), without
    temperature, truncation or mask: as the trainer computes them for the same tokens.
    Raises ValueError for an empty prompt or a mask that allows nothing.
    """
    lengths = np.array([len(prompt) for prompt in prompts], int)
    if lengths.size == 0:
        return []
    if lengths.min() == 0:
        raise ValueError("a prompt is empty: start it with the begin token")
    if draws is None:
        draws, temperature = np.zeros((len(prompts), max_tokens)), 0
    tokens = np.zeros((len(prompts), lengths.max() + max_tokens), int)  # (rows, positions)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
    log_probs = np.zeros(tokens.shape)
    stops = np.isin(np.arange(model.config.vocab), stop)
    ends = lengths + max_tokens
    alive = np.arange(len(prompts) if max_tokens else 0)
    context, decoder, begin = model.config.context, None, 0
    room = min(context, tokens.shape[1])  # of the cache: an imported model's full context can take gigabytes
    length = lengths.min()  # every row has at least this many tokens
    while alive.size:
        start = window_start(length, context)
        if decoder is None or start != begin:
            decoder, begin = Decoder(model, alive.size, room), start
            logits = decoder.extend(tokens[alive, start:length])
        else:
            logits = decoder.extend(tokens[alive, length - 1 : length])
        # The other rows are still being fed their prompt, or have ended and wait to be dropped.
        writing = (lengths[alive] <= length) & (length < ends[alive])
        rows, logits = alive[writing], logits[writing]
        if rows.size:
            allowed = None
            if mask is not None:
                written = [tokens[row, lengths[row] : length] for row in rows]
                allowed = np.stack([_allowed(mask, *each, model.config.vocab) for each in zip(rows, written)])
            row_draws = draws[rows, length - lengths[rows]]
            ids, log_probs[rows, length] = choose(logits, row_draws, temperature, top_k, top_p, allowed)
            tokens[rows, length] = ids
            ends[rows[stops[ids]]] = length + 1
        length += 1
        left = np.flatnonzero(ends[alive] > length)
        if left.size <= alive.size // 2:  # dropping rows copies the cache, so wait until half have ended
            decoder.keep(left)
            alive = alive[left]
    return [
        (tokens[r, lengths[r] : ends[r]].tolist(), log_probs[r, lengths[r] : ends[r]].tolist())
        for r in range(len(prompts))
    ]


def _allowed(mask, row, written, vocab):
    allowed = mask(int(row), written)
    if allowed is None:
        return np.ones(vocab, bool)
    if not allowed.any():
        raise ValueError("the mask allows no token at all")
    return allowed


# ---- assistant replies, many at once

REPLY_TOKENS = 64  # room for a reply that people, the reward model or an exam will judge


def reply_room(context):
    """Tokens that a prompt has to leave for the reply: REPLY_TOKENS, or a quarter of a small context."""
    return min(REPLY_TOKENS, context // 4)


def generate_rows(model, prompts, draws, max_tokens, stop):
    """The function that the workers of the pool run. draws: one array per prompt, or None for each."""
    draws = None if draws[0] is None else np.stack(draws)
    return [tokens for tokens, _ in generate(model, prompts, max_tokens, draws, stop=stop)]


def generate_replies(pool, tokenizer, prompts, max_tokens, seed=None, size=64):
    """One reply of at most max_tokens tokens to each prompt (ids) -> lists of ids, end token included.

    Greedy without a seed; with a seed (a list of numbers), sampled at temperature 1 without top-k or top-p:
    replies are drawn from the model's own distribution.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # similar lengths share a chunk
    draws = [None] * len(prompts)
    if seed is not None:
        draws = list(np.random.default_rng(seed).random((len(prompts), max_tokens)))
    rows = partial(generate_rows, max_tokens=max_tokens, stop=[tokenizer.special["<|end|>"]])
    columns = [prompts[i] for i in order], [draws[i] for i in order]
    replies = [None] * len(prompts)
    for i, reply in zip(order, pool.map(rows, *columns, size=size)):
        replies[i] = reply
    return replies


def answer(pool, tokenizer, conversations, max_tokens, seed=None):
    """The next reply to each conversation (messages) -> [(text, whether the reply has an end token)]."""
    prompts = [encode_prompt(tokenizer, messages) for messages in conversations]
    end = tokenizer.special["<|end|>"]
    replies = generate_replies(pool, tokenizer, prompts, max_tokens, seed)
    return [(decode_reply(tokenizer, ids), ids[-1:] == [end]) for ids in replies]


def show_reply(pool, tokenizer, messages, max_tokens=200):
    """A prompt and the model's reply, as text to display."""
    ((text, _),) = answer(pool, tokenizer, [messages], max_tokens)
    return f"{show_prompt(messages)}\n{text}"


def show_prompt(messages):
    """The text of a single message, or several messages, each with its role."""
    return messages[0]["content"] if len(messages) == 1 else with_roles(messages)


def printable(text):
    """The text with a mark in place of control characters, which could garble a terminal."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)", "\ufffd", text)


def with_roles(messages):
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)
