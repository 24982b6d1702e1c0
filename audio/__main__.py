"""python -m audio COMMAND: recordings -> text, minutes, subtitles.

    python -m audio transcribe meeting.wav --preset meeting
    python -m audio transcribe interviews/ -o srt --out subtitles/

The key is read from the environment variable ASSEMBLYAI_API_KEY, the region or address from
ASSEMBLYAI_BASE_URL (us, eu, or a URL). Results go to stdout, messages to stderr. Exit status: 0 done,
1 failed, 2 wrong usage, 4 the key, 130 interrupted.
"""

import argparse
import io
import itertools
import json
import os
import platform
import sys
import tempfile
import warnings
import wave
from pathlib import Path

import requests

from audio.assemblyai import PATIENCE, Client, is_done
from audio.batch import THREADS, transcribe_all, write_text
from audio.errors import AudioError, AudioWarning, AuthError, BadInput, StillProcessing
from audio.options import PRESETS, request, setting
from audio.recording import Recording, is_url, recordings_in
from audio.reports import report
from audio.sandbox import Sandbox

FORMATS = {"text": ".txt", "markdown": ".md", "srt": ".srt", "vtt": ".vtt", "json": ".json"}
WHAT = ("speakers", "summary", "topics", "sentiment", "entities", "highlights", "preset")


def say(text):
    print(text, file=sys.stderr, flush=True)


def transcribe(args):
    """Upload and transcribe files, URLs, whole folders, or - for standard input."""
    options = {name: getattr(args, name) for name in WHAT if getattr(args, name)}
    fields = nested(options | dict(map(setting, args.config)))
    request(**fields)
    names = [
        name
        for source in args.source
        for name in (recordings_in(source) if not is_url(source) and Path(source).is_dir() else [source])
    ]
    several = len(names) > 1 or names[:1] != args.source[:1]
    output = Output(args, several, names)
    client = Client()
    recordings = [Recording(sys.stdin.buffer if name == "-" else name) for name in names]
    if args.no_wait:
        for recording in recordings:
            print(client.submit(recording, progress=not several, **fields).id, flush=True)
        return 0
    if several:
        return transcribe_several(client, recordings, output, args, fields)
    job = client.submit(recordings[0], progress=not recordings[0].url, **fields)
    try:
        say(f"transcript {job.id}: waiting")
        output.add(names[0], client.wait(job, timeout=args.timeout))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted, the job goes on: python -m audio wait {job.id}") from None
    return output.close()


def transcribe_several(client, recordings, output, args, fields):
    status = 0
    begun = lambda recording, job: say(f"{recording.name}: transcript {job.id}")
    try:
        settings = {"threads": args.threads, "timeout": args.timeout, "begun": begun}
        for recording, result in transcribe_all(client, recordings, **settings, **fields):
            if isinstance(result, AudioError):
                say(f"error: {recording.name}: {result}")
                status = max(status, status_of(result))
            else:
                output.add(recording.name, result)
    except KeyboardInterrupt:
        output.close()
        raise KeyboardInterrupt("interrupted: the same command goes on, no file is paid for twice") from None
    return output.close() or status


def nested(options):
    """{"a.b": 1} -> {"a": {"b": 1}}"""
    found = {}
    for key, value in options.items():
        *path, last = key.split(".")
        place = found
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return found


class Output:
    """Where results go: stdout, or a file, or for each recording a file in a folder. Raises BadInput before
    anything is sent where it could not be written."""

    def __init__(self, args, several=False, names=()):
        self.args, self.several, self.text = args, several, []
        self.format = args.format or ("markdown" if args.preset else "text")
        self.names = dict(name.split("=", 1) for name in args.names if "=" in name)
        self.folder = args.out if args.out and os.path.isdir(args.out) else None
        if len(self.names) < len(args.names):
            raise BadInput("--names needs SPEAKER=NAME, such as --names A=Ada")
        if several and self.format in ("srt", "vtt") and not self.folder:
            raise BadInput(f"-o {self.format} of several recordings needs --out FOLDER, one that is there")
        if self.folder and len({Path(name).name for name in names}) < len(names):
            raise BadInput("two recordings have the same name: transcribe them into different folders")
        if args.out and not can_write(args.out):
            raise BadInput(f"--out {args.out} cannot be written: choose another place")

    def add(self, name, transcript):
        transcript.names = self.names
        text = written(transcript, self.format, self.args.preset, self.several)
        if self.folder:
            write_text(Path(self.folder, Path(name).name + FORMATS[self.format]), text)
            return
        if self.several and self.format != "json":
            text = f"== {name} ==\n\n{text}\n"
        if self.args.out:
            self.text.append(text)
        else:
            print(text, end="", flush=True)

    def close(self):
        if self.text:
            write_text(self.args.out, "".join(self.text))
        return 0


