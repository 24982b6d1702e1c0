"""Turns -> ids, targets and weights. The shift and the mask live here and nowhere else.

A conversation is a list of {"role": ..., "content": ...}; roles are system, user, assistant and tool.
It is written as

    <|begin|><|user|> 2+2?<|end|><|assistant|> 4<|end|>

with a space before each content, so that a word at its beginning is the same token as anywhere else. What
is learned is what the assistant wrote, its end token included (else it would never stop):

    ids       begin  user   2 + 2 ?   end        assistant  4        the sequence without its last
    targets   user   2      + 2 ? end assistant  4          end      the sequence without its first
    weights   0      0      0 0 0 0   0          1          1        is the target the assistant's?

Contents are encoded as plain text, so no user can write a special token.
"""

import numpy as np

ROLES = ("system", "user", "assistant", "tool")

TEMPLATE = (                                   # the same in Jinja, for every program that reads our folders
    "<|begin|>{% for message in messages %}<|{{ message.role }}|> {{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}")


def spell(tokenizer, messages):
    """Messages -> (ids, learned): the whole sequence, and 1 for each token that the assistant has to write.

    Raises ValueError for a role that is not one of ROLES.
    """
    special = tokenizer.special
    ids, learned = [special["<|begin|>"]], [0]
    for message in messages:
        if message["role"] not in ROLES:
            raise ValueError(f"unknown role {message['role']!r}: use one of {', '.join(ROLES)}")
        content = tokenizer.encode(" " + message["content"]) + [special["<|end|>"]]
        ids += [special[f"<|{message['role']}|>"], *content]
        learned += [0] + [int(message["role"] == "assistant")] * len(content)
    return ids, learned


def prompt(tokenizer, messages):
    """The ids after which the assistant's next words come."""
    return spell(tokenizer, messages)[0] + [tokenizer.special["<|assistant|>"]]


def read(tokenizer, ids):
    """What the assistant wrote after a prompt: ids, with or without their end token -> the content."""
    ids = ids[:-1] if ids[-1:] == [tokenizer.special["<|end|>"]] else ids
    return tokenizer.decode(ids).removeprefix(" ")


def pad(rows):
    """Sequences [(ids, learned)] -> two arrays, as wide as the longest; what fills up a row is 0."""
    longest = max(len(ids) for ids, _ in rows)
    ids, learned = np.zeros((len(rows), longest), np.int32), np.zeros((len(rows), longest), np.float32)
    for i, (row, weights) in enumerate(rows):
        ids[i, :len(row)], learned[i, :len(row)] = row, weights
    return ids, learned


def shift(ids, learned=None):
    """A sequence -> (ids, targets, weights), each one shorter: every position predicts the next token.

    Works on the last axis of a sequence or of a batch. Without `learned` every target counts.
    """
    ids = np.asarray(ids)
    weights = np.ones(ids.shape, np.float32) if learned is None else np.asarray(learned, np.float32)
    return ids[..., :-1], ids[..., 1:], weights[..., 1:]
