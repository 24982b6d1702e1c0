"""Exact expectations: with two or three tokens, a test can list every reply that a model could write.

Tests train on all replies, each weighted by its probability. The gradient must match finite
differences of the objective.
"""

import itertools
import math

import numpy as np
from gradcheck import slope

from tinyllm.objectives import log_softmax
from tinyllm.training import forward_and_loss
from tinyllm.transformer import Parameters, Transformer

END = 1


class TinyTokenizer:
    """Token 1 ends a reply. Token 0, and token 2 if there is one, stand for texts.

    The last text token also stands for all special tokens except the end token.
    """

    system = ""

    def __init__(self, texts):
        self.texts = {token: text for token, text in zip((0, 2), texts)}
        marker = max(self.texts)
        names = ("<|begin|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
        self.special = {name: marker for name in names} | {"<|end|>": END}

    def __len__(self):
        return 1 + len(self.texts)

    def encode(self, text):
        return [sorted(self.texts)[len(text) % len(self.texts)]] * (1 + len(text) % 2 if text else 0)

    def decode(self, ids):
        return "".join(self.texts.get(token, "") for token in ids)

    def decode_bytes(self, ids):
        return self.decode(ids).encode()


def all_replies(vocab, longest):
    """Every reply that ends within `longest` tokens, and every reply that is cut off after that many."""
    begun, finished = [[]], []
    for _ in range(longest):
        begun = [[*reply, token] for reply in begun for token in range(vocab)]
        finished += [reply for reply in begun if reply[-1] == END]
        begun = [reply for reply in begun if reply[-1] != END]
    return finished + begun


def all_groups(replies, size):
    """Every unordered group of `size` replies -> [(indices of the replies, number of possible orders)]."""
    groups = itertools.combinations_with_replacement(range(len(replies)), size)
    orders = lambda group: (
        math.factorial(size) // math.prod(math.factorial(group.count(i)) for i in set(group))
    )
    return [(group, orders(group)) for group in groups]


def in_float64(model):
    return Transformer(model.config, Parameters(model.config, model.params.flat.astype(np.float64)))


def log_probs_along(model, prompt, reply):
    """log p of every token of the vocabulary at each position of a reply -> (length of the reply, V)."""
    ids = np.array([*prompt, *reply])
    return log_softmax(model.logits(ids[None, :-1])[0])[len(prompt) - 1 :]


def probability(model, prompt, reply):
    steps = log_probs_along(model, prompt, reply)
    return math.exp(steps[np.arange(len(reply)), reply].sum())


def expected_return(model, reference, prompt, replies, scores, kl):
    """E[score - kl * sum of KL(policy || reference) along the reply], exactly."""
    expected = 0.0
    for reply, score in zip(replies, scores):
        log_p, log_q = (log_probs_along(each, prompt, reply) for each in (model, reference))
        divergence = (np.exp(log_p) * (log_p - log_q)).sum()
        expected += probability(model, prompt, reply) * (score - kl * divergence)
    return expected


def gradient_of_step(model, objective, batch, shares):
    """The gradient of a training step in which row i of the batch is weighted by shares[i]."""
    weights = batch["weights"] * np.asarray(shares)[:, None]
    _, dlogits, cache = forward_and_loss(model, objective, batch | {"weights": weights}, total=1.0)
    gradient = Parameters(model.config, dtype=np.float64)
    model.backward(dlogits, cache, gradient)
    return gradient.flat


def slopes(function, model, rng, directions=3):
    """Random directions in parameter space, and the slope of function(model) along each."""
    for _ in range(directions):
        direction = rng.standard_normal(model.params.flat.shape)

        def along(t, direction=direction):
            moved = Parameters(model.config, model.params.flat + t * direction)
            return function(Transformer(model.config, moved))

        yield direction, slope(along, 1e-4)
