"""The available tools and their execution: every call gets a result, even if its tool fails.

    @tool(repeatable=True)
    def weather(city: str) -> dict: ...

    Registry([weather]).execute([Call("weather", {"city": "Oslo"})])
        ->  [Result("call_1", "weather", True, {"celsius": -3})]

An unknown name, wrong arguments, an exception, a timeout and a result that is too long are answered with
{"type", "message", "retryable"}, so that the model can correct its call. An exception raised by a tool never
ends the agent loop.

Tools may have side effects: they may make a payment, send a message or delete a file. So calls run in order,
and a call that failed after its tool started is not retryable. Tools that are declared `repeatable` are
exempt: they may run twice, and in parallel with one another."""

import asyncio
import dataclasses
import inspect
import itertools
import json
import threading
import time
import traceback
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from decimal import Decimal
from enum import Enum

from tools.functions import name_of, read_function
from tools.json_reader import parse
from tools.protocol import Call, call_schema, compact
from tools.schema import check
from tools.validation import coerce, is_valid, problems


@dataclasses.dataclass(frozen=True)
class Tool:
    """A function and its description for the model. A Tool can be called like its function.

    timeout: in seconds, or None for the registry's timeout. repeatable: whether the tool may run twice
    without harm. build: turns a JSON object into the arguments (see functions.read_function); `dict` leaves
    the JSON values unchanged."""

    name: str
    description: str
    parameters: dict
    function: object
    timeout: float | None = None
    repeatable: bool = False
    build: object = dict

    def __call__(self, *args, **kwargs):
        return self.function(*args, **kwargs)

    @property
    def definition(self):
        return {"name": self.name, "description": self.description, "parameters": self.parameters}


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of the call with this id: a JSON value or, if not ok, {"type", "message", "retryable"}."""

    id: str
    name: str
    ok: bool
    value: object


def tool(function=None, *, name=None, timeout=None, repeatable=None):
    """Makes a Tool from a function (even async or a generator), method, functools.partial or callable object.

    The function itself is not changed. A Tool runs exactly the object that it was made from: if that is a
    Tool with a decorator around it, the decorator runs too. Raises UnsupportedSchema for hints that a schema
    cannot express."""
    if function is None:
        return lambda function: tool(function, name=name, timeout=timeout, repeatable=repeatable)
    inner = inspect.unwrap(function, stop=lambda each: isinstance(each, Tool))
    if isinstance(inner, Tool):  # perhaps with a decorator around the Tool
        given = {"name": name, "timeout": timeout, "repeatable": repeatable}
        given = {key: value for key, value in given.items() if value is not None}
        return dataclasses.replace(inner, function=inner.function if inner is function else function, **given)
    parameters, build = read_function(function)
    about = parameters.pop("description", "")
    return Tool(name or name_of(function), about, parameters, function, timeout, bool(repeatable), build)


class Registry:
    """Tools by name. A tool may take up to `timeout` seconds and return up to `longest` characters."""

    def __init__(self, tools=(), *, timeout=10.0, longest=4000):
        self.tools, self.timeout, self.longest = {}, timeout, longest
        for each in tools:
            self.add(each)

    def add(self, function):
        """Adds a Tool, or makes one from a function and adds that; returns the Tool. Raises ValueError for a
        name that is taken, and UnsupportedSchema for parameters that cannot be enforced."""
        added = tool(function)
        if added.name in self.tools:
            raise ValueError(f"there is already a tool called {added.name}: give this one another name")
        check(added.parameters)  # a Tool made by hand has not been checked
        self.tools[added.name] = added
        return added

    def definitions(self):
        return [each.definition for each in self.tools.values()]

    def schema(self):
        """The schema of one call to any of these tools, for a grammar that admits only valid calls."""
        calls, defs = [], {}
        for i, each in enumerate(self.tools.values()):
            place = f"#/$defs/{i}"
            defs[f"{i}"] = moved(each.parameters, place)
            calls.append(call_schema({"const": each.name}, {"$ref": place}))
        return {"anyOf": calls, "$defs": defs}

    def accepts(self, part):
        """Whether a part of a reply is a call to one of these tools whose arguments are valid as they are."""
        known = isinstance(part, Call) and self.tools.get(part.name)
        return bool(known) and is_valid(part.arguments, known.parameters)

    def execute(self, calls, allow=None):
        """Runs calls -> their Results, in order; see results()."""
        return list(self.results(calls, allow))

    def results(self, calls, allow=None):
        """Runs calls and yields a Result for each, in order. Consecutive calls to repeatable tools run in
        parallel; any other call waits for all earlier calls.

        allow(call) is called before a call runs, and returns True or a reason for refusing. Each call runs in
        its own thread. Python cannot stop a thread, so a stuck thread is left running: nothing waits for
        it beyond its timeout, not even the program when it exits."""
        side_by_side = lambda item: getattr(self.tools.get(item[1].name), "repeatable", False) or f"{item[0]}"
        for _, group in itertools.groupby(enumerate(calls, 1), side_by_side):
            running = [(i, call, self._begin(call, allow)) for i, call in group]
            for i, call, wait in running:
                yield Result(call.id or f"call_{i}", call.name, *wait())

    def _begin(self, call, allow):
        """Starts a call -> a function that waits for the call's (ok, value)."""
        called = self.tools.get(call.name)
        if called is None:
            instead = f"use {', '.join(self.tools)}" if self.tools else "there are no tools at all"
            return lambda: failed("unknown_tool", f"there is no tool {call.name!r}: {instead}", True)
        arguments = coerce(call.arguments, called.parameters)
        if wrong := list(problems(arguments, called.parameters)):
            return lambda: failed("invalid_arguments", "; ".join(map(str, wrong[:10])), True)
        allowed = allow(Call(call.name, arguments, call.id)) if allow else True
        if allowed is not True:
            return lambda: failed("refused", str(allowed or "permission to run this call was refused"), False)
        outcome, seconds = [], called.timeout or self.timeout
        work = lambda: outcome.append(self._outcome(called, arguments, seconds))
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        deadline = time.monotonic() + seconds

        def wait():
            thread.join(max(0, deadline - time.monotonic()))
            advice = "it may be called again" if called.repeatable else "another call could repeat its effect"
            message = f"no answer within {seconds:g} s; the tool may still be running, and {advice}"
            return outcome[0] if outcome else failed("timeout", message, called.repeatable)

        return wait

    def _outcome(self, called, arguments, seconds):
        """Runs a tool to completion -> (ok, value)."""
        repeatable = True  # as long as the tool has not started
        try:
            arguments, repeatable = called.build(arguments), called.repeatable
            value = called.function(**arguments)
            if inspect.isawaitable(value) or isinstance(value, AsyncIterator):
                # The caller stops waiting first: one second later, this timeout cancels the tool.
                value = asyncio.run(asyncio.wait_for(finished(value, self.longest), seconds + 1))
            text = as_text(compact(plain(value, self.longest)))
            if len(text) > self.longest:
                message = f"{len(text)} or more characters, but the limit is {self.longest}: ask for less"
                return failed("too_long", f"{message}. It begins: {text[:200]}", repeatable)
            return True, parse(text)  # parse refuses two keys that as_text made equal
        except BaseException as error:  # SystemExit too: a tool may end itself, but not the agent loop
            words = "".join(traceback.format_exception_only(error))  # works even if str(error) fails
            return failed("error", as_text(words.strip()[:500]), repeatable)


