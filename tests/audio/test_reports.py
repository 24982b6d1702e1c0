"""reports: each preset has its own parts, a call review hides personal data, and Markdown is escaped."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted import tone

from audio import Client, Transcript
from audio.options import PERSONAL, PRESETS
from audio.reports import HARMLESS, action_items, escaped, redacted, report
from audio.sandbox import Sandbox


@pytest.mark.parametrize(
    "preset, parts",
    [
        ("meeting", ["Speakers", "Summary", "Action items", "Key phrases"]),
        ("podcast", ["Summary", "Chapters", "Topics", "Quotes"]),
        ("call", ["Sentiment by speaker", "Negative moments", "Entities"]),
    ],
)
def test_presets_request_what_their_reports_show(preset, parts, monkeypatch):
    monkeypatch.setenv("ASSEMBLYAI_API_KEY", "test-key")
    with Sandbox(seconds=0) as box:
        markdown = report(Client(box.url).transcribe(tone(60), preset=preset), preset)
    headings = re.findall(r"^## ([^(\n]+?) ?(?:\(|$)", markdown, re.M)
    assert headings == [*parts, "Conversation"]
    assert all(len(body.strip().splitlines()) > 0 for body in re.split(r"^## .*$", markdown, flags=re.M)[1:])


@pytest.mark.parametrize("seconds, length", [(1, "00:00:01"), (70, "00:01:10")])
def test_a_report_shows_the_length_and_the_chapters(meeting, seconds, length):
    markdown = report(meeting[seconds])
    assert f"\n\n{length}, transcript " in markdown
    assert all(chapter.headline in markdown for chapter in meeting[seconds].chapters)


def test_the_minutes_of_a_meeting_show_how_long_each_speaker_talked():
    turns = [("A", 0, 30), ("B", 30, 40), ("A", 40, 60), ("", 60, 100)]
    raw = [{"speaker": who, "text": "x", "start": 1000 * a, "end": 1000 * b} for who, a, b in turns]
    markdown = report(Transcript({"text": "x", "utterances": raw}), "meeting")
    assert "## Speakers\n\n- Speaker A: 00:00:50 (50 %)\n- Speaker B: 00:00:10 (10 %)\n\n" in markdown


@pytest.mark.parametrize("whole", [None, "All of it."])
def test_episode_notes_print_no_text_twice(whole):
    """The lines of the chapters are in the summary or, if the summary has its own text, under Chapters."""
    parts = [{"headline": f"H{i}", "bullets": [f"b{i}", f"c{i}"], "start": 5000 * i} for i in (1, 2)]
    answer = {"summarization": {"summary": parts, "block_summary": whole}}
    markdown = report(Transcript({"text": "x", "speech_understanding": {"response": answer}}), "podcast")
    assert all(markdown.count(f"{word}{i}") == 1 for word in "Hbc" for i in (1, 2))
    line = "- 00:00:10 **H2** b2 c2\n" if whole else "- 00:00:10 **H2**\n"
    assert line in markdown and markdown.count("All of it.") == bool(whole)


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
        markdown = report(transcript, "call").lower()
        personal = [text for kind, texts in transcript.entities.items() if kind in PERSONAL for text in texts]
        assert len(personal) > 3 and not [text for text in personal if text.lower() in markdown]
        assert "forty thousand euros" in markdown
        assert "sentiment by speaker" in markdown and "| speaker a |" in markdown


SECRETS = {
    "location_address_street": "12 Harbour Road",
    "location_zip": "5003",
    "person_age": "fifty-one",
    "medical_condition": "asthma",
    "number_sequence": "77 88",
    "some_type_of_next_year": "the blue key",
    "person_name": "李明",
    "organization_id": "Q-17",
}


@pytest.mark.parametrize("kind", SECRETS)
def test_every_entity_type_not_known_to_be_harmless_is_redacted_everywhere(kind):
    secret = SECRETS[kind]
    text = f"It is {secret.upper()}, and it cost ten euros. 我是{secret}。"
    raw = {
        "id": "x",
        "text": text,
        "redact_pii": True,
        "utterances": [{"speaker": "A", "text": text, "start": 0, "end": 900}],
        "entities": [
            {"entity_type": kind, "text": secret},
            {"entity_type": "money_amount", "text": "ten euros"},
        ],
        "auto_highlights_result": {"results": [{"text": secret, "timestamps": [{"start": 0}]}]},
        "translated_texts": {"es": f"Es {secret}."},
        "speech_understanding": {
            "response": {
                "summarization": {"summary": [{"headline": secret, "bullets": [f"About {secret}."]}]},
                "action_items": {"items": [{"action_item": f"Ask {secret}", "quote": text}]},
            }
        },
    }
    for preset in (None, *PRESETS):
        markdown = report(Transcript(raw), preset)
        assert secret.lower() not in markdown.lower().replace("-", " ") and "ten euros" in markdown, markdown
        assert f"[{kind.upper()}]" in markdown
    assert secret.lower() in report(Transcript({**raw, "redact_pii": False}), "meeting").lower()


def test_a_redaction_policy_covers_even_a_harmless_type():
    entities = [
        {"entity_type": "organization", "text": "Nordbank"},
        {"entity_type": "date", "text": "Monday"},
    ]
    raw = {"text": "x", "entities": entities, "redact_pii": True}
    assert "date" in HARMLESS and "Nordbank" in report(Transcript(raw))
    assert "Nordbank" not in report(Transcript({**raw, "redact_pii_policies": ["organization"]}))
    markdown = report(Transcript({**raw, "redact_pii_policies": ["organi"]}))
    assert "Nordbank" in markdown and "Monday" in markdown


def test_redacted_entities_are_listed_once():
    entities = [{"entity_type": "location", "text": name} for name in ("Oslo", "Bergen", "Oslo")]
    markdown = report(Transcript({"text": "x", "entities": entities, "redact_pii": True}))
    assert "- location: [LOCATION]\n" in markdown


def test_redaction_and_quotes_take_linear_time():
    names = [f"name{i}" for i in range(3000)]
    sentences = [
        {"text": f"This is {name} here.", "start": 1000 * i, "end": 1000 * i + 900, "sentiment": "NEUTRAL"}
        for i, name in enumerate(names)
    ]
    raw = {
        "text": "x",
        "redact_pii": True,
        "entities": [{"entity_type": "person_name", "text": name} for name in names],
        "utterances": [{"speaker": "A", **sentence} for sentence in sentences],
        "sentiment_analysis_results": sentences,
        "auto_highlights_result": {"results": [{"text": n, "timestamps": [{"start": 5}]} for n in names]},
    }
    started = time.process_time()
    markdown = report(Transcript(raw), "podcast")
    assert time.process_time() - started < 5 and "name7" not in markdown and "> This is [PERSON" in markdown


def test_of_two_overlapping_entities_the_longer_one_is_redacted():
    """Anna Berg is redacted as a whole, not only Anna."""
    entities = [{"entity_type": "person_name", "text": name} for name in ("Anna", "Anna Berg")]
    raw = {"text": "So Anna Berg, or Anna-Berg, said: Anna!", "entities": entities}
    assert redacted(Transcript(raw)).text == "So [PERSON_NAME], or [PERSON_NAME], said: [PERSON_NAME]!"


def test_redaction_changes_only_spoken_text():
    raw = {
        "id": "a-7",
        "status": "completed",
        "text": "a 7",
        "entities": [{"entity_type": "password", "text": "7"}],
    }
    result = redacted(Transcript(raw, {"A": "Ada"}))
    assert (result.id, result.status, result.text, result.names) == (
        "a-7",
        "completed",
        "a [PASSWORD]",
        {"A": "Ada"},
    )


ALL = dict(summary=True, action_items=True, topics=True, sentiment=True, entities=True, key_phrases=True)
HEADINGS = ["Summary", "Action items", "Topics", "Sentiment by speaker", "Entities", "Key phrases"]


@pytest.mark.parametrize("preset", [None, *PRESETS])
def test_every_preset_shows_the_requested_features(preset, monkeypatch):
    monkeypatch.setenv("ASSEMBLYAI_API_KEY", "test-key")
    with Sandbox(seconds=0) as box:
        transcript = Client(box.url).transcribe(
            tone(60), preset=preset, translate="es", content_safety=True, **ALL
        )
    markdown = report(transcript, preset)
    for heading in (*HEADINGS, "Translations", "Sensitive content"):
        if (preset, heading) != ("podcast", "Key phrases"):  # the podcast report shows key phrases as quotes
            assert markdown.count(f"## {heading}") == 1, heading
    assert "## Sensitive content\n\nNothing was found.\n" in markdown
    assert "- [ ] Send the new budget" in markdown and "> I will send the new budget to" in markdown


def test_action_items_come_from_the_service_with_their_quotes_and_times():
    items = [
        {"action_item": "Das Budget schicken", "quote": "Ich schicke es.", "timestamp": 65_000},
        {"action_item": "Anrufen", "quote": None, "timestamp": None},
        {"action_item": None, "quote": "Ich komme."},
        {},
        "?",
    ]
    raw = {
        "text": "x",
        "speech_understanding": {"response": {"action_items": {"status": "success", "items": items}}},
    }
    assert action_items(Transcript(raw)) == [
        "- [ ] Das Budget schicken (00:01:05)\n  > Ich schicke es.",
        "- [ ] Anrufen",
        "- [ ] Ich komme.\n  > Ich komme.",
    ]
    assert "Das Budget schicken" in report(Transcript(raw)) and "Das Budget" in report(
        Transcript(raw), "meeting"
    )


def test_promises_and_requests_are_listed_if_the_service_finds_no_action_items():
    text = "I will call. It rained. Please write the report! We met."
    transcript = Transcript(
        {"utterances": [{"speaker": "B", "text": text, "start": 0, "end": 8000}]}, {"B": "Bo"}
    )
    first, *items = action_items(transcript)
    assert "by the wording" in first and items == [
        "- [ ] Bo: I will call. (00:00:00)",
        "- [ ] Bo: Please write the report! (00:00:03)",
    ]


def test_the_report_of_a_silent_recording_says_that_nothing_was_found():
    silent = Transcript({"id": "x", "status": "completed", "text": "", "audio_duration": 3})
    told = report(silent, "meeting")
    assert "00:00:03, transcript x" in told and "## Conversation\n\nNothing was found.\n" in told


@given(st.text())
def test_escaped_text_contains_no_markdown(text):
    line = escaped(text)
    assert "\n" not in line and not re.search(r"(?<!\\)(\\\\)*[<>|*`]", line)
    assert re.sub(r"\\(.)", r"\1", line) == " ".join(text.split())
