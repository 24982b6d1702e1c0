"""Batched generation of tokens with a KV cache.

Calling Transformer.forward for every new token would compute all earlier positions again. Their keys and
values do not change, so the Decoder keeps them and computes only the new position.

All rows of a batch are at the same position: while rows with short prompts are already generating, a row with
a longer prompt is still being fed its prompt, one token at a time. So prompts of different lengths need no
padding, masks or shifted positions, and the result for a row is the same in any batch, up to rounding.

Shapes as in layers.py; S positions in the cache.
"""

import math
import re
from functools import partial

import numpy as np

from tinyllm.data.conversation import decode_reply, encode_prompt
from tinyllm.layers import causal_mask, rotations_at
from tinyllm.parallel import map_by_length
from tinyllm.transformer import Parameters, Transformer


def fold(model):
    """Rewrite the matrices of a model, in place, into the form that a Decoder needs. model.folded then holds
    the matrices of each block, the head, and the gain of the last norm. After that, only a Decoder can use
    the model.

    At batch size 1 a step is about a hundred NumPy calls on small arrays, and their overhead dominates. So
    constants are folded into the matrices once.

        transformer.forward                              Decoder.extend
        n = g * x / sqrt(mean(x^2) + eps);  n @ wqkv.T   x / sqrt(sum(x^2) + C eps) @ (wqkv * g * sqrt(C)).T
        q * (1 / sqrt(D))                                the rows of wq are multiplied by 1 / sqrt(D)
        silu(a) = a / 2 * (1 + tanh(a / 2))              the rows of gate are multiplied by 1/2
        attention over T queries and T keys              the same over the new queries and S cached keys
        n @ embedding.T                                  the gain of the last norm is multiplied by sqrt(C)

    The matrix of the head is unchanged, because it may be the embedding.
    """
    c, p = model.config, model.params
    root = math.sqrt(c.width)

    def transposed(w):
        """Transpose w within its memory. A step of 16 rows takes 1.17 times as long with the view w.T."""
        copy = w.T.copy()
        w.reshape(-1)[:] = copy.reshape(-1)
        return w.reshape(copy.shape)

    for w in p.blocks:
        w["wqkv"] *= w["attention.norm"] * root
        w["wqkv"][: c.heads * c.head_dim] *= 1 / math.sqrt(c.head_dim)
        w["gate_up"] *= w["mlp.norm"] * root
        w["gate_up"][: c.hidden] *= 0.5
    names = ("wqkv", "wo", "gate_up", "down")
    blocks = [[transposed(w[name]) for name in names] for w in p.blocks]
    model.folded = blocks, p[model.head_name].T, p["norm"] * root


class Decoder:
    """The forward pass of transformer.py for the next tokens of every row, with a KV cache.

    rows: how many sequences; room: how many positions the cache can hold. A Decoder folds a copy of the
    model's layers, unless the model is folded already. If the parameters change, build a new Decoder.
    """

    def __init__(self, model, rows, room):
        c = model.config
        if model.folded is None:
            params = Parameters(c, model.params.flat[c.begin(c.layers) :].copy())  # without the embedding
            params["embedding"] = model.params["embedding"]
            model = Transformer(c, params)
            fold(model)
        self.config, self.dtype, self.length = c, model.params.flat.dtype, 0
        self.embedding = model.params["embedding"]
        self.blocks, self.head, self.gain = model.folded
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


def choose(logits, draws, temperature=1.0, top_k=0, top_p=1.0):
    """logits (B, V), draws (B,) uniform in [0, 1) -> ids (B,).

    temperature 0 takes the most likely token. top_k keeps the k most likely tokens, and any others that are
    as likely as the k-th (0: no limit). top_p keeps the smallest set of most likely tokens whose
    probabilities add up to at least top_p (Holtzman et al. 2020). A token whose logit is -inf is never
    chosen. The draw then picks a token by inverting the cumulative distribution: one number per row decides,
    whatever else is in the batch.
    """
    if temperature == 0:
        return logits.argmax(axis=1)
    logits = (logits - np.maximum.reduce(logits, axis=1, keepdims=True)) * (1 / temperature)
    if 0 < top_k < logits.shape[1]:
        logits[logits < np.partition(logits, -top_k, axis=1)[:, -top_k, None]] = -np.inf
    p = np.exp(logits)  # not normalised
    if top_p < 1:
        order = np.argsort(-p, axis=1, kind="stable")
        ranked = np.take_along_axis(p, order, axis=1)
        before = np.cumsum(ranked, axis=1) - ranked
        ranked[before >= top_p * p.sum(axis=1, keepdims=True)] = 0
        np.put_along_axis(p, order, ranked, axis=1)
    cumulative = np.cumsum(p, axis=1)
    return np.add.reduce(cumulative <= draws[:, None] * cumulative[:, -1:], axis=1)


