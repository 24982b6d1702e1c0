"""agent: whatever the model writes, the loop ends, and the outcome says why.

Each call must get a result, even if it is broken or the loop is interrupted: servers refuse a conversation in
which a call has no result."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.agent import ANSWERED, CUT_OFF, REPEATED_CALL, STEP_LIMIT, STOPPED, Finish, run
from tools.builtin import calculator
from tools.protocol import BadCall, Call, Text, Thought, render_call, render_tools
from tools.registry import Registry, Result

REGISTRY = Registry([calculator])
QUESTION = [{"role": "user", "content": "12 * 7?"}]
CALL = render_call(Call("calculator", {"expression": "12*7"}))


def script(*replies):
    """A function `generate` that returns these replies one after the other."""
    remaining = iter(replies)
    return lambda messages: next(remaining)


def tool_messages(conversation, key="content"):
    """One field of each tool message."""
    return [message[key] for message in conversation.messages if message["role"] == "tool"]


def test_a_call_runs_and_the_model_gets_its_result():
    shown = []
    conversation = run(script("so " + CALL, "84."), REGISTRY, QUESTION, show=shown.append)
    assert (conversation.outcome, conversation.steps, conversation.answer) == ("answered", 2, "84.")
    assert [m["role"] for m in conversation.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert conversation.messages[3]["content"] == "<tool_response>84</tool_response>" and len(QUESTION) == 1
    assert Result("call_1_1", "calculator", True, 84) in shown
    assert Call("calculator", {"expression": "12*7"}) in shown
    assert "calculator" in conversation.messages[0]["content"] and "84" in str(conversation)


def test_the_tools_are_added_to_an_existing_system_message():
    conversation = run(script("hi"), REGISTRY, [{"role": "system", "content": "Be kind."}, *QUESTION])
    assert conversation.messages[0]["content"].startswith("Be kind.")
    assert "<tools>" in conversation.messages[0]["content"]
    assert [m["role"] for m in run(script("hi"), Registry(), QUESTION).messages] == ["user", "assistant"]


def test_the_outcome_says_why_the_conversation_ended():
    different = (render_call(Call("calculator", {"expression": str(i)})) for i in itertools.count())
    assert run(lambda m: next(different), REGISTRY, QUESTION, max_steps=3).outcome == "step limit"
    assert run(lambda m: CALL, REGISTRY, QUESTION).outcome == "repeated call"
    assert run(script(CALL[:-15]), REGISTRY, QUESTION).outcome == "cut off"
    assert run(lambda m: itertools.repeat("la "), REGISTRY, QUESTION).outcome == "cut off"
    assert run(lambda m: itertools.repeat(""), REGISTRY, QUESTION).outcome == "cut off"
    assert run(lambda m: ["so ", Finish("length")], REGISTRY, QUESTION).outcome == "cut off"


def test_bad_calls_and_failures_are_reported_to_the_model():
    conversation = run(
        script("<tool_call>{}</tool_call>" + CALL + render_call(Call("x", {})), "ok"), REGISTRY, QUESTION
    )
    results = tool_messages(conversation)
    assert "is missing" in results[0] and "84" in results[1] and "use calculator" in results[2]
    assert tool_messages(conversation, "tool_call_id") == ["call_1_1", "call_1_2", "call_1_3"]


def test_only_complete_calls_run_if_the_reply_was_cut_off():
    ran = []

    def note(text: str) -> None:
        ran.append(text)

    calls = [render_call(Call("note", {"text": text})) for text in "ab"]
    for replies in (script(calls[0] + calls[1][:-15]), lambda m: [calls[0], calls[1][:-5], Finish("length")]):
        conversation = run(replies, Registry([note]), QUESTION)
        assert conversation.outcome == "cut off" and ran == ["a"]
        results = tool_messages(conversation)
        assert "null" in results[0] and "cut_off" in results[1] and len(results) == 2
        ran.clear()


PIECES = st.sampled_from([CALL, "<think>", "<tool_call>", "</tool_call>", "{", '"', "x", "[" * 70])
PIECES |= st.text(max_size=4) | st.sampled_from([Call("x", {}), Thought("hm"), Finish("odd")])


@given(st.lists(st.lists(PIECES, max_size=5), min_size=1, max_size=4), st.integers(1, 5))
@settings(max_examples=60)
def test_any_conversation_ends_within_its_limits(replies, steps):
    turns = itertools.cycle(replies)
    conversation = run(lambda messages: iter(next(turns)), REGISTRY, QUESTION, max_steps=steps)
    assert conversation.outcome in {ANSWERED, STEP_LIMIT, REPEATED_CALL, CUT_OFF, STOPPED}
    assert 1 <= conversation.steps <= steps
    assert sum(m["role"] == "assistant" for m in conversation.messages) == conversation.steps


@pytest.mark.parametrize("limit", [0, -1])
@pytest.mark.parametrize("name", ["max_steps", "max_repeats"])
def test_a_limit_below_one_is_refused(name, limit):
    with pytest.raises(ValueError, match="max_steps and max_repeats must be at least 1"):
        run(script("hi"), REGISTRY, QUESTION, **{name: limit})


def test_a_conversation_can_be_saved(tmp_path):
    conversation = run(script(CALL, "ü"), REGISTRY, QUESTION)
    conversation.save(tmp_path / "conversation.json")
    saved = json.loads((tmp_path / "conversation.json").read_text(encoding="utf-8"))
    assert saved == vars(conversation) and saved["outcome"] == "answered"


def test_a_refused_call_does_not_run_and_the_model_is_told_why():
    ran, calls = [], []

    def act() -> None:
        ran.append(1)

    def allow(call):
        calls.append(call)
        return "not today"

    conversation = run(script(render_call(Call("act", {})), "Pity."), Registry([act]), QUESTION, allow=allow)
    assert ran == [] and "not today" in tool_messages(conversation)[0] and conversation.outcome == "answered"
    assert calls == [Call("act", {}, "call_1_1")]


def test_a_call_repeated_too_often_fails_and_the_next_repetition_ends_the_conversation():
    other = render_call(Call("calculator", {"expression": "1"}))
    conversation = run(script(CALL, CALL, CALL + other, "So 84."), REGISTRY, QUESTION, max_repeats=2)
    assert conversation.outcome == "answered" and conversation.answer == "So 84."
    assert "identical calls are limited to 2" in tool_messages(conversation)[2]
    assert ">1<" in tool_messages(conversation)[3]
    conversation = run(lambda m: CALL, REGISTRY, QUESTION, max_repeats=1)
    assert conversation.outcome == "repeated call"
    assert conversation.steps == 3
    assert len(tool_messages(conversation)) == 3
    swapped = [
        f'<tool_call>{{"name":"f","arguments":{{{x}}}}}</tool_call>' for x in ('"a":1,"b":2', '"b":2,"a":1')
    ]
    conversation = run(script(*swapped, "ok"), Registry([lambda: 0]), QUESTION, max_repeats=1)
    assert "repeated_call" in tool_messages(conversation)[1]


def test_the_tools_are_described_once_however_often_the_conversation_continues():
    description = render_tools(REGISTRY.definitions())
    first = run(script("hi"), REGISTRY, [{"role": "system", "content": "Be kind."}, *QUESTION])
    second = run(script("hi"), REGISTRY, [*first.messages, *QUESTION])
    assert (
        second.messages[0] == first.messages[0] == {"role": "system", "content": f"Be kind.\n\n{description}"}
    )
    assert run(script("hi"), Registry(), second.messages).messages[0]["content"] == "Be kind."
    parts = [{"type": "text", "text": "Be kind."}]
    first = run(script("hi"), REGISTRY, [{"role": "system", "content": parts}, *QUESTION])
    second = run(script("hi"), REGISTRY, [*first.messages, *QUESTION])
    assert second.messages[0]["content"] == [*parts, {"type": "text", "text": description}]
    assert parts == [{"type": "text", "text": "Be kind."}]


def test_thoughts_are_shown_but_are_not_part_of_the_content_and_their_calls_do_not_run():
    shown = []
    thinking = f"<think>{CALL}?</think>"
    conversation = run(
        script(f"{thinking} {CALL}", [Thought("hm"), "84"]), REGISTRY, QUESTION, show=shown.append
    )
    assert [m["role"] for m in conversation.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert conversation.messages[2]["content"] == CALL
    assert conversation.messages[2]["reasoning_content"] == f"{CALL}?"
    assert conversation.messages[4] == {"role": "assistant", "content": "84", "reasoning_content": "hm"}
    thoughts = "".join(part.text for part in shown if isinstance(part, Thought))
    assert thoughts == thinking + "hm" and conversation.answer == "84"
    assert [part for part in shown if isinstance(part, Text)][-1] == Text("84")


def test_a_call_runs_even_if_the_server_left_out_its_closing_tag():
    for reply in (CALL.removesuffix("</tool_call>"), [CALL[:-3], Finish("stop")]):
        conversation = run(script(reply, "84"), REGISTRY, QUESTION)
        assert conversation.outcome == "answered" and "84" in tool_messages(conversation)[0]
        assert conversation.messages[2]["content"] == CALL


def test_usage_and_the_finish_reason_are_recorded():
    usage = {"total_tokens": 7, "details": {"cached": 1}}
    conversation = run(
        script([CALL, Finish("stop", usage)], ["84", Finish("eos", usage)]), REGISTRY, QUESTION
    )
    assert conversation.usage == {"total_tokens": 14}
    assert (conversation.finish_reason, conversation.outcome) == ("eos", "answered")
    conversation = run(lambda m: ["I ", Finish("content_filter")], REGISTRY, QUESTION)
    assert conversation.outcome == "stopped by the server" and conversation.finish_reason == "content_filter"
    assert "stopped by the server: content_filter after 1 step" in str(conversation)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
@pytest.mark.parametrize("where", ["generate", "allow", "show"])
def test_an_exception_carries_the_conversation_so_far(error, where):
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
        if where == "show" and isinstance(part, Result):
            raise error("stop")

    with pytest.raises(error) as caught:
        run(generate, REGISTRY, QUESTION, allow=allow, show=show)
    conversation = caught.value.conversation
    assert (conversation.outcome, conversation.steps) == ("interrupted", 1)
    assert tool_messages(conversation, "tool_call_id") == ["call_1_1", "call_1_2"]
    assert ("interrupted" in tool_messages(conversation)[1]) is (where != "generate")


class Native:
    """A `generate` whose calls are native. Returns the given replies in turn; each is a list of pieces."""

    native = True

    def __init__(self, *replies):
        self.replies, self.requests = iter(replies), []

    def __call__(self, messages, tools):
        self.requests.append((list(messages), tools))
        return next(self.replies)


def test_native_calls_are_answered_by_id_as_the_chat_api_requires():
    calls = [Call("calculator", {"expression": "1"}, "a"), Call("calculator", {"expression": "2"}, "b")]
    bad = BadCall("x", "The arguments are not JSON", name="calculator", id="c")
    model = Native(["Let me.", *calls, bad, Finish("tool_calls")], ["3"])
    conversation = run(model, REGISTRY, QUESTION)
    assert model.requests[0] == (QUESTION, REGISTRY.definitions())
    message = conversation.messages[1]
    assert message["content"] == "Let me." and [c["id"] for c in message["tool_calls"]] == ["a", "b", "c"]
    assert message["tool_calls"][2]["function"]["arguments"] == "{}"
    results = conversation.messages[2:5]
    assert [(m["role"], m["tool_call_id"]) for m in results] == [("tool", id) for id in "abc"]
    assert [m["content"] for m in results[:2]] == ["1", "2"] and "not JSON" in results[2]["content"]
    assert conversation.answer == "3"
    assert '[assistant] Let me.<tool_call>{"name":"calculator"' in str(conversation)


@pytest.mark.parametrize(
    "reason, outcome", [("tool_use", "answered"), ("STOP", "answered"), ("MAX_TOKENS", "cut off")]
)
def test_finish_reasons_of_different_servers_are_understood(reason, outcome):
    replies = iter([[CALL, Finish(reason)], ["84", Finish("stop")]])
    assert run(lambda messages: next(replies), REGISTRY, QUESTION).outcome == outcome


def test_lone_surrogates_and_messages_without_content_can_be_used_shown_and_saved(tmp_path):
    call = {"id": "a", "type": "function", "function": {"name": "calculator", "arguments": "{}"}}
    history = [
        {"role": "system", "content": None},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "assistant", "content": "x", "tool_calls": None},
        *QUESTION,
    ]
    conversation = run(script("\ud83d"), REGISTRY, history)
    assert "calculator" in str(conversation)
    conversation.save(tmp_path / "conversation.json")
    assert json.loads((tmp_path / "conversation.json").read_text(encoding="utf-8"))["outcome"] == "answered"


def test_a_reply_that_finishes_without_a_reason_counts_as_cut_off():
    assert run(lambda messages: iter(["84", Finish(None)]), REGISTRY, QUESTION).outcome == "cut off"


@pytest.mark.parametrize("ids", [("call_1_2", ""), ("a", "a"), ("", "")])
def test_calls_get_new_ids_if_an_id_is_missing_or_repeated(ids):
    calls = [Call("calculator", {"expression": str(i)}, id) for i, id in enumerate(ids)]
    replies = iter([[*calls, Finish("tool_calls")], ["3", Finish("stop")]])
    conversation = run(lambda messages: next(replies), REGISTRY, QUESTION)
    new_ids = tool_messages(conversation, "tool_call_id")
    assert len(new_ids) == len(set(new_ids)) == 2 and "" not in new_ids
