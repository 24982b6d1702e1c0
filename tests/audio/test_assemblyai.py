"""assemblyai: whatever the service answers, a call ends in time with a transcript or a documented error.

A job costs money, so a call must never create two jobs, even if an answer is lost."""

import io
import json
import os
import time

import pytest
import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted import LIMIT, TWISTS, Twisted, tone

from audio import AudioError, Client, Transcript, transcribe
from audio.errors import (
    AnswerCut,
    AnswerLost,
    AuthError,
    BadInput,
    RequestRefused,
    ServiceUnavailable,
    StillProcessing,
    TranscriptFailed,
)
from audio.sandbox import Sandbox

KEY, URL = "key-of-these-tests", "https://recordings.example/talk.mp3"
SOUND = tone()


@pytest.fixture(autouse=True, scope="module")
def key():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("audio.http.SLOWEST", 2)
        patch.setenv("ASSEMBLYAI_API_KEY", KEY)
        patch.delenv("ASSEMBLYAI_BASE_URL", raising=False)
        yield


@pytest.fixture
def box():
    with Sandbox(seconds=0.01) as box:
        yield box


def client_of(box, **more):
    return Client(box.url, **{"pause": 0.001, "poll": 0.005, "timeout": (5, 20), "tries": 4, **more})


def impatient_client(box, seconds=0.03, **more):
    """A client that gives up before a late answer arrives."""
    return client_of(box, timeout=(5, seconds), **{"tries": 3, **more})


@given(st.lists(st.sampled_from(TWISTS), max_size=12), st.sampled_from([SOUND, URL]))
@example(["ok", "late"], SOUND)
@example(["ok", "lost", "503", "garbage"], SOUND)
@example(["ok", "lost", "nulls"], SOUND)
@example(["nulls"], URL)
@example(["425", "408", "ok", "408"], SOUND)
@settings(max_examples=40)
def test_transcribe_gives_a_transcript_or_a_documented_error_and_creates_at_most_one_job(history, source):
    with Twisted(history) as box:
        client, started = impatient_client(box), time.monotonic()
        try:
            transcript = client.transcribe(source, timeout=1.5, speakers=2)
            assert transcript.status == "completed" and transcript.text and transcript.id in box.jobs
        except AudioError as error:
            assert type(error) is not AudioError and str(error) and KEY not in str(error) + repr(vars(error))
            assert not isinstance(error, (BadInput, TranscriptFailed))
        assert time.monotonic() - started < 30
        box.release.set()
        box.settle()
        assert len(box.jobs) <= 1


@given(st.lists(st.sampled_from(TWISTS), max_size=4), st.lists(st.sampled_from(TWISTS), max_size=4))
@settings(max_examples=6)
def test_every_other_method_gives_a_result_or_a_documented_error(history, more):
    with Twisted() as box:
        client = impatient_client(box)
        id = client_of(box).transcribe(URL).id
        for call in (
            lambda: client.sentences(id),
            lambda: list(client.list(limit=2)),
            lambda: client.search(id, "budget"),
            lambda: "".join(client.ask(id, "who?", model="canned-words")),
            client.models,
            lambda: client.delete(id),
        ):
            box.history[:] = history
            try:
                call()
            except AudioError as error:
                assert type(error) is not AudioError
            history = more


def test_transcribe_accepts_every_kind_of_source(box, monkeypatch, tmp_path):
    monkeypatch.setenv("ASSEMBLYAI_BASE_URL", box.url)
    box.seconds = 0
    (tmp_path / "a.wav").write_bytes(SOUND)
    reading, writing = os.pipe()
    os.write(writing, SOUND[:30_000])
    os.close(writing)
    with open(tmp_path / "a.wav", "rb") as file, open(reading, "rb") as pipe:
        for source in (
            tmp_path / "a.wav",
            str(tmp_path / "a.wav"),
            SOUND,
            bytearray(SOUND),
            io.BytesIO(SOUND),
            file,
            pipe,
            URL,
        ):
            transcript = transcribe(source, speakers=2)
            assert isinstance(transcript, Transcript) and transcript.text.startswith("Good morning")
            assert transcript.seconds == (30 if source == URL else 2) and len(transcript.labels) == 2
    assert len(box.jobs) == 8


