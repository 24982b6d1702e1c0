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

What a schema cannot say raises UnsupportedSchema when the function is registered. The other way out, a
silent {"type": "object"}, is an error that shows up later and elsewhere: in what a model makes of it.

One schema serves prompt, validator (validation.py) and grammar (grammar.py)."""

import dataclasses
import enum
import importlib
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

from tools.json_reader import JSONError, parse

NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null", None: "null"}
MARKS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
}
# Python 3.10 has none of these, 3.11 not the third.
WRAPPERS = [getattr(typing, name, None) for name in ("Required", "NotRequired", "ReadOnly")]
REQUIRED, NOT_REQUIRED = WRAPPERS[:2]


def schema_of(function):
    """The schema of the object that holds a function's arguments by name.

    Types: str, int, float, bool, None, Any, Literal, Enum (by its values), Optional and unions, list, tuple,
    dict with str keys, TypedDict, dataclass, and Annotated with a description (a str), with keywords (a dict
    such as {"minimum": 1}) or with bounds as annotated_types has them (ge, gt, le, lt, multiple_of,
    min_length, max_length). Descriptions come from docstrings in the style of Google, NumPy or Sphinx. A
    parameter with a default may be left out.

    Raises UnsupportedSchema, naming the parameter, for all else: no hint, other types, *args, positional
    only."""
    parameters, hints = signature_of(function)
    about, described = read_docstring(inspect.getdoc(function))
    properties, required, others, defs = {}, [], False, {}
    for name, parameter in parameters.items():
        where = f"parameter {name!r} of {getattr(function, '__name__', function)}"
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise UnsupportedSchema(f"{where}: arguments are passed by name: write it without / and *args")
        if name not in hints:
            raise UnsupportedSchema(f"{where} has no type hint: give it one, as in {name}: str")
        schema = of_hint(hints[name], where, defs, ())
        if parameter.kind == parameter.VAR_KEYWORD:
            others = schema
            continue
        if name in described:
            schema = {**schema, "description": described[name]}
        if parameter.default is parameter.empty:
            required.append(name)
        else:
            schema = with_default(schema, parameter.default)
        properties[name] = schema
    found = object_schema(properties, required, others)
    found = {"type": "object", **({"description": about} if about else {}), **found}
    if defs:
        found["$defs"] = defs
    check(found)
    return found


def signature_of(function):
    """-> (parameters by name, their hints by name), string annotations resolved."""
    target = function
    while hasattr(target, "func") and not inspect.isroutine(target):  # functools.partial
        target = target.func
    if not inspect.isroutine(target):
        target = type(target).__call__
    try:
        parameters = inspect.signature(function).parameters
        plain = inspect.unwrap(target)
        closure = plain if inspect.isfunction(plain) else getattr(plain, "__func__", None)
        known = inspect.getclosurevars(closure).nonlocals if closure else None
        return parameters, typing.get_type_hints(target, localns=known, include_extras=True)
    except NameError as error:
        raise UnsupportedSchema(
            f"{function.__name__}: a type hint names what is not there: {error}"
        ) from None
    except (TypeError, ValueError, AttributeError) as error:
        raise UnsupportedSchema(f"{function!r} has no signature that can be read: {error}") from None


def object_schema(properties, required, others=False):
    found = {"properties": properties}
    if required:
        found["required"] = required
    if others != {}:
        found["additionalProperties"] = others
    return found


def with_default(schema, value):
    value = (
        value.value if isinstance(value, enum.Enum) else list(value) if isinstance(value, tuple) else value
    )
    try:
        parse(json.dumps(value))
    except (TypeError, JSONError):
        return schema  # a default that JSON cannot write is the function's own affair
    return {**schema, "default": value}


def of_hint(hint, where, defs, inside):
    """One type hint -> its schema. `inside` holds the classes that are being described: one that holds
    itself becomes a $ref into `defs`."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is None and isinstance(hint, (type, type(None))) and hint in NAMES:
        return {"type": NAMES[hint]}
    if hint is Any:
        return {}
    if origin is Annotated:
        schema = of_hint(parts[0], where, defs, inside)
        for mark in parts[1:]:
            schema = {**schema, **of_mark(mark, schema, where)}
        return schema
    if origin and origin in WRAPPERS:
        return of_hint(parts[0], where, defs, inside)
    if origin in (Union, types.UnionType):
        schemas = [of_hint(part, where, defs, inside) for part in parts]
        if all(list(schema) == ["type"] for schema in schemas):
            return {"type": [schema["type"] for schema in schemas]}
        return {"anyOf": schemas}
    if origin is Literal:
        return choice([v.value if isinstance(v, enum.Enum) else v for v in parts], where)
    if inspect.isclass(hint) and issubclass(hint, enum.Enum):
        return choice([member.value for member in hint], where)
    if hint is list or origin is list:
        return {"type": "array", **({"items": of_hint(parts[0], where, defs, inside)} if parts else {})}
    if hint is tuple or origin is tuple:
        if len(parts) == 2 and parts[1] is ...:
            return {"type": "array", "items": of_hint(parts[0], where, defs, inside)}
        if hint is tuple:
            return {"type": "array"}
        first = {"prefixItems": [of_hint(part, where, defs, inside) for part in parts]} if parts else {}
        return {"type": "array", **first, "minItems": len(parts), "maxItems": len(parts)}
    if hint is dict or origin is dict:
        if parts and parts[0] is not str:
            raise UnsupportedSchema(f"{where}: the keys of a JSON object are strings: write dict[str, ...]")
        rest = of_hint(parts[1], where, defs, inside) if parts else {}
        return {"type": "object", **({"additionalProperties": rest} if rest else {})}
    if dataclasses.is_dataclass(hint) or typing.is_typeddict(hint):
        return of_class(hint, where, defs, inside)
    if hasattr(hint, "__supertype__"):  # NewType
        return of_hint(hint.__supertype__, where, defs, inside)
    if hasattr(hint, "__value__"):  # type X = ...
        return of_hint(hint.__value__, where, defs, inside)
    name = getattr(hint, "__name__", None) or repr(hint)
    raise UnsupportedSchema(
        f"{where}: JSON Schema cannot express {name}: take str, int, list, a dataclass ..."
    )


