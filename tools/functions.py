"""A function -> the JSON Schema of its arguments; a valid JSON object -> the arguments.

    def book(city: str, nights: Annotated[int, {"minimum": 1}] = 1):
        \"""Book a room.

        Args:
            city: where to sleep
        \"""

    schema_of(book)  ->  {"type": "object", "description": "Book a room.", "properties": {
                             "city": {"type": "string", "description": "where to sleep"},
                             "nights": {"type": "integer", "minimum": 1, "default": 1}},
                          "required": ["city"], "additionalProperties": false}

A type hint that a schema cannot express raises UnsupportedSchema when the function becomes a tool. If the
hint silently became {"type": "object"}, the error would show up later and elsewhere: in a model's calls.

Hints are read once, when a tool is made. Each hint gives a pair: its schema, and a function `build` that
turns a valid JSON value into a value of the hinted type (an Enum member, a dataclass, a tuple)."""

import dataclasses
import enum
import functools
import inspect
import json
import re
import types
import typing
from typing import Annotated, Any, Literal, Union

from tools.schema import NAMES, UnsupportedSchema, check
from tools.validation import fingerprint, is_valid, validate


def schema_of(function):
    """The schema of the object that holds a function's arguments by name; see read_function."""
    return read_function(function)[0]


def read_function(function):
    """-> (the schema of a function's arguments, build): build turns a valid JSON object into the arguments.

    Types: str, int, float, bool, None, Any, Literal, Enum (by its values), Optional and unions, list, tuple,
    dict with str keys, TypedDict, dataclass, and Annotated with a description (a str) or with schema keywords
    (a dict such as {"minimum": 1}). Descriptions come from docstrings in the style of Google, NumPy or
    Sphinx. A parameter with a default may be left out. If the default is None, the argument may be null.

    Raises UnsupportedSchema, naming the parameter, for anything else: a missing hint, other types, *args,
    positional-only parameters."""
    name = name_of(function)
    try:
        target, parameters, hints = signature_of(function)
        for parameter in parameters:
            where = f"parameter {parameter.name!r} of {name}"
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise UnsupportedSchema(f"{where}: arguments are passed by name: write it without / or *")
            if parameter.name not in hints and parameter.name in ("self", "cls"):
                raise UnsupportedSchema(f"{where}: make the tool from a bound method, as in tool(shop.buy)")
            if parameter.name not in hints:
                raise UnsupportedSchema(f"{where} has no type hint: give it one, as in {parameter.name}: str")
        # A callable object whose __call__ has no docstring is described by the docstring of its class.
        text = target.__doc__ or inspect.getdoc(getattr(function, "func", function))
        about, described = read_docstring(text)
        fields = {parameter.name: (hints[parameter.name], parameter.default) for parameter in parameters}
        schema, build = read_fields(fields, f"parameter {{!r}} of {name}", described)
    except NameError as error:
        raise UnsupportedSchema(f"{name}: a type hint cannot be resolved: {error}") from None
    except RecursionError:
        raise UnsupportedSchema(f"{name}: a class that contains itself is not supported") from None
    schema = {"type": "object", **({"description": about} if about else {}), **schema}
    check(schema)
    return schema, build


def name_of(function):
    """The name of a function, of the function inside a functools.partial, or of a callable object's class."""
    inner = getattr(function, "func", None)
    return getattr(function, "__name__", None) or (name_of(inner) if inner else type(function).__name__)


def signature_of(function):
    """-> (the function inside any partial, decorator or callable object; its parameters, without those bound
    by a partial; their hints by name)"""
    target, bound = inspect.unwrap(function), set()
    while isinstance(target, functools.partial):
        bound |= target.keywords.keys()
        target = inspect.unwrap(target.func)
    if not inspect.isroutine(target):
        target = type(target).__call__
    try:
        hints = typing.get_type_hints(target, include_extras=True)
        parameters = inspect.signature(function).parameters.values()
        return target, [each for each in parameters if each.name not in bound], hints
    except (TypeError, ValueError, AttributeError) as error:
        raise UnsupportedSchema(f"{function!r} has no signature that can be read: {error}") from None