def test_an_open_file_is_sent_from_its_current_position(box):
    file = io.BytesIO(b"rubbish" + SOUND)
    file.seek(7)
    assert client_of(box).transcribe(file).seconds == 2


@given(
    st.dictionaries(
        st.sampled_from(["future_option", "mode", "x-y"]), st.one_of(st.booleans(), st.integers(), st.text())
    )
)
@settings(max_examples=8)
def test_unknown_options_and_fields_pass_through(options):
    with Twisted(["ok", "ok", "more"], seconds=0) as box:
        transcript = client_of(box).wait(client_of(box).submit(SOUND, **options))
        fields = box.jobs[transcript.id][1]["fields"]
        assert all(fields[name] == transcript.raw[name] == value for name, value in options.items())
        assert transcript.raw["new_field"] == {"deep": [1, None]} and transcript.raw["status"] == "completed"


def test_an_interrupted_upload_starts_again_from_the_beginning(box):
    box.faults += [{"name": "reset", "where": "upload", "left": 2}]
    sound = tone(60)
    transcript = client_of(box).transcribe(io.BytesIO(sound))
    assert transcript.seconds == 60 and [upload["size"] for upload in box.uploads.values()] == [len(sound)]


@pytest.mark.parametrize("twist", ["422", "nulls"])
def test_an_upload_is_retried_if_the_answer_is_422_or_contains_no_url(twist):
    with Twisted([twist, twist]) as box:
        assert client_of(box).upload(SOUND).startswith(box.url) and len(box.requests) == 3


@pytest.mark.parametrize("twist", ["lost", "truncated", "garbage", "nulls", "empty", "array"])
def test_after_a_lost_answer_the_job_is_found_in_the_list(twist):
    with Twisted(["ok", twist]) as box:
        transcript = client_of(box).transcribe(SOUND)
        assert [*box.jobs] == [transcript.id] and [kind for kind, _ in box.requests].count("create") == 1


@pytest.mark.parametrize("twist", ["500", "502", "reset"])
def test_a_job_that_was_not_created_is_submitted_again(twist):
    with Twisted(["ok", twist]) as box:
        transcript = client_of(box).transcribe(SOUND)
        kinds = [kind for kind, _ in box.requests]
        assert [*box.jobs] == [transcript.id] and kinds.count("create") == 2
        assert "list" in kinds[kinds.index("create") : len(kinds) - kinds[::-1].index("create")]


@pytest.mark.parametrize("source", [SOUND, URL])
def test_no_second_job_is_submitted_while_the_first_may_still_be_created(source):
    with Twisted(["ok", "late"] if source == SOUND else ["late"], late=LIMIT) as box:
        with pytest.raises(AnswerLost, match="python -m audio list") as caught:
            impatient_client(box, 0.4).transcribe(source)
        assert not caught.value.retryable and not box.jobs
        box.release.set()
        box.settle()
        assert len(box.jobs) == 1


def test_a_job_that_is_created_late_is_found():
    with Twisted(["ok", "late"], late=LIMIT) as box:

        def pause(seconds):  # the client pauses before it looks for the job
            box.release.set()
            box.settle()

        assert impatient_client(box, 0.4, sleep=pause).transcribe(SOUND).id in box.jobs and len(box.jobs) == 1


@pytest.mark.parametrize("twist", ["lost", "garbage", "nulls", "500", "408"])
def test_a_job_for_a_url_that_we_did_not_upload_is_neither_searched_for_nor_submitted_again(twist):
    with Twisted([twist]) as box:
        with pytest.raises(AnswerLost, match="python -m audio list"):
            client_of(box).submit(URL)
        assert [kind for kind, _ in box.requests] == ["create"]


