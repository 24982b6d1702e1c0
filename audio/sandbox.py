"""The service in a box: the same API on this machine, for trying things out and for tests.

    python -m audio sandbox --port 0 --fault 503:3 --fault lost@create
    with Sandbox(faults=["429:2"]) as box: ... box.url ...

Uploads, jobs, views, lists, webhooks and the LLM Gateway behave as the service does, its refusals in its words.
What is "heard" is canned (canned.py); only the length of a WAV, and whether it is silent, are read from it. The
key is what ASSEMBLYAI_API_KEY holds, or test-key.

A fault is NAME[@WHERE][:COUNT]: it spoils the next COUNT answers (1 where not said) to requests of kind WHERE:
upload, create, get, delete, list, view, models, chat, or * for all.

    429 500 502 503 504   that status, 429 with Retry-After: 1       stall        no answer for 90 s
    reset                 breaks off in the middle of an upload      truncated    half of the JSON
    lost                  does what was asked, answers nothing       job-error    the job ends with an error
    flaky:PERCENT         so many of all answers, one of the above   never        the job is never done
"""

import http.server
import io
import json
import os
import random
import re
import socket
import struct
import threading
import time
import uuid
import wave
from datetime import datetime, timezone
from urllib.parse import parse_qsl, urlencode, urlsplit

import requests

from audio import canned
from audio.recording import PIECE, looks_like_audio
from audio.subtitles import LINE, LINES, Span, captions, render

UUID = "([^/]+)"
ROUTES = [(method, re.compile(path), kind) for method, path, kind in (
    ("POST", "/v2/upload", "upload"), ("POST", "/v2/transcript", "create"), ("GET", "/v2/transcript", "list"),
    ("GET", f"/v2/transcript/{UUID}", "get"), ("DELETE", f"/v2/transcript/{UUID}", "delete"),
    ("GET", f"/v2/transcript/{UUID}/(sentences|paragraphs|srt|vtt|word-search|redacted-audio)", "view"),
    ("GET", "/v1/models", "models"), ("POST", "/v1/chat/completions", "chat"), ("GET", f"/files/{UUID}", "file"))]  # fmt: skip
USUALLY = {"reset": "upload", "lost": "create", "job-error": "create", "never": "create"}
FLAKY = ["429", "500", "502", "503", "504", "reset", "truncated", "lost"]
FAULTS = {*FLAKY, "stall", "job-error", "never", "flaky"}
MODELS = ["canned-1"]
REFUSED = [  # what the service refuses, in its words
    (lambda on: not isinstance(on("audio_url"), str), "Transcript creation error, audio_url not found"),
    (lambda on: not on("audio_url").startswith("http"), "Transcript creation error, audio_url should start with http"),
    (lambda on: on("speech_model"), 'speech_model is deprecated. Use "speech_models" instead.'),
    (lambda on: on("speech_models") == [], '"speech_models" must be a non-empty list'),
    (lambda on: on("auto_chapters") and on("summarization"),
     "Only one of the following models can be enabled at a time: auto_chapters, summarization."),
    (lambda on: on("word_boost") and "universal-3" in str(on("speech_models")),
     "word_boost is not supported by this model. Use keyterms_prompt instead."),
    (lambda on: on("redact_pii") and not on("redact_pii_policies"), "redact_pii_policies is required for redact_pii"),
]  # fmt: skip
ECHOED = """redact_pii summarization auto_highlights speaker_labels iab_categories sentiment_analysis
entity_detection auto_chapters content_safety""".split()


class Refusal(Exception):
    """An answer with an error: status, text."""