async def finished(value, longest):
    """Awaits the value of an async tool. From an async generator, takes only as many items as are needed to
    exceed `longest` characters of JSON, to which each item adds at least a character and a comma."""
    if inspect.isawaitable(value):
        value = await value
    if not isinstance(value, AsyncIterator):
        return value
    items = []
    async for item in value:
        items.append(item)
        if 2 * len(items) > longest:
            break
    return items


def as_text(words):
    """The string with "?" for each lone surrogate. Some file names have these; UTF-8 cannot express them."""
    return words.encode("utf-8", "replace").decode()


def failed(kind, message, retryable):
    return False, {"type": kind, "message": message, "retryable": retryable}


def plain(value, longest):
    """What a tool returns -> a JSON value. From a collection or generator, takes only enough items to exceed
    `longest` characters.

    Decimals become numbers if nothing is lost, NumPy arrays become lists, named tuples become objects, dates
    and paths become text. A key that is not text becomes JSON text. Raises TypeError for bytes and for
    objects whose class has no __str__ or __repr__ of its own, and ValueError for keys that become equal."""
    if isinstance(value, Decimal):
        if value == value.to_integral_value() and value.adjusted() < 30:
            return int(value)
        return float(value) if Decimal(repr(float(value))) == value else str(value)
    if isinstance(value, Enum):
        return plain(value.value, longest)
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError("bytes are not text: the tool should decode them, or return them as base64")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        keys = [key if isinstance(key, str) else compact(key) for key in plain(iter(value), longest)]
        if len({*keys}) < len(keys):
            raise ValueError(f"two keys would be the same key in JSON: {', '.join(keys)}")
        return {key: plain(item, longest) for key, item in zip(keys, value.values())}
    for method in ("tolist", "_asdict", "to_dict"):  # of NumPy arrays, named tuples, data frames
        if hasattr(value, method) and not isinstance(value, type):
            return plain(getattr(value, method)(), longest)
    if isinstance(value, (Collection, Iterator)):  # each item adds at least a character and a comma
        return [plain(item, longest) for item in itertools.islice(value, longest // 2 + 1)]
    text = str(value)
    if type(value).__str__ is object.__str__ and text.startswith("<"):
        raise TypeError(f"{text} is not a value that JSON can express: the tool should return a dict or text")
    return text


def moved(schema, place):
    """A schema with its references adjusted to its new place in a document."""
    return json.loads(json.dumps(schema).replace('"$ref": "#', f'"$ref": "{place}'))
