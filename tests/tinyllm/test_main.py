"""The command line: every option, every mistake in one line, and the targets of the Makefile."""

import dataclasses
import functools
import re
import shlex
import shutil
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
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("the cat sat on a mat. " * 50)
    Path("empty.txt").write_text("")
    Path("folder").mkdir()
    return tmp_path


@pytest.fixture
def command(monkeypatch):
    """Replace the function of a command by another one."""

    def replace(name, function):
        settings, original = COMMANDS[name]
        monkeypatch.setitem(
            COMMANDS, name, (settings, functools.update_wrapper(functools.partial(function), original))
        )

    return replace


# ---- options


@pytest.mark.parametrize("name", COMMANDS)
def test_every_setting_is_an_option_of_its_own_type_with_its_default(name):
    (settings, _), parse = COMMANDS[name], parser().parse_args
    assert vars(parse([name])) == {"command": name, **vars(settings())}
    for field in dataclasses.fields(settings):
        flag = "--" + field.metadata.get("flag", field.name).replace("_", "-")
        choices = field.metadata.get("choices")
        value = choices[-1] if choices else {int: 7, float: 0.7, str: "it's", bool: True}[field.type]
        words = [name, flag] if field.type is bool else [name, flag, str(value)]
        assert vars(parse(words))[field.name] == value


def first_paragraph(function):
    return function.__doc__.split("\n\n")[0]


def unspaced(text):
    """Without spaces and line breaks: argparse breaks lines at hyphens, too."""
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


