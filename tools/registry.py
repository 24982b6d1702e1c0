"""The tools there are, and their execution: whatever a tool does, what comes back is a result.

    @tool
    def weather(city: str) -> dict: ...

    Registry([weather]).execute([Call("weather", {"city": "Oslo"})])
        ->  [Result("call_1", "weather", True, {"celsius": -3})]

An unknown name, wrong arguments, an exception, a timeout and a result that is too long are answered with
{"type", "message", "retryable"}, so that the model can mend its call. Nothing a tool does ends the loop."""

import json
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, is_dataclass
from decimal import Decimal
from enum import Enum

from tools.protocol import Call, compact
from tools.schema import arguments_of, schema_of
from tools.validation import coerce, validate

PASSING = (OSError, ValueError, ArithmeticError, LookupError)  # another try, or another argument, may help


@dataclass(frozen=True)
class Tool:
    """What a model is told of a function, and how long it may take in seconds."""

    name: str
    description: str
    parameters: dict
    function: object
    timeout: float | None = None

    @property
    def definition(self):
        return {"name": self.name, "description": self.description, "parameters": self.parameters}


@dataclass(frozen=True)
class Result:
    """The answer to the call of this id: a JSON value, or where not ok {"type", "message", "retryable"}."""

    id: str
    name: str
    ok: bool
    value: object


def tool(function=None, *, name=None, timeout=None):
    """Marks a function as a tool; it stays the function it was. Raises UnsupportedSchema for hints that a
    schema cannot express."""
    if function is None:
        return lambda function: tool(function, name=name, timeout=timeout)
    parameters = dict(schema_of(function))
    about = parameters.pop("description", "")
    function.tool = Tool(name or function.__name__, about, parameters, function, timeout)
    return function


class Registry:
    """Tools by name. A tool may take `timeout` seconds, and its result may have `longest` characters."""

    def __init__(self, tools=(), *, timeout=10.0, longest=4000):
        self.tools, self.timeout, self.longest = {}, timeout, longest
        for one in tools:
            self.add(one)

    def add(self, one):
        """A function (marked with @tool or not), or a Tool. Raises ValueError for a name that is taken."""
        one = one if isinstance(one, Tool) else getattr(one, "tool", None) or tool(one).tool
        if one.name in self.tools:
            raise ValueError(f"there is a tool called {one.name} already: give this one another name")
        self.tools[one.name] = one
        return one.function

    def definitions(self):
        return [one.definition for one in self.tools.values()]

    def schema(self):
        """The schema of one call of any of these tools: what a grammar needs to admit valid calls only."""
        calls, defs = [], {}
        for i, one in enumerate(self.tools.values()):
            defs[f"{i}"] = moved(one.parameters, f"#/$defs/{i}")
            calls.append(
                {
                    "type": "object",
                    "properties": {"name": {"const": one.name}, "arguments": {"$ref": f"#/$defs/{i}"}},
                    "required": ["name", "arguments"],
                    "additionalProperties": False,
                }
            )
        return {"anyOf": calls, "$defs": defs}

    def accepts(self, part):
        """Whether a part of a reply is a call of one of these tools with arguments that fit as they stand."""
        return (
            isinstance(part, Call)
            and part.name in self.tools
            and not validate(part.arguments, self.tools[part.name].parameters)
        )

    def execute(self, calls, ids=None):
        """Runs calls side by side -> [Result] in the order of the calls, paired by id.

        Each tool runs in a thread of its own that nobody waits for beyond its timeout, not even the end of
        the program: Python cannot stop a thread, so a stuck one is left behind."""
        ids = ids or [f"call_{i}" for i in range(1, len(calls) + 1)]
        running = [self._begin(call) for call in calls]
        return [Result(id, call.name, *self._await(*one)) for id, call, one in zip(ids, calls, running)]

    def _begin(self, call):
        """Starts a call -> (the list that will hold its outcome, the thread or None, when it is too late)."""
        one = self.tools.get(call.name)
        if one is None:
            names = ", ".join(self.tools) or "none: there are no tools"
            return [failed("unknown_tool", f"there is no tool {call.name!r}: use {names}", True)], None, 0
        arguments, _ = coerce(call.arguments, one.parameters)
        problems = validate(arguments, one.parameters)
        if problems:
            message = "; ".join(map(str, problems[:10]))
            return [failed("invalid_arguments", message, True)], None, 0
        outcome = []
        thread = threading.Thread(target=self._work, args=(one, arguments, outcome), daemon=True)
        seconds = one.timeout or self.timeout
        thread.start()
        return outcome, thread, time.monotonic() + seconds

    def _work(self, one, arguments, outcome):
        try:
            value = one.function(**arguments_of(one.function, arguments))
            text = compact(plain(value))
            if len(text) > self.longest:
                message = f"the result has {len(text)} characters, {self.longest} may come back: ask for less"
                outcome.append(failed("too_long", f"{message}. It begins: {text[:200]}", True))
            else:
                outcome.append((True, json.loads(text)))
        except BaseException as error:  # SystemExit too: a tool may end itself, not the loop
            name = type(error).__name__
            again = getattr(error, "retryable", isinstance(error, PASSING))
            outcome.append(failed(name, str(error)[:500] or name, bool(again)))

    def _await(self, outcome, thread, deadline):
        if thread:
            thread.join(max(0, deadline - time.monotonic()))
        return outcome[0] if outcome else failed("timeout", "the tool did not answer in time", True)


def failed(kind, message, retryable):
    return False, {"type": kind, "message": message, "retryable": retryable}


def plain(value):
    """What a tool returns -> what JSON can write. Decimals become numbers where nothing is lost."""
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError(f"JSON has no way to write {value}")
        if value == value.to_integral_value() and value.adjusted() < 30:
            return int(value)
        return float(value) if Decimal(repr(float(value))) == value else str(value)
    if isinstance(value, Enum):
        return plain(value.value)
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def moved(schema, place):
    """A schema as it reads at another place of a document: its references follow."""
    if isinstance(schema, list):
        return [moved(part, place) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: place + part[1:]
        if key == "$ref" and isinstance(part, str)
        else part
        if key in ("enum", "const", "default")
        else moved(part, place)
        for key, part in schema.items()
    }


class Guard:
    """Counts calls with the same name and arguments, in whatever order the keys stand."""

    def __init__(self, most=3):
        self.most, self.counts = most, Counter()

    def stops(self, call: Call):
        """Whether this is one time too many."""
        key = call.name, json.dumps(call.arguments, sort_keys=True)
        self.counts[key] += 1
        return self.counts[key] > self.most
