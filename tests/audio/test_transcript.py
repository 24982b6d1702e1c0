"""transcript: any answer from the service can be read, and milliseconds are never mixed with seconds.

The service may leave out any field, or send null or a value of an unexpected type."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio import Transcript
from audio.options import PRESETS
from audio.reports import report
from audio.subtitles import Span

FIELDS = [
    "text",
    "words",
    "utterances",
    "audio_duration",
    "summary",
    "chapters",
    "sentiment_analysis_results",
    "entities",
    "auto_highlights_result",
    "iab_categories_result",
    "content_safety_labels",
    "speech_understanding",
    "status",
    "redact_pii",
    "redact_pii_policies",
    "translated_texts",
    "audio_url",
]
INNER = [
    *FIELDS,
    "start",
    "end",
    "speaker",
    "results",
    "timestamps",
    "rank",
    "count",
    "sentiment",
    "entity_type",
    "response",
    "summarization",
    "headline",
    "bullets",
    "block_summary",
    "labels",
    "timestamp",
    "action_items",
    "items",
    "action_item",
    "quote",
    "request",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(INNER), inner, max_size=5),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=8), st.sampled_from([None, *PRESETS]))
def test_any_answer_can_be_read(raw, preset):
    transcript = Transcript({**raw, "unknown": 1})
    for format in ("srt", "vtt"):
        assert isinstance(transcript.subtitles(format), str)
    assert isinstance(transcript.labelled(), str) and isinstance(report(transcript, preset), str)
    assert transcript.raw["unknown"] == 1 and all(
        isinstance(t.start, int) and t.start <= t.end for t in transcript.turns
    )


@pytest.mark.parametrize("seconds", [1, 70])
def test_milliseconds_and_seconds_are_never_mixed(meeting, seconds):
    transcript = meeting[seconds]
    ends = [
        *(t.end for t in transcript.turns),
        *(w.end for w in transcript.words),
        *(c.end for c in transcript.chapters),
        *(span.end for span, *_ in transcript.sentiment),
    ]
    assert (
        transcript.seconds == seconds
        and max(ends) == 1000 * seconds
        and all(type(end) is int for end in ends)
    )
    assert all(0 <= start <= 1000 * seconds for *_, starts in transcript.key_phrases for start in starts)
    assert sum(turn.end - turn.start for turn in transcript.turns) == pytest.approx(1000 * seconds, abs=20)


def test_the_attributes_agree_with_one_another(meeting):
    transcript = meeting[70]
    assert transcript.text.split() == [word.text for word in transcript.words]
    assert [span.text for span, *_ in transcript.sentiment] == [turn.text for turn in transcript.turns]
    assert sum(sum(counts.values()) for counts in transcript.sentiment_by_speaker.values()) == len(
        transcript.turns
    )
    for phrase, count, starts in transcript.key_phrases:
        assert count == len(starts) == transcript.text.lower().count(phrase)
        assert all(any(word.start == start for word in transcript.words) for start in starts)
    relevance = [value for _, value in transcript.topics]
    assert relevance == sorted(relevance, reverse=True) and len(relevance) > 3
    assert transcript.chapters[0].start == 0 and transcript.chapters[0].headline
    assert "Anna Berg" in transcript.entities["person_name"] and "Anna Berg" not in transcript.text


def test_a_transcript_without_text_gives_empty_output():
    assert Transcript({"text": None}).subtitles() == "" == Transcript({}).labelled()


def test_speakers_are_shown_by_name():
    raw = {
        "utterances": [
            {"speaker": speaker, "text": "x", "start": 0, "end": 1}
            for speaker in ("A", "1B", "Agent", None, "Li", "李明", "2")
        ]
    }
    transcript = Transcript(raw, {"A": "Ada"})
    assert [turn.speaker for turn in transcript.turns] == [
        "Ada",
        "Speaker 1B",
        "Agent",
        "",
        "Li",
        "李明",
        "Speaker 2",
    ]
    transcript.names = {"1B": "Bo"}
    assert transcript.labelled().startswith("Speaker A: x\nBo: x\nAgent: x\nx\nLi: x\n")


def test_the_features_of_a_transcript_are_the_short_names_of_what_was_requested():
    request = {"summarization": {"summary_type": "bullets"}, "action_items": {}}
    raw = {"iab_categories": True, "auto_highlights": False, "speech_understanding": {"request": request}}
    assert Transcript(raw).features == {"topics", "summary", "action_items"}
    assert (
        Transcript({"entities": [{"text": "x"}]}).features == {"entities"}
        and Transcript({}).features == set()
    )


def test_without_speakers_the_text_is_one_turn_that_lasts_the_whole_recording():
    transcript = Transcript({"text": "One two.", "audio_duration": 3})
    assert transcript.turns == [Span("One two.", 0, 3000)] and transcript.labelled() == "One two.\n"


def test_summaries_and_chapters_are_read_in_the_old_and_the_new_format():
    old = Transcript(
        {
            "summary": "- One.\n- Two.",
            "chapters": [{"gist": "G", "headline": "H", "summary": "S", "start": 5, "end": 9}],
        }
    )
    assert old.summary == "One.\nTwo." and old.chapters[0].headline == "H" and old.chapters[0].lines == ("S",)
    new = Transcript(
        {
            "speech_understanding": {
                "response": {
                    "summarization": {
                        "summary": [{"headline": "H", "bullets": ["a", "b"], "start": 5, "end": 9}],
                        "block_summary": None,
                    }
                }
            }
        }
    )
    assert new.chapters[0].lines == ("a", "b") and new.summary == "a\nb"
