"""sandbox: it answers and refuses requests as the service does, and injects the faults that it is given.

The client is tested against the sandbox, so a difference from the service could hide bugs in the client."""

import http.server
import json
import queue
import socket
import threading
import time
from types import SimpleNamespace

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted import tone

from audio.errors import BadInput
from audio.sandbox import Sandbox, fault, heard

KEY = {"Authorization": "test-key"}


@pytest.fixture(autouse=True, scope="module")
def no_key():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ASSEMBLYAI_API_KEY", raising=False)
        yield


@pytest.fixture
def box():
    with Sandbox(seconds=0.02) as box:
        yield box


def send(box, method, path, **more):
    answer = requests.request(method, box.url + path, **{"headers": KEY, "timeout": 20, **more})
    return answer.status_code, answer.json() if "json" in answer.headers["Content-Type"] else answer.text


def run_job(box, **fields):
    status, job = send(box, "POST", "/v2/transcript", json={"audio_url": "https://x.example/a.mp3", **fields})
    assert status == 200, job
    statuses = [job["status"]]
    while statuses[-1] not in ("completed", "error"):
        time.sleep(0.005)
        _, job = send(box, "GET", f"/v2/transcript/{job['id']}")
        statuses += [job["status"]] if job["status"] != statuses[-1] else []
    return job, statuses


def test_a_job_is_queued_processed_and_completed_in_less_than_half_a_second(monkeypatch):
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("audio.sandbox.time", clock)
    with Sandbox() as box:
        _, job = send(box, "POST", "/v2/transcript", json={"audio_url": "https://x.example/a.mp3"})
        statuses = []
        for clock.now in (0.0, 0.05, 0.2, 0.45):
            statuses.append(send(box, "GET", f"/v2/transcript/{job['id']}")[1]["status"])
        assert statuses == ["queued", "queued", "processing", "completed"]


@pytest.mark.parametrize("key", ["", "wrong", "test-key ", "Bearer test-key", "TEST-KEY", None])
def test_only_the_exact_key_is_accepted(box, key):
    for method, path in (
        ("POST", "/v2/upload"),
        ("POST", "/v2/transcript"),
        ("GET", "/v2/transcript"),
        ("GET", "/v1/models"),
    ):
        headers = {"Authorization": key} if key else {}
        if key and key != key.strip():
            continue  # HTTP itself strips white space
        status, data = send(box, method, path, data=b"ID3", headers=headers)
        assert (status, data) == (401, {"error": "Authentication error, API token missing/invalid"})


def test_the_key_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("ASSEMBLYAI_API_KEY", "mine")
    with Sandbox() as box:
        assert send(box, "GET", "/v2/transcript")[0] == 401
        assert send(box, "GET", "/v2/transcript", headers={"Authorization": "mine"})[0] == 200


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"audio_url": None}, "audio_url not found"),
        ({"audio_url": "talk.mp3"}, "should start with http"),
        ({"speech_model": "best"}, "deprecated"),
        ({"speech_models": []}, "non-empty"),
        ({"auto_chapters": True, "summarization": True}, "Only one of the following models"),
        ({"word_boost": ["x"], "speech_models": ["universal-3-pro"]}, "keyterms_prompt"),
        ({"redact_pii": True}, "policies"),
        ({"summary_model": "catchy"}, "or neither"),
    ],
)
def test_invalid_jobs_are_refused(box, fields, words):
    status, data = send(box, "POST", "/v2/transcript", json={"audio_url": "https://x.example/a", **fields})
    assert status == 400 and words in data["error"]


@pytest.mark.parametrize(
    "sound, options, error",
    [
        (b"plain text", {}, "File does not appear to contain audio. File type is text/plain (ASCII text)."),
        (b"\0\1\2\xff", {}, "octet-stream"),
        (tone(0.1), {}, "Audio duration is too short."),
        (
            tone(3.5, b"\0\0"),
            {"language_detection": True},
            "language_detection cannot be performed on files with no spoken audio",
        ),
    ],
)
def test_the_job_of_a_recording_that_cannot_be_transcribed_fails(box, sound, options, error):
    url = send(box, "POST", "/v2/upload", data=sound)[1]["upload_url"]
    job, statuses = run_job(box, audio_url=url, **options)
    assert statuses[-1] == "error" and error in job["error"]
    status, data = send(box, "GET", f"/v2/transcript/{job['id']}/srt")
    assert status == 400 and "must have a status of 'completed'" in data["error"]


