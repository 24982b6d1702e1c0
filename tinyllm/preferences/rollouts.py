"""Rollouts: replies sampled from the model itself, as arrays; and its KL from a reference model on them.

They are sampled at temperature 1 without truncation, so the trainer's log-probs are those they were drawn
with. Sampling in one way and scoring in another would make every importance ratio wrong.

    prompts (B lists of ids) -> ids, targets, mask (B, T): mask is 1 on the reply, its end token included
"""

from dataclasses import dataclass

import numpy as np

from tinyllm.data.conversation import pad, shift
from tinyllm.objectives import log_prob_of, log_softmax
from tinyllm.sampling import generate_replies

ROWS = 32  # rows per forward pass


@dataclass
class Rollouts:
    ids: np.ndarray
    targets: np.ndarray
    mask: np.ndarray
    replies: list  # for each row, the ids of the reply
    ended: np.ndarray  # for each row, whether the reply reached its end token within max_tokens


def sample_rollouts(pool, tokenizer, prompts, max_tokens, seed):
    """One reply of at most max_tokens tokens to each prompt, decided by `seed`, a list of numbers."""
    replies = generate_replies(pool, tokenizer, prompts, max_tokens, seed)
    rows = [(p + reply, [0] * len(p) + [1] * len(reply)) for p, reply in zip(prompts, replies)]
    shifted = shift(*pad(rows))
    end = tokenizer.special["<|end|>"]
    ended = np.array([reply[-1] == end for reply in replies])
    return Rollouts(shifted["ids"], shifted["targets"], shifted["weights"], replies, ended)


def log_probs(pool, ids, targets):
    """log p of every target under the pool's model: ids and targets (B, T) -> (B, T)."""
    return pool.map(_log_probs, ids, targets, size=ROWS)


def compare(pool, reference, ids, targets):
    """ids and targets (B, T) under the policy (pool) and the reference (a pool) -> reference logits
    (B, T, V), log p of the targets (B, T), KL(policy || reference) at every position (B, T), and the states
    that the policy's head reads (B, T, C)."""
    reference_logits = reference.map(_logits, ids, size=ROWS)
    return reference_logits, *pool.map(_against, ids, targets, reference_logits, size=ROWS)


def _log_probs(model, ids, targets):
    return log_prob_of(targets, log_softmax(model.forward(ids)[0]))


def _logits(model, ids):
    return model.forward(ids)[0]


def _against(model, ids, targets, reference_logits):
    logits, cache = model.forward(ids)
    log_p, log_q = log_softmax(logits), log_softmax(reference_logits)
    states = cache[-1][0].reshape(*ids.shape, -1)  # the cache of the head, the last layer: its input
    return log_prob_of(targets, log_p), (np.exp(log_p) * (log_p - log_q)).sum(axis=-1), states
