"""json_reader: a text is either read as Python's json module reads it, or refused.

The error must name the position and a fix, so that a model can correct its JSON."""

import gc
import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tools.json_reader import MAX_DEPTH, JSONError, parse, read

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(TEXTS, v, max_size=4), max_leaves=8
)
BROKEN = {
    # text: (offset, line, column, part of the fix)
    "": (0, 1, 1, "cut off"),
    "[1,]": (3, 1, 4, "Remove the comma"),
    '{"a":1,}': (7, 1, 8, "Remove the comma"),
    '{"a":1,"a":2}': (7, 1, 8, "twice"),
    '{"a":1,"\\u0061":2}': (7, 1, 8, "twice"),
    "NaN": (0, 1, 1, "use a number or null"),
    "[-Infinity]": (1, 1, 2, "not a JSON number"),
    "[Infinity]": (1, 1, 2, "use a number or null"),
    "[1e400]": (1, 1, 2, "too large"),
    "[-1e400]": (1, 1, 2, "too large"),
    "01": (1, 1, 2, "write it like"),
    "-01": (2, 1, 3, "write it like"),
    "+1": (0, 1, 1, "plus sign"),
    ".5": (0, 1, 1, "digit before the point"),
    "1.": (1, 1, 2, "write it like"),
    "1.e3": (1, 1, 2, "write it like"),
    "1e": (1, 1, 2, "write it like"),
    "0x1F": (1, 1, 2, "nothing may follow"),
    "--1": (0, 1, 1, "write it like"),
    "\uff11": (0, 1, 1, "a value"),
    '"\\ud800"': (1, 1, 2, "surrogate"),
    '"\\udc00\\ud800"': (1, 1, 2, "surrogate"),
    '"\\ud800\\u0041"': (1, 1, 2, "surrogate"),
    '"\\ud800\\n"': (1, 1, 2, "surrogate"),
    '"\ud800"': (1, 1, 2, "surrogate"),
    '["x\n"]': (3, 1, 4, "write \\n"),
    '["\t"]': (2, 1, 3, "write \\t"),
    '["\x00"]': (2, 1, 3, "write \\u0000"),
    '"\\x"': (1, 1, 2, "A backslash"),
    '"\\u12g4"': (1, 1, 2, "A backslash"),
    '"\\N"': (1, 1, 2, "A backslash"),
    '"\\U0041"': (1, 1, 2, "A backslash"),
    '"\\': (1, 1, 2, "cut off"),
    '"\\u00': (1, 1, 2, "cut off"),
    "{'a':1}": (1, 1, 2, "double quotes"),
    "{a:1}": (1, 1, 2, "double quotes"),
    "[True]": (1, 1, 2, "write true"),
    "[None]": (1, 1, 2, "write null"),
    "nul": (0, 1, 1, "not a JSON value"),
    "\ufeff[]": (0, 1, 1, "byte-order mark"),
    "// a\n1": (0, 1, 1, "no comments"),
    "[1 /* a */]": (3, 1, 4, "no comments"),
    "# a": (0, 1, 1, "no comments"),
    "```json\n1": (0, 1, 1, "code fence"),
    "1 2": (2, 1, 3, "nothing may follow"),
    "[]]": (2, 1, 3, "nothing may follow"),
    '["a",\n "b"\r\n,]': (13, 3, 2, "Remove the comma"),
    '{"a" 1}': (5, 1, 6, "colon"),
    '{"a":}': (5, 1, 6, "a value"),
    "{1:2}": (1, 1, 2, "a key"),
    "[1 2]": (3, 1, 4, "comma or ]"),
    "[1}": (2, 1, 3, "comma or ]"),
    '{"a":1]': (6, 1, 7, "comma or }"),
    "[,1]": (1, 1, 2, "a value"),
    "[\x0c1]": (1, 1, 2, "a value"),
    "[\u00a01]": (1, 1, 2, "a value"),
    '["a"': (4, 1, 5, "cut off"),
    '{"a"': (4, 1, 5, "cut off"),
    "{": (1, 1, 2, "cut off"),
}