def can_write(path):
    folder = path if os.path.isdir(path) else os.path.dirname(path) or "."
    return os.access(path if os.path.exists(path) else folder, os.W_OK) and (
        os.access(folder, os.W_OK) or not os.path.isfile(path)
    )


def written(transcript, format, preset=None, one_line=False):
    if format == "json":
        return json.dumps(transcript.raw, ensure_ascii=False, indent=None if one_line else 1) + "\n"
    if format == "markdown":
        return report(transcript, preset)
    return transcript.labelled() if format == "text" else transcript.subtitles(format)


def get(args):
    """A transcript by its id."""
    client, output = Client(), Output(args)
    if args.format == "redacted-audio":
        if not args.out:
            raise BadInput("-o redacted-audio needs --out FILE")
        client.redacted_audio(args.id, args.out, timeout=args.timeout)
        return 0
    if args.format in ("sentences", "paragraphs"):
        for part in getattr(client, args.format)(args.id):
            print(json.dumps(part, ensure_ascii=False))
        return 0
    transcript = client.wait(args.id, timeout=args.timeout) if args.command == "wait" else client.get(args.id)
    if args.format != "json" and not is_done(transcript):
        raise StillProcessing(f"it is {transcript.status} yet: python -m audio wait {args.id}")
    output.add(args.id, transcript)
    return output.close()


def list_jobs(args):
    """All jobs, newest first: id, status, time, and what was transcribed."""
    query = {"status": args.status} if args.status else {}
    for job in itertools.islice(Client().list(limit=min(args.limit, 200), **query), args.limit):
        print(job["id"], job.get("status"), job.get("created"), job.get("audio_url"), sep="  ", flush=True)
    return 0


def delete(args):
    """Delete a transcript from the service, for good."""
    say(f"deleted {Client().delete(args.id).id}")
    return 0


def search(args):
    """Where words or phrases are said: time in seconds, and what."""
    matches = Client().search(args.id, args.words)
    places = [(start, match["text"]) for match in matches for start, _ in match["timestamps"]]
    for start, text in sorted(places):
        print(f"{start / 1000:.2f}  {text}")
    return 0


def ask(args):
    """Ask the LLM Gateway a question about a transcript."""
    for piece in Client().ask(args.id, args.question, model=args.model):
        print(piece, end="", flush=True)
    print()
    return 0


def doctor(args):
    """Is everything in place: key, address, connection, models."""
    print(f"python     {platform.python_version()}, requests {requests.__version__}")
    client = Client(tries=2)
    print(f"key        set\nservice    {client.http.base}")
    count = len(list(itertools.islice(client.list(limit=1), 1)))
    print(f"answers    yes, and accepts the key; {'there are' if count else 'no'} transcripts")
    models = client.models()
    print(f"gateway    {client.http.gateway}, {len(models)} models: {', '.join(models[:5])}")
    return 0


def sandbox(args):
    """Serve the API on this machine, with canned words."""
    try:
        box = Sandbox(args.port, seconds=args.seconds, faults=args.fault)
    except ValueError as error:
        raise BadInput(f"--fault: {error}") from None
    except OSError as error:
        raise BadInput(f"port {args.port} cannot be used: {error.strerror}") from None
    with box:
        print(f"sandbox ready at {box.url}", flush=True)
        print(
            "What it hears is canned: the same words for every recording. Ctrl-C ends it. To use it:\n"
            f"    export ASSEMBLYAI_BASE_URL={box.url}  # and the same key, or test-key",
            flush=True,
        )
        try:
            box.closing.wait()
        except KeyboardInterrupt:
            return 130
    return 0


