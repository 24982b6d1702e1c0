"""sandbox: the official SDK (assemblyai on PyPI), unchanged, works with the sandbox.

If it did not, a test against the sandbox would say little about the real service."""

import pytest
from twisted import tone

from audio.sandbox import Sandbox

aai = pytest.importorskip("assemblyai")
pytestmark = pytest.mark.oracle


@pytest.fixture
def box(monkeypatch):
    monkeypatch.setenv("ASSEMBLYAI_API_KEY", "test-key")
    with Sandbox(seconds=0.1) as box:
        monkeypatch.setattr(aai.settings, "base_url", box.url)
        monkeypatch.setattr(aai.settings, "api_key", "test-key")
        monkeypatch.setattr(aai.settings, "polling_interval", 0.05)
        yield box


@pytest.fixture
def file(tmp_path):
    (tmp_path / "talk.wav").write_bytes(tone(60))
    return str(tmp_path / "talk.wav")


def test_the_sdk_uploads_a_file_and_reads_all_features(box, file):
    assert aai.Transcriber().upload_file(file) in box.uploads
    config = aai.TranscriptionConfig(
        speaker_labels=True,
        speakers_expected=2,
        iab_categories=True,
        sentiment_analysis=True,
        entity_detection=True,
        auto_highlights=True,
        content_safety=True,
        summarization=True,
        summary_model=aai.SummarizationModel.informative,
        summary_type=aai.SummarizationType.bullets,
        language_detection=True,
    )
    transcript = aai.Transcriber(config=config).transcribe(file)
    assert transcript.status == aai.TranscriptStatus.completed and transcript.error is None
    raw = box.jobs[transcript.id][0]
    assert transcript.text == raw["text"] and transcript.audio_duration == 60 and transcript.confidence > 0.5
    assert [w.text for w in transcript.words] == transcript.text.split()
    assert {u.speaker for u in transcript.utterances} == {"A", "B"}
    assert [w.end for u in transcript.utterances for w in u.words][-1] == 60_000
    assert {e.entity_type.value for e in transcript.entities} >= {"person_name", "location", "money_amount"}
    assert {s.sentiment.value for s in transcript.sentiment_analysis} == {"POSITIVE", "NEUTRAL", "NEGATIVE"}
    highlights = transcript.auto_highlights
    assert highlights.status == "success" and highlights.results[0].timestamps[0].end > 0
    assert (
        transcript.iab_categories.summary == raw["iab_categories_result"]["summary"]
        and transcript.iab_categories.results
    )
    assert transcript.content_safety.status == "success" and transcript.summary == raw["summary"]


def test_the_sdk_reads_chapters_and_reports_that_they_and_a_summary_conflict(box, file):
    transcript = aai.Transcriber().transcribe(file, aai.TranscriptionConfig(auto_chapters=True))
    assert [chapter.headline for chapter in transcript.chapters][0] == "The harbour project starts on time"
    with pytest.raises(Exception, match="Only one of the following models"):
        aai.Transcriber().submit(file, conflicting_config())


def conflicting_config():
    config = aai.TranscriptionConfig(auto_chapters=True)
    config.raw.summarization = True
    return config


def test_the_sdk_reads_sentences_paragraphs_and_subtitles_and_searches_for_words(box, file):
    transcript = aai.Transcriber().transcribe(file)
    assert (
        " ".join(s.text for s in transcript.get_sentences())
        == transcript.text
        == " ".join(p.text for p in transcript.get_paragraphs())
    )
    assert transcript.export_subtitles_srt().startswith("1\n00:00:00,000 --> ")
    assert transcript.export_subtitles_vtt(32).startswith("WEBVTT\n")
    (match,) = transcript.word_search(["new budget"])
    assert match.count == 2 and len(match.timestamps) == len(match.indexes) == 2


def test_the_sdk_lists_fetches_and_deletes_transcripts(box, file):
    ids = [aai.Transcriber().transcribe("https://x.example/a.mp3").id for _ in range(3)]
    page = aai.Transcriber().list_transcripts(aai.ListTranscriptParameters(limit=2))
    assert [item.id for item in page.transcripts] == ids[:0:-1]
    page = aai.Transcriber().list_transcripts(aai.ListTranscriptParameters(before_id=ids[1], limit=5))
    assert [item.id for item in page.transcripts] == ids[:1]
    assert aai.Transcript.get_by_id(ids[0]).text
    assert aai.Transcript.delete_by_id(ids[0]).text == "Deleted by user."


def test_the_sdk_reports_a_failed_job_and_transcribes_a_group_of_files(box, file, tmp_path):
    (tmp_path / "text.wav").write_text("This is a text.")
    transcript = aai.Transcriber().transcribe(str(tmp_path / "text.wav"))
    assert transcript.status == aai.TranscriptStatus.error
    assert "does not appear to contain audio" in transcript.error
    group = aai.Transcriber().transcribe_group([file, "https://x.example/a.mp3"])
    assert {t.audio_duration for t in group.transcripts} == {60, 30}


def test_the_sdk_reports_a_wrong_key(box, file, monkeypatch):
    monkeypatch.setattr(aai.settings, "api_key", "wrong")
    client = aai.Client(settings=aai.settings)
    for call in (
        lambda: aai.Transcriber(client=client).upload_file(file),
        lambda: aai.Transcriber(client=client).submit("https://x.example/a"),
        lambda: aai.Transcript.get_by_id("x"),
    ):
        with pytest.raises(Exception, match="API token missing/invalid"):
            call()
