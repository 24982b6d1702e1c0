"""conversation: the loss must cover exactly what the assistant wrote, and no text may become a special token.

Otherwise the model would learn to write questions, or a user could end a message and speak as the assistant.
"""

import copy
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.data.conversation import (
    FORMATS,
    ROLES,
    TEMPLATE,
    batch_of,
    decode_reply,
    encode_conversation,
    encode_last_reply,
    encode_prompt,
    pad,
    shift,
)
from tinyllm.tokenizer import SPECIALS, train

TOKENIZER = train("hello there, who is there? hello, it is me", 280)
contents = st.text(max_size=12) | st.sampled_from(SPECIALS)
conversations = st.lists(
    st.builds(lambda role, content: {"role": role, "content": content}, st.sampled_from(ROLES), contents),
    max_size=5,
)


@given(conversations)
def test_the_loss_covers_exactly_the_replies_of_the_assistant_and_their_end_tokens(messages):
    batch = shift(*encode_conversation(TOKENIZER, messages))
    learned = TOKENIZER.decode(batch["targets"][batch["weights"] == 1])
    assert learned == "".join(f" {m['content']}<|end|>" for m in messages if m["role"] == "assistant")
    assert set(np.unique(batch["weights"])) <= {0, 1}


@given(conversations)
def test_the_ids_of_a_conversation_decode_to_the_documented_format(messages):
    ids, _ = encode_conversation(TOKENIZER, messages)
    rendered = "".join(f"<|{m['role']}|> {m['content']}<|end|>" for m in messages)
    assert TOKENIZER.decode(ids) == f"<|begin|>{rendered}"
    assert encode_prompt(TOKENIZER, messages) == [*ids, TOKENIZER.special["<|assistant|>"]]


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@given(st.text(max_size=12))
def test_in_every_format_the_last_reply_has_the_same_ids_as_a_sampled_reply(form, content):
    """Otherwise a reward model would be trained at one token and its score would be read at another."""
    tokenizer = copy.copy(train("", 256))
    names = sorted(form.tokens() | {"<|user|>"})
    tokenizer.special = {name: 300 + i for i, name in enumerate(names)}
    prompt = [{"role": "user", "content": "hello"}]
    sampled = [*tokenizer.encode(form.space + content), tokenizer.special[form.end]]
    ids, mask = encode_last_reply(tokenizer, [*prompt, {"role": "assistant", "content": content}])
    assert ids == encode_prompt(tokenizer, prompt) + sampled
    assert sum(mask) == len(sampled) and all(mask[-len(sampled) :])


@given(conversations)
def test_no_content_is_encoded_as_a_special_token(messages):
    """The only special tokens are the begin token and two tokens for each message: its role and its end."""
    ids, _ = encode_conversation(TOKENIZER, messages)
    special = [TOKENIZER.decode([i]) for i in ids if i >= TOKENIZER.ordinary]
    assert special == ["<|begin|>", *(t for m in messages for t in (f"<|{m['role']}|>", "<|end|>"))]


def test_the_template_for_other_programs_mentions_only_tokens_that_exist():
    assert set(re.findall(r"<\|\w+\|>", TEMPLATE)) <= set(SPECIALS)
    assert {f"<|{role}|>" for role in ROLES} <= set(SPECIALS)


@given(conversations)
def test_every_position_predicts_the_next_token(messages):
    ids, mask = encode_conversation(TOKENIZER, messages)
    batch = shift(ids, mask)
    assert [*batch["ids"], ids[-1]] == ids and [ids[0], *batch["targets"]] == ids
    assert batch["weights"].tolist() == mask[1:]
    assert shift(ids)["weights"].tolist() == [1] * (len(ids) - 1)


def test_the_example_in_the_docstring_is_right():
    messages = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
    batch = shift(*encode_conversation(TOKENIZER, messages))
    ids, targets = ([TOKENIZER.decode([i]) for i in batch[name]] for name in ("ids", "targets"))
    assert targets == "<|user|>, ,2,+,2,?,<|end|>,<|assistant|>, ,4,<|end|>".split(",")
    assert ids == ["<|begin|>", *targets[:-1]]
    assert batch["weights"].tolist() == [0] * 8 + [1] * 3


@given(st.text(max_size=12), st.booleans())
def test_a_reply_is_decoded_with_or_without_its_end_token(content, ended):
    prompt = encode_prompt(TOKENIZER, [])
    ids, _ = encode_conversation(TOKENIZER, [{"role": "assistant", "content": content}])
    assert ids[: len(prompt)] == prompt
    assert decode_reply(TOKENIZER, ids[len(prompt) : None if ended else -1]) == content


@given(st.binary(max_size=12))
def test_a_reply_that_is_not_utf8_is_decoded_with_replacement_characters(data):
    reply = decode_reply(TOKENIZER, TOKENIZER.encode(b" " + data))
    assert reply == data.decode("utf-8", "replace")
    reply.encode("utf-8")  # must not raise: replies are printed and written to files


def test_a_reply_without_content_decodes_to_an_empty_string():
    assert decode_reply(TOKENIZER, []) == decode_reply(TOKENIZER, [TOKENIZER.special["<|end|>"]]) == ""


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1)), max_size=6), min_size=1, max_size=4)
)
def test_shorter_rows_are_padded_with_0_and_padding_has_no_weight(rows):
    rows = [([i for i, _ in row], [weight for _, weight in row]) for row in rows]
    ids, mask = pad([ids for ids, _ in rows]), pad([mask for _, mask in rows])
    assert ids.shape == mask.shape == (len(rows), max(len(ids) for ids, _ in rows))
    for row, row_ids, row_mask in zip(rows, ids.tolist(), mask.tolist()):
        rest = [0] * (len(row_ids) - len(row[0]))
        assert (row_ids, row_mask) == (row[0] + rest, row[1] + rest)
    batch = batch_of(rows)
    for name, array in shift(ids, mask).items():
        np.testing.assert_array_equal(batch[name], array)


def test_an_unknown_role_is_refused():
    with pytest.raises(KeyError, match="robot"):
        encode_conversation(TOKENIZER, [{"role": "robot", "content": "beep"}])
