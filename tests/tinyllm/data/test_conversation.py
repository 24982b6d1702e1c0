import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm import conversation
from tinyllm.tokenizer import train

TOKENIZER = train("hello there, who is there? hello, it is me", 280)
turns = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(conversation.ROLES),
        st.text(max_size=12),
    ),
    max_size=5,
)


@given(turns)
def test_learned_is_exactly_what_the_assistant_wrote_and_its_end(messages):
    ids, targets, weights = conversation.shift(*conversation.spell(TOKENIZER, messages))
    learned = TOKENIZER.decode(targets[weights == 1])
    assert learned == "".join(f" {m['content']}<|end|>" for m in messages if m["role"] == "assistant")
    assert set(np.unique(weights)) <= {0, 1}


@given(turns)
def test_a_conversation_reads_as_its_template(messages):
    ids, _ = conversation.spell(TOKENIZER, messages)
    assert TOKENIZER.decode(ids) == "<|begin|>" + "".join(
        f"<|{m['role']}|> {m['content']}<|end|>" for m in messages
    )
    assert conversation.prompt(TOKENIZER, messages) == [*ids, TOKENIZER.special["<|assistant|>"]]


@given(turns)
def test_every_position_predicts_the_next_token(messages):
    spelled, learned = conversation.spell(TOKENIZER, messages)
    ids, targets, weights = conversation.shift(spelled, learned)
    assert (
        [*ids, spelled[-1]] == spelled
        and [spelled[0], *targets] == spelled
        and weights.tolist() == learned[1:]
    )
    assert conversation.shift(spelled)[2].tolist() == [1] * len(targets)


def test_the_rows_drawn_in_the_docstring():
    ids, targets, weights = conversation.shift(
        *conversation.spell(
            TOKENIZER, [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
        )
    )
    assert [TOKENIZER.decode([t]) for t in targets] == [
        "<|user|>", " ", "2", "+", "2", "?", "<|end|>", "<|assistant|>", " ", "4", "<|end|>"]  # fmt: skip
    assert weights.tolist() == [0] * 8 + [1] * 3


@given(st.text(max_size=12), st.booleans())
def test_what_was_spelled_is_read_back(content, ended):
    start = conversation.prompt(TOKENIZER, [])
    ids, _ = conversation.spell(TOKENIZER, [{"role": "assistant", "content": content}])
    assert conversation.read(TOKENIZER, ids[len(start):None if ended else -1]) == content


def test_an_unknown_role_is_refused():
    with pytest.raises(ValueError, match="unknown role 'robot'"):
        conversation.spell(TOKENIZER, [{"role": "robot", "content": "beep"}])
