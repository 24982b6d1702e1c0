"""agent: whatever the model writes, the loop ends, and the outcome says how."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.agent import OUTCOMES, Finish, run
from tools.builtin import calculator
from tools.protocol import BadCall, Call, Text, Thought, render_call, render_tools
from tools.registry import Registry, Result

REGISTRY = Registry([calculator])
ASK = [{"role": "user", "content": "12 * 7?"}]
CALL = render_call(Call("calculator", {"expression": "12*7"}))


def script(*replies):
    left = iter(replies)
    return lambda messages: next(left)


def test_a_call_runs_and_its_result_comes_back():
    seen = []
    talk = run(script("so " + CALL, "84."), REGISTRY, ASK, show=seen.append)
    assert (talk.outcome, talk.steps, talk.answer) == ("answered", 2, "84.")
    assert [m["role"] for m in talk.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert talk.messages[3]["content"] == "<tool_response>84</tool_response>" and len(ASK) == 1
    assert (
        Result("call_1_1", "calculator", True, 84) in seen
        and Call("calculator", {"expression": "12*7"}) in seen
    )
    assert "calculator" in talk.messages[0]["content"] and "84" in str(talk)


def test_the_tools_are_added_to_an_existing_system_message():
    talk = run(script("hi"), REGISTRY, [{"role": "system", "content": "Be kind."}, *ASK])
    assert talk.messages[0]["content"].startswith("Be kind.") and "<tools>" in talk.messages[0]["content"]
    assert [m["role"] for m in run(script("hi"), Registry(), ASK).messages] == ["user", "assistant"]


def test_every_outcome_is_named():
    different = (render_call(Call("calculator", {"expression": str(i)})) for i in itertools.count())
    assert run(lambda m: next(different), REGISTRY, ASK, max_steps=3).outcome == "step limit"
    assert run(lambda m: CALL, REGISTRY, ASK).outcome == "repeated call"
    assert run(script(CALL[:-15]), REGISTRY, ASK).outcome == "cut off"
    assert run(lambda m: itertools.repeat("la "), REGISTRY, ASK).outcome == "cut off"
    assert run(lambda m: itertools.repeat(""), REGISTRY, ASK).outcome == "cut off"
    assert run(lambda m: ["so ", Finish("length")], REGISTRY, ASK).outcome == "cut off"


def test_bad_calls_and_failures_are_reported_to_the_model():
    talk = run(script("<tool_call>{}</tool_call>" + CALL + render_call(Call("x", {})), "ok"), REGISTRY, ASK)
    results = [m["content"] for m in talk.messages if m["role"] == "tool"]
    assert "is missing" in results[0] and "84" in results[1] and "use calculator" in results[2]
    assert [m["tool_call_id"] for m in talk.messages if m["role"] == "tool"] == [
        "call_1_1",
        "call_1_2",
        "call_1_3",
    ]


def test_only_the_complete_calls_of_a_reply_that_was_cut_off_run():
    ran = []

    def note(text: str) -> None:
        ran.append(text)

    calls = [render_call(Call("note", {"text": text})) for text in "ab"]
    for replies in (script(calls[0] + calls[1][:-15]), lambda m: [calls[0], calls[1][:-5], Finish("length")]):
        talk = run(replies, Registry([note]), ASK)
        assert talk.outcome == "cut off" and ran == ["a"]
        results = [m["content"] for m in talk.messages if m["role"] == "tool"]
        assert "null" in results[0] and "cut_off" in results[1] and len(results) == 2
        ran.clear()


PIECES = st.sampled_from([CALL, "<think>", "<tool_call>", "</tool_call>", "{", '"', "x", "[" * 70])
PIECES |= st.text(max_size=4) | st.sampled_from([Call("x", {}), Thought("hm"), Finish("odd")])


@given(st.lists(st.lists(PIECES, max_size=5), min_size=1, max_size=4), st.integers(1, 5))
@settings(max_examples=60)
def test_any_conversation_ends_within_its_limits(replies, steps):
    turns = itertools.cycle(replies)
    talk = run(lambda messages: iter(next(turns)), REGISTRY, ASK, max_steps=steps)
    assert talk.outcome in OUTCOMES and 1 <= talk.steps <= steps
    assert sum(m["role"] == "assistant" for m in talk.messages) == talk.steps


@pytest.mark.parametrize("limit", [0, -1])
@pytest.mark.parametrize("name", ["max_steps", "max_repeats"])
def test_a_limit_below_one_is_refused(name, limit):
    with pytest.raises(ValueError, match="max_steps and max_repeats must be at least 1"):
        run(script("hi"), REGISTRY, ASK, **{name: limit})


def test_a_conversation_can_be_saved(tmp_path):
    talk = run(script(CALL, "ü"), REGISTRY, ASK)
    talk.save(tmp_path / "talk.json")
    saved = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))
    assert saved == vars(talk) and saved["outcome"] == "answered"


def results_in(talk):
    return [message["content"] for message in talk.messages if message["role"] == "tool"]


def test_a_refused_call_does_not_run_and_the_model_is_told_why():
    ran, asked = [], []

    def act() -> None:
        ran.append(1)

    def allow(call):
        asked.append(call)
        return "not today"

    talk = run(script(render_call(Call("act", {})), "Pity."), Registry([act]), ASK, allow=allow)
    assert ran == [] and "not today" in results_in(talk)[0] and talk.outcome == "answered"
    assert asked == [Call("act", {}, "call_1_1")]


def test_a_call_repeated_too_often_gets_an_error_and_repeating_it_again_ends_the_conversation():
    other = render_call(Call("calculator", {"expression": "1"}))
    talk = run(script(CALL, CALL, CALL + other, "So 84."), REGISTRY, ASK, max_repeats=2)
    assert talk.outcome == "answered" and talk.answer == "So 84."
    assert "identical calls are limited to 2" in results_in(talk)[2] and ">1<" in results_in(talk)[3]
    talk = run(lambda m: CALL, REGISTRY, ASK, max_repeats=1)
    assert talk.outcome == "repeated call" and talk.steps == 3 and len(results_in(talk)) == 3
    swapped = [
        f'<tool_call>{{"name":"f","arguments":{{{x}}}}}</tool_call>' for x in ('"a":1,"b":2', '"b":2,"a":1')
    ]
    talk = run(script(*swapped, "ok"), Registry([lambda: 0]), ASK, max_repeats=1)
    assert "repeated_call" in results_in(talk)[1]


def test_the_tools_are_described_once_however_many_turns_there_are():
    description = render_tools(REGISTRY.definitions())
    first = run(script("hi"), REGISTRY, [{"role": "system", "content": "Be kind."}, *ASK])
    second = run(script("hi"), REGISTRY, [*first.messages, *ASK])
    assert (
        second.messages[0] == first.messages[0] == {"role": "system", "content": f"Be kind.\n\n{description}"}
    )
    assert run(script("hi"), Registry(), second.messages).messages[0]["content"] == "Be kind."
    parts = [{"type": "text", "text": "Be kind."}]
    first = run(script("hi"), REGISTRY, [{"role": "system", "content": parts}, *ASK])
    second = run(script("hi"), REGISTRY, [*first.messages, *ASK])
    assert second.messages[0]["content"] == [*parts, {"type": "text", "text": description}]
    assert parts == [{"type": "text", "text": "Be kind."}]


def test_thoughts_are_shown_but_do_not_run_and_do_not_stay_in_the_content():
    shown = []
    thinking = f"<think>{CALL}?</think>"
    talk = run(script(f"{thinking} {CALL}", [Thought("hm"), "84"]), REGISTRY, ASK, show=shown.append)
    assert [m["role"] for m in talk.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert talk.messages[2]["content"] == CALL and talk.messages[2]["reasoning_content"] == f"{CALL}?"
    assert talk.messages[4] == {"role": "assistant", "content": "84", "reasoning_content": "hm"}
    thoughts = "".join(part.text for part in shown if isinstance(part, Thought))
    assert thoughts == thinking + "hm" and talk.answer == "84"
    assert [part for part in shown if isinstance(part, Text)][-1] == Text("84")


def test_a_call_whose_closing_tag_the_server_left_out_is_a_call():
    for reply in (CALL.removesuffix("</tool_call>"), [CALL[:-3], Finish("stop")]):
        talk = run(script(reply, "84"), REGISTRY, ASK)
        assert talk.outcome == "answered" and "84" in results_in(talk)[0]
        assert talk.messages[2]["content"] == CALL


def test_usage_and_the_finish_reason_are_kept():
    usage = {"total_tokens": 7, "details": {"cached": 1}}
    talk = run(script([CALL, Finish("stop", usage)], ["84", Finish("eos", usage)]), REGISTRY, ASK)
    assert (talk.usage, talk.finish_reason, talk.outcome) == ({"total_tokens": 14}, "eos", "answered")
    talk = run(lambda m: ["I ", Finish("content_filter")], REGISTRY, ASK)
    assert talk.outcome == "stopped by the server" and talk.finish_reason == "content_filter"
    assert "stopped by the server: content_filter after 1 step" in str(talk)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
@pytest.mark.parametrize("where", ["generate", "allow", "tool"])
def test_the_conversation_so_far_comes_with_the_exception(error, where):
    steps = itertools.count(1)

    def generate(messages):
        if where == "generate" and len(messages) > 3:
            raise error("stop")
        return CALL + CALL if next(steps) == 1 else "unreached"

    def allow(call):
        if where == "allow" and call.id == "call_1_2":
            raise error("stop")
        return True

    def show(part):
        if where == "tool" and isinstance(part, Result):
            raise error("stop")

    with pytest.raises(error) as caught:
        run(generate, REGISTRY, ASK, allow=allow, show=show)
    talk = caught.value.conversation
    assert (talk.outcome, talk.steps) == ("interrupted", 1)
    assert [m["tool_call_id"] for m in talk.messages if m["role"] == "tool"] == ["call_1_1", "call_1_2"]
    assert [("interrupted" in result) for result in results_in(talk)][1] is (where != "generate")


class Native:
    """A `generate` with native calls. It returns the given replies one by one; each is a list of pieces."""

    native = True

    def __init__(self, *replies):
        self.replies, self.asked = iter(replies), []

    def __call__(self, messages, tools):
        self.asked.append((list(messages), tools))
        return next(self.replies)


def test_native_calls_are_answered_by_id_as_the_chat_api_requires():
    calls = [Call("calculator", {"expression": "1"}, "a"), Call("calculator", {"expression": "2"}, "b")]
    bad = BadCall("x", "The arguments are not JSON", name="calculator", id="c")
    model = Native(["Let me.", *calls, bad, Finish("tool_calls")], ["3"])
    talk = run(model, REGISTRY, ASK)
    assert model.asked[0] == (ASK, REGISTRY.definitions())
    message = talk.messages[1]
    assert message["content"] == "Let me." and [c["id"] for c in message["tool_calls"]] == ["a", "b", "c"]
    assert message["tool_calls"][2]["function"]["arguments"] == "{}"
    results = talk.messages[2:5]
    assert [(m["role"], m["tool_call_id"]) for m in results] == [("tool", id) for id in "abc"]
    assert [m["content"] for m in results[:2]] == ["1", "2"] and "not JSON" in results[2]["content"]
    assert talk.answer == "3" and '[assistant] Let me.<tool_call>{"name":"calculator"' in str(talk)


@pytest.mark.parametrize(
    "reason, outcome", [("tool_use", "answered"), ("STOP", "answered"), ("MAX_TOKENS", "cut off")]
)
def test_finish_reasons_of_other_servers_are_understood(reason, outcome):
    replies = iter([[CALL, Finish(reason)], ["84", Finish("stop")]])
    assert run(lambda messages: next(replies), REGISTRY, ASK).outcome == outcome


def test_messages_without_content_and_lone_surrogates_can_be_used_shown_and_saved(tmp_path):
    call = {"id": "a", "type": "function", "function": {"name": "calculator", "arguments": "{}"}}
    history = [
        {"role": "system", "content": None},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "assistant", "content": "x", "tool_calls": None},
        *ASK,
    ]
    talk = run(script("\ud83d"), REGISTRY, history)
    assert "calculator" in str(talk)
    talk.save(tmp_path / "talk.json")
    assert json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))["outcome"] == "answered"


def test_a_reply_that_finishes_without_a_reason_was_cut_off():
    assert run(lambda messages: iter(["84", Finish(None)]), REGISTRY, ASK).outcome == "cut off"


@pytest.mark.parametrize("given", [("call_1_2", ""), ("a", "a"), ("", "")])
def test_calls_get_new_ids_if_one_is_missing_or_repeated(given):
    calls = [Call("calculator", {"expression": str(i)}, id) for i, id in enumerate(given)]
    replies = iter([[*calls, Finish("tool_calls")], ["3", Finish("stop")]])
    talk = run(lambda messages: next(replies), REGISTRY, ASK)
    ids = [message["tool_call_id"] for message in talk.messages if message["role"] == "tool"]
    assert len(ids) == len(set(ids)) == 2 and "" not in ids
