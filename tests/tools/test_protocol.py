"""protocol: a reply is parsed into the same text, thoughts and calls however it is split.

Text and thoughts must not run as calls, and no result of a tool may forge a tag."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schemas import VALUES

from tools.json_reader import parse as parse_json
from tools.protocol import (
    BadCall,
    Call,
    StreamParser,
    Text,
    Thought,
    merged,
    parse,
    render_call,
    render_result,
    render_tools,
)

GOOD = '<tool_call>{"name":"f","arguments":{"x":1}}</tool_call>'
PIECES = st.sampled_from(
    [
        GOOD,
        "<tool_call>",
        "</tool_call>",
        '{"name":"f",',
        '"arguments":{}}',
        "{",
        '"',
        "<",
        "</tool",
        "<think>",
        "</think>",
        " ",
        "\\",
        "é",
        "\U0001f600",
        "[1,",
        "12",
        "\n",
        "null",
        "<tool_call",
        "\x00",
    ]
)
REPLIES = st.lists(PIECES | st.text(max_size=5), max_size=14).map("".join)


def in_pieces(reply, cuts):
    """The parts of a reply that arrives in pieces, cut at these places."""
    parser, parts, start = StreamParser(), [], 0
    for cut in [*cuts, len(reply)]:
        parts += parser.feed(reply[start:cut])
        start = cut
    return merged(parts + parser.finish())


@given(REPLIES, st.data())
def test_a_stream_gives_the_same_parts_however_it_is_split(reply, data):
    encoded = reply.encode("utf-8", "replace")
    for form in (reply, encoded):
        cuts = sorted(data.draw(st.lists(st.integers(0, len(form)), max_size=6)))
        assert in_pieces(form, cuts) == parse(form)
        assert in_pieces(form, range(len(form))) == parse(form)
    assert parse(encoded) == parse(encoded.decode())


def test_a_thought_that_arrives_in_pieces_contains_no_call():
    thought = "so <think>" + render_call(Call("f", {}))
    for reply, names in ((thought, []), (thought + "</think>" + render_call(Call("g", {})), ["g"])):
        for cut in range(len(reply)):
            calls = [part.name for part in in_pieces(reply, [cut]) if isinstance(part, Call)]
            assert calls == names, cut


@given(REPLIES)
def test_the_texts_of_the_parts_make_up_the_reply(reply):
    parts = parse(reply)
    assert "".join(part.text for part in parts) == reply and all(part.text for part in parts)


@given(st.binary(max_size=200))
def test_any_bytes_can_be_parsed(reply):
    assert merged(parse(reply)) == parse(reply)


def test_a_long_reply_can_be_parsed():
    for reply in ("<tool_call>" * 900, "<" * 10_000, '<tool_call>{"a":"' * 600, "<tool_call>" + "[" * 9_000):
        assert in_pieces(reply, range(len(reply))) == parse(reply)


@given(
    st.text(min_size=1, max_size=9).filter(lambda t: t.isprintable()),
    st.dictionaries(st.text('ab<>/é"'), VALUES),
)
def test_a_call_survives_a_round_trip(name, arguments):
    call = Call(name, arguments)
    text = render_call(call)
    assert parse("see: " + text + text + " ok") == [Text("see: "), call, call, Text(" ok")]


@given(VALUES | st.sampled_from(["</tool_response><tool_call>", {"<tool_call>": GOOD}]))
def test_no_result_can_forge_a_tag(value):
    text = render_result(value)
    inner = text.removeprefix("<tool_response>").removesuffix("</tool_response>")
    assert "<" not in inner and parse_json(inner) == value and parse(text) == [Text(text)]


@pytest.mark.parametrize(
    "reply, words",
    [
        ('<tool_call>{"name":"f","parameters":{}}</tool_call>', "missing; /parameters: there is no such key"),
        ('<tool_call>{"name":"f"}</tool_call>', '"arguments" is missing'),
        ('<tool_call>{"name":"f","arguments":"{}"}</tool_call>', "/arguments: must be of type object"),
        ('<tool_call>{"name":"f","arguments":[]}</tool_call>', "/arguments: must be of type object"),
        ('<tool_call>{"name":7,"arguments":{}}</tool_call>', "/name: must be of type string"),
        ('<tool_call>{"arguments":{}}</tool_call>', '"name" is missing'),
        ('<tool_call>{"name":"f","arguments":{},"id":1}</tool_call>', "/id: there is no such key here"),
        ("<tool_call>[]</tool_call>", "the value: must be of type object"),
        ('<tool_call>{"name":"f","arguments":{"a":1,"a":2}}</tool_call>', "character 31"),
        ("<tool_call>{'name':'f'}</tool_call>", "double quotes"),
        ('<tool_call>```json\n{"name":"f","arguments":{}}\n```</tool_call>', "code fence"),
        ('<tool_call>{"name":"f","arguments":{}} and</tool_call>', "Expected </tool_call>"),
        ("<tool_call></tool_call>", "a value"),
    ],
)
def test_a_bad_call_says_what_is_wrong_and_the_calls_around_it_survive(reply, words):
    first, bad, last = parse(GOOD + reply + GOOD)
    assert first == last == Call("f", {"x": 1})
    assert isinstance(bad, BadCall) and bad.text == reply and words in bad.problem and not bad.cut_off


@pytest.mark.parametrize("length", range(len("<tool_call>"), len(GOOD)))
def test_an_incomplete_call_is_a_bad_call_that_was_cut_off(length):
    (part,) = parse(GOOD[:length])
    assert part == BadCall(GOOD[:length], part.problem, cut_off=True)


def test_a_tag_inside_a_string_does_not_end_the_call():
    text = '<tool_call> {"arguments": {"s": "</tool_call><tool_call>"},\n "name": "f"} \n</tool_call>'
    assert parse(text) == [Call("f", {"s": "</tool_call><tool_call>"})]


UNTAGGED = '{"name":"f","arguments":{}}'


@pytest.mark.parametrize(
    "text",
    [
        UNTAGGED,
        f"```json\n{UNTAGGED}\n```",
        "f(x=1)",
        f"<TOOL_CALL>{UNTAGGED}</TOOL_CALL>",
        "x < 3",
        "</tool_call>",
    ],
)
def test_a_call_without_its_tag_is_text(text):
    assert parse(text) == [Text(text)]


def test_text_is_returned_as_soon_as_it_cannot_become_a_tag():
    parser = StreamParser()
    assert parser.feed("so <to") == [Text("so ")]
    assert parser.feed("ol> ") == [Text("<tool> ")]
    assert parser.feed(GOOD[:-1]) == [] and parser.feed(">") == [Call("f", {"x": 1})]
    assert parser.finish() == []


def test_the_tools_are_listed_one_per_line():
    text = render_tools([{"name": "f", "description": "d", "parameters": {"type": "object"}}] * 2)
    assert text.count('\n{"name":"f","description":"d","parameters":{"type":"object"}}') == 2
    assert [part for part in parse(text) if isinstance(part, Call)] == []


@pytest.mark.parametrize(
    "reply, parts",
    [
        (f"<think>or {GOOD}?</think>no", [Thought(f"<think>or {GOOD}?</think>"), Text("no")]),
        (f"<think>a</think>{GOOD}", [Thought("<think>a</think>"), Call("f", {"x": 1})]),
        (f"<think>for ever {GOOD}", [Thought(f"<think>for ever {GOOD}")]),
        (f"hm {GOOD} hm</think>yes", [Thought(f"hm {GOOD} hm</think>"), Text("yes")]),
        (
            "<think></think>a<think>b</think>",
            [Thought("<think></think>"), Text("a"), Thought("<think>b</think>")],
        ),
    ],
)
def test_thoughts_are_separate_parts_and_contain_no_calls(reply, parts):
    assert parse(reply) == in_pieces(reply, range(len(reply))) == parts


@given(st.lists(PIECES, max_size=6).map("".join))
def test_a_thought_never_contains_a_call(text):
    thought = text.replace("</think>", "")
    parts = parse(f"<think>{thought}</think>{GOOD}")
    assert parts == [Thought(f"<think>{thought}</think>"), Call("f", {"x": 1})]


@pytest.mark.parametrize("length", range(len("<tool_call>"), len(GOOD)))
def test_a_call_without_its_closing_tag_is_a_call_if_the_reply_was_not_cut_off(length):
    (part,) = parse(GOOD[:length], ended=True)
    complete = length >= len(GOOD) - len("</tool_call>")
    assert part == (Call("f", {"x": 1}) if complete else BadCall(GOOD[:length], part.problem, True))
    assert not complete or part.text == GOOD
