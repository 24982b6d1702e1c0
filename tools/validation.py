"""Is a value valid under a schema, and if not, why: all problems at once, each with its place.

    validate({"n": "7"}, schema)    ->  [Problem("/n", "must be an integer, not the string \\"7\\"")]
    coerce({"n": "7"}, schema)      ->  ({"n": 7}, ["/n: \\"7\\" -> 7"])

Python's == takes True for 1, and 0.1 + 0.2 for something else than 0.3. JSON Schema compares values as they
are written, so numbers are compared as exact fractions and everything else through a fingerprint."""

import json
from collections import Counter
from fractions import Fraction
from typing import NamedTuple

from tools.json_reader import JSONError, parse
from tools.schema import LONGEST_TEXT, UnsupportedSchema, check, compiled, exact, kind_of, resolve


class Problem(NamedTuple):
    """path is a JSON Pointer (RFC 6901) into the value: "" is the whole, "/to/0" the first item of "to"."""

    path: str
    message: str

    def __str__(self):
        return f"{self.path or 'the value'}: {self.message}"


def is_integer(value):
    return kind_of(value) == "number" and exact(value).denominator == 1


def fits(value, types):
    return kind_of(value) in types or "integer" in types and is_integer(value)


def fingerprint(value):
    """Equal for two JSON values exactly where JSON Schema calls them equal; hashable."""
    kind = kind_of(value)
    if kind == "number":
        value = exact(value)
    elif kind == "array":
        value = tuple(map(fingerprint, value))
    elif kind == "object":
        value = frozenset((key, fingerprint(item)) for key, item in value.items())
    return kind, value


def show(value, most=60):
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= most else text[:most] + " ..."


def unique(items):
    return max(Counter(map(fingerprint, items)).values(), default=1) == 1


def several(number, what):
    return f"{number} {what}{'' if number == 1 else 's'}"


LIMITS = {  # keyword -> (the kind it speaks about, what must hold, how to say it)
    "minimum": ("number", lambda v, n: exact(v) >= exact(n), lambda n: f"at least {n}"),
    "maximum": ("number", lambda v, n: exact(v) <= exact(n), lambda n: f"at most {n}"),
    "exclusiveMinimum": ("number", lambda v, n: exact(v) > exact(n), lambda n: f"above {n}"),
    "exclusiveMaximum": ("number", lambda v, n: exact(v) < exact(n), lambda n: f"below {n}"),
    "multipleOf": ("number", lambda v, n: exact(v) % exact(n) == 0, lambda n: f"a multiple of {n}"),
    "minLength": ("string", lambda v, n: len(v) >= n, lambda n: f"{several(n, 'character')} long or longer"),
    "maxLength": ("string", lambda v, n: len(v) <= n, lambda n: f"{several(n, 'character')} long at most"),
    "pattern": (
        "string",
        lambda v, p: len(v) <= LONGEST_TEXT and compiled(p).search(v),
        lambda p: f"text of at most {LONGEST_TEXT} characters that matches {p}",
    ),
    "minItems": ("array", lambda v, n: len(v) >= n, lambda n: f"a list of at least {several(n, 'item')}"),
    "maxItems": ("array", lambda v, n: len(v) <= n, lambda n: f"a list of at most {several(n, 'item')}"),
    "uniqueItems": ("array", lambda v, on: not on or unique(v), lambda on: "a list without repeated items"),
    "minProperties": ("object", lambda v, n: len(v) >= n, lambda n: f"an object of {n} keys or more"),
    "maxProperties": ("object", lambda v, n: len(v) <= n, lambda n: f"an object of {n} keys at most"),
}


def validate(value, schema):
    """-> [Problem], empty where the value (as `parse` returns it) is valid.

    Raises UnsupportedSchema for a keyword that is not enforced here, whatever the value."""
    check(schema)
    try:
        return list(problems(value, schema, "", schema))
    except RecursionError:
        return [Problem("", "is nested too deep: make it flatter")]


