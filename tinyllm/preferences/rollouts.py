"""Rollouts: replies sampled from the model itself, as arrays.

Replies are sampled at temperature 1 without top-k or top-p, so the log-probs in training are those of the
distribution that the replies come from. Otherwise every importance ratio would be wrong.

    prompts (B lists of ids) -> ids, targets, weights (B, T): the weight is 1 on the reply, including its end
    token, and 0 elsewhere
"""

from typing import NamedTuple

import numpy as np

from tinyllm.data.conversation import batch_of
from tinyllm.objectives import log_prob_of, log_softmax
from tinyllm.sampling import generate_replies
from tinyllm.transformer import scatter


class Rollouts(NamedTuple):
    batch: dict  # "ids", "targets" and "weights", each (B, T)
    replies: list  # for each row, the ids of the reply
    ended: np.ndarray  # for each row, whether the reply reached its end token within max_tokens


def sample_rollouts(pool, tokenizer, prompts, max_tokens, seed):
    """Sample one reply of at most max_tokens tokens to each prompt. `seed` is a list of numbers."""
    replies = generate_replies(pool, tokenizer, prompts, max_tokens, seed)
    rows = [(p + reply, [0] * len(p) + [1] * len(reply)) for p, reply in zip(prompts, replies)]
    end = tokenizer.special["<|end|>"]
    ended = np.array([reply[-1] == end for reply in replies])
    return Rollouts(batch_of(rows), replies, ended)


def log_probs(pool, ids, targets):
    """log p of every target under the pool's model: ids and targets (B, T) -> (B, T)."""
    return pool.map(_log_probs, ids, targets, size=pool.rows_at_once(ids.shape[1]))


def compare(pool, reference, batch):
    """Compare the policy (pool) with the reference (also a pool) at the positions with weight 1 in a batch of
    rollouts.

    -> the reference's logits: for each row an array (n, V), where n is its number of positions with weight 1;
    and three arrays, which are 0 where the weight is 0: log p of the targets (B, T),
    KL(policy || reference) (B, T), and the input of the policy's head (B, T, C).
    """
    ids, targets, mask = (batch[name] for name in ("ids", "targets", "weights"))
    size = pool.rows_at_once(ids.shape[1])
    reference_logits = reference.map(_logits, ids, mask, size=size)
    return reference_logits, *pool.map(_against, ids, targets, mask, reference_logits, size=size)


def _log_probs(model, ids, targets):
    return log_prob_of(targets, log_softmax(model.forward(ids)[0]))


def _logits(model, ids, mask):
    at = mask > 0
    return np.split(model.forward(ids, at)[0], at.sum(axis=1).cumsum()[:-1])


def _against(model, ids, targets, mask, reference_logits):
    at = mask > 0
    logits, cache = model.forward(ids, at)
    log_p, log_q = log_softmax(logits), log_softmax(np.concatenate(reference_logits))
    kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
    states = cache[-1][0]  # the head is the last layer; the first item of its cache is its input
    return tuple(scatter(values, at) for values in (log_prob_of(targets[at], log_p), kl, states))