def test_nothing_is_submitted_again_if_the_list_cannot_be_read():
    for unreadable in (["404"], ["401"], ["503"] * 9, ["nulls"] * 9):
        history = ["ok", "lost", *unreadable]
        with Twisted(history) as box, pytest.raises(AnswerLost, match="cannot be read"):
            client_of(box).submit(SOUND)
        assert len(box.jobs) == 1


def test_a_job_that_misses_its_deadline_can_be_fetched_by_its_id():
    with Sandbox(seconds=1e6) as box:
        client = client_of(box)
        with pytest.raises(StillProcessing, match="python -m audio wait") as caught:
            client.transcribe(SOUND, timeout=0.15)
        box.seconds = 0.02
        id = caught.value.transcript_id
        assert id in str(caught.value) and caught.value.retryable and [*box.jobs] == [id]
        assert client.wait(id).id == id == client.wait(client.get(id)).id


def test_wait_survives_an_outage_and_reports_it_at_the_deadline():
    with Twisted(["ok", "ok", *["503", "reset", "garbage"] * 4]) as box:
        assert client_of(box, tries=2).transcribe(SOUND).status == "completed"
    with Twisted(["ok", "ok", *["503"] * 10_000]) as box, pytest.raises(StillProcessing, match="503|time"):
        client_of(box).transcribe(SOUND, timeout=0.15)


def test_ctrl_c_reports_the_id_of_the_job():
    def interrupted(seconds):
        raise KeyboardInterrupt

    with (
        Sandbox(seconds=1e6) as box,
        pytest.raises(KeyboardInterrupt, match="python -m audio wait") as caught,
    ):
        client_of(box, sleep=interrupted).transcribe(SOUND)
    assert [*box.jobs] == [caught.value.transcript_id] and caught.value.transcript_id in str(caught.value)


def test_a_job_that_fails_says_why_and_whether_to_try_again(box):
    with (
        pytest.warns(UserWarning, match="audio"),
        pytest.raises(TranscriptFailed, match="not appear to contain") as caught,
    ):
        client_of(box).transcribe(b"This is a text.")
    assert not caught.value.retryable and caught.value.transcript_id in box.jobs
    with pytest.raises(TranscriptFailed, match="too short"):
        client_of(box).transcribe(tone(0.1))
    box.faults += [{"name": "job-error", "where": "create", "left": 1}]
    with pytest.raises(TranscriptFailed, match="submit the recording again") as caught:
        client_of(box).transcribe(SOUND)
    assert caught.value.retryable


def test_sentences_subtitles_and_search_results_agree_with_the_transcript(box):
    client = client_of(box)
    transcript = client.transcribe(tone(50), preset="meeting", sentiment=True)
    words = transcript.text.split()
    assert " ".join(s["text"] for s in client.sentences(transcript)) == transcript.text
    assert " ".join(p["text"] for p in client.paragraphs(transcript)) == transcript.text
    for format in ("srt", "vtt"):
        view = f"{box.url}/v2/transcript/{transcript.id}/{format}"
        text = requests.get(view, headers={"Authorization": KEY}, timeout=20).text
        lines = [line for line in text.splitlines() if line and "-->" not in line and not line.isdecimal()]
        assert " ".join(lines).removeprefix("WEBVTT ").split() == words
    (budget, storm) = client.search(transcript, ["new budget", "storm"])
    assert budget["count"] == len(budget["timestamps"]) == words.count("budget") and storm["text"] == "storm"
    for (start, end), index in zip(budget["timestamps"], budget["indexes"]):
        assert transcript.words[index].start == start and transcript.words[index + 1].end == end


def test_a_request_for_the_sentences_of_an_unfinished_job_is_refused():
    with Sandbox(seconds=60) as box:
        id = client_of(box).submit(SOUND).id
        with pytest.raises(RequestRefused, match="must have a status of 'completed'") as caught:
            client_of(box).sentences(id)
        assert caught.value.transcript_id == id and caught.value.status == 400