def test_an_empty_upload_is_refused_and_silence_gives_a_transcript_without_words(box):
    job, _ = run_job(
        box,
        audio_url=send(box, "POST", "/v2/upload", data=tone(3.5, b"\0\0"))[1]["upload_url"],
        speaker_labels=True,
    )
    assert (job["text"], job["words"], job["utterances"], job["audio_duration"]) == ("", [], [], 4)
    assert send(box, "GET", f"/v2/transcript/{job['id']}/sentences")[1]["sentences"] == []
    assert send(box, "POST", "/v2/upload", data=b"")[0] == 422
    assert send(box, "POST", "/v2/transcript", json={"audio_url": box.url + "/upload/1"})[0] == 403


@given(st.floats(0.2, 30), st.sampled_from([8000, 11025, 16000, 44100]))
@settings(max_examples=20)
def test_the_duration_is_read_from_the_header_of_a_wav_file(seconds, rate):
    data = tone(seconds, rate=rate)
    properties = heard([data])
    assert (
        properties["seconds"] == pytest.approx(seconds, abs=1 / rate)
        and not properties["silent"]
        and properties["size"] == len(data)
    )
    data = tone(seconds, b"\0\0", rate)
    assert heard([data])["silent"]
    cut = int(seconds * 1000) % len(data)
    assert heard([data[:cut], data[cut:]]) == heard([data])


@given(st.binary(max_size=80), st.sampled_from([b"", b"RIFF....WAVE", b"RIFF....WAVEfmt \x10\0\0\0"]))
def test_any_bytes_can_be_uploaded(data, head):
    data = head + data
    properties = heard([data[i : i + 7] for i in range(0, len(data), 7)])
    assert properties["size"] == len(data) and properties["seconds"] >= 0


def test_all_features_describe_the_same_words(box):
    options = dict.fromkeys(
        [
            "speaker_labels",
            "entity_detection",
            "auto_highlights",
            "iab_categories",
            "auto_chapters",
            "sentiment_analysis",
            "content_safety",
        ],
        True,
    )
    url = send(box, "POST", "/v2/upload", data=tone(60))[1]["upload_url"]
    job, _ = run_job(box, audio_url=url, **options)
    words, text = job["words"], job["text"]
    assert {u["speaker"] for u in job["utterances"]} == {"A", "B"}
    assert [w for u in job["utterances"] for w in u["words"]] == words and words[-1]["end"] == 60_000
    words_in = lambda start, end: " ".join(
        w["text"] for w in words if start <= w["start"] and w["end"] <= end
    ).lower()
    for entity in job["entities"]:
        assert entity["text"].lower() in words_in(entity["start"], entity["end"])
    for phrase in job["auto_highlights_result"]["results"]:
        assert all(phrase["text"] in words_in(**times) for times in phrase["timestamps"])
    assert [words_in(c["start"], c["end"]) for c in job["chapters"]] == [
        p["text"].lower() for p in send(box, "GET", f"/v2/transcript/{job['id']}/paragraphs")[1]["paragraphs"]
    ]
    assert all(s["text"].lower() == words_in(s["start"], s["end"]) for s in job["sentiment_analysis_results"])
    labels = {label["label"] for part in job["iab_categories_result"]["results"] for label in part["labels"]}
    assert labels == set(job["iab_categories_result"]["summary"]) and text


def test_speakers_are_named_after_their_channels_or_as_requested(box):
    assert {u["speaker"] for u in run_job(box, multichannel=True)[0]["utterances"]} == {"1", "2"}
    task = {
        "request": {
            "speaker_identification": {"speaker_type": "role", "known_values": ["Chair", "Guest"]},
            "translation": {"target_languages": ["es"]},
        }
    }
    job, _ = run_job(box, speaker_labels=True, speech_understanding=task)
    assert {u["speaker"] for u in job["utterances"]} == {"Chair", "Guest"} and "es" in job["translated_texts"]


@given(st.integers(0, 9), st.integers(1, 4))
@settings(max_examples=12)
def test_each_page_of_the_list_leads_to_older_jobs(count, limit):
    with Sandbox(seconds=60) as box:
        ids = [
            send(box, "POST", "/v2/transcript", json={"audio_url": "https://x.example/a"})[1]["id"]
            for _ in range(count)
        ][::-1]
        pages, path = [], f"/v2/transcript?limit={limit}"
        while path:
            _, page = send(box, "GET", path)
            assert page["page_details"]["result_count"] == len(page["transcripts"]) <= limit
            pages.append([job["id"] for job in page["transcripts"]])
            path = (page["page_details"]["prev_url"] or "").removeprefix(box.url)
        assert sum(pages, []) == ids


def test_an_invalid_query_for_the_list_is_refused(box):
    for query in ("limit=0", "limit=201", "limit=x", "before_id=nobody"):
        assert send(box, "GET", "/v2/transcript?" + query)[0] == 400


