"""The client: one function for the common case, and a class for everything else.

    from audio import transcribe
    transcript = transcribe("meeting.wav", speakers=2, topics=True)
    print(transcript.labelled())

    client = Client()                   # ASSEMBLYAI_API_KEY, ASSEMBLYAI_BASE_URL (us, eu or an address)
    job = client.submit("meeting.wav")  # does not wait; job.id is enough to continue later
    transcript = client.wait(job.id)

A job costs money, so each call to `submit` creates at most one job, even if responses are lost (see
`create`)."""

import itertools
import math
import os
import time
from urllib.parse import parse_qsl, quote, urlsplit

from audio.errors import AnswerCut, AnswerLost, AudioError, BadInput, ServiceUnavailable, StillProcessing
from audio.http import Http, object_in
from audio.key import Key
from audio.options import request
from audio.recording import Recording
from audio.transcript import Transcript, dicts, table

PATIENCE = 3600.0  # seconds to wait for a job
BIG = 1 << 20  # bytes; the key is checked before an upload larger than this
LOOKED_AT = 1000  # how many of the newest jobs are searched for a lost one
LOOKS = (1, 4, 16)  # delays before the searches for a lost job, as multiples of Http's pause (0.5, 2, 8 s)


def transcribe(
    source,
    *,
    preset: str | None = None,
    language: str | None = None,
    speakers: bool | int | str | None = None,
    speaker_names: list[str] | str | None = None,
    summary: bool | str | None = None,
    action_items: bool | dict | None = None,
    translate: list[str] | str | None = None,
    topics: bool | None = None,
    sentiment: bool | None = None,
    entities: bool | None = None,
    key_phrases: bool | None = None,
    content_safety: bool | None = None,
    timeout: float | None = PATIENCE,
    progress: bool = False,
    **fields,
) -> Transcript:
    """Transcribes a recording with the key in ASSEMBLYAI_API_KEY, and waits for the result.

    source          a path, a URL, bytes or an open file
    preset          "meeting", "podcast" or "call": requests the features shown in the report of that name
    language        a code such as "de", or "auto"; default: English
    speakers        True: tell speakers apart; 2: exactly two; "2-5": from 2 to 5
    speaker_names   ["Ada", "Bo"]: the service infers who is who from what is said
    summary         True, "bullets" or "paragraph"; also fills .chapters
    action_items    things to do, each with a quote and its time
    translate       languages to translate into: ["es", "fr"]
    topics, sentiment, entities, key_phrases, content_safety
                    True: fill the attribute of the same name in the Transcript
    timeout         seconds to wait (None: no limit); after a timeout the job itself continues
    progress        True: show a bar while a file is sent to the service
    fields          any other field of POST /v2/transcript, under the service's own name

    None means that an option is not set. Options that the service is known to refuse are rejected before
    anything is sent. Raises AudioError; audio/errors.py lists the kinds."""
    options = {name: value for name, value in locals().items() if name not in ("source", "fields")}
    return Client().transcribe(source, **options, **fields)


