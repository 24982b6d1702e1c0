"""The client: one function for the common case, and one method for each thing the service can do.

    from audio import transcribe
    transcript = transcribe("meeting.wav", speakers=2, topics=True)
    print(transcript.labelled())

    client = Client()                   # ASSEMBLYAI_API_KEY, ASSEMBLYAI_BASE_URL (us, eu or an address)
    job = client.submit("meeting.wav")  # at once; job.id is all that is needed later
    transcript = client.wait(job.id)

A job costs money, so exactly one is made for one submit, whatever happens to the answers (see `create`)."""

import itertools
import os
import threading
from urllib.parse import parse_qsl, quote, urlsplit

from audio.errors import (
    AnswerLost,
    AudioError,
    BadInput,
    RequestRefused,
    ServiceUnavailable,
    StillProcessing,
    TranscriptFailed,
)
from audio.http import Http, Lost, object_in
from audio.key import Key
from audio.options import request
from audio.recording import Body, Recording
from audio.transcript import Transcript, dicts, table

PATIENCE = 3600.0  # seconds to wait for a job
LOOKED_AT = 1000  # newest jobs among which a lost one is looked for
SERVER_FAULTS = ("internal server error", "server error, developers")


def transcribe(source, **options):
    """Client().transcribe(source, ...)."""
    return Client().transcribe(source, **options)