def problems(value, schema, path, root, inside=()):
    """`inside` holds the schemas that speak about this same value: to meet one again is an endless $ref."""
    kind = kind_of(value)
    if kind is None:
        yield Problem(path, f"JSON has no way to write {value!r}")
        return
    if isinstance(schema, bool):
        if not schema:
            yield Problem(path, f"nothing may stand here, not even {show(value)}: leave it out")
        return
    if id(schema) in inside:
        raise UnsupportedSchema(f"a $ref that leads back to itself at {path or 'the whole value'}")
    same = (value, path, root, (*inside, id(schema)))
    if "$ref" in schema:
        yield from problems(value, resolve(root, schema["$ref"]), *same[1:])
    types = types_of(schema)
    if types and not fits(value, types):
        wanted = " or ".join(
            ("an " if name[0] in "aio" else "a ") * (name != "null") + name for name in types
        )
        yield Problem(
            path, f"must be {wanted}, not the {kind} {show(value)}".replace("the null null", "null")
        )
    for name, allowed in (("enum", schema.get("enum")), ("const", [schema.get("const")])):
        if name in schema and fingerprint(value) not in map(fingerprint, allowed):
            choice = "one of " * (len(allowed) > 1) + ", ".join(map(show, allowed))
            yield Problem(path, f"must be {choice}, not {show(value)}")
    for keyword, limit in schema.items():
        about, holds, say = LIMITS.get(keyword, (None, None, None))
        if about == kind and not holds(value, limit):
            yield Problem(path, f"must be {say(limit)}, not {show(value)}")
    if kind == "object":
        yield from problems_of_object(value, schema, path, root)
    if kind == "array":
        first = schema.get("prefixItems", [])
        for i, item in enumerate(value):
            part = first[i] if i < len(first) else schema.get("items", True)
            yield from problems(item, part, f"{path}/{i}", root)
    for part in schema.get("allOf", []):
        yield from problems(value, part, *same[1:])
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            found = [list(problems(value, part, *same[1:])) for part in schema[keyword]]
            count = sum(not bad for bad in found)
            if not count:
                reasons = "; or ".join(
                    f"{bad[0].path[len(path) :]} {bad[0].message}".strip() for bad in found[:4]
                )
                yield Problem(path, f"fits no form that is allowed here: {reasons}")
            elif count > 1 and keyword == "oneOf":
                yield Problem(path, f"fits {count} of the forms given by oneOf: it must fit exactly one")
    if "not" in schema and not list(problems(value, schema["not"], *same[1:])):
        yield Problem(path, f"is what the schema rules out with not: {show(schema['not'])}")


def problems_of_object(value, schema, path, root):
    declared = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            known = declared.get(name)
            about = known.get("description") if isinstance(known, dict) else None
            yield Problem(path, f"{show(name)} is missing" + (f": {about}" if about else ""))
    for name, item in value.items():
        here = f"{path}/{name.replace('~', '~0').replace('/', '~1')}"
        part = declared.get(name, schema.get("additionalProperties", True))
        if part is False and name not in declared:
            there = f"use {', '.join(map(show, declared))}" if declared else "leave it out"
            yield Problem(here, f"there is no such key here: {there}")
        else:
            yield from problems(item, part, here, root)


def types_of(schema):
    """The types that a schema names itself."""
    types = schema.get("type", [])
    return [types] if isinstance(types, str) else types


def coerce(value, schema):
    """Mends what a model spells wrongly and nothing else -> (value, [what was changed]).

    A string becomes the number, boolean, null, list or object whose JSON it is, and 1.0 becomes 1, only
    where the schema asks for it and nothing is lost: "0.50" becomes 0.5, "yes" and 1.5 stay what they are.
    The result may still be invalid."""
    check(schema)
    changes = []
    return mended(value, schema, "", schema, changes), changes


def mended(value, schema, path, root, changes):
    if isinstance(schema, bool):
        return value
    for part in [resolve(root, schema["$ref"])] if "$ref" in schema else []:
        value = mended(value, part, path, root, changes)
    for part in schema.get("allOf", []):
        value = mended(value, part, path, root, changes)
    for keyword in ("anyOf", "oneOf"):
        branches = schema.get(keyword, [])
        as_it_is = [part for part in branches if not list(problems(value, part, path, root))]
        for part in as_it_is[:1] or branches:
            tried = []
            new = mended(value, part, path, root, tried)
            if not list(problems(new, part, path, root)):
                value = new
                changes += tried
                break
    types = types_of(schema) or [kind_of(v) for v in schema.get("enum", [schema.get("const", ...)])]
    new = value
    if isinstance(value, str) and types and not fits(value, types):
        new = unquoted(value, types)
    if isinstance(new, float) and "integer" in types and "number" not in types and is_integer(new):
        new = int(exact(new))
    if type(new) is not type(value):
        changes.append(f"{path or 'the value'}: {show(value)} -> {show(new)}")
        value = new
    if isinstance(value, dict):
        declared, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        return {
            key: mended(item, declared.get(key, others), f"{path}/{key}", root, changes)
            for key, item in value.items()
        }
    if isinstance(value, list):
        first, others = schema.get("prefixItems", []), schema.get("items", True)
        return [
            mended(item, first[i] if i < len(first) else others, f"{path}/{i}", root, changes)
            for i, item in enumerate(value)
        ]
    return value


def unquoted(text, types):
    """The value whose JSON a string is, where it has one of the types and says the same; else the string."""
    try:
        value = parse(text)
        same = kind_of(value) != "number" or exact(value) == Fraction(text.strip())
    except (JSONError, ValueError):
        return text
    return value if same and fits(value, types) else text
