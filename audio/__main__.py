"""python -m audio COMMAND: recordings -> text, meeting minutes, subtitles.

    python -m audio transcribe meeting.wav --preset meeting
    python -m audio transcribe interviews/ -o srt --out subtitles/

Environment variables: ASSEMBLYAI_API_KEY (the key) and ASSEMBLYAI_BASE_URL (us, eu, or a URL). Results go to
stdout, messages to stderr. Exit status: 0 done, 1 failed, 2 wrong usage, 4 a problem with the key, 130
interrupted.
"""

import argparse
import contextlib
import json
import os
import sys
import warnings
from pathlib import Path

from audio.assemblyai import PATIENCE, Client
from audio.batch import JOBS, shortened, transcribe_all, writable, write_file
from audio.canned import tone
from audio.errors import AudioError, AudioWarning, AuthError, BadInput, StillProcessing
from audio.options import HELP, PRESETS, SWITCHES, nested, setting
from audio.recording import Recording, recordings_in
from audio.reports import report
from audio.sandbox import Sandbox

FORMATS = {"text": ".txt", "markdown": ".md", "srt": ".srt", "vtt": ".vtt", "json": ".json"}
VIEWS = ("sentences", "paragraphs", "redacted-audio")  # more formats for `get` and `wait`, all JSON


def say(text):
    print(text, file=sys.stderr, flush=True)


def transcribe(args):
    """Transcribe files, URLs, whole folders, or standard input (-). After an interruption, run the same
    command again to continue. Only URLs, and standard input without --keep, are then paid for again."""
    sources = {}  # {name of a recording: path of its transcript in the --out folder, without the suffix}
    for source in args.source:
        if not source.strip():
            raise BadInput("the name of a recording is empty: give a file, a URL or a folder")
        folder = os.path.isdir(source)
        for name in recordings_in(source) if folder else [source]:
            sources[name] = os.path.relpath(name, source) if folder else os.path.basename(name.rstrip("/"))
    several = [*sources] != args.source or len(sources) > 1
    output, client, status = Output(args, sources, several), Client(), 0
    begun = lambda source, job: say(f"{getattr(source, 'name', source)}: transcript {job.id}")
    given = {"begun": begun, "wait": not args.no_wait, "progress": True}
    names = ("preset", "jobs", "timeout", "keep", *HELP)
    given |= {name: value for name in names if (value := getattr(args, name)) is not None}
    options = nested([*given.items(), *map(setting, args.config)])
    recordings = [Recording(sys.stdin.buffer) if name == "-" else name for name in sources]
    for name, (_, result) in zip(sources, transcribe_all(client, recordings, **options)):
        if isinstance(result, AuthError):  # all recordings use the same key, so all would fail
            raise result
        if isinstance(result, AudioError):
            say(f"error: {result}" if name in f"{result}" or not several else f"error: {name}: {result}")
            status = max(status, status_of(result))
        elif args.no_wait:
            print(result.id, *([name] if several else []), sep="  ", flush=True)
        else:
            output.add(name, result)
    return status