class Client:
    """A client that uses the key in ASSEMBLYAI_API_KEY; safe to share between threads.

    poll: maximum number of seconds between two checks of a job. The other settings are passed to Http. Raises
    AuthError for a missing or malformed key, and BadInput for an invalid address."""

    def __init__(self, base_url=None, *, poll=3.0, **settings):
        if "api_key" in settings:
            raise BadInput("the key does not belong in source code: set ASSEMBLYAI_API_KEY")
        base = base_url or os.environ.get("ASSEMBLYAI_BASE_URL") or "us"
        self.http = Http(base, Key(os.environ.get("ASSEMBLYAI_API_KEY")), **settings)
        self.poll, self._key_works = poll, False

    def transcribe(self, source, *, timeout=PATIENCE, progress=False, **options):
        """Submits, then waits: a path, URL, bytes or open file -> Transcript. options: those of
        audio.transcribe. Raises any AudioError except AnswerCut."""
        seconds(timeout)
        return self.wait(self.submit(source, progress=progress, **options).id, timeout=timeout)

    def upload(self, source, *, progress=False):
        """Sends a recording -> a URL that only the service can read. Raises AudioError."""
        recording = source if isinstance(source, Recording) else Recording(source)
        if recording.size > BIG and not self._key_works:
            next(self.list(limit=1), None)
            self._key_works = True
        recording.progress, headers = progress, {"Content-Type": "application/octet-stream"}
        more = {"also": (422,), "needs": "upload_url", "headers": headers}
        return self.http.call("POST", "v2/upload", data=recording, **more)["upload_url"]

    def submit(self, source, *, progress=False, **options):
        """Submits a recording, uploading it first unless it is a URL -> Transcript, not ready yet.

        options: those of audio.transcribe except timeout; they are checked before anything is sent."""
        fields = request(**options)
        recording = source if isinstance(source, Recording) else Recording(source)
        url = recording.url or self.upload(recording, progress=progress)
        return self.create({"audio_url": url, **fields}, unique=not recording.url)

    def create(self, body, *, unique=False):
        """POST /v2/transcript -> a new Transcript. unique: whether only we can know body["audio_url"].

        Each request is billed as a new job, because the service cannot recognise a repetition. If the
        response is lost, the job may still exist. Only we know the URL of our own upload, so a job with that
        URL must be ours: the list of jobs is searched for it before anything is sent again. A job for any
        other URL may be somebody else's, so an error leaves the decision to the user. If the server may still
        be working (no response in time), nothing is sent again."""
        for _ in range(self.http.tries):
            try:
                return Transcript(self.http.call("POST", "v2/transcript", safe=False, needs="id", json=body))
            except AnswerLost as error:
                lost = error
            try:
                job = self.find(body["audio_url"]) if unique else None
            except AudioError as error:
                lost = AnswerLost(f"{lost}; the list of jobs cannot be read ({error})", status=lost.status)
                break
            if job:
                return job
            if lost.pending or not unique:
                break
        risk = f"{lost}. The job may have been created, and a second one would be billed"
        raise AnswerLost(f"{risk}. Before you try again, run python -m audio list", status=lost.status)

    def find(self, url):
        """The URL of an upload -> the job created for it, as a Transcript that is not ready; or None.

        Looks several times, because the server may still be working on the request that creates the job."""
        for wait in LOOKS:
            self.http.sleep(wait * self.http.pause)
            for job in itertools.islice(self.list(limit=200), LOOKED_AT):
                if not isinstance(job.get("audio_url"), str):
                    raise AnswerLost("a job in the list has no audio_url")
                if job["audio_url"] == url:
                    return Transcript({**job, "status": "queued"})  # a row of the list has no text
        return None

    def get(self, id, *, deadline=math.inf):
        """The transcript in its current state, ready or not."""
        return Transcript({"id": id_of(id), **self._view(id, deadline=deadline)})

    def _view(self, id, name="", method="GET", **more):
        try:
            return self.http.call(method, f"v2/transcript/{quote(id_of(id), safe='')}{name}", **more)
        except AudioError as error:
            error.transcript_id = id_of(id)
            raise

    def wait(self, id, *, timeout=PATIENCE):
        """Polls a job until it is done, even through an outage of the service -> Transcript.

        timeout: seconds; None: no limit. Raises TranscriptFailed, StillProcessing (at the deadline)
        or RequestRefused (for an unknown id). Each exception has the transcript_id, and so has the
        KeyboardInterrupt that Ctrl-C raises."""
        id, pause, state = id_of(id), min(0.2, self.poll), None
        deadline = time.monotonic() + seconds(timeout)
        try:
            while True:
                try:
                    transcript = self.get(id, deadline=deadline)
                    if transcript.done():
                        return transcript
                    state = transcript.status
                except ServiceUnavailable as error:
                    state = state or str(error)
                left = deadline - time.monotonic()
                if left <= 0:
                    message = f"transcript {id} was not ready in {timeout:g} s ({state}). The job continues: "
                    raise StillProcessing(f"{message}python -m audio wait {id}", transcript_id=id)
                self.http.sleep(min(pause, left))
                pause = min(self.poll, 1.5 * pause)
        except KeyboardInterrupt as stop:
            stop.args, stop.transcript_id = (f"the job continues: python -m audio wait {id}",), id
            raise

    def delete(self, id):
        """Permanently deletes the text and the words from the service -> what is left of the transcript."""
        return Transcript({"id": id_of(id), **self._view(id, method="DELETE")})

    def list(self, **query):
        """All jobs, newest first, fetched page by page as they are consumed: dicts with id, status, created,
        completed, audio_url, error. query: limit (per page, 1 to 200), status, created_on, before_id."""
        query = {"limit": 200, **query}
        while True:
            page = self.http.call("GET", "v2/transcript", needs="transcripts", params=query)
            yield from dicts(page["transcripts"])
            # prev_url leads to older jobs. Only its query is used, so the key is never sent to another host.
            older = table(page.get("page_details")).get("prev_url")
            if not isinstance(older, str) or not page["transcripts"]:
                return
            query |= dict(parse_qsl(urlsplit(older).query))

    def sentences(self, id):
        """The sentences: dicts with text, start, end (milliseconds), confidence, speaker, words."""
        return self._view(id, "/sentences").get("sentences") or []

    def paragraphs(self, id):
        """The paragraphs: dicts like those of sentences()."""
        return self._view(id, "/paragraphs").get("paragraphs") or []

    def search(self, id, words):
        """Finds words, numbers or phrases of up to 5 words -> dicts with text, count, timestamps
        ([start, end] in milliseconds) and indexes. words: a list, or comma-separated text."""
        words = words if isinstance(words, str) else ",".join(words)
        return self._view(id, "/word-search", params={"words": words}).get("matches") or []

    def redacted_audio(self, id):
        """The URL, valid for a day, of the recording with personal data silenced. Only for jobs with
        redact_pii_audio. Raises ServiceUnavailable if the recording is not ready."""
        return self._view(id, "/redacted-audio", needs="redacted_audio_url")["redacted_audio_url"]

    def models(self):
        """The ids of the models of the LLM Gateway."""
        models = dicts(self.http.call("GET", f"{self.http.gateway}/v1/models").get("data"))
        return [model["id"] for model in models if "id" in model]

    def ask(self, transcript, question, **options):
        """Asks a model of the LLM Gateway a question about a transcript -> pieces of its answer.
        transcript: a Transcript or an id. options: those of chat."""
        if not isinstance(transcript, Transcript):
            transcript = self.wait(transcript)
        task = "Answer from the transcript. If it does not say, say so."
        prompt = f"<transcript>\n{transcript.labelled()}</transcript>\n{question}"
        messages = [{"role": "system", "content": task}, {"role": "user", "content": prompt}]
        return self.chat(messages, **options)

    def chat(self, messages, *, model=None, max_tokens=1000, answers=None):
        """Sends messages ({"role", "content"}) to a model of the LLM Gateway -> pieces of its answer. The
        request is billed, so it is not repeated if its answer is lost. model: one of models(), the first by
        default. answers(model) is called with the model that answers. Raises AnswerCut after the last piece
        if the model was cut off, by max_tokens for example."""
        model = model or next(iter(self.models()), None)
        body = {"model": model, "messages": messages, "max_tokens": max_tokens, "stream": True}
        url = f"{self.http.gateway}/v1/chat/completions"
        response = self.http.call("POST", url, safe=False, stream=True, json=body)
        for event in events(self.http.pieces(response)):
            if event is None:
                return
            if event.get("error"):
                words = self.http.key.hidden(str(event["error"]))
                raise ServiceUnavailable(f"the LLM Gateway says: {words}")
            if answers:
                answers(str(event.get("model") or model))
                answers = None
            choice = next(iter(dicts(event.get("choices"))), {})
            text = table(choice.get("delta")).get("content")
            if isinstance(text, str) and text:
                yield text
            reason = choice.get("finish_reason")
            if reason == "stop":
                return
            if reason:
                raise AnswerCut(f"the answer of {model} was cut off ({reason}); max_tokens is {max_tokens}")
        raise AnswerLost("the answer of the LLM Gateway broke off in the middle. Ask again")


def events(pieces):
    """Server-sent events -> JSON objects, and None for [DONE]."""
    buffer = b""
    for piece in pieces:
        *lines, buffer = (buffer + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                data = line[5:].strip()
                yield None if data == b"[DONE]" else object_in(data)


def seconds(timeout):
    """A time-out -> seconds (None: infinity). Raises BadInput unless it is None or a number >= 0."""
    if timeout is None:
        return math.inf
    if isinstance(timeout, bool) or not (isinstance(timeout, (int, float)) and timeout >= 0):
        raise BadInput(f"a time-out is a number of seconds, or None for no limit, not {timeout!r}")
    return timeout


def id_of(transcript):
    id = getattr(transcript, "id", transcript)
    if not (isinstance(id, str) and id.strip()):
        raise BadInput(f"expected a transcript id such as 9ea68fd3-f953-42c1-9742-976c447fb463, not {id!r}")
    return id.strip()
