"""shapes: the alternatives of a schema allow what the schema allows, and know the length of a shortest
value."""

import itertools

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from schemas import FEW, PARTS, all_orders, canonical, near, schemas

from tools.alternatives import Text
from tools.dialect import UnsupportedSchema
from tools.grammar import Grammar
from tools.numbers import Bounds
from tools.schema import validate
from tools.shapes import Shapes

MANY_ORDERS = 1000


def taken(grammar, value):
    """Whether the grammar takes the value with its keys in some order."""
    return any(grammar.accepts(canonical(order)) for order in all_orders(value))


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf", "allOf", "not anyOf", "not oneOf", "not allOf"])
def test_two_parts_together_take_exactly_what_is_valid(keyword):
    for pair in itertools.combinations_with_replacement(PARTS, 2):
        schema = {keyword.removeprefix("not "): list(pair)}
        schema = {"not": schema} if keyword.startswith("not") else schema
        try:
            grammar = Grammar(schema)
        except UnsupportedSchema as error:
            assert "not:" in str(error) or not any(not validate(value, schema) for value in FEW)
            continue
        for value in FEW:
            assert taken(grammar, value) == (not validate(value, schema)), schema


@settings(max_examples=40)
@given(schemas(), st.data())
def test_with_applicators_a_valid_value_has_an_order_and_no_other_has(schema, data):
    try:
        grammar = Grammar(schema)
    except UnsupportedSchema:
        assume(False)
    for _ in range(4):
        value = data.draw(near(schema))
        orders = list(itertools.islice(all_orders(value), MANY_ORDERS + 1))
        if len(orders) <= MANY_ORDERS:
            assert taken(grammar, value) == (not validate(value, schema))


def test_and_or_not_become_a_list_of_alternatives():
    shapes = Shapes({"anyOf": [{"type": "integer", "minimum": 3}, {"enum": ["a"]}], "not": {"const": 4}})
    below = Bounds(3, high=4, open_high=True, step=1)
    above = Bounds(4, open_low=True, step=1)
    assert set(shapes.expand(shapes.root)) == {below, above, Text(words=frozenset(["a"]))}


@pytest.mark.parametrize(
    "schema, shortest",
    [
        ({}, "0"),
        ({"type": "boolean"}, "true"),
        ({"type": "integer", "minimum": 10}, "10"),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.1}, "0.01"),
        ({"enum": ["abc", "é"]}, '"é"'),
        ({"type": "array", "minItems": 3, "prefixItems": [{"type": "null"}]}, "[null,0,0]"),
        ({"type": "object", "minProperties": 2, "required": ["ab"]}, '{"ab":0,"":0}'),
        ({"anyOf": [{"type": "null"}, {"type": "array"}]}, "[]"),
    ],
    ids=str,
)
def test_the_cost_is_the_length_of_a_shortest_value(schema, shortest):
    shapes, text = Shapes(schema), shortest.encode()
    assert shapes.cost(shapes.root, 64) == len(text) and Grammar(schema).accepts(text)


@pytest.mark.parametrize(
    "schema, word",
    [
        ({"uniqueItems": True, "type": "array"}, "uniqueItems"),
        ({"not": {"items": {"type": "string"}}}, "items"),
        ({"not": {"multipleOf": 2}}, "multipleOf"),
        ({"not": {"additionalProperties": False}}, "additionalProperties"),
        ({"not": {"type": "integer"}}, "integers"),
        ({"patternProperties": {}}, "patternProperties"),
        ({"anyOf": [{"$ref": "#"}]}, "itself"),
    ],
)
def test_what_cannot_be_enforced_is_refused_by_name(schema, word):
    with pytest.raises(UnsupportedSchema, match=word):
        Shapes(schema)
