"""The service in a box: the same API on this machine, for trying things out and for tests.

    python -m audio sandbox --port 0 --fault 503:3 --fault lost@create
    with Sandbox(faults=["429:2"]) as box: ... box.url ...

Uploads, jobs, views, lists, webhooks and the LLM Gateway behave as the service does, its refusals in its
words. What is "heard" is canned (canned.py); only the length of a WAV, and whether it is silent, are read
from it. The key is what ASSEMBLYAI_API_KEY holds, or test-key.

A fault is NAME[@WHERE][:COUNT]: it spoils the next COUNT answers (1 where not said) to requests of kind
WHERE: upload, create, get, delete, list, view, models, chat, or * for all.

    429 500 502 503 504   that status, 429 with Retry-After: 1       stall        no answer for 90 s
    reset                 breaks off in the middle of an upload      truncated    half of the answer
    lost                  does what was asked, answers nothing       job-error    the job ends with an error
    flaky:PERCENT         so many of all answers, one of the above   never        the job is never done
"""

import contextlib
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
from audio.errors import BadInput
from audio.options import REFUSED, mistyped, refusals
from audio.recording import PIECE, looks_like_audio
from audio.subtitles import LINE, LINES, Span, captions, render
from audio.transcript import DELETED

ROUTES = {
    "upload": "POST /v2/upload",
    "create": "POST /v2/transcript",
    "list": "GET /v2/transcript",
    "get": "GET /v2/transcript/([^/]+)",
    "delete": "DELETE /v2/transcript/([^/]+)",
    "view": "GET /v2/transcript/([^/]+)/(sentences|paragraphs|srt|vtt|word-search|redacted-audio)",
    "models": "GET /v1/models",
    "chat": "POST /v1/chat/completions",
    "file": "GET /files/([^/]+)",
}
USUALLY = {"reset": "upload", "lost": "create", "job-error": "create", "never": "create"}
FLAKY = ("429", "500", "502", "503", "504", "reset", "truncated", "lost")
FAULTS = (*FLAKY, "stall", "job-error", "never", "flaky")
EMPTY = """error text words utterances confidence audio_duration language_confidence speech_model
acoustic_model language_model speech_model_used language_confidence_threshold chapters summary entities
translated_texts sentiment_analysis_results auto_highlights_result iab_categories_result
content_safety_labels""".split()
OFF = dict.fromkeys("webhook_auth auto_highlights redact_pii summarization".split(), False)
SECRET = ("webhook_auth_header_name", "webhook_auth_header_value")
ROW = "id resource_url status created completed audio_url error"


class Refusal(Exception):
    """An answer with an error: status, text."""