class Sandbox:
    """A running server; `url` is its address. seconds: how long a job takes. Raises ValueError for a fault
    that is none, OSError for a port that is taken."""

    def __init__(self, port=0, *, seconds=0.3, faults=()):
        self.key = os.environ.get("ASSEMBLYAI_API_KEY") or "test-key"
        self.seconds, self.faults = seconds, [fault(text) for text in faults]
        self.pause = "0" if any(one["name"] == "flaky" for one in self.faults) else "1"  # Retry-After
        self.uploads, self.jobs = {}, {}  # by URL; by id, oldest first
        self.lock, self.closing, self.random = threading.RLock(), threading.Event(), random.Random(0)
        self.server = Server(("127.0.0.1", port), type("Bound", (Handler,), {"box": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def spoiled(self, kind):
        """The fault that hits a request of this kind, or None."""
        with self.lock:
            for one in self.faults:
                if one["name"] == "flaky":
                    if self.random.random() < one["left"] / 100:
                        return self.random.choice(FLAKY)
                elif one["where"] in (kind, "*") and one["left"] > 0:
                    one["left"] -= 1
                    return one["name"]
        return None

    def upload(self, heard):
        if not heard["size"]:
            raise Refusal(422, "Upload failed, the file is empty")
        url = f"{self.url}/upload/{uuid.uuid4()}"
        self.uploads[url] = heard
        return {"upload_url": url}

    def create(self, fields, fate):
        problem = next((text for is_wrong, text in REFUSED if is_wrong(fields.get)), None)
        if problem:
            raise Refusal(400, problem)
        heard = self.uploads.get(fields["audio_url"])
        if heard is None and fields["audio_url"].startswith(self.url + "/upload/"):
            raise Refusal(403, "Cannot access uploaded file")
        job = {"id": str(uuid.uuid4()), "status": "queued", "error": None, "text": None, "words": None,
               **{name: bool(fields.get(name)) for name in ECHOED}, "webhook_auth": False,
               "language_confidence": None, "language_confidence_threshold": None, "speech_model": None,
               "acoustic_model": "", "language_model": "", "utterances": None, **fields}  # fmt: skip
        hidden = {"fields": fields, "fate": fate, "begun": time.monotonic(), "created": stamp(), "completed": None,
                  "heard": heard or {"size": 1, "seconds": 30.0, "silent": False, "error": None}}  # fmt: skip
        with self.lock:
            self.jobs[job["id"]] = job, hidden
        if fields.get("webhook_url"):
            threading.Thread(target=self.call_back, args=(job["id"],), daemon=True).start()
        return job

    def job(self, id):
        """A job as it stands now, and what only the service knows of it."""
        if id not in self.jobs:
            raise Refusal(400, "Transcript lookup error, transcript id not found")
        with self.lock:
            job, hidden = self.jobs[id]
            age = time.monotonic() - hidden["begun"]
            if job["status"] in ("queued", "processing"):
                job["status"] = "queued" if 3 * age < self.seconds else "processing"
                if age >= self.seconds and hidden["fate"] != "never":
                    self.finish(job, hidden)
            return job, hidden

    def finish(self, job, hidden):
        heard, fields = hidden["heard"], hidden["fields"]
        error = heard["error"]
        if hidden["fate"] == "job-error":
            error = "Internal server error. Please retry your request."
        elif not error and heard["silent"] and fields.get("language_detection"):
            error = "language_detection cannot be performed on files with no spoken audio"
        job |= {"status": "error", "error": error} if error else {
            "status": "completed", **canned.results(fields, heard["seconds"], heard["silent"])}  # fmt: skip
        hidden |= {"completed": stamp(), "sentences": job.pop("sentences", [])}

    def get(self, id):
        return self.job(id)[0]

    def delete(self, id):
        job, _ = self.job(id)
        keep = {key: job[key] for key in ("id", "status", *ECHOED) if key in job}
        gone = "http://deleted_by_user"
        job.update({**dict.fromkeys(job), **keep, "text": "Deleted by user.", "audio_url": gone, "webhook_url": gone,
                    "acoustic_model": "", "language_model": ""})  # fmt: skip
        return job

    def list(self, query):
        """A page of jobs, newest first. prev_url leads to older ones, next_url to newer ones."""
        if not query.get("limit", "10").isdecimal() or not 1 <= int(query.get("limit", 10)) <= 200:
            raise Refusal(400, "limit must be from 1 to 200")
        with self.lock:
            ids = list(self.jobs)[::-1]
            for bound in ("before_id", "after_id"):
                if bound in query and query[bound] not in ids:
                    raise Refusal(400, f"{bound} is not a transcript id")
            older = ids[ids.index(query["before_id"]) + 1:] if "before_id" in query else ids
            wanted = [id for id in (older[: older.index(query["after_id"])] if "after_id" in query else older)
                      if ("status" not in query or query["status"] == self.get(id)["status"])
                      and self.jobs[id][1]["created"].startswith(query.get("created_on", ""))]  # fmt: skip
            limit = int(query.get("limit", 10))
            page = wanted[-limit:] if "after_id" in query else wanted[:limit]
            rows = [self.row(id) for id in page]
        more = {key: query[key] for key in ("status", "created_on") if key in query} | {"limit": limit}
        link = lambda **bound: f"{self.url}/v2/transcript?{urlencode({**more, **bound})}"
        has_older = bool(page) and page[-1] != wanted[-1]
        return {"page_details": {"limit": limit, "result_count": len(page), "current_url": link(),
                                 "prev_url": link(before_id=page[-1]) if has_older else None,
                                 "next_url": link(after_id=page[0]) if page else None}, "transcripts": rows}  # fmt: skip

    def row(self, id):
        job, hidden = self.jobs[id]
        return {"id": id, "resource_url": f"{self.url}/v2/transcript/{id}", "status": job["status"],
                "created": hidden["created"], "completed": hidden["completed"], "audio_url": job["audio_url"],
                "error": job["error"]}  # fmt: skip

    def view(self, id, name, query):
        job, hidden = self.job(id)
        if job["status"] != "completed":
            raise Refusal(400, f"This transcript has a status of '{job['status']}'. Transcripts must have a status "
                               "of 'completed' before requesting captions.")  # fmt: skip
        told = hidden["sentences"] if job["words"] is not None else []
        base = {"id": id, "confidence": job["confidence"] or 0, "audio_duration": job["audio_duration"] or 0}
        if name == "sentences":
            return {**base, "sentences": canned.bare(told)}
        if name == "paragraphs":
            return {**base, "paragraphs": canned.paragraphs(told)}
        if name in ("srt", "vtt"):
            turns = [Span(s["text"], s["start"], s["end"]) for s in told]
            return render(captions(turns, int(query.get("chars_per_caption", LINE * LINES))), name)
        if name == "word-search":
            found = [(words, canned.places(words, job["words"] or [])) for words in query.get("words", "").split(",")]
            matches = [{"text": " ".join(canned.plain(words)), "count": len(at), "indexes": [i for *_, i in at],
                        "timestamps": [[start, end] for start, end, _ in at]} for words, at in found if at]  # fmt: skip
            return {"id": id, "total_count": sum(match["count"] for match in matches), "matches": matches}
        if not job.get("redact_pii_audio"):
            raise Refusal(400, "redacted audio was not requested for this transcript")
        return {"status": "redacted_audio_ready", "redacted_audio_url": f"{self.url}/files/{id}"}

    def call_back(self, id):
        """The webhook of a job: ten attempts at most; an answer of 4xx is final."""
        while self.job(id)[0]["status"] not in ("completed", "error"):
            if self.closing.wait(self.seconds / 4 + 0.01):
                return
        job, hidden = self.job(id)
        fields = hidden["fields"]
        name, value = fields.get("webhook_auth_header_name"), fields.get("webhook_auth_header_value")
        for _ in range(10):
            try:
                answer = requests.post(fields["webhook_url"], json={"transcript_id": id, "status": job["status"]},
                                       headers={name: value} if name else {}, timeout=10)  # fmt: skip
                job["webhook_status_code"] = answer.status_code
                if answer.status_code < 500:
                    return
            except requests.RequestException:
                pass
            if self.closing.wait(max(self.seconds, 0.05)):
                return


class Server(http.server.ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 128

    def handle_error(self, request, address):
        """Nothing: clients break off."""


class Handler(http.server.BaseHTTPRequestHandler):
    """HTTP on one side, `box` (the Sandbox) on the other."""

    protocol_version, box = "HTTP/1.1", None
    wbufsize = -1  # an answer leaves in one piece

    def log_message(self, *_):
        pass

    def do_GET(self):
        url = urlsplit(self.path)
        kind, groups = "", ()
        for method, path, name in ROUTES:
            if method == self.command and (found := path.fullmatch(url.path)):
                kind, groups = name, found.groups()
        fault = self.box.spoiled(kind)
        length = int(self.headers.get("Content-Length") or 0)
        if fault == "reset":
            self.rfile.read(length // 2)
            return self.hang_up()
        body = heard(self.rfile, length) if kind == "upload" else self.rfile.read(length)
        if fault == "stall":
            self.box.closing.wait(90)
            return self.hang_up()
        try:
            if fault and fault.isdecimal():
                raise Refusal(int(fault), "Too Many Requests" if fault == "429" else "injected by --fault")
            if kind != "file" and self.headers.get("Authorization") != self.box.key:
                raise Refusal(401, "Authentication error, API token missing/invalid")
            status, data = 200, self.answer(kind, groups, dict(parse_qsl(url.query)), body, fault)
        except Refusal as refusal:
            status, data = refusal.args[0], {"error": refusal.args[1]}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            status, data = 400, {"error": f"the request is malformed: {error}"}
        if fault == "lost":
            return self.hang_up()
        return self.write(status, data, half=fault == "truncated")

    do_POST = do_DELETE = do_GET

    def answer(self, kind, groups, query, body, fault):
        box = self.box
        if kind in ("get", "delete"):
            return getattr(box, kind)(*groups)
        if kind == "create":
            return box.create(json.loads(body), fault)
        if kind == "chat":
            return self.chat(json.loads(body))
        if kind == "file":
            return silence(box.job(*groups)[1]["heard"]["seconds"])
        if kind == "models":
            return {"data": [{"id": id, "object": "model"} for id in MODELS]}
        calls = {"upload": lambda: box.upload(body), "list": lambda: box.list(query),
                 "view": lambda: box.view(*groups, query)}  # fmt: skip
        if kind not in calls:
            raise Refusal(404, "Not found")
        return calls[kind]()

    def chat(self, asked):
        if asked["model"] not in MODELS:
            raise Refusal(400, f"unknown model {asked['model']}")
        text, id = canned.answer(asked["messages"]), str(uuid.uuid4())
        usage = {"input_tokens": len(str(asked["messages"])) // 4, "output_tokens": len(text) // 4}
        if not asked.get("stream"):
            message = {"role": "assistant", "content": text}
            return {"request_id": id, "usage": usage,
                    "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}  # fmt: skip
        parts = [{"choices": [{"index": 0, "delta": {"content": part}}]} for part in re.findall(r"\s*\S+\s*", text)]
        events = [*parts, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage}]
        return [f"data: {json.dumps({'request_id': id, **event})}\n\n" for event in events] + ["data: [DONE]\n\n"]

    def write(self, status, data, half=False):
        events = data if isinstance(data, list) else None
        if events:
            data, kind = "".join(events), "text/event-stream"
        else:
            kind = ("application/json" if isinstance(data, dict) else "audio/wav" if isinstance(data, bytes)
                    else "text/plain; charset=utf-8")  # fmt: skip
        data = json.dumps(data) if isinstance(data, dict) else data
        data = data if isinstance(data, bytes) else data.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", self.box.pause)
        self.end_headers()
        for event in events[: len(events) // (1 + half)] if events else ():
            self.wfile.write(event.encode())
            self.wfile.flush()
        if not events:
            self.wfile.write(data[: len(data) // 2] if half else data)
        if half:
            self.hang_up()

    def hang_up(self):
        """Ends the connection at once, with a reset instead of a goodbye."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True


def fault(text):
    """NAME[@WHERE][:COUNT] -> a dict. Raises ValueError."""
    found = re.fullmatch(r"([\w-]+)(?:@(\w+|\*))?(?::(\d+))?", text)
    if not found or found[1] not in FAULTS:
        raise ValueError(f"{text!r} is no fault: write NAME[@WHERE][:COUNT], NAME one of {', '.join(sorted(FAULTS))}")
    return {"name": found[1], "where": found[2] or USUALLY.get(found[1], "*"), "left": int(found[3] or 1)}


def stamp():
    return datetime.now(timezone.utc).replace(tzinfo=None).isoformat()


def heard(stream, length):
    """Reads an upload, keeping nothing of it -> its size in bytes, length in seconds, whether it is silent, and
    the error a job with it ends with."""
    head = stream.read(min(length, PIECE))
    start, data, rate, quiet = wav(head)
    piece, at, silent = head, 0, bool(rate)
    while piece:
        if silent and at < start + data and at + len(piece) > start:
            sound = piece[max(0, start - at): start + data - at]
            silent = sound.count(quiet) == len(sound)
        at += len(piece)
        piece = stream.read(min(length - at, PIECE))
    seconds = min(data, at - start) / rate if rate else at / 16000  # as of a common MP3
    error = "Audio duration is too short." if seconds < 0.16 else None
    if not looks_like_audio(head[:12]):
        kind = "text/plain (ASCII text)" if head.isascii() else "application/octet-stream (data)"
        error = f"Transcoding failed. File does not appear to contain audio. File type is {kind}."
    return {"size": at, "seconds": seconds, "silent": silent, "error": error}


def wav(head):
    """The beginning of a WAV file -> (where the sound begins, its bytes, bytes per second, a byte of silence);
    0 bytes per second for other files."""
    at, rate, bits = 12, 0, 16
    while head[8:12] == b"WAVE" and at + 8 <= len(head):
        name, size = struct.unpack("<4sI", head[at : at + 8])
        if name == b"fmt " and at + 24 <= len(head):
            rate, _, bits = struct.unpack("<IHH", head[at + 16 : at + 24])
        if name == b"data" and rate:
            return at + 8, size, rate, b"\x80" if bits == 8 else b"\0"
        at += 8 + size + size % 2
    return 0, 0, 0, b"\0"


def silence(seconds):
    """The bytes of a WAV without sound, a minute long at most."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000 * min(60, int(seconds) + 1)))
    return file.getvalue()
