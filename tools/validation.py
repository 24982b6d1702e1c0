"""Whether a value is valid under a schema, and if not, why: all problems at once, each with its path.

    validate({"n": "7"}, schema)    ->  [Problem("/n", "must be of type integer, not \\"7\\"")]
    coerce({"n": "7"}, schema)      ->  {"n": 7}

In Python, True == 1 and 0.3 % 0.1 != 0. In JSON Schema, true is not 1, and 0.3 is a multiple of 0.1. So
numbers are exact fractions here, and values are equal if their fingerprints are."""

import json
from fractions import Fraction
from typing import NamedTuple

from tools.json_reader import JSONError, parse
from tools.schema import LONGEST_TEXT, check, compiled, exact, kind_of, pointer, resolve


class Problem(NamedTuple):
    """path is a JSON Pointer (RFC 6901): "" is the whole value, and "/to/0" is the first item of "to"."""

    path: str
    message: str

    def __str__(self):
        return f"{self.path or 'the value'}: {self.message}"


def is_integer(value):
    return kind_of(value) == "number" and exact(value).denominator == 1


def fits(value, types):
    return kind_of(value) in types or "integer" in types and is_integer(value)


def fingerprint(value):
    """A hashable object that is equal for two JSON values exactly when JSON Schema considers them equal."""
    kind = kind_of(value)
    if kind == "number":
        value = exact(value)
    elif kind == "array":
        value = tuple(map(fingerprint, value))
    elif kind == "object":
        value = frozenset((key, fingerprint(item)) for key, item in value.items())
    return kind, value


