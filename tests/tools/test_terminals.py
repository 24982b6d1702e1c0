"""terminals: a terminal allows, byte by byte, exactly the texts that it stands for.

`far` must be the number of bytes in the shortest completion, or a text could run out of
tokens before it is complete."""

import json
from fractions import Fraction
from functools import reduce
from math import inf

from hypothesis import assume, given
from hypothesis import strategies as st

from tools.schema import exact
from tools.terminals import BETWEEN, DONE, Number, Text, Words, numbers

BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
decimals = st.integers(-5000, 5000).map(lambda n: n / 100)
bounds = st.dictionaries(st.sampled_from(BOUNDS), st.integers(-40, 40) | decimals).map(
    lambda chosen: frozenset(chosen.items())
)
terminals = st.one_of(
    st.lists(st.sampled_from([b"yes", b"no", b"not"]), min_size=1).map(lambda texts: Words(frozenset(texts))),
    st.builds(numbers, bounds, st.booleans(), st.sampled_from([1, -1])),
    st.builds(Text, st.just(BETWEEN), st.integers(0, 3), st.integers(3, 6) | st.just(inf)),
)


def after(item, text):
    """The rest of a terminal after a text; None if the terminal does not allow the text."""
    return reduce(lambda left, byte: left and left.moves().get(byte), text, item)


@given(terminals, st.data())
def test_far_is_one_more_than_its_smallest_value_after_the_next_byte_unless_far_is_zero(item, data):
    for _ in range(12):
        assume(item.far() < inf)
        rests = list(item.moves().values())
        best = 1 + min((rest.far() for rest in rests), default=inf)
        assert item.far() == best or item.far() == 0
        if not rests:
            break
        item = data.draw(st.sampled_from(rests))


@given(bounds, st.booleans(), st.sampled_from([1, -1]), decimals | st.integers(0, 10**12))
def test_a_number_is_allowed_if_and_only_if_it_is_within_the_bounds(limits, integer, sign, value):
    value = abs(int(value)) if integer else abs(value)
    rest = after(numbers(limits, integer, sign), json.dumps(value).removesuffix(".0").encode())
    signed, limits = sign * exact(value), dict(limits)
    fits = (
        signed >= Fraction(str(limits.get("minimum", -(10**30))))
        and signed <= Fraction(str(limits.get("maximum", 10**30)))
        and signed > Fraction(str(limits.get("exclusiveMinimum", -(10**30))))
        and signed < Fraction(str(limits.get("exclusiveMaximum", 10**30)))
    )
    assert (rest is not None and rest.far() == 0) == fits


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), st.integers(0, 5), st.integers(0, 8))
def test_a_string_is_allowed_if_and_only_if_its_length_is_within_the_limits(text, low, high):
    written = json.dumps(text, ensure_ascii=False)[1:].encode()
    assert (after(Text(BETWEEN, low, high), written) == DONE) == (low <= len(text) <= high)


def test_numbers_with_the_same_continuations_are_the_same_object():
    first, second = (after(numbers(frozenset(), True, 1), text) for text in (b"12", b"34"))
    assert isinstance(first, Number) and first is second