def test_the_help_lists_every_command_with_what_it_does(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    text = unspaced(capsys.readouterr().out)
    assert stop.value.code == 0
    for name, (_, function) in COMMANDS.items():
        assert name + unspaced(first_paragraph(function)) in text


def test_a_command_gets_the_settings_that_were_given(command):
    seen = []
    command("stage1", seen.append)
    words = ["--run", "r", "--from", "some/where", "--steps", "5", "--muon-rate", "0.5", "--resume"]
    assert main(["stage1", *words]) == 0
    (settings,) = seen
    assert (settings.run, settings.origin, settings.steps, settings.muon_rate) == ("r", "some/where", 5, 0.5)
    assert settings.resume and settings.size == "small"


@pytest.mark.parametrize(
    "words",
    [["stage1", "--speed", "9"], ["nonsense"], ["stage0", "--size", "huge"], [], ["stage0", "--seed", "one"]],
)
def test_unknown_commands_and_options_are_refused(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2 and "error:" in capsys.readouterr().err


# ---- mistakes


@pytest.mark.parametrize(
    "words, status, message",
    [
        (["stage0", "--text", "none.txt"], 1, "none.txt not found"),
        (["stage0", "--text", "empty.txt"], 1, "empty.txt is empty"),
        (["stage0", "--text", "folder"], 1, "folder holds no text"),
        (["stage0", "--text", "text.txt", "--vocab", "255"], 2, "choose 256"),
        (["stage0", "--text", "text.txt", "--width", "10", "--heads", "3"], 2, "do not divide"),
        (["stage0", "--workers", "-1"], 2, "--workers must be 0 or more"),
        (["stage1", "--muon-rate", "nan"], 2, "--muon-rate must be 0 or more"),
        (["stage1"], 1, "make stage0 RUN=demo"),
        (["stage2", "--run", "r", "--size", "nano"], 1, "make stage1 RUN=r SIZE=nano SEED=0"),
        (["stage1", "--from", "nowhere"], 1, "nowhere"),
        (["sample"], 1, "make train RUN=demo"),
        (["sample", "--top-p", "0"], 2, "--top-p must be in (0, 1]"),
        (["exams"], 1, "make train RUN=demo"),
        (["chat"], 1, "make train RUN=demo"),
        (["rank", "--group", "1"], 2, "--group must be from 2 to 9"),
    ],
)
def test_mistakes_are_answered_in_one_line(here, capsys, words, status, message):
    assert main(words) == status
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
        (OSError("odd"), 1, "error: the system: odd\n"),
        (KeyboardInterrupt("interrupted after step 3"), 130, "interrupted after step 3\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_every_failure_has_its_exit_status(command, capsys, error, status, message):
    def fail(settings):
        raise error

    command("exams", fail)
    assert main(["exams"]) == status and capsys.readouterr().err == message


def test_a_mistake_in_the_program_shows_its_traceback(command):
    command("exams", lambda settings: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["exams"])


def test_python_m_tinyllm_ends_with_the_status_of_main(here):
    words, environment = [sys.executable, "-m", "tinyllm", "stage1"], {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: runs/demo/0-random not found")


def test_whatever_a_model_writes_can_be_printed(command, capfd):
    command("exams", lambda settings: print("\udcff and \U0001f408"))
    assert main(["exams"]) == 0
    assert "🐈" in capfd.readouterr().out


# ---- the Makefile


needs_make = pytest.mark.skipif(not shutil.which("make"), reason="needs make")


def make(*words):
    return subprocess.run(
        ["make", "-s", "-C", ROOT, *words], capture_output=True, text=True, check=True
    ).stdout


def targets():
    """{target: what its line in `make help` says}"""
    lines = [line.split(maxsplit=1) for line in make().splitlines()[1:-1]]
    return {name: text for name, text in lines}


def dry_run(*words):
    """The words of each command that `make` would run, with Python first."""
    lines = make("-n", "-o", "setup", "-o", ".venv/ready", *words).splitlines()
    return [shlex.split(line) for line in lines if ".venv/bin/python" in line]


@needs_make
def test_make_help_lists_every_target_and_every_command_has_one():
    phony = re.search(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.M)[1].split()
    assert set(targets()) <= set(phony) and set(COMMANDS) <= set(targets())
    parts = {"test-tinyllm", "test-others"}  # of `make test`
    assert set(phony) - set(targets()) <= parts
    for name in "help setup train shakespeare test test-oracle bench lint clean".split():
        assert name in targets()


@needs_make
@pytest.mark.parametrize("name", [*COMMANDS, "shakespeare"])
def test_every_target_runs_a_command_that_exists_with_its_variables_as_options(name):
    values = {"RUN": "it's", "SIZE": "nano", "SEED": "3", "WORKERS": "2", "RESUME": "1", "ARGS": ""}
    values |= {
        "TEXT": "a b",
        "FROM": "some where",
        "DATA": 'd".jsonl',
        "RANKINGS": "r $x",
        "ALGORITHM": "ppo",
    }
    values |= {"OBJECTIVE": "masked", "STAGE": "2", "PROMPT": 'say "hi"'}
    fields = {"FROM": "origin"} | {key: key.lower() for key in values if key not in ("FROM", "ARGS")}
    for python, m, package, *words in dry_run(
        name, *(f"{k}={v.replace('$', '$$')}" for k, v in values.items())
    ):
        assert (python, m, package) == (".venv/bin/python", "-m", "tinyllm")
        options = vars(parser().parse_args(words))
        assert options["command"] == name or name == "shakespeare"
        settings, _ = COMMANDS[options["command"]]
        for variable, field in fields.items():
            offered = variable in targets()[name] or variable in ("SIZE", "SEED", "WORKERS", "RESUME")
            if field in options and offered:
                assert str(options[field]) == {"RESUME": "True"}.get(variable, values[variable]), variable
        assert options["run"] == ("shakespeare" if name == "shakespeare" else "it's")
        assert settings(**{key: value for key, value in options.items() if key != "command"})


@needs_make
def test_more_options_go_through_args_and_unset_variables_give_none():
    ((_, _, _, *words),) = dry_run("sample", "ARGS=--count 2 --top-k 5")
    options = vars(parser().parse_args(words))
    assert options["count"] == 2 and options["top_k"] == 5
    ((_, _, _, *words),) = dry_run("stage1", "RESUME=0")
    assert words == ["stage1"]


@needs_make
def test_shakespeare_is_made_of_bytes_at_the_size_of_nanogpt():
    first, second = (
        vars(parser().parse_args(words[3:])) for words in dry_run("shakespeare", "TEXT=input.txt")
    )
    assert (first["vocab"], first["layers"], first["width"], first["context"]) == (256, 4, 128, 64)
    assert first["text"] == second["text"] == "input.txt" and second["steps"] == 2000


@needs_make
def test_make_test_runs_every_test_file():
    folders = [
        ROOT / word for words in dry_run("test-tinyllm", "test-others") for word in words if "tests" in word
    ]
    for path in (ROOT / "tests").rglob("test_*.py"):
        assert any(folder == path or folder in path.parents for folder in folders), path


def test_the_settings_of_every_command_are_those_of_a_stage():
    for settings, function in COMMANDS.values():
        assert issubclass(settings, Settings) and function.__doc__
    assert command_line.__doc__.startswith("python -m tinyllm COMMAND")
