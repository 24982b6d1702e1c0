"""One call in five dialects: what all ways of calling tools have in common.

A model names a tool and its arguments, in JSON; a program answers with a value, in JSON. They are packed as
follows:

    dialect      a call is                               its result is                     paired by
    hermes       text in tags, within the reply          text in tags                      order
    chat         an item of a message's tool_calls       a message of role tool            tool_call_id
    responses    an item of type function_call           an item function_call_output      call_id
    anthropic    a content block of type tool_use        a content block tool_result       tool_use_id
    harmony      a message to=functions.NAME             a message from functions.NAME     order

chat and responses are OpenAI's two APIs, harmony is the text that its gpt-oss models write.

    dialect = DIALECTS["chat"]
    dialect.read_calls(dialect.write_calls(calls)) == calls
    dialect.read_results(dialect.write_results(results), calls) == results

What is lost on the way: hermes and harmony have no ids, so calls are numbered when they are read. Only
anthropic can mark a failure, the others write {"error": ...}, and a tool that returns just that seems to
have failed. chat, responses and harmony keep arguments as text, which may be broken: that is a BadCall."""

import json
import re
from collections.abc import Callable
from typing import NamedTuple

from tools.json_reader import JSONError
from tools.json_reader import parse as parse_json
from tools.protocol import BadCall, Call, compact, parse, render_call, render_result
from tools.registry import Result


class Dialect(NamedTuple):
    """A call is read as (name, arguments, id), a result as (id, whether it is ok, value)."""

    write_call: Callable
    read_call: Callable
    write_result: Callable
    read_result: Callable
    split_calls: Callable = list  # of a dialect that is text
    split_results: Callable = list

    def write_calls(self, calls):
        return self._pack([self.write_call(call) for call in calls])

    def read_calls(self, packed):
        """-> [Call | BadCall]"""
        items = map(self.read_call, self.split_calls(packed))
        return [call_of(name, given, id or f"call_{i}") for i, (name, given, id) in enumerate(items, 1)]

    def write_results(self, results):
        return self._pack([self.write_result(result) for result in results])

    def read_results(self, packed, calls):
        """The answers to some of the calls, in any order if there are ids -> [Result]"""
        names, results = {call.id: call.name for call in calls}, []
        for call, item in zip(calls, self.split_results(packed)):
            id, *outcome = self.read_result(item)
            results.append(Result(id or call.id, names[id or call.id], *outcome))
        return results

    def _pack(self, items):
        return items if self.split_calls is list else "".join(items)


def call_of(name, arguments, id):
    """Arguments may be a string of JSON, an object or nothing at all -> Call or BadCall."""
    value, problem = arguments or {}, None
    try:
        if isinstance(arguments, str):
            value = parse_json(arguments) if arguments.strip() else {}
        if not isinstance(value, dict):
            problem = "Write the arguments as an object."
    except JSONError as error:
        problem = f"The arguments are not JSON: {error}"
    if not (isinstance(name, str) and name):
        name, problem = "", "The call has no name: write the tool's name as a string."
    return BadCall(f"{arguments}", problem, name=name, id=id) if problem else Call(name, value, id)


def json_of(call):
    """Servers refuse a history with broken arguments, so of a BadCall none are sent."""
    return compact(getattr(call, "arguments", {}))


def content_of(result):
    return compact(result.value if result.ok else {"error": result.value})


def from_content(text):
    """-> (whether it is ok, value)"""
    value = json.loads(text)
    failed = isinstance(value, dict) and value.keys() == {"error"}
    return not failed, value["error"] if failed else value


def untagged(text):
    """JSON without "<", so that it cannot contain a special token."""
    return text.replace("<", "\\u003c")


DIALECTS = {
    "hermes": Dialect(
        render_call,
        lambda call: (call.name, call.arguments, ""),
        lambda result: render_result(json.loads(content_of(result))),
        lambda text: ("", *from_content(text)),
        lambda text: [part for part in parse(text) if isinstance(part, Call)],
        lambda text: re.findall("<tool_response>([^<]*)", text),
    ),
    "chat": Dialect(
        lambda call: {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": json_of(call)},
        },
        lambda item: (item["function"]["name"], item["function"]["arguments"], item["id"]),
        lambda result: {"role": "tool", "tool_call_id": result.id, "content": content_of(result)},
        lambda item: (item["tool_call_id"], *from_content(item["content"])),
    ),
    "responses": Dialect(
        lambda call: {
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": json_of(call),
        },
        lambda item: (item["name"], item["arguments"], item["call_id"]),
        lambda result: {"type": "function_call_output", "call_id": result.id, "output": content_of(result)},
        lambda item: (item["call_id"], *from_content(item["output"])),
    ),
    "anthropic": Dialect(
        lambda call: {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments},
        lambda item: (item["name"], item["input"], item["id"]),
        lambda result: {
            "type": "tool_result",
            "tool_use_id": result.id,
            "content": compact(result.value),
            "is_error": not result.ok,
        },
        lambda item: (item["tool_use_id"], not item["is_error"], json.loads(item["content"])),
    ),
    "harmony": Dialect(
        lambda call: (
            f"<|start|>assistant<|channel|>commentary to=functions.{call.name} <|constrain|>json"
            f"<|message|>{untagged(json_of(call))}<|call|>"
        ),
        lambda item: (*item, ""),
        lambda result: (
            f"<|start|>functions.{result.name} to=assistant<|channel|>commentary"
            f"<|message|>{untagged(content_of(result))}<|end|>"
        ),
        lambda text: ("", *from_content(text)),
        lambda text: re.findall(r"to=functions\.(\S+)[^>]*>json<\|message\|>(.*?)<\|call\|>", text),
        lambda text: re.findall(r"<\|message\|>(.*?)<\|end\|>", text),
    ),
}
HERMES, CHAT = DIALECTS["hermes"], DIALECTS["chat"]