def show(value):
    """A value's JSON, cut off after 60 characters."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else text[:60] + " ..."


def is_unique(items):
    return len({*map(fingerprint, items)}) == len(items)


def matches(text, pattern):
    return len(text) <= LONGEST_TEXT and compiled(pattern).search(text)


LIMITS = {  # keyword -> (the kind of value it applies to, the test, a description of valid values)
    "minimum": ("number", lambda v, n: exact(v) >= exact(n), "at least {}"),
    "maximum": ("number", lambda v, n: exact(v) <= exact(n), "at most {}"),
    "exclusiveMinimum": ("number", lambda v, n: exact(v) > exact(n), "above {}"),
    "exclusiveMaximum": ("number", lambda v, n: exact(v) < exact(n), "below {}"),
    "multipleOf": ("number", lambda v, n: exact(v) % exact(n) == 0, "a multiple of {}"),
    "minLength": ("string", lambda v, n: len(v) >= n, "text with a length of at least {}"),
    "maxLength": ("string", lambda v, n: len(v) <= n, "text with a length of at most {}"),
    "pattern": ("string", matches, f"text of at most {LONGEST_TEXT} characters that matches {{}}"),
    "minItems": ("array", lambda v, n: len(v) >= n, "a list with a length of at least {}"),
    "maxItems": ("array", lambda v, n: len(v) <= n, "a list with a length of at most {}"),
    "uniqueItems": ("array", lambda v, on: not on or is_unique(v), "a list without repeated items"),
    "minProperties": ("object", lambda v, n: len(v) >= n, "an object whose number of keys is at least {}"),
    "maxProperties": ("object", lambda v, n: len(v) <= n, "an object whose number of keys is at most {}"),
}


def validate(value, schema):
    """A value, as `parse` returns it, and a schema -> [Problem], an empty list if the value is valid.

    Raises UnsupportedSchema for a schema that `check` refuses, whatever the value."""
    check(schema)
    return list(problems(value, schema))


def problems(value, schema, path="", root=None, seen=None):
    """Yields the Problems that `validate` returns, for a schema that `check` accepts. A $ref is looked up in
    `root`. `seen` holds the first problem of each value under each branch of `anyOf`, `oneOf` and `not`:
    without this cache, the time would grow exponentially with the depth of a nested union."""
    root, kind, seen = schema if root is None else root, kind_of(value), {} if seen is None else seen
    if kind is None:
        yield Problem(path, f"JSON has no way to write {value!r}")
        return
    if isinstance(schema, bool):
        if not schema:
            yield Problem(path, f"no value is allowed here: leave out {show(value)}")
        return
    under = lambda part: problems(value, part, path, root, seen)
    for part in parts_of(schema, root):
        yield from under(part)
    types = types_of(schema)
    if types and not fits(value, types):
        yield Problem(path, f"must be of type {' or '.join(types)}, not {show(value)}")
    for name, allowed in (("enum", schema.get("enum")), ("const", [schema.get("const")])):
        if name in schema and fingerprint(value) not in map(fingerprint, allowed):
            choice = "one of " * (len(allowed) > 1) + ", ".join(map(show, allowed))
            yield Problem(path, f"must be {choice}, not {show(value)}")
    for keyword in filter(LIMITS.get, schema):
        about, holds, wanted = LIMITS[keyword]
        if about == kind and not holds(value, schema[keyword]):
            yield Problem(path, f"must be {wanted.format(schema[keyword])}, not {show(value)}")
    if kind == "object":
        for name in schema.get("required", []):
            if name not in value:
                yield Problem(path, f"{show(name)} is missing")
    for name, item, part in items_of(value, schema):
        declared = schema.get("properties", {})
        if kind == "object" and part is False and name not in declared:
            instead = f"use {', '.join(map(show, declared))}" if declared else "leave it out"
            yield Problem(pointer(path, name), f"there is no such key here: {instead}")
        else:
            yield from problems(item, part, pointer(path, name), root, seen)
    for keyword in ("anyOf", "oneOf"):
        branches = [first_problem(value, part, root, seen) for part in schema.get(keyword, [])]
        count = branches.count(None)
        if branches and not count:
            reasons = (f"{bad.path} {bad.message}".strip()[:200] for bad in branches[:4])
            yield Problem(path, f"fits none of the allowed forms: {'; or '.join(reasons)}")
        elif count > 1 and keyword == "oneOf":
            yield Problem(path, f"fits {count} of the forms given by oneOf: it must fit exactly one")
    if "not" in schema and first_problem(value, schema["not"], root, seen) is None:
        yield Problem(path, f"is ruled out by the keyword 'not': {show(schema['not'])}")


def is_valid(value, schema, root=None):
    """Whether a value is valid under a schema that `check` accepts."""
    return not any(problems(value, schema, root=root))


def first_problem(value, schema, root, seen):
    """The first Problem, with a path relative to this value, or None if the value is valid."""
    key = id(value), id(schema)
    if key not in seen:
        seen[key] = next(problems(value, schema, "", root, seen), None)
    return seen[key]


def types_of(schema):
    """The types that the schema itself names."""
    types = schema.get("type", [])
    return [types] if isinstance(types, str) else types


def parts_of(schema, root):
    """The schemas under $ref and allOf, which the value must obey too."""
    referred = [resolve(root, schema["$ref"])] if "$ref" in schema else []
    return referred + schema.get("allOf", [])


def items_of(value, schema):
    """An array or object -> [(index or key, item, the schema for the item)]"""
    if isinstance(value, dict):
        declared, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        return [(key, item, declared.get(key, others)) for key, item in value.items()]
    first, others = schema.get("prefixItems", []), schema.get("items", True)
    items = value if isinstance(value, list) else []
    return [(i, item, first[i] if i < len(first) else others) for i, item in enumerate(items)]


def coerce(value, schema, root=None, seen=None):
    """Converts a value to the types in the schema if nothing is lost. Call `check` on the schema first.

    Where the schema asks for another type, a string becomes the number, boolean, null, list or object that
    it holds as JSON, and 1.0 becomes 1. So "0.50" becomes 0.5, while "yes" and 1.5 stay unchanged. The result
    may still be invalid."""
    root, seen = schema if root is None else root, {} if seen is None else seen
    key = id(value), id(schema)
    if key not in seen:  # `seen` keeps the value, so that no other value gets its id
        seen[key] = value, coerced(value, schema, root, seen)
    return seen[key][1]


def coerced(value, schema, root, seen):
    if isinstance(schema, bool):
        return value
    for part in parts_of(schema, root):
        value = coerce(value, part, root, seen)
    for keyword in ("anyOf", "oneOf"):
        branches = sorted(schema.get(keyword, []), key=lambda part: not is_valid(value, part, root))
        tried = ((coerce(value, part, root, seen), part) for part in branches)
        value = next((new for new, part in tried if is_valid(new, part, root)), value)
    types = types_of(schema) or [kind_of(v) for v in schema.get("enum", [schema.get("const", ...)])]
    if isinstance(value, str) and not fits(value, types):
        value = unquoted(value, types)
    if isinstance(value, float) and "integer" in types and "number" not in types and is_integer(value):
        value = int(exact(value))
    old = items_of(value, schema)
    new = {key: coerce(item, part, root, seen) for key, item, part in old}
    if all(new[key] is item for key, item, _ in old):
        return value  # the same object, so that it is found in `seen`
    return new if isinstance(value, dict) else [*new.values()]


def unquoted(text, types):
    """A string read as JSON, if the value has one of the types and nothing is lost; else the string."""
    try:
        value = parse(text)
        same = kind_of(value) != "number" or exact(value) == Fraction(text.strip())
    except (JSONError, ValueError):
        return text
    return value if same and fits(value, types) else text
