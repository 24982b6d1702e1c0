"""A function -> the JSON Schema of its arguments, and from valid JSON back to the arguments.

    def book(city: str, nights: Annotated[int, {"minimum": 1}] = 1):
        \"""Book a room.

        Args:
            city: where to sleep
        \"""

    schema_of(book)  ->  {"type": "object", "description": "Book a room.", "properties": {
                             "city": {"type": "string", "description": "where to sleep"},
                             "nights": {"type": "integer", "minimum": 1, "default": 1}},
                          "required": ["city"], "additionalProperties": false}

What a schema cannot express raises UnsupportedSchema when the function is registered. The alternative, a
silent {"type": "object"}, is an error that shows up later and elsewhere: in what a model makes of it.

Hints are read once, when a tool is made. Each gives a pair: its schema, and a function `build` that turns
JSON which is valid under that schema into what the hint names (an Enum member, a dataclass, a tuple).

One schema serves prompt, validator (validation.py) and grammar (grammar.py)."""

import dataclasses
import enum
import functools
import inspect
import json
import math
import re
import types
import typing
from fractions import Fraction
from functools import lru_cache
from typing import Annotated, Any, Literal, Union
from urllib.parse import unquote

NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null", None: "null"}
# Python 3.10 has none of these, 3.11 not the third.
WRAPPERS = [getattr(typing, name, None) for name in ("Required", "NotRequired", "ReadOnly")]
REQUIRED, NOT_REQUIRED = WRAPPERS[:2]
UNKNOWN = inspect.Parameter.empty  # the default of what may be left out, where JSON cannot write it


def schema_of(function):
    """The schema of the object that holds a function's arguments by name; see read_function."""
    return read_function(function)[0]


def read_function(function):
    """-> (the schema of its arguments by name, build): build(values, fits) makes keyword arguments of valid
    JSON. fits(value, schema) has to say whether a value is valid under a part of the schema.

    Types: str, int, float, bool, None, Any, Literal, Enum (by its values), Optional and unions, list, tuple,
    dict with str keys, TypedDict, dataclass, and Annotated with a description (a str) or with keywords (a
    dict such as {"minimum": 1}). Descriptions come from docstrings in the style of Google, NumPy or Sphinx.
    A parameter with a default may be left out; one whose default is None may be null.

    Raises UnsupportedSchema, naming the parameter, for all else: no hint, other types, *args, positional
    only."""
    target, parameters, hints = signature_of(function)
    name = getattr(function, "__name__", None) or getattr(target, "__qualname__", repr(function))
    wanted, defaults, others = {}, {}, (False, keep)
    reader, places = HintReader(), f"parameter {{!r}} of {name}"
    for parameter in parameters:
        where = places.format(parameter.name)
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise UnsupportedSchema(f"{where}: arguments are passed by name: write it without / and *args")
        if parameter.name not in hints and parameter.name in ("self", "cls"):
            raise UnsupportedSchema(f"{where}: make a tool of the method of an object, as in tool(shop.buy)")
        if parameter.name not in hints:
            raise UnsupportedSchema(f"{where} has no type hint: give it one, as in {parameter.name}: str")
        if parameter.kind == parameter.VAR_KEYWORD:
            schema, builds = reader.read_fields(places, {parameter.name: hints[parameter.name]}, {}, {})
            others = schema["properties"][parameter.name], builds[parameter.name]
            continue
        wanted[parameter.name] = hints[parameter.name]
        if parameter.default is not parameter.empty:
            defaults[parameter.name] = parameter.default
    about, described = read_docstring(inspect.getdoc(target) or inspect.getdoc(function))
    schema, builds = reader.read_fields(places, wanted, defaults, described)
    schema["additionalProperties"] = others[0]
    if others[0] == {}:
        del schema["additionalProperties"]
    schema = {"type": "object", **({"description": about} if about else {}), **schema}
    if reader.defs:
        schema["$defs"] = reader.defs
    check(schema)
    return schema, lambda values, fits: {
        key: builds.get(key, others[1])(value, fits) for key, value in values.items()
    }