def read_fields(fields, where, described):
    """Parameters of a function or fields of a class, {name: (hint, default)} -> (schema, build). A field with
    a default may be left out."""
    properties, builds = {}, {}
    for name, (hint, default) in fields.items():
        try:
            schema, builds[name] = read_hint(hint)
        except UnsupportedSchema as error:
            raise UnsupportedSchema(f"{where.format(name)}: {error}") from None
        if default is None and not is_valid(None, schema):  # since Python 3.11, the hint lacks None
            schema, builds[name] = either([(schema, builds[name]), NULL])
        if name in described:
            schema = {**schema, "description": described[name]}
        properties[name] = with_default(schema, default)
    required = [name for name, (_, default) in fields.items() if default is inspect.Parameter.empty]
    schema = {"type": "object", "properties": properties, **({"required": required} if required else {})}

    def build(value):
        return {key: builds[key](item) for key, item in value.items()}

    return {**schema, "additionalProperties": False}, build


def keep(value):
    return value


NULL = {"type": "null"}, keep
# These wrappers mark the keys of a TypedDict, whose __required_keys__ already lists the required ones.
WRAPPERS = [getattr(typing, name, None) for name in ("Required", "NotRequired", "ReadOnly")]


def read_hint(hint):
    """A type hint -> (schema, build)"""
    origin, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if isinstance(origin, type | None) and origin in NAMES:
        return {"type": NAMES[origin]}, keep
    if origin is Any:
        return {}, keep
    if origin in WRAPPERS:
        return read_hint(parts[0])
    if origin is Annotated:
        schema, build = read_hint(parts[0])
        for mark in parts[1:]:
            if not isinstance(mark, (str, dict)):
                raise UnsupportedSchema(f'{mark!r} is neither text nor schema keywords like {{"minimum": 1}}')
            schema = {**schema, **({"description": mark} if isinstance(mark, str) else mark)}
        return schema, build
    if origin in (Union, types.UnionType):
        return either([read_hint(part) for part in parts])
    if origin is Literal or inspect.isclass(origin) and issubclass(origin, enum.Enum):
        return choice(parts or list(origin))
    if origin is list:
        items, build = read_hint(parts[0]) if parts else ({}, keep)
        schema = {"type": "array", **({"items": items} if items else {})}
        return schema, lambda value: [build(item) for item in value]
    if origin is tuple:
        return read_tuple(hint, parts)
    if origin is dict:
        if parts and parts[0] is not str:
            raise UnsupportedSchema("the keys of a JSON object are strings: write dict[str, ...]")
        items, build = read_hint(parts[1]) if parts else ({}, keep)
        schema = {"type": "object", **({"additionalProperties": items} if items else {})}
        return schema, lambda value: {key: build(item) for key, item in value.items()}
    if dataclasses.is_dataclass(hint) or typing.is_typeddict(hint):
        return read_class(hint)
    name = getattr(hint, "__name__", None) or repr(hint)
    raise UnsupportedSchema(f"JSON Schema cannot express {name}: use str, int, list, a dataclass ...")


def read_tuple(hint, parts):
    if hint is tuple or parts[1:] == (...,):
        schema, build = read_hint(list[parts[0]] if parts else list)
        return schema, lambda value: tuple(build(value))
    pairs = [read_hint(part) for part in parts]
    items = {"prefixItems": [schema for schema, _ in pairs]} if parts else {}
    schema = {"type": "array", **items, "minItems": len(parts), "maxItems": len(parts)}
    return schema, lambda value: tuple(build(item) for (_, build), item in zip(pairs, value))


def read_class(cls):
    """A dataclass or TypedDict -> (schema, build)"""
    hints = typing.get_type_hints(cls, include_extras=True)
    if typing.is_typeddict(cls):
        empty, required = inspect.Parameter.empty, cls.__required_keys__
        fields = {name: (hint, empty if name in required else ...) for name, hint in hints.items()}
    else:
        parameters = inspect.signature(cls).parameters.values()
        fields = {each.name: (hints.get(each.name, object), each.default) for each in parameters}
    schema, build = read_fields(fields, f"field {{!r}} of {cls.__name__}", read_docstring(cls.__doc__)[1])
    return schema, lambda value: cls(**build(value))