def test_an_unknown_id_is_refused_at_once(box):
    for call in (Client.wait, Client.get, Client.delete, Client.sentences):
        with pytest.raises(RequestRefused, match="id not found") as caught:
            call(client_of(box), "a/../b")
        assert caught.value.transcript_id == "a/../b"
    for bad in (None, "", 5):
        with pytest.raises(BadInput, match="id such as"):
            client_of(box).get(bad)


@given(st.integers(0, 12), st.integers(1, 5))
@settings(max_examples=10)
def test_the_list_contains_every_job_once_and_the_newest_comes_first(count, limit):
    with Sandbox(seconds=60) as box:
        client = client_of(box)
        ids = [client.submit(URL).id for _ in range(count)]
        listing = client.list(limit=limit)
        first = [next(listing)["id"]] if count else []
        client.submit(URL)  # one more job, while the list is being read
        assert [*first, *(job["id"] for job in listing)][-count:] == ids[::-1][-count:] if count else True
        assert not count or first == [ids[-1]]


def test_delete_is_permanent(box):
    client = client_of(box)
    id = client.transcribe(SOUND, speakers=2).id
    deleted = client.delete(id)
    assert deleted.text == "Deleted by user." and deleted.id == id and deleted.words == [] and deleted.deleted
    assert client.get(id).deleted and [job["id"] for job in client.list()] == [id]
    with pytest.raises(RequestRefused, match="was deleted") as caught:
        client.wait(id)
    assert caught.value.transcript_id == id


def test_redacted_audio_has_a_url(box):
    client = client_of(box)
    transcript = client.transcribe(
        tone(40), redact_pii=True, redact_pii_policies="person_name", redact_pii_audio=True
    )
    url = client.redacted_audio(transcript)
    assert (
        url == client.redacted_audio(transcript.id) and requests.get(url, timeout=20).content[:4] == b"RIFF"
    )
    assert "Anna" not in transcript.text and "[PERSON_NAME] [PERSON_NAME]" in transcript.text
    with pytest.raises(RequestRefused):
        client.redacted_audio(client.transcribe(SOUND))


def test_questions_are_answered_from_the_transcript_and_the_answer_arrives_in_pieces(box):
    client = client_of(box)
    transcript = client.transcribe(tone(60), speakers=2)
    pieces = list(client.ask(transcript, "Who calls Maria Lopez at Nordbank?"))
    assert len(pieces) > 5 and "Maria Lopez at Nordbank on Thursday" in "".join(pieces)
    assert "".join(
        client.ask(transcript.id, "Who brings stones from Bergen?", model="canned-words")
    ).endswith("pier?")


def test_an_answer_that_was_cut_off_raises_an_error_after_its_last_piece(box):
    client, pieces, names = client_of(box), [], []
    messages = [{"role": "user", "content": "Speaker A: we met on Monday with Bo.\nwhen on Monday?"}]
    with pytest.raises(AnswerCut, match="cut off .length.; max_tokens is 3"):
        for piece in client.chat(messages, max_tokens=3, answers=names.append):
            pieces.append(piece)
    assert "".join(pieces).split() == ["Canned,", "closest", "line:"] and names == ["canned-words"]


@pytest.mark.parametrize("reason, cut", [("stop", False), ("content_filter", True), ("length", True)])
def test_every_finish_reason_other_than_stop_means_that_the_answer_was_cut_off(reason, cut, monkeypatch):
    choices = [
        {"delta": {"content": "So it "}, "finish_reason": None},
        {"delta": {}, "finish_reason": reason},
    ]
    events = [{"model": "m-2", "choices": [choice]} for choice in choices]
    events = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    client = Client("http://127.0.0.1:1")
    monkeypatch.setattr(client.http, "call", lambda *_, **__: None)
    monkeypatch.setattr(client.http, "pieces", lambda response: events)
    pieces, names = [], []
    try:
        for piece in client.chat([], model="m-1", answers=names.append):
            pieces.append(piece)
        assert not cut
    except AnswerCut as error:
        assert cut and reason in str(error)
    assert pieces == ["So it "] and names == ["m-2"]