def signature_of(function):
    """-> (the function inside partials, decorators and objects, its parameters, their hints by name)"""
    target = inspect.unwrap(function)
    while isinstance(target, functools.partial):
        target = inspect.unwrap(target.func)
    if not inspect.isroutine(target):
        target = type(target).__call__
    try:
        closure = inspect.unwrap(getattr(target, "__func__", target))
        local = inspect.getclosurevars(closure).nonlocals if inspect.isfunction(closure) else None
        hints = typing.get_type_hints(target, localns=local, include_extras=True)
        return target, inspect.signature(function).parameters.values(), hints
    except NameError as error:
        raise UnsupportedSchema(f"{target.__qualname__}: a type hint is not defined: {error}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise UnsupportedSchema(f"{function!r} has no signature that can be read: {error}") from None


def keep(value, fits):
    return value


NULL = {"type": "null"}, keep


class HintReader:
    """Type hints -> (schema, build). Classes that hold themselves become a $ref into `defs`."""

    def __init__(self):
        self.defs, self.inside, self.builds = {}, [], {}

    def read(self, hint):
        origin, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
        if isinstance(origin, type | None) and origin in NAMES:
            return {"type": NAMES[origin]}, keep
        if origin is Any:
            return {}, keep
        if origin is Annotated:
            schema, build = self.read(parts[0])
            for mark in parts[1:]:
                schema = {**schema, **keywords_of(mark)}
            return schema, build
        if origin in WRAPPERS:
            return self.read(parts[0])
        if origin in (Union, types.UnionType):
            return either([self.read(part) for part in parts])
        if origin is Literal:
            return choice(parts)
        if inspect.isclass(origin) and issubclass(origin, enum.Enum):
            return choice(list(origin))
        if origin is list:
            if not parts:
                return {"type": "array"}, keep
            items, build = self.read(parts[0])
            return {"type": "array", "items": items}, lambda v, fits: [build(item, fits) for item in v]
        if origin is tuple:
            return self.read_tuple(hint, parts)
        if origin is dict:
            if parts and parts[0] is not str:
                raise UnsupportedSchema("the keys of a JSON object are strings: write dict[str, ...]")
            items, build = self.read(parts[1]) if parts else ({}, keep)
            if not items:
                return {"type": "object"}, keep
            schema = {"type": "object", "additionalProperties": items}
            return schema, lambda v, fits: {key: build(item, fits) for key, item in v.items()}
        if dataclasses.is_dataclass(hint) or typing.is_typeddict(hint):
            return self.read_class(hint)
        name = getattr(hint, "__name__", None) or repr(hint)
        raise UnsupportedSchema(f"JSON Schema cannot express {name}: use str, int, list, a dataclass ...")

    def read_tuple(self, hint, parts):
        if hint is tuple or parts[1:] == (...,):
            schema, build = self.read(list[parts[0]] if parts else list)
            return schema, lambda value, fits: tuple(build(value, fits))
        pairs = [self.read(part) for part in parts]
        items = {"prefixItems": [schema for schema, _ in pairs]} if parts else {}
        schema = {"type": "array", **items, "minItems": len(parts), "maxItems": len(parts)}
        return schema, lambda value, fits: tuple(b(item, fits) for (_, b), item in zip(pairs, value))

    def read_fields(self, where, hints, defaults, described):
        """Parameters of a function or fields of a class -> (schema, {name: build}). A name in `defaults` may
        be left out."""
        properties, builds = {}, {}
        for name, hint in hints.items():
            default = defaults.get(name, UNKNOWN)
            try:
                pair = self.read(hint)
                is_nullable = default is None and not admits_none(hint)
                schema, builds[name] = either([pair, NULL]) if is_nullable else pair
            except UnsupportedSchema as error:
                raise UnsupportedSchema(f"{where.format(name)}: {error}") from None
            if name in described:
                schema = {**schema, "description": described[name]}
            properties[name] = with_default(schema, default)
        required = [name for name in hints if name not in defaults]
        schema = {"type": "object", "properties": properties}
        schema |= {"required": required} if required else {}
        return {**schema, "additionalProperties": False}, builds

    def read_class(self, cls):
        name = cls.__name__
        if cls in self.inside:
            self.defs.setdefault(name, {})
            return {"$ref": f"#/$defs/{name}"}, lambda v, fits: self.builds[cls](v, fits)  # noqa: PLW0108
        self.inside.append(cls)
        described = read_docstring(cls.__doc__)[1]
        schema, builds = self.read_fields(f"field {{!r}} of {name}", *fields_of(cls), described)
        self.inside.pop()
        make = cls if dataclasses.is_dataclass(cls) else dict

        def build(value, fits):
            return make(**{key: builds[key](item, fits) for key, item in value.items()})

        self.builds[cls] = build
        if name not in self.defs:
            return schema, build
        if self.defs[name] not in ({}, schema):
            raise UnsupportedSchema(f"two classes are called {name}: rename one")
        self.defs[name] = schema
        return {"$ref": f"#/$defs/{name}"}, build


def fields_of(cls):
    """A dataclass or TypedDict -> (hints by name, defaults of those that may be left out)."""
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise UnsupportedSchema(f"{cls.__name__}: a type hint is not defined: {error}") from None
    if dataclasses.is_dataclass(cls):
        parameters = inspect.signature(cls).parameters.values()
        defaults = {each.name: each.default for each in parameters if each.default is not UNKNOWN}
        return {each.name: hints.get(each.name, object) for each in parameters}, defaults
    # With string annotations __required_keys__ knows only total=; the wrappers are seen in the hints.
    wrapper = {name: typing.get_origin(hint) or hint for name, hint in hints.items()}
    required = {name for name in cls.__required_keys__ if wrapper[name] is not NOT_REQUIRED}
    required |= {name for name in hints if wrapper[name] is REQUIRED}
    return hints, {name: UNKNOWN for name in hints if name not in required}


def admits_none(hint):
    """typing no longer adds None to a hint whose default is None."""
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    choices = (
        typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType, Literal) else [hint]
    )
    return any(each in (Any, None, type(None)) for each in choices)


