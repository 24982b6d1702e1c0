"""Messages -> ids, targets and weights: the shift, and the loss mask of a conversation.

If each stage did its own shifting and masking, one of them would sooner or later drop the first token of an
answer or train on the user's words.

A conversation is a list of {"role": ..., "content": ...}; roles are system, user, assistant and tool. One
question and its answer are encoded as

    <|begin|><|user|> 2+2?<|end|><|assistant|> 4<|end|>

The space before each content makes the first word the same token as inside a sentence. Published models use
other formats: see FORMATS. The loss covers the assistant's words and the end token after them, which teaches
the model to stop:

    ids       begin  user   2 + 2 ?   end        assistant  4        the sequence without its last token
    targets   user   2      + 2 ? end assistant  4          end      the sequence without its first token
    weights   0      0      0 0 0 0   0          1          1        1 if the target is the assistant's

A reply with "weight": 0, as in OpenAI's fine-tuning files, is context only: the loss does not cover it.

Contents are encoded as plain text, so no user can write a special token.
"""

import re
from typing import NamedTuple

import numpy as np

from tinyllm.errors import TinyllmError
from tinyllm.world.task import as_context

ROLES = ("system", "user", "assistant", "tool")


class Format(NamedTuple):
    """How a chat is written. Names in <|...|> are special tokens; {role} is the role of a message."""

    begin: str  # before the first message; may be ""
    head: str  # before the content; the reply of an assistant is generated after this head
    space: str  # between head and content
    end: str  # after the content
    after: str  # text after the end token

    def tokens(self):
        """The names of the special tokens that begin a chat or belong to an assistant's message."""
        return {self.begin, self.end, *SPECIAL.findall(self.head.format(role="assistant"))} - {""}


SPECIAL = re.compile(r"(<\|\w+\|>)")
LLAMA3_HEAD = "<|start_header_id|>{role}<|end_header_id|>\n\n"
FORMATS = {
    "tinyllm": Format("<|begin|>", "<|{role}|>", " ", "<|end|>", ""),
    "ChatML": Format("", "<|im_start|>{role}\n", "", "<|im_end|>", "\n"),
    "Llama 3": Format("<|begin_of_text|>", LLAMA3_HEAD, "", "<|eot_id|>", ""),
}

# The tinyllm format as a Jinja template, for other programs that read our checkpoints.
TEMPLATE = (
    "<|begin|>{% for message in messages %}<|{{ message.role }}|> {{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def format_of(special):
    """The first Format whose tokens() are all in `special`, the special tokens of a tokenizer.

    Raises TinyllmError if there is no such Format.
    """
    for form in FORMATS.values():
        if all(name in special for name in form.tokens()):
            return form
    needed = [f"the {name} format needs {', '.join(sorted(form.tokens()))}" for name, form in FORMATS.items()]
    raise TinyllmError(f"unknown chat format: this model can only continue text ({'; '.join(needed)})")


def encode_conversation(tokenizer, messages):
    """Messages -> (ids, mask): the whole sequence, and 1 for each token that the loss covers.

    Raises TinyllmError for an unknown chat format.
    """
    special, form = tokenizer.special, format_of(tokenizer.special)
    ids = [special[form.begin]] if form.begin else []
    if tokenizer.system and (not messages or messages[0]["role"] != "system"):
        messages = [{"role": "system", "content": tokenizer.system}, *messages]
    mask = [0] * len(ids)
    for message in messages:
        head = len(_head(tokenizer, form, message["role"]))
        whole = _head(tokenizer, form, message["role"], form.space + message["content"])
        whole.append(special[form.end])
        after = tokenizer.encode(form.after)
        ids += whole + after
        mask += [0] * head + [int(is_learned(message))] * (len(whole) - head) + [0] * len(after)
    return ids, mask


def is_learned(message):
    """Whether the loss covers a message."""
    return message["role"] == "assistant" and message.get("weight", 1) != 0


def _head(tokenizer, form, role, content=""):
    """The ids of a message's head and content. The text that ends the head is tokenized together
    with the content."""
    ids = []
    *parts, last = SPECIAL.split(form.head.format(role=role))  # text, special token, text, special token, ...
    for text, name in zip(parts[::2], parts[1::2]):
        ids += [*tokenizer.encode(text), tokenizer.special[name]]
    return ids + tokenizer.encode(last + content)


def encode_prompt(tokenizer, messages):
    """Messages -> the ids that the assistant's next reply continues."""
    ids, _ = encode_conversation(tokenizer, messages)
    return ids + _head(tokenizer, format_of(tokenizer.special), "assistant")


def encode_last_reply(tokenizer, messages):
    """Like encode_conversation, but the mask covers only the last reply, not the replies of earlier turns.

    The ids end with the end token, as those of a sampled reply do: a reward model reads the score there.
    """
    ids, mask = encode_conversation(tokenizer, [*as_context(messages[:-1]), messages[-1]])
    stop = len(ids) - len(tokenizer.encode(format_of(tokenizer.special).after))
    return ids[:stop], mask[:stop]


def prompt_of(messages, last=True):
    """The messages before the last reply that the loss covers; with last=False, before the first one."""
    replies = [i for i, message in enumerate(messages) if is_learned(message)]
    return messages[: replies[-1 if last else 0]]


def decode_reply(tokenizer, ids):
    """The ids of a reply, with or without the end token -> the content of the reply, with U+FFFD for bytes
    that are not UTF-8."""
    ids = ids[:-1] if ids[-1:] == [tokenizer.special["<|end|>"]] else ids
    space = format_of(tokenizer.special).space
    return tokenizer.decode_bytes(ids).decode("utf-8", "replace").removeprefix(space)


def fits(ids, context):
    """Whether a whole conversation fits into the context. Its last token is only a target, never an input."""
    return len(ids) <= context + 1


def pad(sequences):
    """Sequences of whole numbers -> one array, padded with 0 to the length of the longest sequence."""
    padded = np.zeros((len(sequences), max(map(len, sequences))), np.int32)
    for row, sequence in zip(padded, sequences):
        row[: len(sequence)] = sequence
    return padded


def batch_of(rows):
    """Sequences [(ids, mask)] -> {"ids", "targets", "weights"}, each (rows, time): padded and shifted.

    Padding needs no attention mask: it is on the right, where causal attention does not see it, and its loss
    weight is 0. A masked model would see padding, so its batches have none.
    """
    ids, mask = zip(*rows)
    return shift(pad(ids), pad(mask))


def shift(ids, mask=None):
    """Sequences (..., T + 1) -> {"ids", "targets", "weights"}, each (..., T): predict the next token.

    Without a mask every target counts. Ids and targets are integers, and weights are float32.
    """
    ids = np.asarray(ids)
    weights = np.ones(ids.shape, np.float32) if mask is None else np.asarray(mask, np.float32)
    return {"ids": ids[..., :-1], "targets": ids[..., 1:], "weights": weights[..., 1:]}