class Sandbox:
    """A running server; `url` is its address. seconds: how long a job takes. Raises BadInput for a fault that
    is none, OSError or OverflowError for a port that cannot be used."""

    def __init__(self, port=0, *, seconds=0.3, faults=()):
        self.key = os.environ.get("ASSEMBLYAI_API_KEY") or "test-key"
        self.seconds, self.faults = seconds, [fault(text) for text in faults]
        self.retry_after = "0" if any(one["name"] == "flaky" for one in self.faults) else "1"
        self.uploads, self.jobs = {}, {}  # by URL; by id, oldest first: (what it answers, what it knows)
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
        fields = {name: value for name, value in fields.items() if value is not None}
        url, wrong = fields.get("audio_url"), [*refusals(fields, REFUSED), *mistyped(fields)]
        if not isinstance(url, str) or not url.startswith("http"):
            reason = "should start with http" if isinstance(url, str) else "not found"
            wrong = [f"Transcript creation error, audio_url {reason}"]
        if wrong:
            raise Refusal(400, wrong[0])
        # What is elsewhere is not fetched.
        heard = self.uploads.get(url, {"seconds": 30.0, "silent": False, "error": None})
        if url not in self.uploads and url.startswith(self.url + "/upload/"):
            raise Refusal(403, "Cannot access uploaded file")
        job = {**OFF, **{name: value for name, value in fields.items() if name not in SECRET}}
        job |= {**dict.fromkeys(EMPTY), "id": str(uuid.uuid4()), "status": "queued"}
        known = {"fields": fields, "fate": fate, "heard": heard, "begun": time.monotonic()}
        known |= {"created": stamp(), "completed": None, "sentences": [], "paragraphs": []}
        known["resource_url"] = f"{self.url}/v2/transcript/{job['id']}"
        canned.results(fields, 1)  # what it cannot do is refused now, and not whenever the job is looked at
        with self.lock:
            self.jobs[job["id"]] = job, known
        if fields.get("webhook_url"):
            threading.Thread(target=self.call_back, args=(job["id"],), daemon=True).start()
        return job

    def job(self, id):
        """A job as it stands now, and what only the service knows of it."""
        if id not in self.jobs:
            raise Refusal(400, "Transcript lookup error, transcript id not found")
        with self.lock:
            job, known = self.jobs[id]
            age = time.monotonic() - known["begun"]
            if job["status"] in ("queued", "processing"):
                job["status"] = "queued" if 3 * age < self.seconds else "processing"
                if age >= self.seconds and known["fate"] != "never":
                    self.finish(job, known)
            return job, known

    def finish(self, job, known):
        heard, fields, error = known["heard"], known["fields"], known["heard"]["error"]
        if known["fate"] == "job-error":
            error = "Internal server error. Please retry your request."
        elif not error and heard["silent"] and fields.get("language_detection"):
            error = "language_detection cannot be performed on files with no spoken audio"
        found = {} if error else canned.results(fields, heard["seconds"], heard["silent"])
        known |= {"completed": stamp(), **{name: found.pop(name, []) for name in ("sentences", "paragraphs")}}
        job |= {**found, "status": "error" if error else "completed", "error": error}

    def get(self, id):
        return self.job(id)[0]

    def delete(self, id):
        job, known = self.job(id)
        known |= {"sentences": [], "paragraphs": []}
        job |= {name: None for name in job if name not in ("id", "status", *OFF)}
        job |= {"audio_url": DELETED, "webhook_url": DELETED, "text": "Deleted by user."}
        return job

    def list(self, query):
        """A page of jobs, newest first. prev_url leads to older ones."""
        limit, before = int(query.get("limit", "10")), query.get("before_id")
        with self.lock:
            ids = list(self.jobs)[::-1]
            if not 1 <= limit <= 200 or before not in (None, *ids):
                raise Refusal(400, "limit must be from 1 to 200, before_id the id of a transcript")
            ids = ids[ids.index(before) + 1 if before else 0 :]
            ids = [id for id in ids if query.get("status") in (None, self.get(id)["status"])]
            page = ids[:limit]
            rows = [canned.pick({**self.jobs[id][0], **self.jobs[id][1]}, ROW) for id in page]
        same = {key: query[key] for key in ("status",) if key in query} | {"limit": limit}
        link = lambda **bound: f"{self.url}/v2/transcript?{urlencode({**same, **bound})}"
        older = link(before_id=page[-1]) if page and page[-1] != ids[-1] else None
        details = {"limit": limit, "result_count": len(page), "current_url": link(), "prev_url": older}
        return {"page_details": details, "transcripts": rows}

    def view(self, id, name, query):
        job, known = self.job(id)
        if job["status"] != "completed":
            status = f"This transcript has a status of '{job['status']}'. Transcripts must have a status of "
            raise Refusal(400, f"{status}'completed' before requesting captions.")
        if name in ("sentences", "paragraphs"):
            parts = canned.bare(known[name]) if name == "sentences" else known[name]
            return {"id": id, name: parts, **{key: job[key] or 0 for key in ("confidence", "audio_duration")}}
        if name in ("srt", "vtt"):
            turns = [Span(s["text"], s["start"], s["end"]) for s in known["sentences"]]
            chars = int(query.get("chars_per_caption", 0))
            return render(captions(turns, columns=chars or LINE, rows=1 if chars else LINES), name)
        if name == "word-search":
            phrases, words = query["words"].split(","), job["words"] or []
            found = {phrase: canned.places(phrase, words) for phrase in phrases}
            text = lambda phrase: " ".join(canned.plain(phrase))
            where = lambda at: {"indexes": [i for *_, i in at], "timestamps": [place[:2] for place in at]}
            matches = [{"text": text(p), "count": len(at), **where(at)} for p, at in found.items() if at]
            return {"id": id, "total_count": sum(map(len, found.values())), "matches": matches}
        if not job.get("redact_pii_audio"):
            raise Refusal(400, "redacted audio was not requested for this transcript")
        return {"status": "redacted_audio_ready", "redacted_audio_url": f"{self.url}/files/{id}"}

    def file(self, id):
        """A redacted recording: a second of silence."""
        return canned.tone(1, bytes(32))

    def models(self):
        return {"data": [{"id": canned.MODEL, "object": "model"}]}

    def chat(self, asked):
        """A whole answer, or as a list its server-sent events."""
        if asked["model"] != canned.MODEL:
            raise Refusal(400, f"unknown model {asked['model']}")
        most = int(asked.get("max_tokens") or 1000)
        words = re.findall(r"\s*\S+\s*", canned.answer(asked["messages"]))
        text, reason = "".join(words[:most]), "length" if len(words) > most else "stop"
        head = {"request_id": str(uuid.uuid4()), "model": canned.MODEL}
        if not asked.get("stream"):
            choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": text}}
            usage = {"input_tokens": len(str(asked["messages"])) // 4, "output_tokens": len(words[:most])}
            return {**head, "choices": [choice], "usage": usage}
        parts = [{"delta": {"content": word}} for word in words[:most]]
        parts.append({"delta": {}, "finish_reason": reason})
        events = [{**head, "choices": [{"index": 0, **part}]} for part in parts]
        return [f"data: {data}\n\n" for data in (*map(json.dumps, events), "[DONE]")]

    def call_back(self, id):
        """The webhook of a job: ten attempts at most; an answer of 4xx is final."""
        fields = self.jobs[id][1]["fields"]
        name, value = (fields.get(name) for name in SECRET)
        while (job := self.get(id))["status"] not in ("completed", "error"):
            if self.closing.wait(self.seconds / 4 + 0.01):
                return
        more = {
            "json": {"transcript_id": id, "status": job["status"]},
            "headers": {name: value} if name else {},
        }
        for _ in range(10):
            with contextlib.suppress(requests.RequestException):
                job["webhook_status_code"] = requests.post(
                    fields["webhook_url"], timeout=10, **more
                ).status_code
            if job.get("webhook_status_code", 500) < 500 or self.closing.wait(max(self.seconds, 0.05)):
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
        url, kind, ids = urlsplit(self.path), "", ()
        for name, route in ROUTES.items():
            if found := re.fullmatch(route, f"{self.command} {url.path}"):
                kind, ids = name, found.groups()
        fault, pieces = self.box.spoiled(kind), self.pieces()
        try:
            if fault == "reset":
                next(pieces, b"")
                return self.hang_up()
            body = heard(pieces) if kind == "upload" else b"".join(pieces)
            if fault == "stall":
                self.box.closing.wait(90)
                return self.hang_up()
            if fault and fault.isdecimal():
                raise Refusal(int(fault), "Too Many Requests" if fault == "429" else "injected by --fault")
            if kind != "file" and self.headers.get("Authorization") != self.box.key:
                raise Refusal(401, "Authentication error, API token missing/invalid")
            if not kind:
                raise Refusal(404, "Not found")
            query = dict(parse_qsl(url.query))
            given = {"upload": [body], "list": [query], "view": [*ids, query]}.get(kind, ids)
            if kind in ("create", "chat"):
                given = [json.loads(body), *([fault] if kind == "create" else [])]
            status, data = 200, getattr(self.box, kind)(*given)
        except Refusal as refusal:
            status, data = refusal.args[0], {"error": refusal.args[1]}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            status, data = 400, {"error": f"the request is malformed: {type(error).__name__} {error}"}
            self.close_connection = True  # nobody knows where the next request begins
        return self.hang_up() if fault == "lost" else self.write(status, data, fault == "truncated")

    do_POST = do_DELETE = do_GET

    def pieces(self):
        """The body of the request, whether its length was told or it comes in chunks (RFC 9112, 7.1)."""
        self.wfile.flush()  # of "100 Continue", for which some clients wait
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "").lower()
        while True:
            text = (
                self.rfile.readline().split(b";")[0] if chunked else self.headers.get("Content-Length") or "0"
            )
            length = int(text, 16 if chunked else 10)
            if length < 0:
                raise ValueError("a negative length")
            for at in range(0, length, PIECE):
                yield self.rfile.read(min(PIECE, length - at))
            if not chunked:
                return
            if not length:
                while self.rfile.readline().strip():  # trailers
                    pass
                return
            self.rfile.readline()

    def write(self, status, data, half=False):
        kinds = {dict: "application/json", list: "text/event-stream", bytes: "audio/wav", str: "text/plain"}
        pieces = [json.dumps(data)] if isinstance(data, dict) else data if isinstance(data, list) else [data]
        pieces = [piece if isinstance(piece, bytes) else piece.encode() for piece in pieces]
        self.send_response(status)
        self.send_header("Content-Type", kinds[type(data)])
        self.send_header("Content-Length", str(sum(map(len, pieces))))
        if status == 429:
            self.send_header("Retry-After", self.box.retry_after)
        self.end_headers()
        if half:
            pieces = [b"".join(pieces)[: sum(map(len, pieces)) // 2]]
        for piece in pieces:
            self.wfile.write(piece)
            self.wfile.flush()
        if half:
            self.hang_up()

    def hang_up(self):
        """Ends the connection at once, with a reset instead of a goodbye."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True


def fault(text):
    """NAME[@WHERE][:COUNT] -> a dict. Raises BadInput."""
    found = re.fullmatch(r"([\w-]+)(?:@(\w+|\*))?(?::(\d+))?", text)
    if not found or found[1] not in FAULTS or found[2] not in (None, "*", *ROUTES):
        names, kinds = ", ".join(FAULTS), ", ".join(ROUTES)
        raise BadInput(f"{text!r} is not a fault: NAME[@WHERE][:COUNT], NAME of {names}, WHERE of {kinds}")
    return {"name": found[1], "where": found[2] or USUALLY.get(found[1], "*"), "left": int(found[3] or 1)}


def stamp():
    return datetime.now(timezone.utc).replace(tzinfo=None).isoformat()


def heard(pieces):
    """Listens to an upload, keeping nothing of it -> its size in bytes, length in seconds, whether it is
    silent, and the error a job with it ends with."""
    head, at, silent = b"", 0, True
    for piece in pieces:
        if len(head) < PIECE:
            head += piece
            start, end, rate, quiet = sound_in(head)
            sound = head[start:end]
            silent = bool(rate) and sound.count(quiet) == len(sound)
        elif silent:
            sound = piece[max(0, start - at) : max(0, end - at)]
            silent = sound.count(quiet) == len(sound)
        at += len(piece)
    start, end, rate, _ = sound_in(head)
    seconds = (min(end, at) - start) / rate if rate else at / 16000  # the rate of a common MP3
    error = "Audio duration is too short." if seconds < 0.16 else None
    if not looks_like_audio(head):
        kind = "text/plain (ASCII text)" if head.isascii() else "application/octet-stream (data)"
        error = f"Transcoding failed. File does not appear to contain audio. File type is {kind}."
    return {"size": at, "seconds": max(0.0, seconds), "silent": silent and at > 0, "error": error}


def sound_in(head):
    """The beginning of a WAV file -> (where its sound begins, and ends; bytes per second; a byte of silence).
    0 bytes per second for other files."""
    try:
        with wave.open(io.BytesIO(head)) as sound:
            start, size = head.index(b"data") + 8, sound.getsampwidth() * sound.getnchannels()
            quiet = b"\x80" if sound.getsampwidth() == 1 else b"\0"
            return start, start + size * sound.getnframes(), size * sound.getframerate(), quiet
    except (wave.Error, EOFError, ValueError, RuntimeError):  # what wave raises for broken chunks
        return 0, 0, 0, b"\0"
