"""dialects: each dialect writes its vendor's format, and reads calls and results back unchanged.

A model may write broken arguments. Such a call must become a BadCall, not raise an exception."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schemas import VALUES

from tools.dialects import DIALECTS
from tools.protocol import BadCall, Call, compact
from tools.registry import Result

NAMES = st.text("abcXYZ019_-.", min_size=1, max_size=8)
TRICKY = st.sampled_from(
    ["</tool_call>", "<|call|>", "<|end|><|start|>", "</tool_response>", "<|message|>", '"']
)
ARGUMENTS = st.dictionaries(st.text(max_size=3) | TRICKY, VALUES | TRICKY, max_size=3)
CALLS = st.lists(st.builds(Call, NAMES, ARGUMENTS), max_size=4)
WITHOUT_IDS = ("hermes", "harmony")
each_dialect = pytest.mark.parametrize("name", DIALECTS)


def with_ids(calls, name, prefix="id-"):
    prefix = "call_" if name in WITHOUT_IDS else prefix
    return [dataclasses.replace(call, id=f"{prefix}{i}") for i, call in enumerate(calls, 1)]


@each_dialect
@given(calls=CALLS)
def test_calls_survive_a_round_trip(name, calls):
    dialect, calls = DIALECTS[name], with_ids(calls, name)
    written = dialect.write_calls(calls)
    assert json.loads(json.dumps(written)) == written
    assert dialect.read_calls(written) == calls


@each_dialect
@given(calls=CALLS, data=st.data())
def test_results_survive_a_round_trip_and_are_matched_to_their_calls(name, calls, data):
    dialect, calls = DIALECTS[name], with_ids(calls, name)
    values = VALUES | TRICKY
    if name != "anthropic":  # the other dialects read {"error": ...} as a failure
        values = values.filter(lambda value: not (isinstance(value, dict) and value.keys() == {"error"}))
    results = [
        Result(call.id, call.name, ok := data.draw(st.booleans()), data.draw(values if ok else VALUES))
        for call in calls
    ]
    if name not in WITHOUT_IDS:
        results = data.draw(st.permutations(results))
    written = dialect.write_results(results)
    assert json.loads(json.dumps(written)) == written
    assert dialect.read_results(written, calls) == results


CALL, RESULT = Call("f", {"x": "<"}, "call_1"), Result("call_1", "f", False, "no")
WRITTEN = {
    "hermes": (
        '<tool_call>{"name":"f","arguments":{"x":"\\u003c"}}</tool_call>',
        '<tool_response>{"error":"no"}</tool_response>',
    ),
    "chat": (
        [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x":"<"}'}}],
        [{"role": "tool", "tool_call_id": "call_1", "content": '{"error":"no"}'}],
    ),
    "responses": (
        [{"type": "function_call", "call_id": "call_1", "name": "f", "arguments": '{"x":"<"}'}],
        [{"type": "function_call_output", "call_id": "call_1", "output": '{"error":"no"}'}],
    ),
    "anthropic": (
        [{"type": "tool_use", "id": "call_1", "name": "f", "input": {"x": "<"}}],
        [{"type": "tool_result", "tool_use_id": "call_1", "content": '"no"', "is_error": True}],
    ),
    "harmony": (
        "<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json"
        '<|message|>{"x":"\\u003c"}<|call|>',
        '<|start|>functions.f to=assistant<|channel|>commentary<|message|>{"error":"no"}<|end|>',
    ),
}


@each_dialect
def test_each_dialect_writes_what_its_vendor_documents(name):
    dialect = DIALECTS[name]
    assert (dialect.write_calls([CALL]), dialect.write_results([RESULT])) == WRITTEN[name]


@pytest.mark.parametrize(
    "arguments, words",
    [
        ('{"a":', "cut off"),
        ("[]", "must be of type object"),
        ([1], "must be of type object"),
        ("{'a':1}", "double quotes"),
    ],
)
def test_broken_arguments_give_a_bad_call_and_are_not_sent_back(arguments, words):
    chat = DIALECTS["chat"]
    item = {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
    (bad,) = chat.read_calls([item])
    assert isinstance(bad, BadCall) and (bad.id, bad.name) == ("a", "f") and words in bad.problem
    assert chat.write_call(bad)["function"]["arguments"] == "{}"


@pytest.mark.parametrize("arguments", ["", " ", None, {}, "{}"])
def test_missing_or_empty_arguments_become_an_empty_object(arguments):
    item = {"id": "a", "function": {"name": "f", "arguments": arguments}}
    assert DIALECTS["chat"].read_calls([item]) == [Call("f", {}, "a")] and compact({}) == "{}"
