"""validation: keywords mean what the standard says, problems have the right paths, coercion loses nothing.

Python's own operators would be wrong. In Python, True == 1 and 0.3 % 0.1 != 0. In JSON Schema, true is not 1
and 0.3 is a multiple of 0.1."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schemas import VALUES, near, schemas

from tools.schema import UnsupportedSchema, exact
from tools.validation import Problem, coerce, fingerprint, validate

GOOD = [
    ({"type": "integer"}, 1.0),
    ({"type": "number"}, 10**400),
    ({"type": ["string", "null"]}, None),
    ({"enum": [1, {"a": [True]}]}, {"a": [True]}),
    ({"const": 1}, 1.0),
    ({"multipleOf": 0.1}, 0.3),
    ({"multipleOf": 0.0001}, 0.0075),
    ({"exclusiveMaximum": 3}, 2.9999999999999996),
    ({"uniqueItems": True}, [1, True, "1", [1], {"a": 1}]),
    ({"minLength": 2}, "\U0001f600\U0001f600"),
    ({"pattern": "b+"}, "abbc"),
    ({"items": False, "prefixItems": [True]}, [1]),
    ({"minimum": 5, "minLength": 9, "required": ["x"]}, True),
    ({"properties": {"a": False}}, {}),
    ({"not": {"type": "string"}}, 1),
    ({"oneOf": [{"minimum": 2}, {"maximum": 1}]}, 3),
    ({"$ref": "#/$defs/n", "$defs": {"n": {"items": {"$ref": "#/$defs/n"}, "maxItems": 1}}}, [[[]]]),
    ({"$ref": "#/definitions/a~1b", "definitions": {"a/b": {"const": 1}}}, 1),
    ({"format": "date", "default": 3, "title": "t", "$comment": "", "x-mine": {"if": 1}}, "not a date"),
]
BAD = [
    # schema, value, path, part of the message
    ({"type": "integer"}, True, "", "must be of type integer, not true"),
    ({"type": "integer"}, 1.5, "", "must be of type integer"),
    ({"enum": [1, "a"]}, True, "", 'one of 1, "a", not true'),
    ({"const": False}, 0, "", "must be false, not 0"),
    ({"minimum": 0.1}, 0.09, "", "at least 0.1"),
    ({"maximum": 2**53}, 2**53 + 1, "", "at most"),
    ({"exclusiveMinimum": 1}, 1.0, "", "above 1"),
    ({"multipleOf": 0.01}, 0.075, "", "a multiple of 0.01"),
    ({"uniqueItems": True}, [{"a": 1}, {"a": 1.0}], "", "without repeated items"),
    ({"maxLength": 1}, "e\u0301", "", "length of at most 1"),
    ({"pattern": "^a$"}, "a\n", "", "matches ^a$"),
    ({"pattern": "a"}, "a" * 10_001, "", "at most 10000 characters that matches a"),
    ({"prefixItems": [True, {"type": "null"}]}, [1, 2], "/1", "must be of type null"),
    ({"items": False}, [1], "/0", "no value is allowed here"),
    ({"minItems": 2}, [1], "", "length of at least 2"),
    ({"maxProperties": 1}, {"a": 1, "b": 2}, "", "keys is at most 1"),
    ({"required": ["n"]}, {}, "", '"n" is missing'),
    ({"properties": {"a": True}, "additionalProperties": False}, {"b/~": 1}, "/b~1~0", 'use "a"'),
    ({"additionalProperties": {"type": "null"}}, {"x": {"y": 1}}, "/x", "must be of type null"),
    ({"anyOf": [{"type": "null"}, {"minimum": 3}]}, 1, "", "type null, not 1; or must be at least 3"),
    ({"oneOf": [{"minimum": 2}, {"maximum": 4}]}, 3, "", "2 of the forms"),
    ({"allOf": [{"properties": {"a": {"minimum": 3}}}]}, {"a": 1}, "/a", "at least 3"),
    ({"not": {"type": "number"}}, 1, "", "ruled out"),
    (False, 1, "", "no value is allowed here"),
    ({}, float("nan"), "", "no way to write"),
    ({}, {"a": b""}, "/a", "no way to write"),
]


@pytest.mark.parametrize("schema, value", GOOD)
def test_a_valid_value_has_no_problems(schema, value):
    assert validate(value, schema) == []


@pytest.mark.parametrize("schema, value, path, words", BAD)
def test_an_invalid_value_has_a_problem_with_its_path_and_reason(schema, value, path, words):
    (problem,) = validate(value, schema)
    assert isinstance(problem, Problem) and problem.path == path and words in problem.message


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "("},
        {"pattern": r"\p{L}"},
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"items": {"if": {}}},
    ],
    ids=str,
)
def test_an_unsupported_schema_is_refused_whatever_the_value(schema):
    with pytest.raises(UnsupportedSchema):
        validate("a", schema)


def test_all_problems_are_reported_at_once():
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 3}, "b": {"items": {"type": "string"}}},
        "required": ["c"],
        "additionalProperties": False,
    }
    problems = validate({"a": 1.5, "b": ["x", 1, None], "z": 0}, schema)
    assert sorted(problem.path for problem in problems) == ["", "/a", "/a", "/b/1", "/b/2", "/z"]


@given(VALUES, VALUES)
def test_fingerprints_are_equal_if_and_only_if_json_schema_considers_the_values_equal(one, other):
    def same(a, b):
        if isinstance(a, bool) or isinstance(b, bool) or a is None or b is None:
            return a is b
        if isinstance(a, (int, float)) and isinstance(b, (int, float)):
            return exact(a) == exact(b)
        if isinstance(a, dict) and isinstance(b, dict):
            return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
        if isinstance(a, list) and isinstance(b, list):
            return len(a) == len(b) and all(map(same, a, b))
        return type(a) is type(b) and a == b

    assert (fingerprint(one) == fingerprint(other)) == same(one, other)
    assert (validate(one, {"const": other}) == []) == same(one, other)


@given(schemas(), st.data())
def test_the_rules_of_logic_hold_for_the_keywords_allof_anyof_oneof_and_not(schema, data):
    value = data.draw(near(schema))
    good = not validate(value, schema)
    assert (not validate(value, {"not": schema})) == (not good)
    assert (not validate(value, {"allOf": [schema, True]})) == good
    assert (not validate(value, {"anyOf": [schema, False]})) == good
    assert validate(value, {"oneOf": [schema, schema]})
    assert (not validate(value, {"oneOf": [schema, {"not": schema}]})) is True
    assert (
        not validate(
            {"k": [value]}, {"properties": {"k": {"items": {"$ref": "#/$defs/s"}}}, "$defs": {"s": schema}}
        )
    ) == good


@given(schemas(), st.data())
def test_the_path_of_each_problem_exists_in_the_value(schema, data):
    value = data.draw(near(schema))
    for problem in validate(value, schema):
        item = value
        for part in problem.path.split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            item = item[int(part)] if isinstance(item, list) else item[part]
        assert problem.message and str(problem)


@given(schemas(), st.data())
def test_coercion_is_idempotent_and_turns_a_valid_value_into_an_equal_one(schema, data):
    value = data.draw(near(schema))
    before = json.dumps(value)
    coerced = coerce(value, schema)
    assert json.dumps(value) == before
    assert json.dumps(coerce(coerced, schema)) == json.dumps(coerced)
    if not validate(value, schema):
        assert validate(coerced, schema) == [] and fingerprint(coerced) == fingerprint(value)


@pytest.mark.parametrize(
    "value, schema, expected",
    [
        ("42", {"type": "integer"}, 42),
        (" -7 ", {"type": "integer"}, -7),
        ("4.0", {"type": "integer"}, 4),
        (1.0, {"type": "integer"}, 1),
        (1e300, {"type": "integer"}, 10**300),
        ("0.50", {"type": "number"}, 0.5),
        ("true", {"type": "boolean"}, True),
        ("false", {"type": ["boolean", "null"]}, False),
        ("null", {"type": ["integer", "null"]}, None),
        ("[1, 2]", {"type": "array"}, [1, 2]),
        ('{"a": "3"}', {"type": "object", "properties": {"a": {"type": "integer"}}}, {"a": 3}),
        ("2", {"enum": [1, 2]}, 2),
        (["1"], {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}]}, [1]),
    ],
)
def test_coercion_converts_a_value_to_the_type_that_the_schema_asks_for(value, schema, expected):
    coerced = coerce(value, schema)
    assert fingerprint(coerced) == fingerprint(expected) and type(coerced) is type(expected)
    assert validate(coerced, schema) == []


@pytest.mark.parametrize(
    "value, schema",
    [
        ("42", {"type": "string"}),
        ("42", {}),
        ("no", {"type": "boolean"}),
        ("False", {"type": "boolean"}),
        ("", {"type": "boolean"}),
        (0, {"type": "boolean"}),
        (1.5, {"type": "integer"}),
        ("1.5", {"type": "integer"}),
        ("0.1000000000000000055", {"type": "number"}),
        ("1e400", {"type": "number"}),
        (42, {"type": "string"}),
        ("2", {"enum": ["2", 2]}),
        ("twelve", {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        ("12", {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
    ],
)
def test_coercion_never_guesses_and_never_loses_anything(value, schema):
    assert coerce(value, schema) is value


def test_checking_a_deep_value_of_a_recursive_union_does_not_take_exponential_time():
    """The schema of a filter language, in which filters contain other filters."""
    node = [
        {
            "type": "object",
            "properties": {"args": {"type": "array", "items": {"$ref": "#/$defs/e"}}, "op": {"const": op}},
            "required": ["op", "args"],
        }
        for op in ("and", "or", "not")
    ]
    leaf = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    schema = {"$ref": "#/$defs/e", "$defs": {"e": {"anyOf": [*node, leaf]}}}
    good, bad = {"n": "7"}, {"m": 7}
    for _ in range(9):  # without `seen`, there would be 3 ** 9 visits
        good, bad = ({"args": [inner], "op": "not"} for inner in (good, bad))
    began = time.process_time()
    assert not validate(coerce(good, schema), schema)
    (problem,) = validate(coerce(bad, schema), schema)
    assert "fits none of the allowed forms" in problem.message
    assert time.process_time() - began < 2


def test_a_child_that_two_parts_of_a_schema_describe_is_converted_once():
    child = {"properties": {"child": {"$ref": "#/$defs/n"}}}
    schema = {"$ref": "#/$defs/n", "$defs": {"n": {**child, "anyOf": [child, {"type": "null"}]}}}
    value = {"n": 1}
    for _ in range(20):
        value = {"child": value}
    began = time.process_time()
    assert coerce(value, schema) == value and time.process_time() - began < 5
