"""numbers: a prefix is alive exactly where a canonical number within the bounds begins with it."""

import json
import math
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tools.dialect import exact
from tools.numbers import REACH, Bounds, canonical, likeness, tail

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = FLOATS | st.integers() | st.integers(-200, 200) | st.decimals(-99, 99, places=2).map(float)
BYTES = "-0123456789.e+"
STEPS = st.sampled_from([None, 1, 1, 2, 7, 10, 0.01, 0.5, 2.5]).map(lambda s: s and exact(s))


@st.composite
def bounds(draw):
    low, high = draw(st.none() | VALUES), draw(st.none() | VALUES)
    return Bounds(
        -math.inf if low is None else exact(low),
        draw(st.booleans()),
        math.inf if high is None else exact(high),
        draw(st.booleans()),
        draw(STEPS),
    )


@st.composite
def cases(draw):
    within = draw(bounds())
    near = [exact(draw(VALUES))] + [b for b in (within.low, within.high) if abs(b) < 10**300]
    value = draw(st.sampled_from(near)) + draw(st.sampled_from([0, 1, -1, Fraction(1, 10)]))
    value = value // within.step * within.step if within.step and draw(st.booleans()) else value
    return within, int(value) if value.denominator == 1 and draw(st.booleans()) else float(value)


@given(cases())
def test_a_number_is_taken_exactly_where_it_lies_within_the_bounds(case):
    within, value = case
    text = json.dumps(value)
    inside = exact(value) in within
    assert (tail(text, within) == 0) == inside
    if inside:
        for length in range(len(text)):
            assert tail(text[:length], within) <= len(text) - length


POINTS = [0.1 + 0.2, 1 / 3, 5e-324, 123456789012345.67, 12345678901234567,
          0.00012345678901234567, 1e16, 1e-7, 1.5e-7, -2.5, 100, 0.001]  # fmt: skip


@pytest.mark.parametrize("value", POINTS)
def test_where_one_number_is_allowed_its_spellings_alone_are_alive(value):
    point = exact(value)
    spelled = {json.dumps(number) for number in (int(point), float(point)) if exact(number) == point}
    within = Bounds(point, False, point, False)
    for text in [text for text in spelled if len(text) < 30]:
        for prefix in (text[:length] for length in range(len(text) + 1)):
            for longer in (prefix, *(prefix + byte for byte in BYTES)):
                left = [len(one) - len(longer) for one in spelled if one.startswith(longer)]
                assert tail(longer, within) == min(left, default=None)


@pytest.mark.parametrize("low", [0.3, 1.1, 123456.789, 1e-7, 2.5e30])
def test_between_three_floats_only_the_middle_one_is_alive(low):
    middle = math.nextafter(low, math.inf)
    within = Bounds(exact(low), True, exact(math.nextafter(middle, math.inf)), True)
    assert tail("", within) == len(repr(middle)) and tail(repr(middle), within) == 0


@pytest.mark.parametrize(
    "prefix, within, left",
    [
        ("", Bounds(step=Fraction(1000), low=Fraction(1)), 4),
        ("1", Bounds(step=Fraction(1000)), 3),
        ("12", Bounds(step=Fraction(1000)), 3),
        ("5.", Bounds(low=Fraction(10**17), high=Fraction(10**18)), 5),
        ("5", Bounds(low=Fraction(10**17), high=Fraction(10**18)), 4),
        ("0.", Bounds(high=Fraction(1, 1000), open_high=True), 1),
        ("-", Bounds(low=Fraction(0)), 3),
        ("-", Bounds(low=Fraction(1)), None),
    ],
)
def test_bytes_to_the_nearest_end(prefix, within, left):
    assert tail(prefix, within) == left


@given(bounds(), st.data())
@settings(max_examples=20)
def test_every_live_prefix_reaches_an_end_in_the_bytes_promised(within, data):
    text, left = "", tail("", within)
    if left is None:
        return
    for _ in range(20):
        after = {byte: tail(text + byte, within) for byte in BYTES}
        after = {byte: more for byte, more in after.items() if more is not None}
        assert left == 0 or min(after.values()) == left - 1
        if not after or left == 0 and data.draw(st.booleans()):
            break
        byte = data.draw(st.sampled_from(sorted(after)))
        text, left = text + byte, after[byte]
    while left:
        byte = next(b for b in BYTES if tail(text + b, within) == left - 1)
        text, left = text + byte, left - 1
    assert canonical(text) and json.dumps(json.loads(text)) == text and exact(json.loads(text)) in within


def test_likeness_of_common_texts():
    limits = (-math.inf, 0, 1, 100, 300), (math.inf, 99, 310, 400)
    some = [Bounds(low, is_open, high, is_open, step) for low in limits[0] for high in limits[1]
            for is_open in (False, True) for step in (None, 1) if low < high]  # fmt: skip
    texts = "9 12 99 100 305 310 0.5 0.05 -7.25 12.50 1234 305.1 123456789"
    texts += " 12345678901234 12345678901234.5 123456789012345678"
    for text in texts.split():
        for within in some:
            if tail(text, within) is not None and (like := likeness(text, within)) != text:
                for more in ("", "0", "5", "00", ".", ".0", ".5", ".50", ".337", ".063", "e", "e+30"):
                    assert tail(text + more, within) == tail(like + more, within)


@given(bounds() | st.sampled_from([Bounds(), Bounds(step=Fraction(1)), Bounds(low=Fraction(0))]), st.data())
@settings(max_examples=80)
def test_what_may_follow_a_text_may_follow_its_likeness(within, data):
    text = data.draw(st.from_regex(r"-?(0|[1-9][0-9]{0,3}|[1-9][0-9]{8,18})(\.[0-9]{0,9})?", fullmatch=True))
    assume(tail(text, within) is not None)
    more = data.draw(
        st.sampled_from(["", "0", "00", ".", ".0", "e", "e+", "e+3", "e+30", "e-32", ".50"])
        | st.text("0123456789.e+-", max_size=REACH)
    )
    assert tail(text + more, within) == tail(likeness(text, within) + more, within)


def test_numbers_of_one_shape_share_a_likeness():
    assert likeness("305", Bounds()) == likeness("999", Bounds()) != likeness("99", Bounds())
    assert likeness("-7.250", Bounds()) == likeness("-1.110", Bounds()) != likeness("1.110", Bounds())
    assert likeness("305", Bounds(high=Fraction(400))) == "111"
    assert likeness("305", Bounds(Fraction(300), high=Fraction(310))) == "305"


@given(bounds(), bounds(), VALUES)
def test_bounds_meet_as_sets_do(one, other, value):
    value = exact(value)
    assert (value in (one & other)) == (value in one and value in other)
    assert (-value in one.mirrored()) == (value in one)