def test_a_wrong_key_is_reported_before_a_big_upload(monkeypatch):
    monkeypatch.setattr("audio.assemblyai.BIG", 10_000)
    with Twisted() as box:
        box.key = "another"
        with pytest.raises(AuthError, match="missing/invalid"):
            client_of(box).transcribe(SOUND)
        assert [kind for kind, _ in box.requests] == ["list"]
        box.key = KEY
        client = client_of(box)
        for _ in range(2):
            client.upload(SOUND)
        assert [kind for kind, _ in box.requests[1:]] == ["list", "upload", "upload"]


def test_a_key_passed_as_an_argument_is_refused():
    with pytest.raises(BadInput, match="ASSEMBLYAI_API_KEY"):
        Client(api_key="x")


@pytest.mark.parametrize("timeout", ["5", float("nan"), -1, True, {}])
def test_an_invalid_timeout_is_refused_before_anything_is_sent(timeout):
    with Twisted() as box:
        with pytest.raises(BadInput, match="a number of seconds, or None"):
            client_of(box).transcribe(SOUND, timeout=timeout)
        assert not box.requests


def test_a_timeout_of_none_means_no_limit(box):
    assert client_of(box).transcribe(SOUND, timeout=None).status == "completed"


def test_a_truncated_or_lost_answer_from_a_model_raises_an_error(box):
    client, box.retry_after = client_of(box), "0"
    for name in ("truncated", "lost"):
        box.faults[:] = [{"name": name, "where": "chat", "left": 1}]
        with pytest.raises(AnswerLost):
            list(client.chat([{"role": "user", "content": "hello"}]))
    box.faults[:] = [{"name": "429", "where": "chat", "left": 1}]
    assert list(client_of(box).chat([{"role": "user", "content": "hello"}]))


def test_the_key_comes_from_the_environment_and_is_checked(box, monkeypatch):
    client = client_of(box)
    monkeypatch.setenv("ASSEMBLYAI_API_KEY", "another")
    for call in (
        lambda c: c.upload(SOUND),
        lambda c: c.submit(URL),
        lambda c: c.get("x"),
        lambda c: next(c.list()),
    ):
        with pytest.raises(AuthError, match="missing/invalid"):
            call(client_of(box))
    assert client.upload(SOUND) and "another" not in repr(client_of(box)) + repr(vars(client_of(box)))
    monkeypatch.delenv("ASSEMBLYAI_API_KEY")
    with pytest.raises(AuthError, match="ASSEMBLYAI_API_KEY"):
        Client(box.url)


def test_an_upload_that_belongs_to_another_project_is_refused(box):
    with pytest.raises(AuthError, match="project"):
        client_of(box).submit(box.url + "/upload/3b0d")


def test_nothing_is_sent_if_an_option_or_the_source_is_wrong():
    with Twisted() as box:
        for options in (
            {"auto_chapters": True, "summarization": True},
            {"speech_model": "best"},
            {"speakers": 0},
            {"preset": "lecture"},
        ):
            with pytest.raises(BadInput):
                client_of(box).transcribe(SOUND, **options)
        for source in (b"", "no/such.wav", "ftp://x/y.mp3", ".", 7, io.StringIO("text")):
            with pytest.raises(BadInput):
                client_of(box).transcribe(source)
        assert not box.requests


def test_a_refusal_contains_the_message_of_the_service(box):
    with pytest.raises(RequestRefused, match="audio_url should start with http"):
        client_of(box).http.call("POST", "v2/transcript", safe=False, json={"audio_url": "x"})
    with pytest.raises(ServiceUnavailable):
        client_of(box, tries=1).http.call("GET", "http://127.0.0.1:1/")