def demo(args):
    """A meeting from recording to minutes, against the sandbox: no key, no network, canned words."""
    os.environ.setdefault("ASSEMBLYAI_API_KEY", "test-key")
    with Sandbox() as box, tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "meeting.wav")
        file.write_bytes(tone(60))
        client = Client(box.url)
        transcript = client.transcribe(file, preset="meeting", progress=True)
        print(report(transcript, "meeting"))
        question = "When does the new budget go to the bank?"
        print(f"## Asked: {question}\n\n{''.join(client.ask(transcript, question))}\n")
        print(f"Every word above is canned: {box.url} is a sandbox that listens to nothing.")
    return 0


def tone(seconds):
    """The bytes of a WAV with a tone of 500 Hz."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes((b"\x00\x10" * 8 + b"\x00\xf0" * 8) * (500 * seconds))
    return file.getvalue()


def parser():
    top = argparse.ArgumentParser(
        prog="python -m audio",
        description="Recordings into text, minutes and subtitles, with AssemblyAI.",
        epilog="The key comes from ASSEMBLYAI_API_KEY, the region or address from ASSEMBLYAI_BASE_URL. "
        "Exit status: 0 done, 1 failed, 2 wrong usage, 4 the key, 130 interrupted.",
    )
    subs = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, function, *words):
        sub = subs.add_parser(name, help=function.__doc__, description=function.__doc__)
        sub.set_defaults(function=function)
        for word in words:
            sub.add_argument(word)
        return sub

    def results(sub, *more):
        sub.add_argument("-o", dest="format", choices=[*FORMATS, *more], help="text, markdown with --preset")
        sub.add_argument("--out", metavar="FILE", help="a file, or a folder for a file for each recording")
        sub.add_argument("--preset", choices=PRESETS, help="what to ask for, and the report to write")
        sub.add_argument("--names", metavar="A=ADA", action="append", default=[], help="names of speakers")
        sub.add_argument("--timeout", type=positive, default=PATIENCE, help="seconds to wait (3600)")
        return sub

    sub = results(command("transcribe", transcribe))
    sub.add_argument("source", nargs="+", metavar="FILE|URL|DIR", help="- is standard input")
    sub.add_argument("--speakers", metavar="N", help="tell so many speakers apart; or a range: 2-5")
    for name in WHAT[1:-1]:
        sub.add_argument(f"--{name}", action="store_true")
    sub.add_argument(
        "--config",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="any field of the service, such as language_code=de",
    )
    sub.add_argument("--threads", type=positive_int, default=THREADS, help=f"jobs at a time ({THREADS})")
    sub.add_argument("--no-wait", action="store_true", help="print the ids of the jobs, and end")
    for name in ("get", "wait"):
        results(command(name, get, "id"), "sentences", "paragraphs", "redacted-audio")
    sub = command("list", list_jobs)
    sub.add_argument("--limit", type=positive_int, default=20, help="how many (20)")
    sub.add_argument("--status", help="only these: queued, processing, completed, error")
    command("delete", delete, "id")
    command("search", search, "id").add_argument("words", nargs="+", help="words or phrases of up to 5 words")
    command("ask", ask, "id", "question").add_argument("--model", help="of the LLM Gateway (its first)")
    command("doctor", doctor)
    sub = command("sandbox", sandbox)
    sub.add_argument("--port", type=int, default=0, help="default: a free one")
    sub.add_argument("--seconds", type=float, default=0.3, help="that a job takes (0.3)")
    sub.add_argument(
        "--fault",
        metavar="NAME[@WHERE][:COUNT]",
        action="append",
        default=[],
        help="what goes wrong, such as 503:3 or lost@create; see audio/sandbox.py",
    )
    command("demo", demo)
    return top


def positive(text):
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError
    return number


def positive_int(text):
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def status_of(error):
    return 2 if isinstance(error, BadInput) else 4 if isinstance(error, AuthError) else 1


def main(argv=None):
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    warnings.simplefilter("once", AudioWarning)
    warnings.showwarning = lambda message, *_: say(f"warning: {message}")
    args = parser().parse_args(argv)
    try:
        return args.function(args)
    except AudioError as error:
        say(f"error: {error}")
        return status_of(error)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        say(f"error: {error.filename or 'the system'}: {error.strerror or error}")
        return 1
    except KeyboardInterrupt as stop:
        say(str(stop) or "interrupted. If a job was made by then, it is listed by: python -m audio list")
        return 130


if __name__ == "__main__":
    sys.exit(main())