def with_default(schema, value):
    """A schema with a copy of the default, as far as JSON can write that."""
    try:
        value = value.value if isinstance(value, enum.Enum) else value
        return {**schema, "default": json.loads(json.dumps(value, allow_nan=False))}
    except (TypeError, ValueError):
        return schema


def either(pairs):
    """The schema of a union; of several that a value fits, the first builds it."""
    schemas = [schema for schema, _ in pairs]
    if all(list(schema) == ["type"] and schema["type"] in NAMES.values() for schema in schemas):
        return {"type": [schema["type"] for schema in schemas]}, keep

    def build(value, fits):
        return next((build for schema, build in pairs if fits(value, schema)), keep)(value, fits)

    return {"anyOf": schemas}, build


def choice(members):
    """The schema of one out of several values, some of them perhaps members of an Enum."""
    values = [member.value if isinstance(member, enum.Enum) else member for member in members]
    if not all(value is None or isinstance(value, (str, int, float)) for value in values):
        raise UnsupportedSchema("a choice is between strings, numbers, true, false and null")
    is_text = all(isinstance(value, str) for value in values)
    # True is 1 to a dict, but not in JSON. Of equal values the first counts.
    by_value = {(isinstance(v, bool), v): m for v, m in zip(values[::-1], members[::-1])}
    schema = {"type": "string", "enum": values} if is_text else {"enum": values}
    return schema, lambda value, fits: by_value[isinstance(value, bool), value]


def keywords_of(mark):
    """What follows the type in Annotated -> schema keywords."""
    if isinstance(mark, (str, dict)):
        return {"description": mark} if isinstance(mark, str) else mark
    raise UnsupportedSchema(f'{mark!r} is neither a description nor keywords such as {{"minimum": 1}}')


PARAMETERS = "(?:keyword |other )?(?:args|arguments|parameters)|attributes"
SECTION = re.compile(
    rf"^(\S.*?):? *\n([-=]{{3,}}) *$|^({PARAMETERS}|returns?|yields?|raises?|examples?|notes?|references|"
    r"see also|warnings?|todo): *$",
    re.IGNORECASE | re.MULTILINE,
)
GOOGLE = re.compile(r"( +|(?=[-*+] ))(?:[-*+] +)?[`*]*(\w+)`* *(?:\(.*?\))? *: *(.*)")
NUMPY = re.compile(r"()\*{0,2}(\w+(?: *, *\*{0,2}\w+)*) *(?::.*)?()")
# A type that goes on in the next line.
OPEN_GOOGLE = re.compile(r" *(?:[-*+] +)?\w+ *\([^)]*")
OPEN_NUMPY = re.compile(r"\w+ *:.*(?:[(\[{][^)\]}]*|,| or| \|)")
FIELD = re.compile(r"^ *:\w+[^:\n]*:", re.MULTILINE)
SPHINX = re.compile(r"(?m)^ *:(?:param|arg|key)\w*(?: +[^:\n]*?)? +\*{0,2}(\w+) *: *(.*(?:\n(?! *:\w) +.*)*)")