def of_class(hint, where, defs, inside):
    name = hint.__name__
    if hint in inside:
        defs.setdefault(name, {})
        return {"$ref": f"#/$defs/{name}"}
    hints = hints_of(hint)
    if dataclasses.is_dataclass(hint):
        fields = [field for field in dataclasses.fields(hint) if field.init]
        none = dataclasses.MISSING
        optional = {
            f.name: f.default for f in fields if f.default is not none or f.default_factory is not none
        }
        names = [field.name for field in fields]
    else:
        # With string annotations __required_keys__ knows only total=; the wrappers are seen in the hints.
        wrapper = {name: typing.get_origin(part) or part for name, part in hints.items()}
        names = list(hints)
        must = {n for n in names if n in hint.__required_keys__ and wrapper[n] is not NOT_REQUIRED}
        must |= {n for n in names if wrapper[n] is REQUIRED}
        optional = dict.fromkeys((n for n in names if n not in must), dataclasses.MISSING)
    described = read_docstring(hint.__doc__)[1]
    properties = {}
    for field in names:
        schema = of_hint(hints[field], f"{where}, field {field!r} of {name}", defs, (*inside, hint))
        if field in described:
            schema = {**schema, "description": described[field]}
        default = optional.get(field, dataclasses.MISSING)
        properties[field] = schema if default is dataclasses.MISSING else with_default(schema, default)
    required = [field for field in names if field not in optional]
    found = {"type": "object", **object_schema(properties, required)}
    if name not in defs:
        return found
    if defs[name] not in ({}, found):
        raise UnsupportedSchema(f"{where}: two classes are called {name}: rename one")
    defs[name] = found
    return {"$ref": f"#/$defs/{name}"}


def hints_of(hint):
    try:
        return typing.get_type_hints(hint, include_extras=True)
    except NameError as error:
        raise UnsupportedSchema(f"{hint.__name__}: a type hint names what is not there: {error}") from None


def choice(values, where):
    """The schema of one value out of several."""
    kinds = {kind_of(value) for value in values}
    if not kinds <= {"null", "boolean", "number", "string"}:
        raise UnsupportedSchema(f"{where}: a choice is between strings, numbers, true, false and null")
    return {"type": "string", "enum": values} if kinds == {"string"} else {"enum": values}


def of_mark(mark, schema, where):
    """What stands behind the type in Annotated -> schema keywords."""
    if isinstance(mark, str):
        return {"description": mark}
    if isinstance(mark, dict):
        return mark
    found = {
        keyword: getattr(mark, name)
        for name, keyword in MARKS.items()
        if getattr(mark, name, None) is not None
    }
    size = {"string": "Length", "array": "Items", "object": "Properties"}.get(schema.get("type"))
    for edge in ("min", "max"):
        if size and getattr(mark, f"{edge}_length", None) is not None:
            found[edge + size] = getattr(mark, f"{edge}_length")
    for inner in getattr(mark, "metadata", []):  # pydantic's Field keeps its bounds there
        found |= of_mark(inner, schema, where)
    if isinstance(getattr(mark, "description", None), str):
        found["description"] = mark.description
    if not found:
        raise UnsupportedSchema(f"{where}: {mark!r} is no bound that is known here: write a dict of keywords")
    return found


