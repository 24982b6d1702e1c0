"""The supported schemas: JSON Schema 2020-12 without the keywords in REFUSED.

The prompt shows a model the whole schema, so neither the validator (validation.py) nor the grammar
(grammar.py) may overlook a keyword that affects validity. A keyword that only informs (title, default, format
...) is ignored, as the standard says. A keyword that affects validity but is not in TAKES raises
UnsupportedSchema before anything relies on the schema."""

import math
import re
from fractions import Fraction
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from urllib.parse import unquote

NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null", None: "null"}
KINDS = ("null", "boolean", "number", "string", "array", "object")
KIND_OF = {**NAMES, int: "number", list: "array", dict: "object"}


class UnsupportedSchema(ValueError):
    """A schema or a Python type that cannot be enforced. The message says what is wrong, and where."""


def kind_of(value):
    """One of KINDS, or None for a value that JSON cannot express."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return KIND_OF.get(type(value))


def is_number(value):
    return kind_of(value) == "number"


def is_count(value):
    return is_number(value) and value >= 0 and value == int(value)


def is_schema(value):
    return isinstance(value, (dict, bool))


def are_schemas(value):
    return isinstance(value, list) and value != [] and all(map(is_schema, value))


def is_names(value):
    is_list = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return is_list and len({*value}) == len(value)


def is_types(value):
    names = [value] if isinstance(value, str) else value
    return is_names(names) and names != [] and {*names} <= {*KINDS, "integer"}


def are_named_schemas(value):
    return isinstance(value, dict) and all(map(is_schema, value.values()))


SCHEMA, SCHEMAS, NAMED = "a schema", "a list of schemas", "an object of schemas"
TAKES = {}  # keyword -> (a description of its valid values, the test for them)
for wording, is_right, keywords in (
    (SCHEMA, is_schema, "items additionalProperties not"),
    (SCHEMAS, are_schemas, "prefixItems anyOf oneOf allOf"),
    (NAMED, are_named_schemas, "properties $defs definitions"),
    ("a type or a list of types", is_types, "type"),
    ("a list", lambda v: isinstance(v, list), "enum"),
    ("any value", lambda v: True, "const"),
    ("a list of names", is_names, "required"),
    ("true or false", lambda v: isinstance(v, bool), "uniqueItems"),
    ("a string", lambda v: isinstance(v, str), "pattern $ref"),
    ("a whole number from 0 up", is_count, "minItems maxItems minLength maxLength"),
    ("a whole number from 0 up", is_count, "minProperties maxProperties"),
    ("a number", is_number, "minimum maximum exclusiveMinimum exclusiveMaximum"),
    ("a number above 0", lambda v: is_number(v) and v > 0, "multipleOf"),
):
    TAKES |= dict.fromkeys(keywords.split(), (wording, is_right))
REFUSED = (
    "patternProperties",
    "propertyNames",
    "contains",
    "minContains",
    "maxContains",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "if",
    "then",
    "else",
    "unevaluatedItems",
    "unevaluatedProperties",
    "additionalItems",
    "$dynamicRef",
    "$recursiveRef",
)
LONGEST_PATTERN, LONGEST_TEXT = 1000, 10_000  # characters; matching time grows faster than length


def exact(number):
    """A number as it is written: 0.1 is one tenth, not the nearest binary fraction. So 0.3 is a multiple of
    0.1."""
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


def pointer(place, name):
    """The JSON Pointer (RFC 6901) to the entry `name` of the value at `place`."""
    return f"{place}/{str(name).replace('~', '~0').replace('/', '~1')}"


def resolve(root, reference, where="#"):
    """The schema in this document that a $ref points to. Raises UnsupportedSchema for any other $ref."""
    first, *names = reference.split("/")
    if first != "#":
        raise UnsupportedSchema(f"{where}: $ref {reference!r} points outside this document: use $defs")
    target = root
    try:
        for name in names:
            name = unquote(name).replace("~1", "/").replace("~0", "~")
            target = target[int(name)] if isinstance(target, list) else target[name]
    except (KeyError, IndexError, ValueError, TypeError):
        target = None
    if not is_schema(target):
        raise UnsupportedSchema(f"{where}: $ref {reference!r} does not name a schema in this document")
    return target


def check(schema, where="#", root=None, seen=None):
    """Raises UnsupportedSchema unless each keyword in the schema only informs, or is enforced and has a valid
    value. A $ref that leads back to itself, without passing through a property or an item, is refused too."""
    is_root, seen = root is None, {} if seen is None else seen
    root = schema if is_root else root
    if not is_schema(schema):
        raise UnsupportedSchema(f"{where}: a schema is an object, true or false, not {type(schema).__name__}")
    if isinstance(schema, bool) or id(schema) in seen:
        return
    same_value = seen[id(schema)] = []  # the schemas that apply to the same value as this one
    if len(seen) > 20_000 or where.count("/") > 400:
        raise UnsupportedSchema(f"{where}: the schema is too large")
    for keyword, value in schema.items():
        here = f"{where}/{keyword}"
        if keyword in REFUSED:
            raise UnsupportedSchema(f"{here}: {keyword} cannot be enforced: write the schema without it")
        if keyword == "$schema" and "//json-schema.org/" not in str(value):
            raise UnsupportedSchema(f"{here}: only dialects of json-schema.org are supported, not {value!r}")
        if keyword == "$id" and where != "#":
            raise UnsupportedSchema(f"{here}: a schema inside another cannot have its own $id: use $defs")
        wanted, is_right = TAKES.get(keyword, (None, None))
        if wanted and not is_right(value):
            raise UnsupportedSchema(f"{here}: {keyword} must be {wanted}")
        parts = {here: value} if wanted == SCHEMA else {}
        if keyword == "pattern":
            compiled(value, here)
        elif keyword == "$ref":
            parts = {value: resolve(root, value, here)}
        elif wanted in (SCHEMAS, NAMED):
            items = value.items() if wanted == NAMED else enumerate(value)
            parts = {pointer(here, name): part for name, part in items}
        for place, part in parts.items():
            check(part, place, root, seen)
        if keyword in ("$ref", "anyOf", "oneOf", "allOf", "not"):
            same_value += map(id, parts.values())
    if is_root:
        try:
            TopologicalSorter(seen).prepare()
        except CycleError:
            raise UnsupportedSchema(f"{where}: a $ref leads back to itself in an endless loop") from None


PIECES = re.compile(r"\\.|\[\^?(?:\\.|[^\]\\])*\]|.", re.DOTALL)  # escape, character class or character


@lru_cache(maxsize=256)
def compiled(pattern, where="#"):
    """A pattern, compiled by Python's `re` with ASCII classes. $ matches only at the very end.

    Raises UnsupportedSchema for a pattern that is longer than LONGEST_PATTERN or that `re` refuses. Avoid
    nested repetition, as in (a+)+: matching can take exponential time, and nothing stops it."""
    if len(pattern) > LONGEST_PATTERN:
        raise UnsupportedSchema(f"{where}: a pattern may have at most {LONGEST_PATTERN} characters")
    try:  # in `re`, $ also matches before a final line break
        pieces = (r"\Z" if piece == "$" else piece for piece in PIECES.findall(pattern))
        return re.compile("".join(pieces), re.ASCII)
    except (re.error, RecursionError, OverflowError) as error:
        raise UnsupportedSchema(f"{where}: this pattern cannot be used: {pattern!r} ({error})") from None