@given(VALUES, st.booleans(), st.sampled_from([None, 0, 2]))
@example(-0.0, False, None)
@example("\U0001f600", True, None)
@example(10**4299, False, None)
def test_json_written_by_python_is_read_back(value, ascii_only, indent):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert repr(parse(text)) == repr(parse(text.encode())) == repr(value)


@pytest.mark.parametrize("text", BROKEN)
def test_text_that_is_not_json_is_refused_with_the_position_of_the_mistake_and_a_fix(text):
    offset, line, column, fix = BROKEN[text]
    with pytest.raises(JSONError) as caught:
        parse(text)
    error = caught.value
    assert (error.offset, error.line, error.column) == (offset, line, column)
    assert fix in error.problem and f"line {line}, column {column}" in str(error)
    assert error.cut_off == ("cut off" in fix or text in ("1.", "1e", "nul"))


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b'"\xed\xa0\x80"',
        b'"\xc0\x80"',
        b'"\xf4\x90\x80\x80"',
        b'"\xe2\x82"',
        b"\xef\xbb\xbf1",
        b'"\xe2',
    ],
)
def test_bytes_must_be_utf8_without_a_byte_order_mark(data):
    with pytest.raises(JSONError):
        parse(data)


@given(st.text('[]{}",:0123456789.eE+-truefalsn\\uNU \n', max_size=30))
def test_any_text_is_read_as_the_standard_library_reads_it_or_is_refused(text):
    try:
        expected = repr(json.loads(text))
    except (ValueError, RecursionError):
        expected = None
    try:
        assert repr(parse(text)) == expected
    except JSONError as error:
        refused = ("twice", "too large", "surrogate", "a number or null", "-Infinity")
        assert expected is None or any(word in error.problem for word in refused)


@given(st.binary(max_size=40))
def test_any_bytes_give_a_value_or_a_json_error(data):
    try:
        parse(data)
    except JSONError:
        pass


def test_integers_of_up_to_4300_digits_are_exact():
    digits = "9" * 4300
    assert parse(digits) == int(digits) and parse("-" + digits) == -int(digits)
    with pytest.raises(JSONError, match="4300 digits"):
        parse(digits + "9")


@given(st.integers(1, 2 * MAX_DEPTH), st.sampled_from(["[]", "{}"]))
@example(100_000, "[]")
@example(MAX_DEPTH, "{}")
@example(MAX_DEPTH + 1, "[]")
def test_deep_nesting_is_refused_without_a_recursion_error(depth, kind):
    text = "[" * depth + "]" * depth if kind == "[]" else '{"a":' * (depth - 1) + "{}" + "}" * (depth - 1)
    if depth <= MAX_DEPTH:
        parse(text)
    else:
        with pytest.raises(JSONError, match=f"more than {MAX_DEPTH} levels deep"):
            parse(text)


@pytest.mark.parametrize("unit", ["[", '"\\n', "1", "0.1", '"a', "[1,\n", " ", '"\\u00e9'])
def test_reading_takes_linear_time(unit):
    """A text 32 times as long takes less than 60 times as long to read. With quadratic growth, it would take
    1,024 times as long."""

    def seconds(length, rounds):
        times = []
        text = unit[0] + unit[1:] * length if unit[0] in '"[' else unit * length
        for _ in range(rounds):
            start = time.process_time()
            try:
                parse(text[:length])
            except JSONError:
                pass
            times.append(time.process_time() - start)
        return min(times)

    gc.disable()  # garbage collection would scan all objects again and again
    try:
        assert any(seconds(128_000, 1) < 60 * seconds(4_000, 5) + 0.01 for attempt in range(3))
    finally:
        gc.enable()


@given(VALUES.filter(lambda v: isinstance(v, (dict, list, str))), st.text(max_size=5))
def test_reading_stops_where_the_value_ends(value, after):
    text = json.dumps(value)
    assert read(text + after) == (value, len(text))


@given(VALUES.map(json.dumps), st.data())
def test_the_beginning_of_a_text_is_reported_as_cut_off(text, data):
    start = text[: data.draw(st.integers(0, len(text) - 1))]
    try:
        parse(start)
    except JSONError as error:
        assert error.cut_off
