"""calls: any model writes valid tool calls, each completed within its budget of tokens."""

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
def only():
    """A mask whose replies are one call and nothing else."""
    return CallMask(WORDS, REGISTRY, [], only=True)


@pytest.fixture(scope="module")
def free():
    return CallMask(WORDS, REGISTRY, [])


def replies(mask, budgets, seed, follow=None, scale=0.3):
    """The ids that a random model writes. follow: a text that they must begin with."""
    model = random_model(CONFIG, np.random.default_rng(seed), np.float32, scale)
    begun = WORDS.encode(follow) if follow else []

    def led(row, written):
        allowed = mask(row, written)
        if len(written) < len(begun):
            assert allowed is None or allowed[begun[len(written)]]
            return np.arange(len(WORDS)) == begun[len(written)]
        return allowed

    mask.restart(budgets)
    draws = np.random.default_rng(seed + 1).random((len(budgets), max(budgets)))
    return generate(model, [PROMPT] * len(budgets), max(budgets), draws, stop=END, mask=led)


def test_hundreds_of_calls_of_random_models_are_valid_and_closed_within_their_budget(only):
    names = set()
    for seed in range(3):
        budgets = np.random.default_rng(seed).integers(only.need, 90, 100).tolist()
        for budget, ids in zip(budgets, replies(only, budgets, seed)):
            assert ids[-1] == END and len(ids) <= budget
            (call,) = parse(decode_reply(WORDS, ids))
            assert isinstance(call, Call) and REGISTRY.accepts(call)
            names.add(call.name)
    assert names == set(REGISTRY.tools)


def test_the_shortest_budget_is_enough_and_one_token_less_is_not(only):
    (ids,) = replies(only, [only.need], 3)
    assert len(ids) <= only.need and REGISTRY.accepts(parse(decode_reply(WORDS, ids))[0])
    with pytest.raises(ValueError, match="budget|no token"):
        replies(only, [only.need - 1], 3)


beginnings = st.sampled_from(
    ["so <tool", "so <tool_ca", "so <tool_call>", "so <tool_call>{", 'a > b <tool_call>{"na']
)


@settings(max_examples=10)
@given(seeds, beginnings, st.integers(0, 60))
def test_a_call_that_a_model_begins_itself_is_finished_validly(free, seed, text, spare):
    budget = len(WORDS.encode(f" {text}")) + free.need + ENDING + 1 + spare
    (ids,) = replies(free, [budget], seed, f" {text}")
    reply = decode_reply(WORDS, ids)
    parts = parse(reply)
    assert reply.startswith(text) and len(ids) <= budget
    assert not any(isinstance(part, BadCall) for part in parts)
    calls = [part for part in parts if isinstance(part, Call)]
    assert calls and all(map(REGISTRY.accepts, calls))


def test_without_room_for_a_whole_call_no_token_that_could_open_one_is_allowed(free):
    begun = WORDS.encode(" so")
    opens = np.array([b"<" in piece for piece in free.vocabulary])
    assert opens.sum() > 1
    for room in range(1, free.need + ENDING + 9):
        free.restart([len(begun) + room])
        allowed = free(0, np.array(begun))
        if room <= free.need + ENDING:
            assert (allowed == ~opens).all()
        else:
            assert allowed is None


def test_a_reply_cannot_end_inside_a_call_and_text_may_follow_the_call(free):
    ids = np.array(WORDS.encode(f" {render_call(Call('calculator', {'expression': '1+1'}))}"))
    free.restart([1000])
    for length in range(len(ids) + 1):
        allowed, inside = free(0, ids[:length]), "<tool" in WORDS.decode(ids[:length].tolist())
        if inside and length < len(ids):
            assert not allowed[END] and allowed[ids[length]] and not allowed.all()
        else:
            assert allowed is None


@settings(max_examples=5)
@given(seeds)
def test_the_mask_of_a_row_depends_on_its_own_tokens_and_not_on_other_rows_or_earlier_steps(free, seed):
    ids = np.array(replies(free, [free.need + 80] * 2, seed, " <tool_call>")[0])
    free.restart([200, 200, 200])
    stepwise = [free(1, ids[:length]) for length in range(len(ids))]
    for length, allowed in enumerate(stepwise):
        free.restart([200, 200, 200])
        free(0, ids[:1])
        at_once = free(2, ids[:length])
        assert (allowed is None) == (at_once is None)
        assert allowed is None or (allowed == at_once).all()


def test_restart_forgets_what_the_rows_have_written(free):
    ids = np.array(WORDS.encode(" <tool_call>{"))
    free.restart([200])
    assert free(0, ids) is not None
    free.restart([200])
    assert free(0, ids[:1]) is None


def test_make_tools_proof_counts_its_calls(monkeypatch, capsys):
    script = Path(__file__).parents[1] / "bench" / "tools_proof.py"
    monkeypatch.setattr("sys.argv", [str(script), "--count", "30"])
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.startswith("30 calls, 0 invalid")