class Client:
    """The service as seen with the key of ASSEMBLYAI_API_KEY; safe to share between threads.

    poll: seconds between two looks at a job, at most. Other settings are those of Http. Raises AuthError
    without a key, BadInput for an address that cannot be."""

    def __init__(self, base_url=None, *, poll=3.0, **settings):
        base = base_url or os.environ.get("ASSEMBLYAI_BASE_URL") or "us"
        self.http = Http(base, Key(os.environ.get("ASSEMBLYAI_API_KEY")), **settings)
        self.poll, self._turns = poll, {}

    def __repr__(self):
        return f"Client({self.http.base!r})"

    def transcribe(self, source, *, timeout=PATIENCE, progress=False, **options):
        """submit, then wait: a path, URL, bytes or open file -> Transcript. Raises any AudioError."""
        return self.wait(self.submit(source, progress=progress, **options).id, timeout=timeout)

    def upload(self, source, *, progress=False):
        """Sends a recording -> a URL that only the service understands. Raises AudioError."""
        recording = source if isinstance(source, Recording) else Recording(source)
        answer = self.http.call(
            "POST",
            "v2/upload",
            also=(422,),
            body=lambda: Body(recording, progress),
            headers={"Content-Type": "application/octet-stream"},
        )
        if not isinstance(answer.get("upload_url"), str):
            raise ServiceUnavailable("the upload was answered without its upload_url. Try again later")
        return answer["upload_url"]

    def submit(self, source, *, progress=False, **options):
        """Uploads what is not a URL and asks for its transcript -> Transcript, which is not ready yet.

        options: see options.request; they are checked before anything is sent."""
        fields = request(**options)
        recording = source if isinstance(source, Recording) else Recording(source)
        url = recording.url or self.upload(recording, progress=progress)
        return self.create({"audio_url": url, **fields}, unique=not recording.url)

    def create(self, body, *, unique=False):
        """POST /v2/transcript -> Transcript, not ready. unique: nobody else can know body["audio_url"].

        This bills a job, and the service cannot recognise a repetition. Where the answer is lost, the job may
        exist all the same, so the list of jobs is looked at before anything is sent again. A job found there
        is ours for certain where the URL is that of our own upload. Another URL may be somebody else's too:
        then it is ours if it is the only new one since we began. Where the server may be at work still (no
        answer in time), nothing is sent again at all."""
        url = body["audio_url"]
        with self._turns.setdefault(url, threading.Lock()):  # our own threads are not somebody else
            before = "" if unique else self._newest()
            for _ in range(self.http.tries):
                try:
                    answer = self.http.call("POST", "v2/transcript", safe=False, json=body)
                    if isinstance(answer.get("id"), str):
                        return Transcript(answer)
                    lost = AnswerLost("the answer to a new job has no id")
                except AnswerLost as error:
                    lost = error
                for wait in (1, 4, 16) if lost.pending else (1, 4):
                    self.http.sleep(wait * self.http.pause)
                    found = self._jobs_of(url, before, lost)
                    if found and (unique or len(found) == 1):
                        return Transcript({"audio_url": url, "status": "queued", **found[-1]})
                    if found:
                        raise uncertain(f"{len(found)} new jobs for this URL were found", lost, found)
                if lost.pending:
                    break
            raise uncertain("none has been found yet", lost)

    def _newest(self):
        """The id of the newest job, "" where there is none, None where the list may not be read."""
        try:
            return next((job["id"] for job in self.list(limit=1)), "")
        except RequestRefused:
            return None

    def _jobs_of(self, url, before, lost):
        """The jobs for a URL, newest first, down to the job `before`. AnswerLost where nobody can tell."""
        found = []
        try:
            if before is None:
                raise RequestRefused("it was refused before")
            for job in itertools.islice(self.list(limit=200), LOOKED_AT):
                if job["id"] == before:
                    break
                if not isinstance(job.get("audio_url"), str):
                    raise RequestRefused("it does not tell what was transcribed")
                if job["audio_url"] == url:
                    found.append(job)
        except (ServiceUnavailable, RequestRefused) as error:
            raise uncertain(f"the list of jobs cannot be read ({error})", lost) from None
        return found

    def get(self, id, *, deadline=None):
        """The transcript as it stands, ready or not."""
        return Transcript({"id": id_of(id), **self._view(id, "", deadline=deadline)})

    def _view(self, id, name, **more):
        id, method = id_of(id), more.pop("method", "GET")
        try:
            return self.http.call(method, f"v2/transcript/{quote(id, safe='')}{name}", **more)
        except AudioError as error:
            error.transcript_id = id
            raise

    def wait(self, id, *, timeout=PATIENCE):
        """Looks at a job until it is done -> Transcript. An outage of the service is waited out.

        timeout in seconds. Raises TranscriptFailed, StillProcessing at the deadline, RequestRefused for an
        unknown id; each has the transcript_id, and so has the KeyboardInterrupt of Ctrl-C."""
        id, pause = id_of(id), min(0.2, self.poll)
        deadline, last = self.http.clock() + timeout, "nothing is known of it yet"
        try:
            while True:
                try:
                    transcript = self.get(id, deadline=deadline)
                    if is_done(transcript):
                        return transcript
                    last = f"it is {transcript.status}"
                except ServiceUnavailable as error:
                    if not error.retryable:
                        raise
                    if self.http.clock() < deadline:  # else the time is up, and that says nothing new
                        last = str(error)
                left = deadline - self.http.clock()
                if left <= 0:
                    raise StillProcessing(
                        f"transcript {id} was not ready in {timeout:g} s ({last}). The job goes on: "
                        f"python -m audio wait {id}",
                        transcript_id=id,
                    )
                self.http.sleep(min(pause, left))
                pause = min(self.poll, 1.5 * pause)
        except KeyboardInterrupt:
            stop = KeyboardInterrupt(f"transcript {id} goes on: python -m audio wait {id}")
        stop.transcript_id = id
        raise stop

    def delete(self, id):
        """Deletes text and words from the service -> what is left of the transcript. For good."""
        return Transcript({"id": id_of(id), **self._view(id, "", method="DELETE")})

    def list(self, **query):
        """All jobs, newest first, page by page while they are asked for: dicts with id, status, created,
        completed, audio_url, error. query: limit (of a page, 1 to 200), status, created_on, before_id."""
        query, pages = {"limit": 200, **query}, set()
        while True:
            data = self.http.call("GET", "v2/transcript", params=query)
            jobs = data.get("transcripts")
            if not isinstance(jobs, list) or any(not isinstance(job.get("id"), str) for job in dicts(jobs)):
                raise ServiceUnavailable("the list of jobs came without its jobs. Try again later")
            yield from dicts(jobs)
            # prev_url leads to older ones. Only its query is taken: its host is none of the key's business.
            details = data.get("page_details")
            older = details.get("prev_url") if isinstance(details, dict) else None
            if not isinstance(older, str) or not jobs or older in pages:
                return
            pages.add(older)
            query |= dict(parse_qsl(urlsplit(older).query))

    def sentences(self, id):
        """A list of dicts with text, start, end (milliseconds), confidence, speaker, words."""
        return self._view(id, "/sentences").get("sentences") or []

    def paragraphs(self, id):
        """As sentences."""
        return self._view(id, "/paragraphs").get("paragraphs") or []

    def subtitles(self, id, format="srt", *, chars=None):
        """SRT or VTT text as the service makes it, without speakers; Transcript.subtitles() has them.
        chars: the longest caption."""
        if format not in ("srt", "vtt"):
            raise BadInput(f"subtitles are srt or vtt, not {format!r}")
        return self._view(id, "/" + format, text=True, params={"chars_per_caption": chars} if chars else None)

    def search(self, id, words):
        """Where words, numbers or phrases of up to 5 words are said: dicts with text, count, timestamps
        ([start, end] in milliseconds) and indexes. words: a list, or text with commas between them."""
        words = words if isinstance(words, str) else ",".join(words)
        if not words.strip(" ,"):
            raise BadInput("search for what? Give words or phrases, with commas between them")
        return self._view(id, "/word-search", params={"words": words}).get("matches") or []

    def redacted_audio(self, id, file, *, timeout=PATIENCE):
        """Writes the recording with personal data silenced to a path or an open file, waiting until it is
        ready. Only for jobs with redact_pii_audio."""
        id, deadline = id_of(id), self.http.clock() + timeout
        while True:
            data = self._view(id, "/redacted-audio", deadline=deadline)
            if isinstance(data.get("redacted_audio_url"), str):
                break
            if self.http.clock() + self.poll > deadline:
                raise StillProcessing(f"the redacted audio of {id} is not ready", transcript_id=id)
            self.http.sleep(self.poll)
        if hasattr(file, "write"):
            self.http.download(data["redacted_audio_url"], file)
        else:
            with open(file, "wb") as opened:
                self.http.download(data["redacted_audio_url"], opened)

    def models(self):
        """The ids of the models of the LLM Gateway."""
        data = self.http.call("GET", f"{self.http.gateway}/v1/models").get("data")
        return [model["id"] for model in data if isinstance(model, dict) and "id" in model] if data else []

    def ask(self, transcript, question, *, model=None, max_tokens=1000):
        """A question about a transcript (or its id), put to a model of the LLM Gateway -> its answer, piece
        by piece. model: one of models(), the first by default."""
        if not isinstance(transcript, Transcript):
            transcript = self.wait(transcript)
        task = "Answer from the transcript. Say so if it does not tell."
        asked = f"<transcript>\n{transcript.labelled()}</transcript>\n{question}"
        messages = [{"role": "system", "content": task}, {"role": "user", "content": asked}]
        return self.chat(messages, model=model, max_tokens=max_tokens)

    def chat(self, messages, *, model=None, max_tokens=1000):
        """Messages ({"role", "content"}) to a model of the LLM Gateway -> pieces of its answer. Not repeated
        where the answer is lost, for it is billed."""
        model = model or next(iter(self.models()), None)
        if model is None:
            raise RequestRefused("the LLM Gateway offers no model for this key")
        body = {"model": model, "messages": messages, "max_tokens": max_tokens, "stream": True}
        response = self.http.call(
            "POST", f"{self.http.gateway}/v1/chat/completions", safe=False, stream=True, json=body
        )
        problem = "the answer ends in the middle"
        try:
            for event in events(self.http.pieces(response)):
                if event is None:
                    return
                if "error" in event:
                    words = self.http.key.hidden(str(event["error"]))
                    raise ServiceUnavailable(f"the LLM Gateway says: {words}")
                choice = next(iter(dicts(event.get("choices"))), {})
                text = table(choice.get("delta") or choice.get("message")).get("content")
                if isinstance(text, str) and text:
                    yield text
                if choice.get("finish_reason"):
                    return
        except Lost as error:
            problem = str(error)
        raise AnswerLost(f"the LLM Gateway: {problem}. Ask again")


