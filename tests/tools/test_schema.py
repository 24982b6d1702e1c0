"""schema: a keyword, $ref or pattern that affects validity is either supported or refused with its location.

A keyword that is silently ignored would let invalid values through."""

from fractions import Fraction

import pytest

from tools.schema import LONGEST_PATTERN, REFUSED, TAKES, UnsupportedSchema, check, compiled, exact, resolve

UNSUPPORTED = [
    *({"properties": {"a": {keyword: {}}}} for keyword in sorted(REFUSED)),
    {"type": "strnig"},
    {"type": []},
    {"required": "a"},
    {"minimum": "1"},
    {"minLength": -1},
    {"exclusiveMinimum": True},
    {"items": [{}]},
    {"items": {"if": {}}},
    {"anyOf": [True, {"if": {}}]},
    {"not": {"prefixItems": [{"if": {}}]}},
    {"$defs": {"a": {"if": {}}}},
    {"anyOf": []},
    {"multipleOf": 0},
    {"$ref": "http://else.where/x"},
    {"$ref": "#/$defs/none"},
    {"$schema": "http://else.where/mine"},
    {"minimum": float("nan")},
    {"maxItems": float("inf")},
    *({"pattern": pattern} for pattern in ("(", "[", r"\p{L}", r"\cA", "[^]", "(?<n>a)")),
    {"pattern": "a" * (LONGEST_PATTERN + 1)},
    [],
    None,
]


@pytest.mark.parametrize("schema", UNSUPPORTED, ids=str)
def test_an_unsupported_schema_is_refused_with_its_location(schema):
    with pytest.raises(UnsupportedSchema, match="^#"):
        check(schema)


def test_keywords_that_do_not_affect_validity_are_ignored():
    check({"title": 1, "format": "date", "default": {"if": 1}, "x-mine": {"contains": 1}, "$comment": []})
    assert not {*REFUSED} & TAKES.keys()


def test_a_reference_is_followed_inside_the_document():
    root = {"$defs": {"a/b": {"prefixItems": [True, {"const": 1}]}, "n": 3}}
    assert resolve(root, "#") is root and resolve(root, "#/$defs/a~1b/prefixItems/1") == {"const": 1}
    odd = {"$defs": {'ä b%~/"': True}}
    assert resolve(odd, "#/$defs/%C3%A4%20b%25~0~1%22") is True
    for reference, words in (
        ("http://else.where/x", "points outside"),
        ("#/$defs/none", "not name a schema"),
        ("#/$defs/n", "not name a schema"),
        ("#/$defs/a~1b/prefixItems/2", "not name a schema"),
    ):
        with pytest.raises(UnsupportedSchema, match=words):
            resolve(root, reference)


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf", "allOf", "not", "$ref"])
@pytest.mark.parametrize("inner", [True, False])
def test_a_reference_may_lead_back_to_itself_only_through_an_item_or_property(keyword, inner):
    back = {"$ref": "#/$defs/a"}
    around = back if keyword == "$ref" else {keyword: back if keyword == "not" else [{}, back]}
    root = {"properties": {"x": back}} if inner else back
    with pytest.raises(UnsupportedSchema, match="leads back to itself"):
        check({**root, "$defs": {"a": around}})
    check({**root, "$defs": {"a": {"items": around}}})  # valid: lists of lists of lists ...


def test_a_number_has_exactly_the_value_that_is_written():
    assert (exact(0.1), exact(1e300), exact(2**70)) == (Fraction(1, 10), Fraction(10) ** 300, Fraction(2**70))


@pytest.mark.parametrize(
    "pattern, text, matches",
    [
        ("b+", "abbc", True),
        ("^a$", "a\n", False),
        (r"^\$a$", "$a", True),
        ("^[$.]$", ".", True),
        (r"^\\$", "\\", True),
        ("a.c", "a\nc", False),
        ("^.$", "\U0001f600", True),
        (r"^\d$", "\u0663", False),
        (r"^\w$", "é", False),
        ("^(?:a|b)(?=c)", "bc", True),
        ("(?<!x)y", "xy", False),
        (r"^[\]]$", "]", True),
        (r"^(a)\1$", "aa", True),
    ],
)
def test_character_classes_in_patterns_are_ascii_and_a_dollar_matches_only_at_the_end(pattern, text, matches):
    assert bool(compiled(pattern).search(text)) == matches