def read_docstring(text):
    """In the style of Google, NumPy or Sphinx -> (what the function does, {parameter: what it is})."""
    text = inspect.cleandoc(text or "")
    heads = list(SECTION.finditer(text))
    described = dict(SPHINX.findall(text))
    for head, end in zip(heads, [*(head.start() for head in heads[1:]), len(text)]):
        if re.fullmatch(PARAMETERS, head[1] or head[3], re.IGNORECASE):
            described |= read_items(text[head.end() : end], NUMPY if head[2] else GOOGLE)
    starts = [match.start() for match in [*heads, *FIELD.finditer(text)]]
    about = text[: min(starts, default=len(text))].strip()
    return about, {name: " ".join(words.split()) for name, words in described.items() if words.split()}


def read_items(text, style):
    """The body of a section -> {parameter: its description}."""
    lines, described, names, indent = text.splitlines(), {}, [], None
    while lines:
        line = lines.pop(0)
        is_deeper = indent is not None and line.startswith(f"{indent} ")
        while lines and not is_deeper and (OPEN_NUMPY if style is NUMPY else OPEN_GOOGLE).fullmatch(line):
            line += " " + lines.pop(0).strip()
        item = style.fullmatch(line)
        if item and indent in (None, item[1]):
            indent, names = item[1], re.findall(r"\w+", item[2])
            described |= dict.fromkeys(names, item[3])
        elif line and not line.startswith(" "):
            break
        else:
            described |= {name: f"{described[name]} {line}" for name in names}
    return described


# ---- Which schemas we understand: JSON Schema 2020-12, less what is refused here by name.
#
# Prompt, validator and grammar all read the same schema, so all three must understand every keyword in it
# that decides what is valid. A keyword that only informs (title, default, format ...) is left alone, as the
# standard says; one that would decide and is not in TAKES raises UnsupportedSchema before anything relies on
# it.

KINDS = ("null", "boolean", "number", "string", "array", "object")
KIND_OF = {
    type(None): "null",
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}

SCHEMA, SCHEMAS, NAMED = "a schema", "a list of schemas", "an object of schemas"
LONGEST_PATTERN, LONGEST_TEXT = 1000, 10_000  # characters: time grows faster than their number
NUMBER, COUNT, TEXT, ANYTHING = "a number", "a whole number from 0 up", "a string", "any value"
TAKES = {
    "type": "a type or a list of types",
    "enum": "a list",
    "const": ANYTHING,
    "properties": NAMED,
    "required": "a list of names",
    "additionalProperties": SCHEMA,
    "items": SCHEMA,
    "prefixItems": SCHEMAS,
    "uniqueItems": "true or false",
    "minItems": COUNT,
    "maxItems": COUNT,
    "minLength": COUNT,
    "maxLength": COUNT,
    "minProperties": COUNT,
    "maxProperties": COUNT,
    "pattern": TEXT,
    "minimum": NUMBER,
    "maximum": NUMBER,
    "exclusiveMinimum": NUMBER,
    "exclusiveMaximum": NUMBER,
    "multipleOf": "a number above 0",
    "anyOf": SCHEMAS,
    "oneOf": SCHEMAS,
    "allOf": SCHEMAS,
    "not": SCHEMA,
    "$ref": TEXT,
    "$defs": NAMED,
    "definitions": NAMED,
}
REFUSED = set(
    "patternProperties propertyNames contains minContains maxContains dependentRequired dependentSchemas "
    "dependencies "
    "if then else unevaluatedItems unevaluatedProperties additionalItems $dynamicRef $recursiveRef".split()
)


class UnsupportedSchema(ValueError):
    """A schema, or a Python type, that we cannot enforce. The message names what and where."""


