"""The Makefile: every command of `python -m tinyllm` has a target, and values reach the command unchanged."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tinyllm.__main__ import COMMANDS, main, parser

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs make")


def run_make(*words):
    """Run make as if these tests were not running under `make test`."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "ARGS"))
    }
    command = ["make", "-s", "-C", ROOT, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def make(*words):
    done = run_make(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def targets():
    """{target: the text of its line in `make help`}"""
    lines = [line.split(maxsplit=1) for line in make().splitlines()[1:-1]]
    return {name: text for name, text in lines}


def dry_run(*words):
    """The words of each Python command that `make` would run."""
    lines = make("-n", "-o", "setup", "-o", ".venv/ready", *words).replace("\\\n", "").splitlines()
    return [shlex.split(line) for line in lines if ".venv/bin/python" in line]


def test_make_help_lists_every_target_and_every_command_has_a_target():
    text = (ROOT / "Makefile").read_text().replace("\\\n", "")
    phony = re.search(r"^\.PHONY: (.*)", text, re.M)[1].split()
    assert set(targets()) <= set(phony) and set(COMMANDS) <= set(targets())
    parts = {"test-tinyllm", "test-others"}  # the halves of `make test`
    assert set(phony) - set(targets()) <= parts
    for name in "help setup train shakespeare test test-oracle bench lint clean".split():
        assert name in targets()


@pytest.mark.parametrize("name", [*COMMANDS, "shakespeare"])
def test_every_target_runs_an_existing_command_with_its_variables_as_options(name):
    values = {"RUN": "it's", "SIZE": "nano", "SEED": "3", "WORKERS": "2", "RESUME": "1"}
    values |= {
        "TEXT": "a b",
        "FROM": "some where",
        "DATA": 'd".jsonl',
        "RANKINGS": "r $x",
        "ALGORITHM": "ppo",
    }
    values |= {"OBJECTIVE": "dpo" if name == "walk" else "masked", "STAGE": "2", "PROMPT": 'say "hi"'}
    values["AGAINST"] = "an other"
    offered = f"RUN SIZE SEED WORKERS RESUME {targets()[name]}"
    values = {variable: value for variable, value in values.items() if variable in offered}
    fields = {key: "origin" if key == "FROM" else key.lower() for key in values if key != "RUN"}
    for python, m, package, *words in dry_run(name, *(f"{k}={v}" for k, v in values.items())):
        assert (python, m, package) == (".venv/bin/python", "-m", "tinyllm")
        options = vars(parser().parse_args(words))
        assert options["command"] == {"train": "mine"}.get(name, name) or name == "shakespeare"
        settings, _ = COMMANDS[options["command"]]
        for variable, field in fields.items():
            assert str(options[field]) == {"RESUME": "True"}.get(variable, values[variable]), variable
        assert options["run"] == ("shakespeare" if name == "shakespeare" else "it's")
        assert settings(**{key: value for key, value in options.items() if key != "command"})


def test_the_variable_args_passes_on_any_options_and_an_unset_variable_gives_no_option():
    ((_, _, _, *words),) = dry_run("sample", "ARGS=--tokens 2 --top-k 5")
    options = vars(parser().parse_args(words))
    assert options["tokens"] == 2 and options["top_k"] == 5
    ((_, _, _, *words),) = dry_run("stage1", "RESUME=0")
    assert words == ["stage1"]


def test_the_prompt_of_a_shell_does_not_become_an_option(monkeypatch):
    monkeypatch.setenv("PROMPT", "%n@%m %~ ")
    for name in ("train", "sample"):
        ((_, _, _, *words),) = dry_run(name)
        assert words == [name]


def test_make_train_with_a_text_runs_the_command_mine():
    ((*_, words),), ((*_, command, option, text),) = dry_run("train"), dry_run("train", "TEXT=my notes")
    assert words == "train" and (command, option, text) == ("mine", "--text", "my notes")


def test_make_shakespeare_uses_bytes_and_the_sizes_that_nanogpt_recommends_for_a_cpu():
    first, second = (
        vars(parser().parse_args(words[3:])) for words in dry_run("shakespeare", "TEXT=input.txt")
    )
    assert (first["vocab"], first["layers"], first["width"], first["context"]) == (256, 4, 128, 64)
    assert first["text"] == second["text"] == "input.txt" and second["steps"] == 2000
    assert "name the text: make shakespeare TEXT=" in run_make("-n", "shakespeare").stderr


def test_make_test_runs_every_test_file_exactly_once():
    runs = [[word for word in words if "tests" in word] for words in dry_run("test-tinyllm", "test-others")]
    within = lambda path, names: any({path, *path.parents} & {ROOT / name for name in names})
    for path in (ROOT / "tests").rglob("test_*.py"):
        left_out = [
            [word.removeprefix("--ignore=") for word in words if "--ignore=" in word] for words in runs
        ]
        times = [within(path, words) and not within(path, out) for words, out in zip(runs, left_out)]
        assert sum(times) == 1, path


@pytest.mark.parametrize("text", ["cost $$5 or $5", "$(HOME) ${HOME} $@", 'it\'s "a" `b`, (c) # \\n', "a\\"])
def test_a_text_reaches_the_command_as_it_was_typed(text):
    for target, variable in (("sample", "PROMPT"), ("sample", "RUN"), ("stage1", "TEXT"), ("stage2", "DATA")):
        ((_, _, _, *words),) = dry_run(target, f"{variable}={text}")
        assert words == [target, f"--{variable.lower()}", text]
    for target, before in (("audio", ["audio", "transcribe"]), ("audio-chat", ["tools", "recording"])):
        ((_, _, *words),) = dry_run(target, f"FILE={text}")
        assert words == [*before, text]


def test_dollar_signs_in_args_are_left_to_the_shell():
    ((_, _, _, *words),) = dry_run("sample", "ARGS=--prompt '$5 and $$'")
    assert words == ["sample", "--prompt", "$5 and $$"]


@pytest.mark.parametrize("words", ["train DATA=x", "stage3 DATA=x", "mine FROM=x", "compare FILE=x"])
def test_a_variable_that_the_command_would_ignore_is_refused(words, capsys):
    ((_, _, _, name, *options),) = dry_run(*words.split())
    assert main([name, *options]) == 2
    error = f"error: {name} has no {' '.join(options)}. See python -m tinyllm {name} --help\n"
    assert capsys.readouterr().err == error


@pytest.mark.parametrize("name", ["SIZES", "run", "PROMT", "QUOTE"])
def test_an_unknown_variable_is_an_error_that_lists_the_known_ones(name):
    done = run_make("-n", "sample", f"{name}=nano")
    assert done.returncode == 2 and done.stdout == ""
    assert f"unknown variable {name}. Known: RUN SIZE SEED" in done.stderr
    assert done.stderr.count("\n") == 1
    known = done.stderr.split("Known: ")[1].split(". ")[0].split()
    used = re.findall(r"\b([A-Z]+)=", make())
    assert set(used) <= set(known)


def test_the_columns_of_make_help_are_aligned():
    lines = make().splitlines()
    assert all(len(line) <= 110 for line in lines)
    for line in lines[1:-1]:  # target, description, duration, variables and notes
        columns = [line[:14], line[14:59], line[59:68], line[68:]]
        assert all(column[:1] != " " for column in (columns[0], columns[1], columns[3])), line
        assert all(column[-1:] in (" ", "") for column in columns[:3]) or len(line) < 68, line
        assert re.fullmatch(r"(\(\d+ (s|min)\))? *", columns[2]), line
