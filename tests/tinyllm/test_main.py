"""The command line: every setting is an option, and a mistake gives a one-line error and an exit status.

What could go wrong: the user sees a traceback, or a script that called the command does not notice a failure.
"""

import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinyllm import __main__ as command_line
from tinyllm.__main__ import COMMANDS, main, parser
from tinyllm.errors import TinyllmError, UsageError
from tinyllm.runs import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def inputs(empty_folder):
    """The current folder holds only a text file, an empty file and an empty folder."""
    Path("text.txt").write_text("the cat sat on a mat. " * 50)
    Path("empty.txt").write_text("")
    Path("folder").mkdir()


@pytest.fixture
def command(monkeypatch):
    """A function that replaces the function behind a command."""

    def replace(name, function):
        settings, original = COMMANDS[name]
        monkeypatch.setitem(
            COMMANDS, name, (settings, functools.update_wrapper(functools.partial(function), original))
        )

    return replace


# ---- options


@pytest.mark.parametrize("name", COMMANDS)
def test_every_setting_is_an_option_with_its_type_and_default(name):
    (settings, _), parse = COMMANDS[name], parser().parse_args
    assert vars(parse([name])) == {"command": name, **vars(settings())}
    for field in dataclasses.fields(settings):
        flag = "--" + field.metadata.get("flag", field.name).replace("_", "-")
        choices = field.metadata.get("choices")
        value = choices[-1] if choices else {int: 7, float: 0.7, str: "it's", bool: True}[field.type]
        arguments = [name, flag] if field.type is bool else [name, flag, str(value)]
        assert vars(parse(arguments))[field.name] == value


def first_paragraph(function):
    return function.__doc__.split("\n\n")[0]


