"""subtitles: from any utterances, captions that parse back, never overlap, fit and keep every word."""

import html
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio import Transcript
from audio.subtitles import LINE, LINES, LONGEST, Span, captions, clock, matches, render, timed, width

TIMES = st.one_of(st.integers(-5, 5000), st.integers(0, 400_000_000))
ODD = [
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
    "今天天气很好。",
    "「はい」、",
    "ไปโรงเรียน",
    "e\u0301",
]
TEXTS = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(ODD), max_size=30).map(" ".join))
TEXTS = TEXTS | TEXTS.map(lambda text: text.replace(" ", ""))
WORDS = st.lists(
    st.fixed_dictionaries({"text": TEXTS, "start": st.none() | TIMES, "end": st.none() | TIMES}), max_size=5
)
UTTERANCES = st.lists(
    st.fixed_dictionaries(
        {
            "text": TEXTS,
            "start": st.none() | TIMES,
            "end": st.none() | TIMES,
            "speaker": st.none() | st.text(max_size=9) | st.text("W李", min_size=30, max_size=35),
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
    """An independent parser -> [(start, end, text)]; it accepts only whole, well-formed blocks."""
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


def squeezed(text):
    return sorted("".join(text.split()))


@given(UTTERANCES, st.sampled_from(["srt", "vtt"]), st.booleans())
def test_captions_parse_back_never_overlap_fit_and_keep_every_word(utterances, format, speakers):
    utterances = [one if speakers else {**one, "speaker": None} for one in utterances]
    transcript = Transcript({"id": "x", "utterances": utterances})
    text = transcript.subtitles(format)
    found = parsed(text, format)
    end = 0
    for start, stop, lines in found:
        assert end <= start < stop <= start + LONGEST
        end = stop
        lines = re.sub(r"^<v [^\n>]*>", "", lines) if format == "vtt" else lines
        lines = html.unescape(lines).split("\n") if format == "vtt" else lines.split("\n")
        assert len(lines) <= LINES and all(width(line) <= LINE for line in lines), lines
    spans = captions(transcript.turns)
    assert [(span.start, span.end) for span in spans] == [(start, stop) for start, stop, _ in found]
    said = squeezed("".join(turn.text for turn in transcript.turns))
    assert squeezed("".join(span.text for span in spans)) == said
    if not speakers:
        words = "".join(lines for *_, lines in found)
        if format == "vtt":
            assert "-->" not in words
            words, said = html.unescape(words), ["\ufffd" if c == "\0" else c for c in said]
        assert squeezed(words) == sorted(said)


@given(st.integers(1, 5000), st.integers(1, 9000))
def test_a_caption_ends_when_the_next_speaker_begins(start, duration):
    """Even in the middle of its own words, so that captions are shown when their words are heard."""
    turns = [Span("one two", 0, 6000, "A"), Span("three", start, start + duration, "B")]
    first, second = captions(turns)
    assert (first.start, first.end, second.start) == (0, start, start)
    assert second.end == start + min(duration, LONGEST)


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
    assert "".join("".join(span.text for span in found).split()) == "".join(turn.text.split())
    assert found[0].start == spans[0].start and found[-1].end == at
    starts = {span.start for span in spans}
    assert all(span.words[0].text[0] != " " or span.start in starts for span in found[:1])


def dense(texts, each=400):
    """A turn of a script without spaces, each word with its time."""
    words = [Span(text, i * each, (i + 1) * each) for i, text in enumerate(texts)]
    return Span("".join(texts), 0, len(texts) * each, "", tuple(words))


@pytest.mark.parametrize(
    "texts",
    [
        ["今天", "天气", "很", "好", "，", "我们", "去", "公园", "散步", "。"],
        ["きょう", "は", "学校", "に", "行き", "ました", "。"],
        ["วันนี้", "อากาศ", "ดี", "มาก", "เรา", "ไป", "เดิน", "เล่น"],
    ],
)
def test_scripts_without_spaces_get_captions_of_readable_length_at_the_times_of_their_words(texts):
    turn = dense(texts * 60)
    found = captions([turn])
    assert len(found) > 10 and "".join(span.text for span in found) == turn.text
    starts = {word.start for word in turn.words}
    for span in found:
        assert span.start in starts and span.end - span.start <= LONGEST
        assert width(span.text) <= LINE * LINES and span.text[0] not in "。，、"


def test_marks_stay_with_their_letters():
    for span in captions([dense(["ที่นี่"] * 80)]):
        assert span.text[0] not in "ิีึืุู่้๊๋็์"


def test_wide_characters_count_twice_and_marks_not_at_all():
    assert (width("李明"), width("Ada"), width("e\u0301"), width("ที่")) == (4, 3, 1, 1)


def test_the_name_of_the_speaker_is_counted():
    text = "This is what was said here today and it is long enough to fill two whole lines of a caption."
    transcript = Transcript({"utterances": [{"speaker": "A", "text": text, "start": 0, "end": 4000}]})
    transcript.names = {"A": "Professor Doctor Ada Lovelace"}
    for block in transcript.subtitles("srt").split("\n\n"):
        lines = block.strip().split("\n")[2:]
        assert len(lines) <= LINES and all(len(line) <= LINE for line in lines)


def test_chinese_sentences_end_a_caption():
    said = "这是第一句话，它比一行还要长一些，所以占了两行。" + "第二句。"
    found = captions([dense(list(said), each=150)])
    assert [span.text[-1] for span in found] == ["。", "。"]


def test_real_times_are_used_where_text_and_words_differ_a_little():
    said = "I have two dogs and twenty cats at home".split()
    words = tuple(Span(text, 1000 * i, 1000 * i + 500) for i, text in enumerate(said))
    found = timed(Span("I have 2 dogs, — and 20 cats at home.", 0, 9000, "", words))
    times = {span.text.strip(" ,."): span.start for span in found}
    assert times["dogs"] == 3000 and times["cats"] == 6000 and times["home"] == 8000
    assert 1500 <= times["2"] <= 3000 and 4500 <= times["20"] <= 6000


def test_words_without_times_fill_the_gap_between_their_neighbours():
    words = [{"text": "one", "start": 10_000, "end": 10_400}, {"text": "two", "start": None, "end": None}]
    words.append({"text": "three", "start": 10_800, "end": 11_000})
    turn = {"text": "one two three", "start": 10_000, "end": 11_000, "words": words}
    found = timed(Transcript({"utterances": [turn]}).turns[0])
    assert [(span.start, span.end) for span in found] == [
        (10_000, 10_400),
        (10_400, 10_800),
        (10_800, 11_000),
    ]


@given(st.lists(st.sampled_from("abcd"), max_size=30), st.lists(st.sampled_from("abcd"), max_size=30))
def test_matches_are_equal_and_in_order(ours, theirs):
    pairs = list(matches(ours, theirs))
    assert all(ours[i] == theirs[j] for i, j in pairs)
    assert all(a < c and b < d for (a, b), (c, d) in zip(pairs, pairs[1:]))
    assert ours != theirs or len(pairs) == len(ours)


def test_five_hours_take_seconds():
    words = [Span(f"word{i}", 300 * i, 300 * i + 250) for i in range(60_000)]
    turn = Span(" ".join(word.text for word in words), 0, 18_000_000, "", tuple(words))
    begun = time.process_time()
    assert len(captions([turn])) > 5000 and time.process_time() - begun < 10


@given(st.integers(0, 400_000_000))
def test_subtitles_keep_milliseconds(time):
    for format in ("srt", "vtt"):
        text = render(captions([Span("x", time, time + 1)]), format)
        assert parsed(text, format) == [(time, time + 1, "x")]
    hours, minutes, seconds = map(int, clock(time).split(":"))
    assert (hours * 60 + minutes) * 60 + seconds == time // 1000 and max(minutes, seconds) < 60


def test_speakers_are_named_in_both_formats():
    transcript = Transcript(
        {"utterances": [{"speaker": "A", "text": "Hi <all> & you", "start": 1000, "end": 2500}]}, {"A": "Ada"}
    )
    assert transcript.subtitles("srt") == "1\n00:00:01,000 --> 00:00:02,500\nAda: Hi <all> & you\n"
    assert transcript.subtitles("vtt") == (
        "WEBVTT\n\n00:00:01.000 --> 00:00:02.500\n<v Ada>Hi &lt;all&gt; &amp; you\n"
    )
    with pytest.raises(ValueError, match="srt or vtt"):
        render([], "ass")


def test_the_repr_of_a_turn_is_short():
    assert len(repr(Span("word " * 10_000, 0, 5000, "Ada", (Span("word", 0, 1),) * 10_000))) < 100
