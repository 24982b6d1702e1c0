"""reports: the parts that a preset promises, nothing personal in a call review, and no stray Markdown."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted import tone

from audio import Client, Transcript
from audio.options import PERSONAL
from audio.reports import action_points, clock, length, plain, report
from audio.sandbox import Sandbox


@pytest.mark.parametrize(
    "preset, parts",
    [
        ("meeting", ["Speakers", "Summary", "Action points", "Key phrases"]),
        ("podcast", ["Summary", "Chapters", "Topics", "Quotes"]),
        ("call", ["Sentiment by speaker", "What displeased", "Entities"]),
    ],
)
def test_presets_ask_for_what_their_reports_tell(preset, parts, monkeypatch):
    monkeypatch.setenv("ASSEMBLYAI_API_KEY", "test-key")
    with Sandbox(seconds=0) as box:
        told = report(Client(box.url).transcribe(tone(60), preset=preset), preset)
    headings = re.findall(r"^## ([^(\n]+?) ?(?:\(|$)", told, re.M)
    assert headings == [*parts, "Conversation"]
    assert all(len(body.strip().splitlines()) > 0 for body in re.split(r"^## .*$", told, flags=re.M)[1:])


@pytest.mark.parametrize("seconds, words", [(1, "\n\n1 s, transcript "), (70, "\n\n1 min 10 s, transcript ")])
def test_a_report_tells_the_length_and_the_chapters(meeting, seconds, words):
    told = report(meeting[seconds])
    assert words in told and all(chapter.headline in told for chapter in meeting[seconds].chapters)


def test_a_call_review_shows_no_personal_data(meeting):
    raw = {
        **meeting[70].raw,
        "text": "x",
        "utterances": [{"speaker": "A", "text": "anna berg, call 555 0142 or Oslo!", "start": 0, "end": 900}],
    }
    for transcript in (
        meeting[70],
        Transcript(raw),
        Transcript({**raw, "redact_pii": None, "redact_pii_policies": None}),
    ):
        told = report(transcript, "call").lower()
        personal = [text for kind, texts in transcript.entities.items() if kind in PERSONAL for text in texts]
        assert len(personal) > 3 and not [text for text in personal if text.lower() in told]
        assert "forty thousand euros" in told and "sentiment by speaker" in told and "| speaker a |" in told


def test_action_points_are_what_somebody_will_do():
    said = "I will call. It rained. Please write the report! We met."
    transcript = Transcript(
        {"utterances": [{"speaker": "B", "text": said, "start": 0, "end": 8000}]}, {"B": "Bo"}
    )
    assert action_points(transcript) == [
        "- [ ] Bo: I will call. (0:00)",
        "- [ ] Bo: Please write the report! (0:03)",
    ]


def test_a_silent_recording_is_told_as_such():
    assert "Nothing was said" in report(
        Transcript({"id": "x", "status": "completed", "text": "", "audio_duration": 3}), "meeting"
    )


@given(st.text())
def test_text_means_nothing_to_markdown(text):
    line = plain(text)
    assert "\n" not in line and not re.search(r"(?<!\\)(\\\\)*[<>|*`]", line)
    assert re.sub(r"\\(.)", r"\1", line) == " ".join(text.split())


@given(st.integers(0, 10**8))
def test_clock_reads_back(ms):
    parts = [int(part) for part in clock(ms).split(":")]
    assert sum(part * 60**i for i, part in enumerate(reversed(parts))) == ms // 1000
    assert [int(n) for n in re.findall(r"\d+", length(ms))][-1] < 60