def kind_of(value):
    """One of KINDS, or None for what JSON cannot write."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return KIND_OF.get(type(value))


def is_number(value):
    return kind_of(value) == "number"


def is_count(value):
    return is_number(value) and value >= 0 and value == int(value)


def is_names(value):
    return (
        isinstance(value, list)
        and all(isinstance(name, str) for name in value)
        and len(set(value)) == len(value)
    )


def is_schema(value):
    return isinstance(value, (dict, bool))


FITS = {
    SCHEMA: is_schema,
    NUMBER: is_number,
    COUNT: is_count,
    SCHEMAS: lambda v: isinstance(v, list) and v != [] and all(map(is_schema, v)),
    NAMED: lambda v: isinstance(v, dict) and all(map(is_schema, v.values())),
    TEXT: lambda v: isinstance(v, str),
    ANYTHING: lambda v: True,
    "a type or a list of types": lambda v: all(
        t in (*KINDS, "integer") for t in (v if is_names(v) and v else [v] if isinstance(v, str) else [None])
    ),
    "a list": lambda v: isinstance(v, list),
    "a list of names": is_names,
    "true or false": lambda v: isinstance(v, bool),
    "a number above 0": lambda v: is_number(v) and v > 0,
}


def exact(number):
    """A number as it is written: 0.1 is one tenth, not the binary fraction next to it. So 0.3 is a multiple
    of 0.1."""
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


def resolve(root, reference, where="#"):
    """The schema that a $ref inside this document names. Raises UnsupportedSchema for any other."""
    target = root
    if reference != "#":
        if not reference.startswith("#/"):
            raise UnsupportedSchema(
                f"{where}: $ref {reference!r} leads out of the document: copy it into $defs"
            )
        for part in reference[2:].split("/"):
            part = unquote(part).replace("~1", "/").replace("~0", "~")
            try:
                target = target[int(part)] if isinstance(target, list) else target[part]
            except (KeyError, IndexError, ValueError, TypeError):
                raise UnsupportedSchema(f"{where}: $ref {reference!r} names nothing here") from None
    if not is_schema(target):
        raise UnsupportedSchema(f"{where}: $ref {reference!r} does not name a schema")
    return target


def check(schema, where="#", root=None, seen=None):
    """Raises UnsupportedSchema unless every keyword in the schema is one that we enforce or one that only
    informs."""
    root, seen = (schema if root is None else root), (set() if seen is None else seen)
    if not is_schema(schema):
        raise UnsupportedSchema(
            f"{where}: a schema is an object or true or false, not {type(schema).__name__}"
        )
    if isinstance(schema, bool) or id(schema) in seen:
        return
    seen.add(id(schema))
    if len(seen) > 20_000 or where.count("/") > 400:
        raise UnsupportedSchema(f"{where}: the schema is too large")
    for keyword, value in schema.items():
        here = f"{where}/{keyword}"
        if keyword in REFUSED:
            raise UnsupportedSchema(
                f"{here}: the keyword {keyword} cannot be enforced here: write the schema without it"
            )
        if keyword == "$schema" and "//json-schema.org/" not in str(value):
            raise UnsupportedSchema(f"{here}: only the dialects of json-schema.org are known, not {value!r}")
        if keyword == "$id" and where != "#":
            raise UnsupportedSchema(
                f"{here}: a schema with its own $id inside another cannot be referred to: use $defs"
            )
        wanted = TAKES.get(keyword)
        if wanted is None:
            continue
        if not FITS[wanted](value):
            hint = " (a list of schemas is prefixItems)" if keyword == "items" else ""
            raise UnsupportedSchema(f"{here}: {keyword} must be {wanted}{hint}")
        if wanted is SCHEMA:
            check(value, here, root, seen)
        elif wanted is SCHEMAS:
            for i, part in enumerate(value):
                check(part, f"{here}/{i}", root, seen)
        elif wanted is NAMED:
            for name, part in value.items():
                check(part, f"{here}/{name.replace('~', '~0').replace('/', '~1')}", root, seen)
        elif keyword == "$ref":
            check(resolve(root, value, here), value, root, seen)
        elif keyword == "pattern":
            compiled(value, here)


PIECES = re.compile(r"\\.|\(\?<?.?|\[\^?(?:\\.|[^\]\\])*\]|.", re.DOTALL)
TRANSLATED = {"$": r"\Z", ".": r"[^\n\r\u2028\u2029]"}  # re lets $ also match before a last line break
DIFFERENT = {r"\A", r"\Z", r"\a", r"\z", r"\N", r"\U", "[]", "[^]"}  # means something else in re
GROUPS = {"(?:", "(?=", "(?!", "(?<=", "(?<!"}


@lru_cache(maxsize=256)
def compiled(pattern, where="#"):
    """A pattern of JSON Schema, which is JavaScript's, as one of `re`, with ASCII classes.

    Raises UnsupportedSchema for a pattern that is longer than LONGEST_PATTERN or that `re` would read in
    another way."""
    if len(pattern) > LONGEST_PATTERN:
        raise UnsupportedSchema(f"{where}: a pattern may have {LONGEST_PATTERN} characters")
    pieces = PIECES.findall(pattern)
    other = [p for p in pieces if p in DIFFERENT or p.startswith("(?") and p not in GROUPS]
    try:
        if not other:
            return re.compile("".join(TRANSLATED.get(piece, piece) for piece in pieces), re.ASCII)
    except (re.error, RecursionError, OverflowError) as error:
        other = [error]
    raise UnsupportedSchema(f"{where}: this pattern cannot be used here: {pattern!r} ({other[0]})")
