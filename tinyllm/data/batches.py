"""Conversations and replayed text -> batches, and the masking for a masked language model.

A row holds one conversation, so no conversation can attend to another. A batch consists of several pieces.
The rows of a piece have about the same length, so there is little padding; the pieces differ in length, so
every step learns from short and long conversations.

To prevent forgetting, a share of every piece is pre-training text. The documents of the built-in world are
short, so rows of its text start at the beginning of a document; rows of your own text start anywhere.

    conversation    begin user ... end assistant ... end   pad pad      loss on the assistant's reply
    replayed text   begin The home of Ada is Alden. Ada keeps a duck    loss on everything
"""

import numpy as np

from tinyllm.data import corpus
from tinyllm.data.conversation import batch_of, encode_conversation, fits
from tinyllm.errors import TinyllmError, tell_once

PIECES = 4  # per batch


class ConversationBatches:
    """The batches of all steps of a stage, fully determined by the seed.

    rows: [(ids, mask)] of conversations; text: ids of the pre-training text, which fills the share
    `replay` of each batch; size: tokens in a batch; anywhere: whether replayed rows may start at any token,
    which suits a text that is not divided into short documents.

    plan: for each step, the row numbers of each piece of the batch. An epoch uses every row once.
    starts: positions in the text where a replayed row may start.
    """

    def __init__(self, rows, text, size, replay, seed, steps, anywhere=False):
        self.rows, self.text, self.replay, self.seed = rows, text, replay, seed
        room, count = size * (1 - replay) / PIECES, steps * PIECES
        pieces = length_buckets([len(ids) for ids, _ in rows], room, count, [seed, 7])
        self.plan = [pieces[at : at + PIECES] for at in range(0, count, PIECES)]
        self.starts = np.arange(len(text)) if anywhere else np.flatnonzero(text == text[:1])

    def batch(self, step):
        """The batch of a step: a list of pieces {"ids", "targets", "weights"}, each array (rows, time)."""
        return [self.piece(numbers, [self.seed, 8, step, i]) for i, numbers in enumerate(self.plan[step])]

    def piece(self, numbers, seed):
        rows = [self.rows[i] for i in numbers]
        length = max(len(ids) for ids, _ in rows)
        count = round(len(numbers) * self.replay / (1 - self.replay))
        if count and len(self.text) >= length:
            starts = self.starts[: np.searchsorted(self.starts, len(self.text) - length, side="right")]
            starts = np.random.default_rng(seed).choice(starts, count)
            rows += [(self.text[at : at + length], np.ones(length)) for at in starts]
        return batch_of(rows)


def with_replay(rows, settings, learned, characters, tokenizer, steps):
    """The batches of a stage: its conversations (rows), mixed with the text that the run has learned from.
    If there is no such text, as for a published model, batches are smaller by the replay share."""
    source, kept = learned.get("text"), settings.folder("text.safetensors")
    text = corpus.packed(kept, source, settings.seed, characters, tokenizer)
    anywhere = bool(source and source["path"])
    return ConversationBatches(rows, text, settings.tokens, settings.replay, settings.seed, steps, anywhere)


def length_buckets(lengths, room, count, seed):
    """Lengths of items, in tokens -> `count` lists of item numbers.

    The items in each list have about the same length and, once padded, fit into `room` tokens together. An
    item longer than `room` forms a list of its own. An epoch uses every item once. `seed`, a list of numbers,
    decides the order.
    """
    lengths, buckets, epoch = np.array(lengths), [], 0
    while len(buckets) < count:
        rng = np.random.default_rng([*seed, epoch])
        order = np.argsort(lengths + rng.random(len(lengths)), kind="stable")[::-1]
        cut, at = [], 0
        while at < len(order):
            fitting = max(1, int(room // lengths[order[at]]))
            cut.append(order[at : at + fitting])
            at += fitting
        buckets += [cut[i] for i in rng.permutation(len(cut))]
        epoch += 1
    return buckets[:count]


def encode_fitting(tokenizer, conversations, context):
    """Conversations -> [(ids, mask)], without those longer than the context."""
    rows = [encode_conversation(tokenizer, messages) for messages in conversations]
    return [(ids, mask) for ids, mask in rows if fits(ids, context)]


def report_left_out(fitting, items, what, context):
    """Tell the user how many items do not fit into the context. Raises TinyllmError if no item fits."""
    if items and not fitting:
        raise TinyllmError(f"no {what} fits into the context of {context} tokens")
    if len(fitting) < len(items):
        share = f"{len(items) - len(fitting):,} of {len(items):,} {what}s"
        tell_once(f"{share} do not fit into the context of {context} tokens and are left out")


def chained(conversations, seed):
    """Join two or three random conversations into one, as in a chat: one chain for every four conversations.

    Without such chains, a model trained on single questions fails at the second question of a chat.
    Conversations that begin with a system message are not chained.
    """
    rng = np.random.default_rng([seed, 6])
    single = [messages for messages in conversations if messages[0]["role"] != "system"]
    chains = [rng.integers(0, len(single), rng.integers(2, 4)) for _ in range(len(single) // 4)]
    return [[message for i in chain for message in single[i]] for chain in chains]


def mask_tokens(piece, ordinary, mask_id, rng, rate=0.15):
    """Hide tokens of a piece {"ids", "weights"}, each (B, T).   Devlin et al. 2018 (BERT).

    A token is eligible if its id is below `ordinary` (not special) and it is not padding. In every row, a
    share `rate` of the eligible tokens is chosen, but at least one token if any is eligible. Of the chosen
    tokens, 80 % become mask_id, 10 % become a random ordinary token, and 10 % stay unchanged. Weights are 1
    at the chosen positions. The target at a position is the original token there. (The targets in `piece`,
    the next tokens, are not used.)
    """
    ids = piece["ids"]
    eligible = (ids < ordinary) & (piece["weights"] > 0)
    wanted = np.maximum(1, np.rint(rate * eligible.sum(axis=1, keepdims=True)))  # (B, 1)
    order = np.where(eligible, rng.random(ids.shape), 2).argsort(axis=1).argsort(axis=1)
    chosen = eligible & (order < wanted)
    fate = rng.random(ids.shape)
    inputs = np.where(chosen & (fate < 0.8), mask_id, ids)
    inputs = np.where(chosen & (fate >= 0.9), rng.integers(0, ordinary, ids.shape), inputs)
    return {"ids": inputs, "targets": ids, "weights": chosen.astype(np.float32)}