def with_default(schema, value):
    """The schema with a copy of the default, if the schema allows it and JSON can express it. Enum members,
    even inside a list, become their values."""
    try:
        value = json.loads(json.dumps(value, allow_nan=False, default=lambda member: member.value))
        return {**schema, "default": value} if not validate(value, schema) else schema
    except (AttributeError, TypeError, ValueError):
        return schema


def either(pairs):
    """The (schema, build) of each member of a union -> (schema, build) of the union. A value is built by the
    first member whose schema accepts it."""

    def build(value):
        return next(build for schema, build in pairs if is_valid(value, schema))(value)

    return {"anyOf": [schema for schema, _ in pairs]}, build


def choice(members):
    """The values to choose from, some of which may be Enum members -> (schema, build)"""
    values = [member.value if isinstance(member, enum.Enum) else member for member in members]
    if not all(value is None or isinstance(value, (str, int, float)) for value in values):
        raise UnsupportedSchema("the values of a Literal or Enum must be strings, numbers, booleans or None")
    is_text = all(isinstance(value, str) for value in values)
    by_value = dict(zip(map(fingerprint, values[::-1]), members[::-1]))  # among equal values, the first wins
    schema = {"type": "string", "enum": values} if is_text else {"enum": values}
    return schema, lambda value: by_value[fingerprint(value)]


PARAMETERS = "(?:keyword |other )?(?:args|arguments|parameters)|attributes"
OTHERS = "returns?|yields?|raises?|examples?|notes?|references|see also|warnings?|todo"
SECTION = re.compile(rf"(?im)^(\S.*?):? *\n([-=]{{3,}}) *$|^({PARAMETERS}|{OTHERS}): *$")
GOOGLE = re.compile(r"(?s) *(?:[-*+] +)?[`*]*(\w+)`* *(?:\(.*?\))? *:(.*)")
CONTINUED = r"(?:.*(?:[(\[{][^)\]}\n]*|,| or| \|)\n)*"  # all lines of a type except the last
NUMPY = re.compile(rf"\*{{0,2}}(\w+(?: *, *\*{{0,2}}\w+)*) *(?::{CONTINUED}.*)?((?:\n.*)*)")
FIELD = re.compile(r"(?m)^ *:\w+[^:\n]*:")
SPHINX = re.compile(r"(?m)^ *:(?:param|arg|key)\w*(?: +[^:\n]*?)? +\*{0,2}(\w+) *: *(.*(?:\n(?! *:\w) +.*)*)")


def read_docstring(text):
    """A Google, NumPy or Sphinx docstring -> (the function's description, {parameter: description})."""
    text = inspect.cleandoc(text or "")
    heads = list(SECTION.finditer(text))
    described = dict(SPHINX.findall(text))
    for head, end in zip(heads, [*(head.start() for head in heads[1:]), len(text)]):
        if re.fullmatch(PARAMETERS, head[1] or head[3], re.IGNORECASE):
            described |= read_items(text[head.end() : end], NUMPY if head[2] else GOOGLE)
    starts = [match.start() for match in [*heads, *FIELD.finditer(text)]]
    about = text[: min(starts, default=len(text))].strip()
    return about, {name: " ".join(words.split()) for name, words in described.items() if words.split()}


def read_items(body, style):
    """The body of a section -> {parameter: its description}."""
    body, described, names = body.strip("\n"), {}, []
    indent = re.match(" *", body)[0]
    if indent:  # then the section ends before the first line without indentation
        body = re.split(r"\n(?=\S)", body)[0]
    for item in re.split(rf"\n(?={indent}\S)", body):
        match = style.fullmatch(item)
        if match:
            names = re.findall(r"\w+", match[1])
        described |= {name: match[2] if match else f"{described[name]} {item}" for name in names}
    return described
