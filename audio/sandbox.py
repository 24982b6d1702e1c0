"""A local server with the API of the service, for trying things out and for tests.

    python -m audio sandbox --port 0 --fault 503:3 --fault lost@create
    with Sandbox(faults=["429:2"]) as box: ... box.url ...

Uploads, jobs, lists, views of a transcript (such as its sentences), webhooks and the LLM Gateway behave like
those of the service, and error messages use the words of the service where we know them. Transcripts are
canned (canned.py): all that matters about a recording is its type, its length, and whether it is silent. The
key is the value of ASSEMBLYAI_API_KEY, or test-key.

A fault is NAME[@WHERE][:COUNT]. It spoils the next COUNT answers (default 1) to requests of kind WHERE, which
is upload, create, get, delete, list, view, models, chat, file, or * for all. Without @WHERE, "reset" spoils
uploads; "lost", "job-error" and "never" spoil the creation of jobs; the other faults spoil any request.

    429 500 502 503 504   that status; 429 also sends Retry-After: 1
    truncated             half of the answer
    reset                 breaks the connection during a request
    lost                  carries out the request, sends no answer
    stall                 no answer for 90 s
    job-error             the job ends with an error
    never                 the job never ends
"""

import contextlib
import http.server
import io
import json
import os
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
from audio.transcript import DELETED, Transcript

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
FAULTS = "429 500 502 503 504 reset truncated lost stall job-error never".split()
NO_SOURCE = {  # conditions as in options.REFUSED
    "-audio_url": "Transcript creation error, audio_url not found",
    "-audio_url=http": "Transcript creation error, audio_url should start with http",
}
OFF = dict.fromkeys("webhook_auth auto_highlights redact_pii summarization".split(), False)
SECRET = ("webhook_auth_header_name", "webhook_auth_header_value")
ROW = "id resource_url status created completed audio_url error"


class Refusal(Exception):
    """An error answer: (status, text)."""