def unspaced(text):
    """The text without spaces and line breaks. argparse breaks lines, even at hyphens."""
    return "".join(text.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_shows_all_its_options(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    text, (settings, function) = unspaced(capsys.readouterr().out), COMMANDS[name]
    assert stop.value.code == 0 and unspaced(first_paragraph(function)) in text
    for field in dataclasses.fields(settings):
        flag = "--" + field.metadata.get("flag", field.name).replace("_", "-")
        assert flag in text and unspaced(field.metadata["help"]) in text


def test_the_help_lists_every_command_and_says_what_it_does(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    text = unspaced(capsys.readouterr().out)
    assert stop.value.code == 0
    for name, (_, function) in COMMANDS.items():
        assert name + unspaced(first_paragraph(function)) in text


def test_a_command_gets_the_options_as_its_settings(command):
    received = []
    command("stage1", received.append)
    arguments = ["--run", "r", "--from", "some/where", "--steps", "5", "--muon-rate", "0.5", "--resume"]
    assert main(["stage1", *arguments]) == 0
    (settings,) = received
    assert (settings.run, settings.origin, settings.steps, settings.muon_rate) == ("r", "some/where", 5, 0.5)
    assert settings.resume and settings.size == "small"


@pytest.mark.parametrize(
    "arguments",
    [["stage1", "--speed", "9"], ["nonsense"], ["stage0", "--size", "huge"], [], ["stage0", "--seed", "one"]],
)
def test_unknown_commands_options_and_values_are_refused(arguments, capsys):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.endswith("--help\n") and err.count("\n") == 1


# ---- mistakes


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        (["stage0", "--text", "none.txt"], 1, "none.txt not found"),
        (["stage0", "--text", "empty.txt"], 1, "empty.txt holds no text"),
        (["stage0", "--text", "folder"], 1, "folder holds no text"),
        (["stage0", "--text", "text.txt", "--vocab", "255"], 2, "--vocab must be from 256"),
        (["stage0", "--text", "text.txt", "--width", "10", "--heads", "3"], 2, "do not divide"),
        (["stage0", "--workers", "-1"], 2, "--workers must be from 0 to 1024"),
        (["stage1", "--muon-rate", "nan"], 2, "--muon-rate must be from 0 to 1000000"),
        (["stage1"], 1, "Make it with: make stage0"),
        (["stage2", "--run", "r", "--size", "nano"], 1, "make stage1 RUN=r SIZE=nano"),
        (["stage1", "--from", "nowhere"], 1, "nowhere"),
        (["sample"], 1, "make train RUN=demo"),
        (["sample", "--top-p", "0"], 2, "--top-p must be from 1e-06 to 1"),
        (["exams"], 1, "make train RUN=demo"),
        (["chat"], 1, "make train RUN=demo"),
        (["rank", "--group", "1"], 2, "--group must be from 2 to 9"),
    ],
)
def test_a_mistake_gives_a_one_line_error_and_creates_no_run(inputs, capsys, arguments, status, message):
    assert main(arguments) == status
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and err.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "error, status, message",
    [
        (TinyllmError("no luck"), 1, "error: no luck\n"),
        (UsageError("no sense"), 2, "error: no sense\n"),
        (BrokenPipeError(), 1, ""),
        (OSError(28, "No space left on device", "runs/x"), 1, "error: runs/x: No space left on device\n"),
        (OSError("odd"), 1, "error: operating system: odd\n"),
        (
            UnicodeEncodeError("utf-8", "a\udce9", 1, 2, "no"),
            1,
            "error: an option, a file name or some text is not valid UTF-8",
        ),
        (RecursionError("too deep"), 1, "error: JSON is nested too deeply\n"),
        (MemoryError("8 PiB"), 1, "error: not enough memory; choose smaller sizes: 8 PiB\n"),
        (KeyboardInterrupt("interrupted after step 3"), 130, "interrupted after step 3\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_every_failure_has_its_exit_status_and_message(command, capsys, error, status, message):
    def fail(settings):
        raise error

    command("exams", fail)
    assert main(["exams"]) == status
    err = capsys.readouterr().err
    assert err.startswith(message) and err.count("\n") == bool(message)


def test_a_bug_in_the_program_shows_its_traceback(command):
    command("exams", lambda settings: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["exams"])


# ---- the program in its own process: streams, names that are not UTF-8, and files in the current folder


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}


def python(*arguments, env=(), **options):
    command, environment = [sys.executable, *arguments], ENVIRONMENT | dict(env)
    return subprocess.run(command, capture_output=True, check=False, env=environment, **options)


# A program with a single command. Each test fills in the code of the command.
PROGRAM = """
import sys
from tinyllm import __main__ as command_line
from tinyllm.runs import Settings

def exams(settings):
    "Exams."
    {}

command_line.COMMANDS["exams"] = Settings, exams
sys.exit(command_line.main(["exams"]))
"""


def test_python_m_tinyllm_ends_with_the_exit_status_of_main(empty_folder):
    result = python("-m", "tinyllm", "stage1")
    assert result.returncode == 1 and result.stderr.startswith(b"error: runs/demo/0-random not found")


def test_every_character_of_a_reply_or_a_file_name_can_be_printed():
    code = PROGRAM.format("print('\\udcff and \\U0001f408'); raise OSError(2, 'none', '\\udce9')")
    result = python("-c", code, env={"PYTHONIOENCODING": "latin-1"})
    assert result.stdout.decode() == "\\udcff and \U0001f408\n"
    assert result.returncode == 1 and result.stderr == b"error: \\udce9: none\n"


def test_piped_input_is_utf_8_in_every_locale():
    code = PROGRAM.format("print(sys.stdin.readline())")
    result = python("-c", code, env={"PYTHONIOENCODING": "cp1252"}, input="caf\u00e9".encode())
    assert result.stdout.decode().strip() == "caf\u00e9"
    result = python("-c", code, env={"PYTHONIOENCODING": "cp1252"}, input=b"caf\xe9")
    assert result.returncode == 0 and result.stdout.decode().strip() == "caf\\xe9"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a shell and /dev/full")
@pytest.mark.parametrize("lines", [1, 10**5])  # less and more than the buffer of stdout holds
@pytest.mark.parametrize(
    "redirect, status", [(">&-", 0), ("<&-", 0), (">&- <&- 2>&-", 0), (">/dev/full", 1), (">broken", 1)]
)
def test_closed_full_and_broken_streams_cause_no_traceback(lines, redirect, status):
    code = PROGRAM.format(f"print(len(sys.stdin.read()), *range({lines}), sep='\\n')")
    command = f'"$0" -c "$1" {redirect}; echo $?'
    if redirect == ">broken":
        command = '{ { sleep 0.5; "$0" -c "$1"; echo $? >&3; } | true; } 3>&1'
    arguments = ["sh", "-c", command, sys.executable, code]
    result = subprocess.run(arguments, input=b"", capture_output=True, env=ENVIRONMENT, check=False)
    assert result.stdout.split()[-1] == str(status).encode()
    message = b"error: operating system: No space left on device\n"
    assert result.stderr == (message if "full" in redirect else b"")


def test_help_written_into_a_broken_pipe_prints_no_error():
    arguments = [sys.executable, "-m", "tinyllm", "--help"]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems may refuse names that are not UTF-8")
def test_names_and_options_that_are_not_utf_8_are_accepted(tmp_path):
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    (folder / "t\udce9xt.txt").write_text("the cat sat on a mat. " * 50)
    arguments = ["-m", "tinyllm", "stage0", "--size", "tiny", "--vocab", "256", "--run", "r\udce9"]
    arguments += ["--text", str(folder / "t\udce9xt.txt")]
    for _ in range(2):  # the second time, the settings are compared with those on disk
        result = python(*arguments, cwd=folder)
        assert result.returncode == 0, result.stderr
    assert b"is finished already" in result.stdout and (folder / "runs" / "r\udce9" / "0-random").is_dir()


@pytest.mark.parametrize("package", ["tinyllm", "tools", "audio"])
def test_files_in_the_current_folder_do_not_shadow_modules_of_the_project_or_of_python(tmp_path, package):
    for name in {"tools", "audio", "numbers", "json", "random", "numpy", "platform"} - {package}:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('this is your {name}.py')")
    arguments = ["-m", package, *([] if package == "tools" else ["--help"])]
    result = python(*arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    where = f"import sys; sys.argv = ['-m']; import {package} as p; print(*sys.path, p.__file__, sep='\\n')"
    assert python("-c", where, cwd=ROOT).stdout.decode().splitlines()[0] in ("", str(ROOT))
    *path, file = python("-c", where, cwd=tmp_path).stdout.decode().splitlines()
    assert path[-1] in ("", str(tmp_path)) and path[-2] == str(ROOT) and file.startswith(str(ROOT))


def test_every_command_has_settings_and_a_docstring():
    for settings, function in COMMANDS.values():
        assert issubclass(settings, Settings) and function.__doc__
    assert command_line.__doc__.startswith("python -m tinyllm COMMAND")