def events(pieces):
    """Server-sent events -> JSON objects, None for [DONE]. One whole JSON answer is an event too."""
    buffer, whole = b"", []
    for piece in pieces:
        *lines, buffer = (buffer + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                data = line[5:].strip()
                yield None if data == b"[DONE]" else object_in(data)
            else:
                whole.append(line)
    rest = b"\n".join([*whole, buffer]).strip()
    if rest.startswith(b"{"):
        yield object_in(rest)


def uncertain(what, lost, found=()):
    ids = [job["id"] for job in found]
    what += f": {', '.join(ids)}" if ids else ""
    return AnswerLost(
        f"{lost}. The job may be made all the same, and a second one would be billed: {what}. "
        "Look with: python -m audio list",
        found=ids,
        status=lost.status,
    )


def id_of(transcript):
    id = getattr(transcript, "id", transcript)
    if not (isinstance(id, str) and id.strip()):
        raise BadInput(f"a transcript has an id such as 9ea68fd3-f953-42c1-9742-976c447fb463, not {id!r}")
    return id.strip()


def is_done(transcript):
    """Whether a job is completed. Raises TranscriptFailed for an error: the service answers that with 200."""
    if transcript.status == "error":
        words = str(transcript.error or "no reason is given")
        fault = any(text in words.lower() for text in SERVER_FAULTS)
        hint = "The service was at fault: submit it again" if fault else "Asking again will not help"
        raise TranscriptFailed(
            f"transcript {transcript.id} failed: {words} {hint}",
            transcript=transcript,
            transcript_id=transcript.id,
            retryable=fault,
        )
    return transcript.status == "completed"