def test_a_deleted_job_loses_its_text_but_stays_in_the_list(box):
    job, _ = run_job(box, speaker_labels=True)
    deleted = send(box, "DELETE", f"/v2/transcript/{job['id']}")[1]
    assert (
        deleted
        == send(box, "GET", f"/v2/transcript/{job['id']}")[1]
        == send(box, "DELETE", f"/v2/transcript/{job['id']}")[1]
    )
    assert (
        deleted["text"] == "Deleted by user."
        and deleted["audio_url"] == "http://deleted_by_user"
        and deleted["words"] is None
    )
    assert send(box, "GET", "/v2/transcript")[1]["transcripts"][0]["audio_url"] == "http://deleted_by_user"
    assert send(box, "GET", f"/v2/transcript/{job['id']}/sentences")[1]["sentences"] == []


def test_a_webhook_is_called_once_with_its_header():
    calls = queue.Queue()

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            calls.put((dict(self.headers), json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(500)
            self.end_headers()

        def log_message(self, *_):
            pass

    receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, args=(0.01,), daemon=True).start()
    with Sandbox(seconds=0.05) as box:
        job, _ = run_job(
            box,
            webhook_url=f"http://127.0.0.1:{receiver.server_port}/here",
            webhook_auth_header_name="X-Mine",
            webhook_auth_header_value="yes",
        )
        headers, body = calls.get(timeout=20)
        assert body == {"transcript_id": job["id"], "status": "completed"} and headers["X-Mine"] == "yes"
        assert calls.empty()
    receiver.shutdown()
    receiver.server_close()


def test_the_gateway_gives_the_same_answer_whole_and_as_events(box):
    body = {
        "model": "canned-words",
        "messages": [{"role": "user", "content": "Speaker A: we met on Monday.\nwhen on Monday?"}],
    }
    _, whole = send(box, "POST", "/v1/chat/completions", json=body)
    text = send(box, "POST", "/v1/chat/completions", json={**body, "stream": True})[1]
    events = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert events[-1] == "[DONE]" and len(events) > 5
    parts = [json.loads(event)["choices"][0]["delta"].get("content", "") for event in events[:-1]]
    assert "".join(parts) == whole["choices"][0]["message"]["content"] and "we met on Monday" in "".join(
        parts
    )


@pytest.mark.parametrize(
    "method, path, data",
    [
        ("GET", "/", None),
        ("POST", "/v2/transcripts", b"{}"),
        ("POST", "/v2/transcript", b"{"),
        ("POST", "/v2/transcript", b"[]"),
        ("POST", "/v1/chat/completions", b"{}"),
        ("GET", "/v2/transcript/x/y", None),
        ("DELETE", "/v2/upload", None),
    ],
)
def test_a_malformed_request_gets_an_error_in_json(box, method, path, data):
    status, answer = send(box, method, path, data=data)
    assert status in (400, 404) and answer["error"]


def send_bytes(box, request):
    """Sends bytes to the sandbox -> everything that it answers until it closes the connection."""
    with socket.create_connection(("127.0.0.1", box.server.server_port), timeout=20) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


HEAD = b"POST /v2/%s HTTP/1.1\r\nHost: x\r\nAuthorization: test-key\r\n"


@given(st.lists(st.integers(1, 3000), max_size=6), st.booleans())
@settings(max_examples=15)
def test_a_body_may_come_in_chunks(sizes, more):
    sound = tone(0.5)
    with Sandbox() as box:
        pieces, at = [], 0
        for size in [*sizes, len(sound)]:
            piece = sound[at : at + size]
            at += size
            if piece:
                pieces.append(b"%x%s\r\n%s\r\n" % (len(piece), b";name=value" * more, piece))
        trailer = b"X-Sum: 1\r\n" * more
        head = HEAD % b"upload" + b"Transfer-Encoding: chunked\r\n\r\n"
        next_request = (
            b"GET /v2/transcript HTTP/1.1\r\nHost: x\r\nAuthorization: test-key\r\nConnection: close\r\n\r\n"
        )
        answer = send_bytes(box, head + b"".join(pieces) + b"0\r\n" + trailer + b"\r\n" + next_request)
        assert answer.count(b"HTTP/1.1 200 OK") == 2
        assert [upload["size"] for upload in box.uploads.values()] == [len(sound)]


def test_a_client_that_waits_for_100_continue_gets_it_at_once(box):
    with socket.create_connection(("127.0.0.1", box.server.server_port), timeout=20) as connection:
        connection.sendall(HEAD % b"upload" + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(b"3\r\nID3\r\n0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: -5",
        b"Content-Length: x",
        b"Content-Length: 1e3",
        b"Transfer-Encoding: chunked\r\n\r\nzz",
    ],
)
def test_an_invalid_length_is_refused(box, headers):
    for path in (b"upload", b"transcript"):
        answer = send_bytes(box, HEAD % path + headers + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400") and b"malformed" in answer


def test_deeply_nested_json_is_refused(box):
    status, answer = send(box, "POST", "/v2/transcript", data=b'{"a":' * 100_000)
    assert status == 400 and "malformed" in answer["error"]


@pytest.mark.parametrize(
    "fields",
    [
        {"speech_understanding": 5},
        {"speech_understanding": {"request": 5}},
        {"speech_understanding": {"request": {"summarization": True}}},
        {"speaker_options": 5},
        {"speech_understanding": {"request": {"translation": {"target_languages": 5}}}},
        {"redact_pii": True, "redact_pii_policies": 5},
        {"speakers_expected": "two", "speaker_labels": True},
        {"speaker_labels": "yes"},
    ],
)
def test_a_malformed_job_is_refused_and_does_not_break_the_list(box, fields):
    assert send(box, "POST", "/v2/transcript", json={"audio_url": "https://x.example/a", **fields})[0] == 400
    run_job(box)
    assert len(send(box, "GET", "/v2/transcript")[1]["transcripts"]) == 1


def test_a_client_cannot_set_the_results_of_a_job(box):
    fields = {
        "id": "mine",
        "status": "completed",
        "text": "mine",
        "error": "mine",
        "summary": "mine",
        "mark": "mine",
    }
    _, new = send(box, "POST", "/v2/transcript", json={"audio_url": "https://x.example/a.mp3", **fields})
    assert (new["status"], new["text"], new["summary"], new["error"]) == ("queued", None, None, None)
    job, statuses = run_job(box, **fields, webhook_auth_header_value="s3cr3t")
    assert (
        job["id"] != "mine"
        and statuses[0] == "queued"
        and job["text"].startswith("Good")
        and job["error"] is None
    )
    assert job["summary"] is None and job["mark"] == "mine" and "s3cr3t" not in str(job)


def test_a_job_does_not_claim_to_use_a_real_model(box):
    job, _ = run_job(box, speech_models=["assemblyai-stt-3-7"])
    assert job["speech_model_used"] == "canned-words"


def test_max_tokens_cuts_an_answer_off(box):
    body = {"model": "canned-words", "messages": [], "max_tokens": 2}
    choice = send(box, "POST", "/v1/chat/completions", json=body)[1]["choices"][0]
    assert choice["finish_reason"] == "length" and len(choice["message"]["content"].split()) == 2


@pytest.mark.parametrize(
    "name, where, expected",
    [
        ("503:2", "list", [503, 503, 200]),
        ("429", "list", [429, 200]),
        ("500@get", "list", [200]),
        ("504@list", "list", [504, 200]),
        ("truncated", "list", ["broken", 200]),
        ("lost@list", "list", ["broken", 200]),
        ("reset", "upload", ["broken", 200]),
        ("stall", "list", ["late", 200]),
    ],
)
def test_a_fault_hits_as_many_answers_as_requested_and_no_more(name, where, expected):
    with Sandbox(faults=[name]) as box:
        outcomes = []
        for outcome in expected:
            limit = 0.3 if outcome == "late" else 20
            try:
                method, path, data = (
                    ("POST", "/v2/upload", tone(30)) if where == "upload" else ("GET", "/v2/transcript", None)
                )
                answer = requests.request(method, box.url + path, headers=KEY, timeout=limit, data=data)
                outcomes.append(answer.status_code)
                assert answer.status_code != 429 or answer.headers["Retry-After"] == "1"
            except requests.Timeout:
                outcomes.append("late")
            except requests.RequestException:
                outcomes.append("broken")
        assert outcomes == expected


def test_a_job_can_be_made_to_fail_or_to_never_end_and_its_answer_can_be_lost():
    with Sandbox(seconds=0, faults=["job-error", "never", "lost"]) as box:
        job, _ = run_job(box)
        assert "Internal server error" in job["error"]
        _, job = send(box, "POST", "/v2/transcript", json={"audio_url": "https://x.example/a"})
        assert send(box, "GET", f"/v2/transcript/{job['id']}")[1]["status"] == "processing"
        with pytest.raises(requests.RequestException):
            send(box, "POST", "/v2/transcript", json={"audio_url": "https://x.example/b"})
        assert len(box.jobs) == 3, "the answer was lost, the job was not"


@pytest.mark.parametrize("text", ["", "rain", "503:x", "503@", ":3", "503@get:", "503@nowhere"])
def test_an_invalid_fault_is_refused(text):
    with pytest.raises(BadInput, match="not a fault"):
        fault(text)
