"""python -m audio, as users run it: text on stdout, messages on stderr, and the right exit status.

Scripts rely on all three. Neither stream may show the key."""

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted import LIMIT, Twisted, tone, wait_until

from audio.__main__ import main
from audio.sandbox import Sandbox

ROOT = Path(__file__).parents[2]
KEY, NOWHERE = "9d-the-key-of-these-tests", "http://127.0.0.1:1"
STARTED = []  # processes


@pytest.fixture(scope="module")
def key():
    """Sets the key that the sandboxes accept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASSEMBLYAI_API_KEY", KEY)
        yield


@pytest.fixture(scope="module")
def box(key):
    with Sandbox(seconds=0) as box:
        yield box


@pytest.fixture
def talk(tmp_path):
    (tmp_path / "talk.wav").write_bytes(tone(60))
    return tmp_path / "talk.wav"


def environment(url, key):
    env = {name: value for name, value in os.environ.items() if not name.startswith("ASSEMBLYAI")}
    return {**env, "ASSEMBLYAI_BASE_URL": url, **({"ASSEMBLYAI_API_KEY": key} if key else {})}


def audio(*args, url=NOWHERE, key=KEY, data=b"", status=0):
    """Runs a command -> (stdout, stderr). It runs in this process, because starting a process is slower."""
    stdin, stdout, stderr = (io.TextIOWrapper(io.BytesIO(start), "ascii") for start in (data, b"", b""))
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(os, "environ", environment(url, key))
        for name, stream in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
            patch.setattr(sys, name, stream)
        try:
            code = main([*map(str, args)])
        except SystemExit as exit:
            code = exit.code
    stdout.flush()
    stderr.flush()
    return checked(code, status, stdout.buffer.getvalue(), stderr.buffer.getvalue())


def start(*args, url=NOWHERE, key=KEY, **more):
    """Starts a command in a process of its own."""
    command = [sys.executable, "-m", "audio", *map(str, args)]
    env = {**environment(url, key), "PYTHONPATH": str(ROOT)}
    STARTED.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, **more))
    return STARTED[-1]


@pytest.fixture(autouse=True)
def nothing_is_left_running():
    yield
    while STARTED:
        STARTED.pop().kill()


def finish(process, status, data=None):
    out, err = process.communicate(data, timeout=LIMIT)
    return checked(process.returncode, status, out, err)


def checked(code, status, out, err):
    out, err = out.decode(), err.decode()
    assert code == status, err
    assert "Traceback" not in err and KEY not in out + err
    return out, err


def read_until(process, word, count=1):
    """Reads stderr until `word` has appeared `count` times. Two threads may write to the
    same line, so one line may contain the word twice."""
    limit = threading.Timer(LIMIT, process.kill)
    limit.start()
    while count > 0:
        line = process.stderr.readline().decode()
        assert line, f"the command ended before it wrote {word!r}"
        count -= line.count(word)
    limit.cancel()


def test_the_exit_status_reaches_the_shell(box):
    process = start("transcribe", "-", url=box.url, stdin=subprocess.PIPE)
    assert finish(process, 0, tone(3))[0].startswith("Good morning")
    assert "ASSEMBLYAI_API_KEY" in finish(start("doctor", key=None), 4)[1]


def test_transcribe_prints_an_id_that_every_other_command_accepts(box, talk, tmp_path):
    out, err = audio("transcribe", talk, "--speakers", 2, url=box.url)
    assert out.startswith("Speaker A: Good morning") and "%" not in err, "no progress bar without a terminal"
    (id,) = re.findall(r"transcript ([0-9a-f-]{36})", err)
    assert audio("get", id, url=box.url)[0] == audio("wait", id, "-o", "text", url=box.url)[0] == out
    out, _ = audio("get", id, "-o", "vtt", "--names", "A=Åsa", "--names", "B=Bo", url=box.url)
    assert out.startswith("WEBVTT\n") and "<v Åsa>" in out and "<v Bo>" in out
    raw = json.loads(audio("get", id, "-o", "json", url=box.url)[0])
    assert raw["id"] == id and raw["audio_duration"] == 60
    assert len(json.loads(audio("get", id, "-o", "sentences", url=box.url)[0])) == len(raw["utterances"])
    assert json.loads(audio("get", id, "-o", "paragraphs", url=box.url)[0])[0]["text"].startswith("Good")
    for part, folder in (("sentences", ""), ("paragraphs", "parts/")):
        printed = audio("get", id, "-o", part, url=box.url)[0]
        assert audio("get", id, "-o", part, "--out", f"{tmp_path}/{folder or part}", url=box.url)[0] == ""
        path = tmp_path / (folder and f"{folder}{id}.json" or part)
        assert path.read_text(encoding="utf-8") == printed
    out, _ = audio("search", id, "budget", "north pier", url=box.url)
    seconds = [float(line.split()[0]) for line in out.splitlines()]
    assert seconds == sorted(seconds) and len(seconds) == 4 and 10 < seconds[0] < 20
    out, _ = audio("ask", id, "Who calls Maria Lopez at Nordbank?", url=box.url)
    assert out.endswith("Nordbank on Thursday.\n")
    out, err = audio("ask", id, "Who calls Maria Lopez?", "--max-tokens", 3, url=box.url, status=1)
    assert (
        out == "Canned, closest line: \n"
        and err.startswith("canned-words answers:\n")
        and "cut off (length)" in err
    )
    out, _ = audio("list", "--limit", 1, url=box.url)
    assert out.split()[:2] == [id, "completed"]
    assert id in audio("delete", id, url=box.url)[1]
    assert "was deleted" in audio("get", id, url=box.url, status=1)[1]


@pytest.mark.parametrize(
    "preset, heading", [("meeting", "# Minutes"), ("podcast", "# Episode notes"), ("call", "# Call review")]
)
def test_a_preset_writes_its_report(box, talk, tmp_path, preset, heading):
    place = tmp_path / "new" / "report.md"
    out, _ = audio("transcribe", talk, "--preset", preset, "--out", place, url=box.url)
    assert out == "" and place.read_text().startswith(heading)


def test_flags_and_settings_reach_the_service(box, talk):
    out, err = audio(
        "transcribe",
        talk,
        "--speakers",
        "2-4",
        "--summary",
        "--topics",
        "--sentiment",
        "--entities",
        "--key-phrases",
        "-o",
        "json",
        "--config",
        "future.deep=[1]",
        "--language",
        "de",
        url=box.url,
    )
    fields = box.jobs[json.loads(out)["id"]][1]["fields"]
    assert fields["speaker_options"] == {"min_speakers_expected": 2, "max_speakers_expected": 4}
    assert (
        fields["iab_categories"]
        and fields["sentiment_analysis"]
        and fields["entity_detection"]
        and fields["auto_highlights"]
    )
    assert fields["language_code"] == "de" and fields["future"] == {"deep": [1]}
    assert "speech_understanding" in fields
    assert not [line for line in err.splitlines() if "warning" in line]


def test_the_url_of_redacted_audio_is_printed_or_written(box, talk, tmp_path):
    policies = ["--config", "redact_pii=true", "--config", "redact_pii_policies=person_name"]
    policies += ["--config", "redact_pii_audio=true"]
    id = audio("transcribe", talk, *policies, "--no-wait", url=box.url)[0].strip()
    get = ["get", id, "-o", "redacted-audio"]
    out, _ = audio(*get, url=box.url)
    assert json.loads(out) == f"{box.url}/files/{id}"
    audio(*get, "--out", tmp_path / "url.json", url=box.url)
    assert (tmp_path / "url.json").read_text(encoding="utf-8") == out


def test_standard_input_and_urls_can_be_transcribed(box, talk):
    assert audio("transcribe", "-", url=box.url, data=tone(3))[0].startswith("Good morning")
    assert audio("transcribe", "https://x.example/a.mp3", url=box.url)[0].startswith("Good morning")
    id = audio("transcribe", talk, "--no-wait", url=box.url)[0].strip()
    assert audio("wait", id, url=box.url)[0].startswith("Good morning")


HEADINGS = {
    "--summary": "Summary",
    "--action-items": "Action items",
    "--topics": "Topics",
    "--sentiment": "Sentiment by speaker",
    "--entities": "Entities",
    "--key-phrases": "Key phrases",
    "--content-safety": "Sensitive content",
}


@given(
    st.sets(st.sampled_from([*HEADINGS]), min_size=1), st.sampled_from([None, "meeting", "podcast", "call"])
)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_requested_feature_is_shown(box, talk, features, preset):
    """Both `transcribe` and `get` show every feature, although `get` knows only the id of the job."""
    more = ["--preset", preset] if preset else []
    out, err = audio("transcribe", talk, *sorted(features), *more, url=box.url)
    id = re.search(r"transcript ([0-9a-f-]{36})", out)[1]
    for report in (out, audio("get", id, url=box.url)[0]):
        for feature in features:
            assert f"## {HEADINGS[feature]}" in report or (preset, feature) == ("podcast", "--key-phrases")


def test_redacted_text_stays_redacted_in_every_format(box, talk):
    out, _ = audio("transcribe", talk, "--preset", "call", "--action-items", "-o", "json", url=box.url)
    raw = json.loads(out)
    names = [
        entity["text"] for entity in raw["entities"] if entity["entity_type"] in ("person_name", "location")
    ]
    assert {"Anna Berg", "Oslo"} <= {*names} and "Oslo" in str(raw["speech_understanding"])
    for more in ([], ["-o", "markdown"], ["--preset", "meeting"], ["--preset", "podcast"], ["-o", "srt"]):
        printed = audio("get", raw["id"], *more, url=box.url)[0]
        assert not [name for name in names if name in printed], more


def test_languages_names_and_translations_have_short_options(box, talk):
    out, _ = audio("transcribe", talk, "--language", "auto", "--speaker-names", "Ada,李明", url=box.url)
    assert out.startswith("Ada: Good morning") and "\n李明: " in out
    out, _ = audio("transcribe", talk, "--language", "de", "--translate", "es,fr", url=box.url)
    assert "**es** [es] Good morning" in out and "**fr** [fr] Good morning" in out
    fields = [private["fields"] for _, private in box.jobs.values()][-2:]
    assert fields[0]["language_detection"] is True and fields[1]["language_code"] == "de"


def test_names_for_unknown_speakers_are_reported(box, talk):
    _, err = audio("transcribe", talk, "--speakers", 2, "--names", "A=Ada", "--names", "Z=Zoe", url=box.url)
    assert "warning: --names: there is no speaker Z; speakers: A, B" in err
    _, err = audio("transcribe", talk, "--names", "A=Ada", url=box.url)
    assert "warning: --names: there is no speaker A; speakers: none\n" in err


def test_names_are_shown_as_they_are_written(box, talk):
    names = ["--speakers", 2, "--names", "A=null", "--names", "B=1e3=x"]
    out, _ = audio("transcribe", talk, *names, url=box.url)
    assert out.startswith("null: ") and "\n1e3=x: " in out


def test_a_folder_is_transcribed_in_order_and_a_second_run_costs_nothing(box, tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / ".Trash").mkdir()
    for i, name in enumerate(["b.wav", "a.wav", "deep/a.wav", ".Trash/deleted.wav"]):
        (tmp_path / "in" / name).write_bytes(tone(5 + i))
    (tmp_path / "in" / "empty.wav").touch()
    before = len(box.jobs)
    for _ in range(2):
        out, err = audio("transcribe", tmp_path / "in", "-o", "json", url=box.url)
        assert [json.loads(line)["audio_duration"] for line in out.splitlines()] == [6, 5, 7]
        assert len(box.jobs) == before + 3 and "left out" in err and "empty.wav" in err
    out, _ = audio("transcribe", tmp_path / "in", url=box.url)
    assert re.findall(r"== .*?(\w\.wav) ==", out) == ["a.wav", "b.wav", "a.wav"]
    subs = tmp_path / "not" / "there" / "subs"
    audio("transcribe", tmp_path / "in", "-o", "srt", "--out", f"{subs}/", url=box.url)
    names = [str(path.relative_to(subs)) for path in sorted(subs.rglob("*.srt"))]
    assert names == ["a.wav.srt", "b.wav.srt", "deep/a.wav.srt"] and len(box.jobs) == before + 3
    (tmp_path / "in" / "d.wav").write_bytes(tone(0.1))
    out, err = audio("transcribe", tmp_path / "in", url=box.url, status=1)
    assert out.count("== ") == 3 and "d.wav: transcript" in err and "too short" in err


def test_an_empty_or_missing_file_is_reported_and_the_other_files_are_transcribed(box, talk, tmp_path):
    (tmp_path / "empty.wav").touch()
    out, err = audio("transcribe", tmp_path / "empty.wav", talk, url=box.url, status=2)
    assert f"error: {tmp_path / 'empty.wav'} is empty\n" in err and "Good morning" in out
    _, err = audio("transcribe", tmp_path / "none.wav", talk, url=box.url, status=2)
    assert f"error: {tmp_path / 'none.wav'}: there is no such file\n" in err


def test_a_single_file_is_paid_for_only_once(box, talk):
    before = len(box.jobs)
    first, second = (audio("transcribe", talk, "--speakers", 2, url=box.url) for _ in "ab")
    assert first[0] == second[0] and len(box.jobs) == before + 1
    out, _ = audio("transcribe", talk, "--speakers", 2, "--no-wait", url=box.url)
    assert out.strip() in first[1] and len(box.jobs) == before + 1


def test_the_ids_of_several_jobs_are_printed_with_their_file_names(box, tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.wav").write_bytes(tone(11 + i))
    before = len(box.jobs)
    for _ in range(2):
        out, _ = audio("transcribe", tmp_path, "--no-wait", url=box.url)
        lines = [line.split("  ") for line in out.splitlines()]
        assert [Path(name).name for _, name in lines] == ["0.wav", "1.wav", "2.wav"]
        assert len(box.jobs) == before + 3 and {id for id, _ in lines} <= {*box.jobs}


def test_nothing_is_sent_if_the_transcript_cannot_be_kept(box, talk, tmp_path):
    before = len(box.uploads)
    for place in (talk / "folder", talk):  # `talk` is a file, so neither path can be a folder
        _, err = audio("transcribe", talk, "--keep", place, url=box.url, status=2)
        assert "--keep" in err and len(box.uploads) == before
    audio("transcribe", talk, "--keep", tmp_path / "new" / "folder", url=box.url)
    assert [*(tmp_path / "new" / "folder").glob("talk.wav.*.json")] and len(box.uploads) == before + 1


def test_every_command_in_the_readme_prints_what_the_readme_shows(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSEMBLYAI_API_KEY", "test-key")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "talk.wav").write_bytes(tone(60))
    (tmp_path / "interviews" / "monday").mkdir(parents=True)
    (tmp_path / "interviews" / "monday" / "a.wav").write_bytes(tone(20))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    examples = re.findall(r"^    \$ python -m audio (.*)\n((?:    (?!\$).*\n)+)", readme, re.M)
    assert len(examples) >= 6
    without_ids = lambda text: re.sub(r"[0-9a-f-]{36}", "", text)
    with Sandbox(seconds=0) as box:
        for command, lines in examples:
            words = [[*box.jobs][0] if word == "ID" else word for word in shlex.split(command)]
            printed = without_ids("".join(audio(*words, url=box.url, key="test-key")))
            for line in lines.splitlines():
                assert without_ids(line.removeprefix("    ")) in printed, command
    assert os.path.exists("subtitles/monday/a.wav.vtt")


def test_the_version_is_printed():
    assert audio("--version")[0] == "audio 2\n"


@pytest.mark.parametrize(
    "args, words",
    [
        (["transcribe", "no.wav"], "no such file"),
        (["transcribe", "FOLDER"], "no audio"),
        (["transcribe"], "required"),
        (["transcribe", "EMPTY"], "is empty"),
        (["transcribe", "TALK", "--out", "TALK/below/a/file"], "cannot be written"),
        (["transcribe", "TALK", "--out", "TALK/"], "cannot be written"),
        (["transcribe", "TALK", "--out", os.devnull], "cannot be written"),
        (
            ["transcribe", "TALK", "--config", "auto_chapters=true", "--config", "summarization=true"],
            "Only one of the following",
        ),
        (["transcribe", "TALK", "--config", "x"], "KEY=VALUE"),
        (["transcribe", ""], "is empty"),
        (["transcribe", "TALK", ""], "is empty"),
        (["transcribe", "TALK", "--config", "topics=no"], "topics must be true or false"),
        (["transcribe", "TALK", "--config", "language_detection=5"], "must be true or false"),
        (["transcribe", "TALK", "--config", "a=1", "--config", "a.b=2"], "already"),
        (["transcribe", "TALK", "--config", "timeout=5"], "timeout is given twice"),
        (["transcribe", "TALK", "--config", "a=NaN"], "cannot be sent as JSON"),
        (["transcribe", "TALK", "--config", "speaker_label=true"], "did you mean speaker_labels?"),
        (["transcribe", "TALK", "--highlights"], "unrecognized arguments: --highlights"),
        (["transcribe", "TALK", "--language", "de", "--config", "language_detection=true"], "exclude"),
        (["sandbox", "--port", "99999"], "port 99999 cannot be used"),
        (["sandbox", "--fault", "503@nowhere"], "not a fault"),
        (["transcribe", "TALK", "--speakers", "x"], "range"),
        (["transcribe", "TALK", "--preset", "x"], "invalid choice"),
        (["transcribe", "TALK", "--names", "A"], "A=Ada"),
        (["transcribe", "TALK", "EMPTY", "-o", "srt"], "needs --out FOLDER"),
        (["transcribe", "TALK", "EMPTY", "-o", "vtt"], "needs --out FOLDER"),
        (["transcribe", "TALK", "--timeout", "-1"], "a number of seconds"),
        (["get", ""], "id such as"),
        (["fly"], "invalid choice"),
        ([], "required"),
        (["sandbox", "--fault", "rain"], "not a fault"),
    ],
)
def test_after_wrong_usage_the_exit_status_is_2_and_nothing_is_sent(args, words, talk, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.wav").touch()
    places = {"TALK": talk, "FOLDER": tmp_path / "folder", "EMPTY": tmp_path / "empty.wav"}
    filled = [re.sub("^[A-Z]+", lambda word: str(places.get(word[0], word[0])), arg) for arg in args]
    # No server has this address, so the status would be 1 if anything were sent.
    _, err = audio(*filled, status=2)
    assert words in err


def test_a_read_only_file_is_not_replaced(talk, tmp_path, monkeypatch):
    (path := tmp_path / "corrected.txt").write_text("mine")
    monkeypatch.setattr(os, "access", lambda place, mode: str(place) != str(path))  # root may write any file
    assert "cannot be written" in audio("transcribe", talk, "--out", path, status=2)[1]
    assert path.read_text() == "mine"


def test_the_exit_status_for_a_wrong_key_is_4(box, talk):
    for key, words in (
        ("", "ASSEMBLYAI_API_KEY"),
        ("Bearer x", "bare key"),
        ("other", "not accepted"),
        (KEY + " ", "white space"),
    ):
        assert words in audio("transcribe", talk, url=box.url, key=key, status=4)[1]
    assert "not accepted" in audio("doctor", url=box.url, key="other", status=4)[1]


def test_the_exit_status_is_1_for_a_failure_and_2_for_an_unsafe_address(box, talk, tmp_path):
    (tmp_path / "text.wav").write_text("This is a text.")
    _, err = audio("transcribe", tmp_path / "text.wav", url=box.url, status=1)
    assert "does not look like audio" in err and "does not appear to contain audio" in err
    assert "id not found" in audio("get", "nobody", url=box.url, status=1)[1]
    assert "BASE_URL" in audio("doctor", url="http://api.assemblyai.com", status=2)[1]


def test_doctor_checks_the_address_the_key_and_the_models(box):
    out, _ = audio("doctor", url=box.url)
    assert box.url in out and "accepts the key" in out and "canned-words" in out
    assert "no connection" in audio("doctor", status=1)[1]


def test_at_the_deadline_the_id_is_printed_for_use_with_the_wait_command(talk, key):
    with Sandbox(seconds=1e6) as box:
        _, err = audio("transcribe", talk, "--timeout", 0.2, url=box.url, status=1)
        (id,) = set(re.findall(r"[0-9a-f-]{36}", err))
        assert f"python -m audio wait {id}" in err and [*box.jobs] == [id]
        box.seconds = 0
        assert audio("wait", id, url=box.url)[0].startswith("Good morning")


@pytest.mark.parametrize("format", ["sentences", "paragraphs"])
def test_wait_can_write_sentences_or_paragraphs_to_a_file(talk, tmp_path, key, format):
    with Sandbox(seconds=0.5) as box:
        id = audio("transcribe", talk, "--no-wait", url=box.url)[0].strip()
        out, _ = audio("wait", id, "-o", format, "--out", tmp_path / "parts.json", url=box.url)
    first = json.loads((tmp_path / "parts.json").read_text(encoding="utf-8"))[0]
    assert out == "" and first["text"].startswith("Good morning")


def test_ctrl_c_prints_the_id_of_the_unfinished_job(talk, key):
    with Twisted(seconds=1e6) as box:
        process = start("transcribe", talk, url=box.url)
        read_until(process, "talk.wav: transcript")
        wait_until(lambda: ("get", "ok") in box.requests)
        process.send_signal(signal.SIGINT)
        out, err = finish(process, 130)
        (id,) = re.findall(r"python -m audio wait ([0-9a-f-]{36})", err)
        assert out == "" and [*box.jobs] == [id]


def test_after_ctrl_c_the_same_command_continues_the_jobs(tmp_path, key):
    for i in range(6):
        (tmp_path / f"{i}.wav").write_bytes(tone(1 + i))
    with Twisted(seconds=1e6) as box:
        process = start("transcribe", tmp_path, "--jobs", 2, url=box.url)
        read_until(process, ": transcript ", 2)
        wait_until(lambda: box.requests.count(("get", "ok")) >= 2)
        process.send_signal(signal.SIGINT)
        finish(process, 130)
        assert len(box.jobs) == 2
        box.seconds = 0
        out, _ = audio("transcribe", tmp_path, url=box.url)
        assert out.count("== ") == 6 and len(box.jobs) == 6


def test_ctrl_c_while_a_job_is_being_created_does_not_lose_the_job(tmp_path, key):
    for i in range(2):
        (tmp_path / f"{i}.wav").write_bytes(tone(1 + i))
    creating = threading.Event()

    class Slow(Sandbox):
        def create(self, fields, fate):
            creating.set()
            time.sleep(0.3)
            return super().create(fields, fate)

    with Slow(seconds=0.01) as box:
        process = start("transcribe", tmp_path, "--jobs", 1, url=box.url)
        wait_until(creating.is_set)
        process.send_signal(signal.SIGINT)
        finish(process, 130)
        wait_until(lambda: box.jobs)  # the service creates the job, although the client is gone
        (id,) = box.jobs
        audio("transcribe", tmp_path, url=box.url)
        assert len(box.jobs) == 2 and id in box.jobs


def test_a_closed_pipe_causes_no_traceback(box, talk):
    process = start("transcribe", talk, "-o", "json", url=box.url)
    process.stdout.close()
    err = process.stderr.read().decode()
    assert process.wait(LIMIT) == 1 and "Traceback" not in err and "Exception" not in err


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_stream_that_the_shell_has_closed_is_not_an_error(box, closed):
    words = ["sh", "-c", f'exec "$0" -m audio list {closed}', sys.executable]
    env = {**environment(box.url, KEY), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, env=env, timeout=LIMIT, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_sandbox_prints_its_address_and_injects_faults(talk):
    faults = ["--fault", "lost@create", "--fault", "reset"]
    process = start("sandbox", "--seconds", 0, *faults, key="test-key")
    try:
        url = re.fullmatch(
            r"sandbox ready at (http://127\.0\.0\.1:\d+)\n", process.stdout.readline().decode()
        )[1]
        assert "canned" in process.stdout.readline().decode()
        out, _ = audio("transcribe", talk, "--preset", "meeting", url=url, key="test-key")
        assert (
            out.startswith("# Minutes") and len(audio("list", url=url, key="test-key")[0].splitlines()) == 1
        )
    finally:
        process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT) == 130 and process.stderr.read() == b""


@pytest.mark.parametrize("key", [None, "a-key-that-is-not-used"])
def test_the_demo_needs_neither_a_key_nor_a_network(key):
    out, _ = audio("demo", key=key)
    assert out.startswith("# Minutes") and "## Asked" in out and "canned" in out
    item = r"- \[ \] Send .* \(00:\d\d:\d\d\)\n  > I will send the new budget"
    assert re.search(rf"## Action items\n\n{item}", out)