class Sandbox:
    """A server that runs inside `with`; `url` is its address. seconds: how long a job takes. Raises BadInput
    for an invalid fault, and OSError or OverflowError for a port that cannot be used."""

    def __init__(self, port=0, *, seconds=0.3, faults=()):
        self.key = os.environ.get("ASSEMBLYAI_API_KEY") or "test-key"
        self.seconds, self.faults, self.retry_after = seconds, [fault(text) for text in faults], "1"
        self.uploads, self.jobs = {}, {}  # {URL: upload}; {id: (public fields, private fields)}, oldest first
        self.lock, self.closing = threading.RLock(), threading.Event()
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
                if one["where"] in (kind, "*") and one["left"] > 0:
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
        if wrong := [*refusals(fields, NO_SOURCE | REFUSED), *mistyped(fields, {})]:
            raise Refusal(400, wrong[0])
        url = fields["audio_url"]
        if url not in self.uploads and url.startswith(self.url + "/upload/"):
            raise Refusal(403, "Cannot access uploaded file")
        # A recording at any other URL is not fetched; it counts as 30 seconds long.
        heard = self.uploads.get(url, {"seconds": 30.0, "silent": False, "error": None})
        # Malformed fields raise an error here, not at every lookup of the job.
        job = {**OFF, **fields, **dict.fromkeys([*canned.results(fields, heard), *SECRET])}
        job |= {"id": str(uuid.uuid4()), "status": "queued", "error": None}
        known = {"fields": fields, "fate": fate, "heard": heard, "begun": time.monotonic(), "completed": None}
        known |= {"created": stamp(), "resource_url": f"{self.url}/v2/transcript/{job['id']}"}
        with self.lock:
            self.jobs[job["id"]] = job, known
        if fields.get("webhook_url") and fate != "never":
            threading.Thread(target=self.call_back, args=(job["id"],), daemon=True).start()
        return job

    def job(self, id):
        """The current state of a job, and its private fields."""
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
        results = {} if error else canned.results(fields, heard)
        known["completed"] = stamp()
        job |= {**results, "status": "error" if error else "completed", "error": error}

    def get(self, id):
        return self.job(id)[0]

    def delete(self, id):
        job, known = self.job(id)
        known["heard"] = {**known["heard"], "silent": True}  # a silent recording has no sentences
        job |= {name: None for name in job if name not in ("id", "status", *OFF)}
        job |= {"audio_url": DELETED, "webhook_url": DELETED, "text": "Deleted by user."}
        return job

    def list(self, query):
        """A page of jobs, newest first. prev_url leads to older jobs."""
        limit, before = int(query.get("limit", "10")), query.get("before_id")
        with self.lock:
            ids = list(self.jobs)[::-1]
            if not 1 <= limit <= 200 or before not in (None, *ids):
                raise Refusal(400, "limit must be 1 to 200, and before_id must be the id of a transcript")
            ids = ids[ids.index(before) + 1 if before else 0 :]
            page = [canned.pick({**job, **known}, ROW) for job, known in map(self.job, ids[:limit])]
        link = lambda **bound: f"{self.url}/v2/transcript?{urlencode({**query, **bound})}"
        older = link(before_id=ids[limit - 1]) if len(ids) > limit else None
        details = {"limit": limit, "result_count": len(page), "current_url": link(), "prev_url": older}
        return {"page_details": details, "transcripts": page}

    def view(self, id, name, query):
        job, known = self.job(id)
        if job["status"] != "completed":
            status = f"This transcript has a status of '{job['status']}'. Transcripts must have a status of "
            raise Refusal(400, f"{status}'completed' before requesting captions.")
        sentences = canned.story(known["fields"], known["heard"])
        if name in ("sentences", "paragraphs"):
            parts = canned.bare(sentences) if name == "sentences" else canned.paragraphs(sentences)
            return {"id": id, name: parts, **{key: job[key] or 0 for key in ("confidence", "audio_duration")}}
        if name in ("srt", "vtt"):
            return Transcript({**job, "utterances": None}).subtitles(name)  # without speakers
        if name == "word-search":
            matches = []
            for phrase in query["words"].split(","):
                at = canned.places(phrase, job["words"] or [])
                where = {"indexes": [i for *_, i in at], "timestamps": [place[:2] for place in at]}
                matches += [{"text": " ".join(canned.plain(phrase)), "count": len(at), **where}] if at else []
            return {"id": id, "total_count": sum(match["count"] for match in matches), "matches": matches}
        if not job.get("redact_pii_audio"):
            raise Refusal(400, "redacted audio was not requested for this transcript")
        return {"status": "redacted_audio_ready", "redacted_audio_url": f"{self.url}/files/{id}"}

    def file(self, id):
        """The redacted recording: always the same one-second tone, whatever was uploaded."""
        return canned.tone(1)

    def models(self):
        return {"data": [{"id": canned.MODEL, "object": "model"}]}

    def chat(self, body):
        """A whole answer, or the same answer as a list of server-sent events."""
        most = int(body.get("max_tokens") or 1000)
        words = re.findall(r"\s*\S+\s*", canned.answer(body["messages"]))
        reason, words = "length" if len(words) > most else "stop", words[:most]
        event = lambda **choice: {"model": canned.MODEL, "choices": [{"index": 0, **choice}]}
        if not body.get("stream"):
            return event(finish_reason=reason, message={"role": "assistant", "content": "".join(words)})
        events = [event(delta={"content": word}) for word in words]
        events.append(event(delta={}, finish_reason=reason))
        return [f"data: {data}\n\n" for data in (*map(json.dumps, events), "[DONE]")]

    def call_back(self, id):
        """Calls the webhook of a job once, when the job is done."""
        time.sleep(self.seconds)
        job, known = self.job(id)
        name, value = map(known["fields"].get, SECRET)
        message, headers = {"transcript_id": id, "status": job["status"]}, {name: value} if name else {}
        with contextlib.suppress(requests.RequestException):
            requests.post(known["fields"]["webhook_url"], json=message, headers=headers, timeout=10)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 128

    def handle_error(self, request, address):
        """Ignores the error, because clients may disconnect."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Translates HTTP into calls to `box` (the Sandbox)."""

    protocol_version, box = "HTTP/1.1", None
    wbufsize = -1  # an answer is sent in one piece

    def log_message(self, *_):
        pass

    def do_GET(self):
        url, kind, ids = urlsplit(self.path), "", ()
        for name, route in ROUTES.items():
            if match := re.fullmatch(route, f"{self.command} {url.path}"):
                kind, ids = name, match.groups()
        fault, pieces = self.box.spoiled(kind), self.pieces()
        try:
            if fault in ("reset", "stall"):
                next(pieces, b"")
                self.box.closing.wait(90 if fault == "stall" else 0)
                return self.hang_up()
            body = heard(pieces) if kind == "upload" else b"".join(pieces)
            if fault and fault.isdecimal():
                raise Refusal(int(fault), "Too Many Requests" if fault == "429" else "injected by --fault")
            if kind != "file" and self.headers.get("Authorization") != self.box.key:
                raise Refusal(401, "Authentication error, API token missing/invalid")
            if not kind:
                raise Refusal(404, "Not found")
            query = dict(parse_qsl(url.query))
            value = json.loads(body) if kind in ("create", "chat") else body
            given = [value] if self.command == "POST" else [query] if kind in ("list", "view") else []
            fate = [fault] if kind == "create" else []
            status, data = 200, getattr(self.box, kind)(*ids, *given, *fate)
        except Refusal as refusal:
            status, data = refusal.args[0], {"error": refusal.args[1]}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            status, data = 400, {"error": f"the request is malformed: {type(error).__name__} {error}"}
            self.close_connection = True  # we cannot tell where the next request starts
        return self.hang_up() if fault == "lost" else self.write(status, data, fault == "truncated")

    do_POST = do_DELETE = do_GET

    def pieces(self):
        """The body of the request, whether its length is given or it comes in chunks (RFC 9112, 7.1)."""
        self.wfile.flush()  # sends "100 Continue", which some clients wait for
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "").lower()
        read = lambda: int(self.rfile.readline().split(b";")[0], 16)
        length = read() if chunked else int(self.headers.get("Content-Length") or 0)
        while length:
            if length < 0:
                raise ValueError("a negative length")
            for at in range(0, length, PIECE):
                yield self.rfile.read(min(PIECE, length - at))
            length = read() if chunked and self.rfile.readline() else 0
        while chunked and self.rfile.readline().strip():  # trailers
            pass

    def write(self, status, data, half=False):
        kinds = {dict: "application/json", list: "text/event-stream", bytes: "audio/wav", str: "text/plain"}
        text = json.dumps(data) if isinstance(data, dict) else data
        body = text if isinstance(text, bytes) else "".join(text).encode()
        self.send_response(status)
        self.send_header("Content-Type", kinds[type(data)])
        self.send_header("Content-Length", str(len(body)))
        if status == 429:
            self.send_header("Retry-After", self.box.retry_after)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if half else body)
        if half:
            self.hang_up()

    def hang_up(self):
        """Ends the connection at once, with a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True


def fault(text):
    """NAME[@WHERE][:COUNT] -> a dict. Raises BadInput."""
    match = re.fullmatch(r"([\w-]+)(?:@(\w+|\*))?(?::(\d+))?", text)
    if not match or match[1] not in FAULTS or match[2] not in (None, "*", *ROUTES):
        names, kinds = ", ".join(FAULTS), ", ".join([*ROUTES, "*"])
        raise BadInput(f"{text!r} is not a fault: use NAME[@WHERE][:COUNT]; NAME: {names}; WHERE: {kinds}")
    return {"name": match[1], "where": match[2] or USUALLY.get(match[1], "*"), "left": int(match[3] or 1)}


def stamp():
    return datetime.now(timezone.utc).replace(tzinfo=None).isoformat()


def heard(pieces):
    """Reads an upload without keeping it -> its size in bytes, its length in seconds, whether it is silent,
    and the error that its job will report (None if it will succeed)."""
    pieces, head = iter(pieces), b""
    while len(head) < PIECE and (piece := next(pieces, b"")):
        head += piece
    start, end, rate = sound_in(head)
    size, silent = len(head), rate > 0 and not head[start:end].strip(b"\0")
    for piece in pieces:
        size, silent = size + len(piece), silent and not piece.strip(b"\0")
    # Without a rate, we assume the bytes per second of a typical MP3 file.
    seconds = (min(end, size) - start) / rate if rate else size / 16000
    error = "Audio duration is too short." if seconds < 0.16 else None
    if not looks_like_audio(head):
        kind = "text/plain (ASCII text)" if head.isascii() else "application/octet-stream (data)"
        error = f"Transcoding failed. File does not appear to contain audio. File type is {kind}."
    return {"size": size, "seconds": max(0.0, seconds), "silent": silent, "error": error}


def sound_in(head):
    """The first bytes of a WAV file -> (start of its sound, end of its sound, bytes per second). For other
    files, all three are 0."""
    try:
        with wave.open(io.BytesIO(head)) as sound:
            start, size = head.index(b"data") + 8, sound.getsampwidth() * sound.getnchannels()
            return start, start + size * sound.getnframes(), size * sound.getframerate()
    except (wave.Error, EOFError, ValueError, RuntimeError):  # `wave` raises these for broken chunks
        return 0, 0, 0
