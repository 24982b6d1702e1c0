"""subtitles: from any utterances, captions that parse back, never overlap, and keep every word."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio import Transcript
from audio.subtitles import LINE, LINES, Span, captions, clock, render

TIMES = st.one_of(st.integers(-5, 5000), st.integers(0, 400_000_000))
TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(
            [
                "one",
                "-->",
                "1",
                "<b>",
                "&amp;",
                "00:00:01,000",
                "NOTE",
                "WEBVTT",
                "a" * 50,
                "\u2028",
                "\0",
                "ü",
            ]
        ),
        max_size=30,
    ).map(" ".join),
)
WORDS = st.lists(
    st.fixed_dictionaries({"text": TEXTS, "start": st.none() | TIMES, "end": st.none() | TIMES}), max_size=5
)
UTTERANCES = st.lists(
    st.fixed_dictionaries(
        {
            "text": TEXTS,
            "start": st.none() | TIMES,
            "end": st.none() | TIMES,
            "speaker": st.none() | st.text(max_size=9),
        },
        optional={"words": st.none() | WORDS},
    ),
    max_size=6,
)
SRT = re.compile(r"(\d+)\n(\d\d+):(\d\d):(\d\d),(\d{3}) --> (\d\d+):(\d\d):(\d\d),(\d{3})\n(.+(?:\n.+)*)\n")
VTT = re.compile(r"()(\d\d+):(\d\d):(\d\d)\.(\d{3}) --> (\d\d+):(\d\d):(\d\d)\.(\d{3})\n(.+(?:\n.+)*)\n")


def ms(h, m, s, f):
    return ((int(h) * 60 + int(m)) * 60 + int(s)) * 1000 + int(f)


def parsed(text, format):
    """A reader of its own -> [(start, end, text)]; it takes nothing but whole, well formed blocks."""
    blocks = text.split("\n\n") if text else []
    if format == "vtt":
        assert blocks[0].strip() == "WEBVTT"
        blocks = blocks[1:]
    found = []
    for i, block in enumerate(blocks, 1):
        match = (SRT if format == "srt" else VTT).fullmatch(block.rstrip("\n") + "\n")
        assert match, block
        number, *times, said = match.groups()
        assert format == "vtt" or int(number) == i
        found.append((ms(*times[:4]), ms(*times[4:]), said))
    return found


@given(UTTERANCES, st.sampled_from(["srt", "vtt"]), st.booleans())
def test_captions_parse_back_never_overlap_and_keep_every_word(utterances, format, speakers):
    transcript = Transcript({"id": "x", "utterances": utterances})
    text = transcript.subtitles(format, speakers=speakers)
    found = parsed(text, format)
    end = 0
    for start, stop, _ in found:
        assert end <= start < stop
        end = stop
    spans = captions(transcript.turns)
    assert [(span.start, span.end) for span in spans] == [(start, stop) for start, stop, _ in found]
    said = sorted(word for turn in transcript.turns for word in turn.text.split())
    assert sorted(word for span in spans for word in span.text.split()) == said
    if not speakers:
        words = [word for *_, lines in found for word in lines.split()]
        if format == "vtt":
            assert not any("-->" in word for word in words)
            words, said = (
                [html.unescape(word) for word in words],
                [word.replace("\0", "\ufffd") for word in said],
            )
        assert sorted(words) == sorted(said)


@given(
    st.lists(
        st.tuples(st.text(st.characters(categories=["L"]), min_size=1, max_size=12), st.integers(0, 700)),
        min_size=1,
    )
)
def test_words_keep_their_order_and_their_times(words):
    at, spans = 0, []
    for text, gap in words:
        spans.append(Span(text, at + gap, at + gap + 200, "A"))
        at += gap + 200
    turn = Span(" ".join(text for text, _ in words), spans[0].start, at, "A", tuple(spans))
    found = captions([turn])
    assert " ".join(span.text for span in found) == turn.text
    assert found[0].start == spans[0].start and found[-1].end == at
    starts = {span.start for span in spans}
    assert all(span.start in starts and len(span.text) <= LINE * LINES for span in found)


@given(st.integers(0, 400_000_000))
def test_clock_is_milliseconds(time):
    hours, minutes, seconds = clock(time).split(":")
    assert round(1000 * (int(hours) * 3600 + int(minutes) * 60 + float(seconds))) == time


def test_speakers_are_named_in_both_formats():
    transcript = Transcript(
        {"utterances": [{"speaker": "A", "text": "Hi <all> & you", "start": 1000, "end": 2500}]}, {"A": "Ada"}
    )
    assert transcript.subtitles("srt") == "1\n00:00:01,000 --> 00:00:02,500\nAda: Hi <all> & you\n"
    assert transcript.subtitles("vtt") == (
        "WEBVTT\n\n00:00:01.000 --> 00:00:02.500\n<v Ada>Hi &lt;all&gt; &amp; you\n"
    )
    assert "Ada" not in transcript.subtitles("srt", speakers=False)
    with pytest.raises(ValueError, match="srt or vtt"):
        render([], "ass")