def window_start(length, context):
    """Where the visible part of `length` tokens begins: at 0 as long as they fit into the context.

    When the context is full, the older half is dropped, and the rest is computed again from position 0, as in
    training. So no position beyond the context is ever used, and context / 2 tokens pass before the next
    recomputation.
    """
    half = max(1, context // 2)
    return 0 if length <= context else math.ceil((length - context) / half) * half


def generate(model, prompts, max_tokens, draws=None, temperature=1.0, top_k=0, top_p=1.0, stop=-1, mask=None):
    """Continue every prompt (a sequence of at least one id) by up to max_tokens tokens -> one list of new ids
    per prompt.

    draws: uniform random numbers (rows, max_tokens) that decide every choice; None: greedy. A row ends after
    the token `stop`, which is kept. mask(row, ids, room) is called for each row and step with the ids that
    the row has written so far and the number of tokens that it may still write. It returns booleans (V,),
    true for the tokens that may come next, or None for all tokens. Raises ValueError if a mask allows no
    token.
    """
    if draws is None:
        draws, temperature = np.zeros((len(prompts), max_tokens)), 0
    lengths = np.array([len(prompt) for prompt in prompts])
    ends = lengths + max_tokens
    tokens = np.zeros((len(prompts), ends.max()), int)  # (rows, positions)
    for row, prompt in zip(tokens, prompts):
        row[: len(prompt)] = prompt
    alive, begin, context = np.arange(len(prompts)), None, model.config.context
    room = min(context, ends.max())  # the full context of a published model may take gigabytes
    length = lengths.min()  # every row has at least this many tokens
    while alive.size:
        start = window_start(length, context)
        if start != begin:
            decoder, begin = Decoder(model, alive.size, room), start
        logits = decoder.extend(tokens[alive, start + decoder.length : length])
        # The other rows are still being fed their prompt, or have ended and will be dropped later.
        writing = (lengths[alive] <= length) & (length < ends[alive])
        rows, logits = alive[writing], logits[writing]
        if mask:
            for row, scores in zip(rows, logits):
                allowed = mask(int(row), tokens[row, lengths[row] : length], ends[row] - length)
                if allowed is not None:
                    if not allowed.any():
                        raise ValueError("the mask allows no token at all")
                    scores[~allowed] = -np.inf
        if rows.size:
            ids = choose(logits, draws[rows, length - lengths[rows]], temperature, top_k, top_p)
            tokens[rows, length] = ids
            ends[rows[ids == stop]] = length + 1
        length += 1
        left = np.flatnonzero(ends[alive] > length)
        if left.size <= alive.size // 2:  # dropping rows copies the cache, so wait until half have ended
            decoder.keep(left)
            alive = alive[left]
    return [row[a:b].tolist() for row, a, b in zip(tokens, lengths, ends)]


# ---- assistant replies, many at once

REPLY_TOKENS = 64  # room for a reply that people, the reward model or an exam will judge


def reply_room(context):
    """Tokens a prompt must leave for the reply: REPLY_TOKENS, or a quarter of the context if that is less."""
    return min(REPLY_TOKENS, context // 4)


def generate_rows(model, prompts, draws, **how):
    """The function that the workers of the pool run."""
    return generate(model, prompts, draws.shape[1], draws, **how)


def generate_replies(pool, tokenizer, prompts, max_tokens, seed=None, size=64):
    """One reply of at most max_tokens tokens to each prompt (ids) -> lists of ids. The end token is
    included, if the reply has one.

    Without a seed, decoding is greedy. With a seed (a list of numbers), replies are sampled from the model's
    own distribution: at temperature 1, without top-k or top-p.
    """
    draws = np.random.default_rng(seed or 0).random((len(prompts), max_tokens))
    temperature = 0 if seed is None else 1
    rows = partial(generate_rows, temperature=temperature, stop=tokenizer.special["<|end|>"])
    return map_by_length(pool, rows, prompts, draws, size=size)


def answer(pool, tokenizer, conversations, max_tokens, seed=None):
    """The next reply to each conversation (messages) -> [(text, whether the reply has an end token)]."""
    prompts = [encode_prompt(tokenizer, messages) for messages in conversations]
    end = tokenizer.special["<|end|>"]
    replies = generate_replies(pool, tokenizer, prompts, max_tokens, seed)
    return [(decode_reply(tokenizer, ids), ids[-1:] == [end]) for ids in replies]


def show_reply(pool, tokenizer, messages):
    """A prompt and the model's reply (at most 200 tokens), as text to display."""
    ((text, _),) = answer(pool, tokenizer, [messages], 200)
    return f"{show_prompt(messages)}\n{text}"


def show_prompt(messages):
    """A prompt as text to display. Roles are shown only if there are several messages."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def printable(text):
    """The text with U+FFFD in place of control characters, which could garble a terminal. Tabs and line ends
    are kept."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)", "\ufffd", text)
