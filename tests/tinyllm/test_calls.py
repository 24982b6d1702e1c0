"""calls: a mask makes every model, even a random one, write valid tool calls within its budget of tokens.

With a wrong mask, a model could write an invalid call, or run out of tokens in the middle of a call.
"""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import random_model

from tinyllm import tokenizer
from tinyllm.calls import ENDING, CallMask
from tinyllm.data.conversation import decode_reply, encode_prompt
from tinyllm.sampling import generate
from tinyllm.transformer import Config
from tools.builtin import TOOLS
from tools.protocol import OPEN, BadCall, Call, parse, render_call
from tools.registry import Registry

REGISTRY = Registry(TOOLS)
WORDS = tokenizer.train([json.dumps(REGISTRY.definitions()), OPEN * 9, "a > b"], 400)
END = WORDS.special["<|end|>"]
CONFIG = Config(len(WORDS), context=352, layers=1, width=16, heads=2)
PROMPT = encode_prompt(WORDS, [{"role": "user", "content": "Call a tool."}])
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def forced():
    """A mask that makes every reply consist of exactly one call."""
    return CallMask(WORDS, REGISTRY, only=True)


@pytest.fixture(scope="module")
def optional():
    """A mask that lets a reply contain calls and text."""
    return CallMask(WORDS, REGISTRY)


def replies(mask, budgets, seed, start=""):
    """The replies (ids) of a random model, one for each budget (a maximum number of tokens). Every reply
    begins with the text `start`."""
    model = random_model(CONFIG, np.random.default_rng(seed), np.float32, scale=0.3)
    start_ids = WORDS.encode(start)

    def mask_after_start(row, written, room):
        assert room == max(budgets) - len(written)
        allowed = mask(row, written, budgets[row] - len(written))
        if len(written) < len(start_ids):
            assert allowed is None or allowed[start_ids[len(written)]]
            return np.arange(len(WORDS)) == start_ids[len(written)]
        return allowed

    draws = np.random.default_rng(seed + 1).random((len(budgets), max(budgets)))
    return generate(model, [PROMPT] * len(budgets), max(budgets), draws, stop=END, mask=mask_after_start)


def test_random_models_write_hundreds_of_valid_calls_within_their_budgets(forced):
    names = set()
    for seed in range(3):
        budgets = np.random.default_rng(seed).integers(forced.need, 90, 100).tolist()
        for budget, ids in zip(budgets, replies(forced, budgets, seed)):
            assert ids[-1] == END and len(ids) <= budget
            (call,) = parse(decode_reply(WORDS, ids))
            assert isinstance(call, Call) and REGISTRY.accepts(call)
            names.add(call.name)
    assert names == set(REGISTRY.tools)


def test_the_smallest_budget_for_a_call_is_enough_and_one_token_less_is_not(forced):
    (ids,) = replies(forced, [forced.need], 3)
    assert len(ids) <= forced.need and REGISTRY.accepts(parse(decode_reply(WORDS, ids))[0])
    with pytest.raises(ValueError, match="budget|no token"):
        replies(forced, [forced.need - 1], 3)


starts = st.sampled_from(
    ["so <tool", "so <tool_ca", "so <tool_call>", "so <tool_call>{", 'a > b <tool_call>{"na']
)


@settings(max_examples=10)
@given(seeds, starts, st.integers(0, 60))
def test_a_call_that_the_model_itself_begins_becomes_a_valid_call(optional, seed, text, spare):
    budget = len(WORDS.encode(f" {text}")) + optional.need + ENDING + 1 + spare
    (ids,) = replies(optional, [budget], seed, f" {text}")
    reply = decode_reply(WORDS, ids)
    parts = parse(reply)
    assert reply.startswith(text) and len(ids) <= budget
    assert not any(isinstance(part, BadCall) for part in parts)
    calls = [part for part in parts if isinstance(part, Call)]
    assert calls and all(map(REGISTRY.accepts, calls))


def test_without_room_for_a_whole_call_the_mask_allows_no_token_that_could_begin_one(optional):
    written = np.array(WORDS.encode(" so"))
    opens = np.array([b"<" in token for token in optional.vocabulary])
    assert opens.sum() > 1
    for room in range(1, optional.need + ENDING + 9):
        optional(0, written[:0], room + len(written))
        allowed = optional(0, written, room)
        if room <= optional.need + ENDING:
            assert (allowed == ~opens).all()
        else:
            assert allowed is None


def test_a_reply_cannot_end_inside_a_call_and_text_may_follow_the_call(optional):
    ids = np.array(WORDS.encode(f" {render_call(Call('calculator', {'expression': '1+1'}))}"))
    for length in range(len(ids) + 1):
        allowed, inside = optional(0, ids[:length], 1000), "<tool" in WORDS.decode(ids[:length].tolist())
        if inside and length < len(ids):
            assert not allowed[END] and allowed[ids[length]] and not allowed.all()
        else:
            assert allowed is None


@settings(max_examples=5)
@given(seeds)
def test_the_mask_of_a_row_depends_only_on_the_tokens_of_that_row(optional, seed):
    """Other rows have no effect, and tokens may arrive one by one or all at once."""
    ids = np.array(replies(optional, [optional.need + 80] * 2, seed, " <tool_call>")[0])
    one_by_one = [optional(1, ids[:length], 200 - length) for length in range(len(ids))]
    for length, allowed in enumerate(one_by_one):
        for row in (0, 2):
            optional(row, ids[:0], 200)
        optional(0, ids[:1], 199)
        at_once = optional(2, ids[:length], 200 - length)
        assert (allowed is None) == (at_once is None)
        assert allowed is None or (allowed == at_once).all()


def test_a_row_without_tokens_begins_a_new_reply(optional):
    ids = np.array(WORDS.encode(" <tool_call>{"))
    assert optional(0, ids[:0], 200) is None
    assert optional(0, ids, 200) is not None
    assert optional(0, ids[:0], 200) is None and optional(0, ids[:1], 200) is None


def test_make_tools_proof_reports_how_many_calls_are_invalid(monkeypatch, capsys):
    script = Path(__file__).parents[1] / "bench" / "tools_proof.py"
    monkeypatch.setattr("sys.argv", [str(script), "--count", "30"])
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.startswith("30 calls, 0 invalid")
