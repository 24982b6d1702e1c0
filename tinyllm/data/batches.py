"""Conversations -> batches. Every row holds one conversation, so that none can see another. A batch has
several pieces: within one, rows are about equally long, so that little of it is padding; from one to another
they are not, so that every step learns from short and long.

A share of every piece is pre-training text, each row from the beginning of a document, learned whole: what is
not repeated is forgotten.

    conversations   begin user ... end assistant ... end   pad pad      learned: what the assistant wrote
    replayed text   begin The home of Ada is Alden. Ada keeps a duck    learned: everything

And a sixteenth of every batch is random tokens that repeat themselves (induction.py), for the same reason.
"""

import functools
import sys
from dataclasses import dataclass

import numpy as np

from tinyllm.conversation import pad, shift, spell
from tinyllm.induction import repeats

PIECES, REPEATED = 4, 256     # of conversations; tokens in a row of repetitions


@dataclass
class Lessons:
    """rows: [(ids, learned)] of conversations; text: ids of pre-training text, which makes up the share
    `replay` of each batch; size: tokens in a batch; vocab: tokens that there are, 0 for no repetitions."""

    rows: list
    text: np.ndarray
    size: int
    replay: float
    seed: int
    vocab: int = 0

    def batches(self, steps):
        """-> for each step, the rows of each piece of its batch: neighbours in length, all in an epoch."""
        room = self.size * (1 - self.replay) / PIECES
        found = neighbours([len(ids) for ids, _ in self.rows], room, steps * PIECES, [self.seed, 7])
        return [found[i : i + PIECES] for i in range(0, steps * PIECES, PIECES)]

    def batch(self, batch, step):
        """-> a (ids, targets, weights), each (rows, time), for each piece."""
        pieces = [self.piece(chosen, (step, i)) for i, chosen in enumerate(batch)]
        if not self.vocab:
            return pieces
        rows = max(1, round(self.size / 16 / REPEATED))
        return [*pieces, shift(*repeats(self.vocab, rows, REPEATED + 1, [self.seed, 3, step]))]

    def piece(self, chosen, key):
        ids, learned = pad([self.rows[i] for i in chosen])
        longest = ids.shape[1]
        count = round(len(chosen) * self.replay / (1 - self.replay))
        if count and len(self.text) >= longest:
            begins = self.begins[: np.searchsorted(self.begins, len(self.text) - longest, side="right")]
            starts = np.random.default_rng([self.seed, 8, *key]).choice(begins, count)
            ids = np.concatenate([ids, self.text[starts[:, None] + np.arange(longest)]])
            learned = np.concatenate([learned, np.ones((count, longest), learned.dtype)])
        return shift(ids, learned)

    @functools.cached_property
    def begins(self):
        """Where the documents of the text begin."""
        return np.flatnonzero(self.text == self.text[0])


def neighbours(sizes, room, count, seed):
    """Sizes of items, in tokens -> `count` lists of items of about the same size, each of about `room` tokens
    together; every item once in an epoch, in an order that follows from `seed`, a list of numbers."""
    sizes, found, epoch = np.array(sizes), [], 0
    while len(found) < count:
        rng = np.random.default_rng([*seed, epoch])
        order = np.argsort(sizes + rng.random(len(sizes)), kind="stable")[::-1]
        parts, at = [], 0
        while at < len(order):
            taken = max(1, int(room // sizes[order[at]]))
            parts.append(order[at : at + taken])
            at += taken
        found += [parts[i] for i in rng.permutation(len(parts))]
        epoch += 1
    return found[:count]


def spell_all(tokenizer, conversations, context, what="conversations"):
    """Conversations -> [(ids, learned)]. Those longer than the context are left out, counted and reported."""
    rows = [spell(tokenizer, messages) for messages in conversations]
    fit = [row for row in rows if len(row[0]) <= context + 1]
    if len(fit) < len(rows):
        some = f"{len(rows) - len(fit):,} of {len(rows):,} {what}"
        print(f"{some} are longer than the context of {context} tokens and are left out", file=sys.stderr)
    return fit
