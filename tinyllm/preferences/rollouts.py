"""Rollouts: replies that a model has written itself, at temperature 1 and without truncation, so that its own
probabilities are those that they were drawn with; and how far they are from what another model would say.

    prompts (B lists of ids) -> ids, targets, mask (B, T): mask is 1 on the reply, its end token included
"""

from typing import NamedTuple

import numpy as np

from tinyllm import interviews
from tinyllm.conversation import pad, shift
from tinyllm.objectives import log_softmax

PART = 32                    # rows that a worker looks at together


class Rollouts(NamedTuple):
    ids: np.ndarray
    targets: np.ndarray
    mask: np.ndarray
    written: list            # of each row, the ids of the reply
    ended: np.ndarray        # of each row, whether it came to its end token in time


def collect(team, tokenizer, prompts, most, seed):
    """One reply of at most `most` tokens to each prompt; it follows from `seed`, a list of numbers."""
    end = tokenizer.special["<|end|>"]
    parts = [prompts[i:i + 64] for i in range(0, len(prompts), 64)]
    jobs = [(part, most, [end], 1.0, [*seed, i], None) for i, part in enumerate(parts)]
    written = sum(team.run(interviews.write_replies, jobs), [])
    ids, targets, mask = shift(*pad([(p + w, [0] * len(p) + [1] * len(w)) for p, w in zip(prompts, written)]))
    return Rollouts(ids, targets, mask, written, np.array([w[-1] == end for w in written]))


def token_nats(replica, batch):
    """-log p of every target in a batch (ids, targets) -> (B, T)."""
    ids, targets = batch
    logp = log_softmax(replica.model.forward(ids)[0])
    return -np.take_along_axis(logp, targets[..., None], axis=-1)[..., 0]


def logits_of(replica, ids):
    return replica.model.forward(ids)[0]


def beside(replica, job):
    """(ids, targets, reference logits) -> log p of the targets (B, T), the exact divergence from the
    reference at every position (B, T), and what the head reads there (B, T, C)."""
    ids, targets, reference = job
    logits, cache = replica.model.forward(ids)
    logp, logq = log_softmax(logits), log_softmax(reference)
    states = cache[-1][0].reshape(*ids.shape, -1)              # the input of the last layer, the head
    said = np.take_along_axis(logp, targets[..., None], axis=-1)[..., 0]
    return said, (np.exp(logp) * (logp - logq)).sum(axis=-1), states


def in_parts(rows):
    return [slice(i, i + PART) for i in range(0, len(rows), PART)]


def likelihood(team, ids, targets):
    """log p of every target (B, T)."""
    return -np.concatenate(team.run(token_nats, [(ids[part], targets[part]) for part in in_parts(ids)]))


def against(team, reference, ids, targets):
    """The same for whole batches: team and reference (Teams) -> logits of the reference, log p, divergence,
    states."""
    parts = in_parts(ids)
    theirs = reference.run(logits_of, [ids[part] for part in parts])
    found = team.run(beside, [(ids[part], targets[part], logits) for part, logits in zip(parts, theirs)])
    return np.concatenate(theirs), *(np.concatenate(arrays) for arrays in zip(*found))