HEADING = re.compile(r"(?i)(args|arguments|parameters|other parameters|keyword arg(ument)?s|attributes):?")
OTHER = re.compile(r"(?i)(returns?|yields?|raises?|examples?|notes?|references|see also|warnings?|todo):?")
GOOGLE = re.compile(r"( +)\*{0,2}(\w+) *(?:\(.*?\))? *: *(.*)")
NUMPY = re.compile(r"\*{0,2}(\w+)(?: *, *\w+)* *(?::.*)?")
SPHINX = re.compile(r" *:(?:param|parameter|arg|argument|key|keyword)(?: +[^:]*?)? +\*{0,2}(\w+) *: *(.*)")


def read_docstring(text):
    """A docstring -> (what the function does, {parameter: what it is}). Reads three styles: Google, NumPy,
    Sphinx."""
    lines = inspect.cleandoc(text or "").splitlines()
    about, found, style, names, indent = [], {}, "about", [], None
    for line, below in zip(lines, [*lines[1:], ""]):
        indented = line.startswith(" ")
        underlined = re.fullmatch(r"(-{3,}|={3,})", below)
        field = SPHINX.fullmatch(line)
        if field:
            style, names = "sphinx", [field[1]]
            found[field[1]] = [field[2]]
        elif re.match(r" *:\w+[^:]*:", line):
            style, names = "other", []
        elif not indented and HEADING.fullmatch(line) and (underlined or line.endswith(":")):
            style, names, indent = "numpy" if underlined else "google", [], None
        elif not indented and (underlined or OTHER.fullmatch(line)):
            style, names = "other", []
        elif style == "about":
            about.append(line)
        elif style == "google" and line and not indented:
            style, names = "other", []
        elif style == "google" and (item := GOOGLE.fullmatch(line)) and indent in (None, item[1]):
            names, indent = [item[2]], item[1]
            found[item[2]] = [item[3]]
        elif style == "numpy" and not indented and NUMPY.fullmatch(line):
            names = re.findall(r"\w+", line.partition(":")[0])
            found |= {name: [] for name in names}
        elif indented:
            for name in names:
                found[name].append(line.strip())
    paragraph = "\n".join(about).strip()
    return paragraph, {name: " ".join(filter(None, words)) for name, words in found.items() if any(words)}


def arguments_of(function, values):
    """Valid JSON -> the keyword arguments the hints speak of: Enum members, dataclasses, tuples."""
    parameters, hints = signature_of(function)
    last = next((p.name for p in parameters.values() if p.kind == p.VAR_KEYWORD), None)
    return {name: build(value, hints[name if name in parameters else last]) for name, value in values.items()}


def build(value, hint):
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin and origin in (Annotated, *WRAPPERS):
        return build(value, parts[0])
    if hasattr(hint, "__supertype__") or hasattr(hint, "__value__"):
        return build(value, getattr(hint, "__supertype__", None) or hint.__value__)
    if origin in (Union, types.UnionType):
        validate = importlib.import_module("tools.validation").validate
        fitting = (part for part in parts if not validate(value, whole_schema(part)))
        return build(value, next(fitting, Any))
    if inspect.isclass(hint) and issubclass(hint, enum.Enum):
        return hint(value)
    if origin is Literal:
        return next(
            v
            for v in parts
            if (v.value if isinstance(v, enum.Enum) else v) == value
            and kind_of(v.value if isinstance(v, enum.Enum) else v) == kind_of(value)
        )
    if origin is list:
        return [build(item, parts[0]) for item in value]
    if hint is tuple or origin is tuple:
        hints = parts[:1] * len(value) if len(parts) == 2 and parts[1] is ... else parts or [Any] * len(value)
        return tuple(map(build, value, hints))
    if origin is dict:
        return {key: build(item, parts[1]) for key, item in value.items()}
    if dataclasses.is_dataclass(hint) or typing.is_typeddict(hint):
        hints = hints_of(hint)
        built = {key: build(item, hints[key]) for key, item in value.items()}
        return hint(**built) if dataclasses.is_dataclass(hint) else built
    return value


def whole_schema(hint):
    defs = {}
    schema = of_hint(hint, "a value", defs, ())
    return {**schema, "$defs": defs} if defs else schema


LEADERBOARD = {"dict": "object", "float": "number", "tuple": "array", "any": None}


def from_leaderboard(schema):
    """A function's `parameters` as the Berkeley Function Calling Leaderboard writes them -> JSON Schema.

    Its types are Python's: dict is an object, float a number, tuple an array, any is no constraint. Its
    `optional` says nothing that `required` does not. Names with dots are kept: our protocol has no rule
    against them."""
    if not isinstance(schema, dict):
        return schema
    found = {}
    for keyword, value in schema.items():
        if keyword == "type" and isinstance(value, str):
            value = LEADERBOARD.get(value, value)
        elif keyword == "properties":
            value = {name: from_leaderboard(part) for name, part in value.items()}
        elif keyword in ("items", "additionalProperties"):
            value = from_leaderboard(value)
        if keyword != "optional" and (keyword, value) != ("type", None):
            found[keyword] = value
    return found


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
