"""Which JSON Schemas we understand: draft 2020-12, less what is refused here by name.

Prompt, validator and grammar all read the same schema, so all three must understand every keyword in it
that decides what is valid. A keyword that only informs (title, default, format ...) is left alone, as the
standard says; one that would decide and is not in TAKES raises UnsupportedSchema before anything relies on
it."""

from fractions import Fraction

KINDS = ("null", "boolean", "number", "string", "array", "object")

SCHEMA, SCHEMAS, NAMED = "a schema", "a list of schemas", "an object of schemas"
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


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


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
            part = part.replace("%25", "%").replace("%22", '"').replace("~1", "/").replace("~0", "~")
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