class Output:
    """The destination of results: stdout, a file, or a folder with one file per recording. sources: {name of
    a recording: the path of its transcript in that folder, without the suffix}. Raises BadInput, before
    anything is sent, if the output cannot be written."""

    def __init__(self, args, sources, several=False):
        self.args, self.sources, self.several = args, sources, several
        self.names = {setting(text)[0]: text.partition("=")[2] for text in args.names}
        out = args.out or ""
        if several and not out and args.format in ("srt", "vtt"):
            raise BadInput(f"-o {args.format} for several recordings needs --out FOLDER")
        self.in_folder = bool(out) and (several or os.path.isdir(out) or out[-1] in "/\\")
        if self.in_folder and len(set(sources.values())) < len(sources):
            raise BadInput("two recordings have the same name: write their transcripts to different folders")
        # A device cannot be replaced by a file, and a read-only file should not be.
        bad = os.path.exists(out) and not (self.in_folder or os.path.isfile(out) and os.access(out, os.W_OK))
        if out and (bad or not writable(out if self.in_folder else os.path.dirname(out) or os.curdir)):
            raise BadInput(f"--out {out} cannot be written: choose another path")

    def add(self, name, transcript):
        transcript.names = self.names
        if unknown := self.names.keys() - transcript.labels:
            known = ", ".join(sorted(transcript.labels)) or "none"
            say(f"warning: --names: there is no speaker {', '.join(sorted(unknown))}; speakers: {known}")
        format = self.args.format or ("markdown" if self.args.preset or transcript.features else "text")
        if format == "json":
            text = json.dumps(transcript.raw, ensure_ascii=False) + "\n"
        elif format == "markdown":
            text = report(transcript, self.args.preset)
        else:
            text = transcript.labelled() if format == "text" else transcript.subtitles(format)
        if self.several and not self.args.out and format != "json":
            text = f"== {name} ==\n\n{text}\n"
        self.write(name, text, FORMATS[format])

    def write(self, name, text, suffix):
        """Writes the text for one recording to stdout, or to the file or folder that --out names."""
        path = self.args.out
        if self.in_folder:
            path = Path(path, self.sources[name])
            path = path.with_name(shortened(path.name) + suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
        if path:
            write_file(path, text)
        else:
            print(text, end="", flush=True)


def get(args):
    """Fetch a transcript by its id. `wait` first waits until it is ready."""
    client, output = Client(), Output(args, {args.id: args.id})
    transcript = client.wait(args.id, timeout=args.timeout) if args.command == "wait" else client.get(args.id)
    if args.format != "json" and not transcript.done():
        raise StillProcessing(f"the transcript is still {transcript.status}: python -m audio wait {args.id}")
    if args.format in VIEWS:
        view = getattr(client, args.format.replace("-", "_"))(args.id)
        output.write(args.id, json.dumps(view, ensure_ascii=False) + "\n", ".json")
    else:
        output.add(args.id, transcript)


def list_jobs(args):
    """List the latest jobs, newest first: id, status, time of creation, and the URL of the audio."""
    for _, job in zip(range(args.limit), Client().list(limit=min(args.limit, 200))):
        print(*map(job.get, ("id", "status", "created", "audio_url")), sep="  ", flush=True)


def delete(args):
    """Delete a transcript from the service permanently."""
    say(f"deleted {Client().delete(args.id).id}")


def search(args):
    """Search a transcript for words or phrases; print the time in seconds and the text of each match."""
    matches = Client().search(args.id, args.words)
    places = [(start, match.get("text")) for match in matches for start, _ in match.get("timestamps") or ()]
    for start, text in sorted(places):
        print(f"{start / 1000:.2f}  {text}")


def ask(args):
    """Ask the LLM Gateway a question about a transcript."""
    answers = lambda model: say(f"{model} answers:")
    options = {"model": args.model, "max_tokens": args.max_tokens, "answers": answers}
    try:
        for piece in Client().ask(args.id, args.question, **options):
            print(piece, end="", flush=True)
    finally:
        print(flush=True)


def doctor(args):
    """Check the set-up: key, address, connection, models."""
    client = Client(tries=2)
    next(client.list(limit=1), None)
    print(f"service    {client.http.base}: answers, and accepts the key")
    models = client.models()
    print(f"gateway    {client.http.gateway}: {len(models)} models: {', '.join(models[:5])}")


def sandbox(args):
    """Run a local server with the same API and canned transcripts."""
    try:
        box = Sandbox(args.port, seconds=args.seconds, faults=args.fault)
    except (OSError, OverflowError) as error:
        raise BadInput(f"port {args.port} cannot be used: {getattr(error, 'strerror', error)}") from None
    with box, contextlib.suppress(KeyboardInterrupt):
        print(f"sandbox ready at {box.url}\nEvery recording gets the same canned words. Stop with Ctrl-C.")
        print(f"    export ASSEMBLYAI_BASE_URL={box.url}  # key: $ASSEMBLYAI_API_KEY or test-key", flush=True)
        box.closing.wait()
    return 130


def demo(args):
    """Write the minutes of a meeting, using the sandbox: no key, no network, canned words."""
    os.environ.setdefault("ASSEMBLYAI_API_KEY", "test-key")
    with Sandbox() as box:
        client = Client(box.url)
        transcript = client.transcribe(tone(60), preset="meeting")
        print(report(transcript, "meeting"))
        question = "When does the new budget go to the bank?"
        print(f"## Asked: {question}\n\n{''.join(client.ask(transcript, question))}\n")
        print(f"Every word above is canned: {box.url} is a sandbox, which does not transcribe sound.")


def parser():
    raw = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser("python -m audio", description=__doc__, formatter_class=raw)
    several = {"action": "append", "default": []}
    top.add_argument("--version", action="version", version="audio 2")
    subs = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, function, *words):
        sub = subs.add_parser(name, help=function.__doc__, description=function.__doc__)
        sub.set_defaults(function=function)
        for word in words:
            sub.add_argument(word)
        return sub

    def results(sub, *more):
        usual = "default: markdown if a preset or features are requested, else text"
        sub.add_argument("-o", dest="format", choices=[*FORMATS, *more], help=usual)
        sub.add_argument("--out", metavar="FILE", help="a file, or a folder with one file per recording")
        sub.add_argument("--preset", choices=PRESETS, help="the features to request, and the report to write")
        sub.add_argument("--names", metavar="A=ADA", **several, help="display names of speakers")
        sub.add_argument("--timeout", type=float, default=PATIENCE, help="seconds to wait (3600)")
        return sub

    sub = results(command("transcribe", transcribe))
    sub.add_argument("source", nargs="+", metavar="FILE|URL|DIR", help="- stands for standard input")
    for name, help in HELP.items():
        switch = name in (*SWITCHES, "summary", "action_items")
        value = {"action": "store_const", "const": True} if switch else {}
        sub.add_argument("--" + name.replace("_", "-"), help=help, **value)
    sub.add_argument("--config", metavar="KEY=VALUE", **several, help="any other field of the API")
    sub.add_argument("--keep", metavar="DIR", help="where to keep transcripts (default: beside the audio)")
    sub.add_argument("--jobs", type=int, default=JOBS, help=f"maximum number of unfinished jobs ({JOBS})")
    sub.add_argument("--no-wait", action="store_true", help="print the ids of the jobs, and exit")
    for name in ("get", "wait"):
        results(command(name, get, "id"), *VIEWS)
    sub = command("list", list_jobs)
    sub.add_argument("--limit", type=int, default=20, help="maximum number of jobs (20)")
    command("delete", delete, "id")
    command("search", search, "id").add_argument("words", nargs="+", help="words or phrases of up to 5 words")
    sub = command("ask", ask, "id", "question")
    sub.add_argument("--model", help="a model of the LLM Gateway (default: the first)")
    sub.add_argument("--max-tokens", type=int, default=1000, help="maximum number of tokens (1000)")
    command("doctor", doctor)
    sub = command("sandbox", sandbox)
    sub.add_argument("--port", type=int, default=0, help="port to listen on (default: a free one)")
    sub.add_argument("--seconds", type=float, default=0.3, help="seconds that a job takes (0.3)")
    faults = "failures to simulate: see audio/sandbox.py"
    sub.add_argument("--fault", metavar="NAME[@WHERE][:COUNT]", **several, help=faults)
    command("demo", demo)
    return top


def status_of(error):
    return 2 if isinstance(error, BadInput) else 4 if isinstance(error, AuthError) else 1


def main(argv=None):
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the shell closed the stream
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        getattr(sys, name).reconfigure(encoding="utf-8", errors="backslashreplace")
    warnings.simplefilter("once", AudioWarning)
    warnings.showwarning = lambda message, *_: say(f"warning: {message}")
    args = parser().parse_args(argv)
    try:
        return args.function(args) or 0
    except BrokenPipeError:  # `| head` has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (AudioError, OSError) as error:
        say(f"error: {error}")
        return status_of(error)
    except KeyboardInterrupt as stop:
        say(f"interrupted; {stop or 'the jobs that were created still run: see python -m audio list'}")
        return 130


if __name__ == "__main__":
    sys.exit(main())
