"""One call in five dialects: what all ways of calling tools have in common.

A model names a tool and its arguments, in JSON; a program answers with a value, in JSON. FORMS shows how each
dialect writes a call and its result. hermes is tagged text within the reply; chat and responses are OpenAI's
two APIs; anthropic uses content blocks of a message; harmony is the text format of OpenAI's gpt-oss models.

    dialect = DIALECTS["chat"]
    dialect.read_calls(dialect.write_calls(calls)) == calls
    dialect.read_results(dialect.write_results(results), calls) == results

Some dialects lose information. The text dialects have no ids, so calls are numbered as they are read, and
results must come in the order of the calls. Only anthropic can mark a failure; in the others, a tool that
returns {"error": ...} seems to have failed. If the arguments are a string of broken JSON, the call is read as
a BadCall."""

import json
import re
from typing import NamedTuple

from tools.json_reader import JSONError
from tools.json_reader import parse as parse_json
from tools.protocol import OPEN, BadCall, Call, compact, parse, problem_of
from tools.registry import Result

FORMS = {  # name -> (a call, its result)
    "hermes": (
        '<tool_call>{"name":"$NAME","arguments":$JSON}</tool_call>',
        "<tool_response>$CONTENT</tool_response>",
    ),
    "chat": (
        {"id": "$ID", "type": "function", "function": {"name": "$NAME", "arguments": "$JSON"}},
        {"role": "tool", "tool_call_id": "$ID", "content": "$CONTENT"},
    ),
    "responses": (
        {"type": "function_call", "call_id": "$ID", "name": "$NAME", "arguments": "$JSON"},
        {"type": "function_call_output", "call_id": "$ID", "output": "$CONTENT"},
    ),
    "anthropic": (
        {"type": "tool_use", "id": "$ID", "name": "$NAME", "input": "$ARGUMENTS"},
        {"type": "tool_result", "tool_use_id": "$ID", "content": "$VALUE", "is_error": "$FAILED"},
    ),
    "harmony": (
        "<|start|>assistant<|channel|>commentary to=functions.$NAME <|constrain|>json"
        "<|message|>$JSON<|call|>",
        "<|start|>functions.$NAME to=assistant<|channel|>commentary<|message|>$CONTENT<|end|>",
    ),
}
WORD = re.compile(r"\\?\$([A-Z]+)")  # with the backslash that re.escape puts before $


class Dialect(NamedTuple):
    """The forms of a call and of its result. $ARGUMENTS is an object, and $JSON its JSON text. $VALUE is the
    JSON text of a result. $CONTENT is the same, except that a failure becomes {"error": value}."""

    call: object
    result: object

    def write_call(self, call):
        """A BadCall is written with {} as its arguments, because servers refuse broken JSON in a history."""
        arguments = getattr(call, "arguments", {})
        values = {"ID": call.id, "NAME": call.name, "ARGUMENTS": arguments, "JSON": compact(arguments)}
        return filled(self.call, values)

    def write_result(self, result):
        content = compact(result.value if result.ok else {"error": result.value})
        values = {"VALUE": compact(result.value), "CONTENT": content, "FAILED": not result.ok}
        return filled(self.result, {"ID": result.id, "NAME": result.name, **values})

    def write_calls(self, calls):
        return self._pack(map(self.write_call, calls))

    def write_results(self, results):
        return self._pack(map(self.write_result, results))

    def _pack(self, items):
        return "".join(items) if isinstance(self.call, str) else list(items)

    def read_calls(self, packed):
        """-> [Call | BadCall]"""
        return [
            read_call(slots["NAME"], slots.get("ARGUMENTS", slots.get("JSON")), slots.get("ID", f"call_{i}"))
            for i, slots in enumerate(matches(self.call, packed), 1)
        ]

    def read_results(self, packed, calls):
        """The results of all or some of the calls, in any order if the results have ids -> [Result]"""
        names, results = {call.id: call.name for call in calls}, []
        for call, slots in zip(calls, matches(self.result, packed)):
            id, failed = slots.get("ID", call.id), slots.get("FAILED")
            value = json.loads(slots["VALUE" if "VALUE" in slots else "CONTENT"])
            if failed is None and isinstance(value, dict) and value.keys() == {"error"}:
                failed, value = True, value["error"]
            results.append(Result(id, names[id], not failed, value))
        return results


def filled(form, values):
    if isinstance(form, dict):
        return {key: filled(part, values) for key, part in form.items()}
    if WORD.fullmatch(form):
        return values[form[1:]]
    # Without "<", no value inside the text can forge a tag.
    return WORD.sub(lambda word: values[word[1]].replace("<", "\\u003c"), form)


def matches(form, packed):
    """A form, and a string or list of filled forms -> [{placeholder: value}], a dict for each filled form."""
    if not isinstance(form, str):
        return [dict(words_in(form, item)) for item in packed]
    if form.startswith(OPEN):
        calls = (part for part in parse(packed) if isinstance(part, Call))
        return [{"NAME": call.name, "ARGUMENTS": call.arguments} for call in calls]
    pattern = WORD.sub(r"(?P<\1>[^<]*?)", re.escape(form))
    return [match.groupdict() for match in re.finditer(pattern, packed)]


def words_in(form, item):
    for key, part in form.items():
        if isinstance(part, dict):
            yield from words_in(part, item[key])
        elif WORD.fullmatch(part):
            yield part[1:], item[key]


def read_call(name, arguments, id):
    """-> Call or BadCall. The arguments may be a JSON string, an object or missing."""
    value = arguments or {}
    try:
        if isinstance(arguments, str):
            value = parse_json(arguments) if arguments.strip() else {}
    except JSONError as error:
        return BadCall(arguments, f"The arguments are not JSON: {error}", name=name, id=id)
    problem = problem_of({"name": name, "arguments": value})
    return BadCall(f"{arguments}", problem, name=name, id=id) if problem else Call(name, value, id)


DIALECTS = {name: Dialect(*forms) for name, forms in FORMS.items()}
HERMES, CHAT = DIALECTS["hermes"], DIALECTS["chat"]
