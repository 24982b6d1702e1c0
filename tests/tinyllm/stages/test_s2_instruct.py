"""Stages 2 and 4 at the doors users use: files of their own, the command line, an interrupted run."""

import json
import random
import signal

import pytest

from tinyllm.__main__ import main
from tinyllm.training import Run

TINY = ["--vocab", "300", "--layers", "1", "--width", "16", "--heads", "2", "--context", "64"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with stages 0 and 1 of a small text, and files of instructions and problems."""
    path = tmp_path_factory.mktemp("own")
    dice = random.Random(0)
    words = "the cat sat on a mat and saw that it was flat".split()
    (path / "text.txt").write_text(" ".join(dice.choices(words, k=3000)))
    with (path / "data.jsonl").open("w") as file:
        for i in range(60):
            file.write(json.dumps({"instruction": f"Say {dice.choice(words)} {i}.", "output": f"{i}"}) + "\n")
    with (path / "problems.jsonl").open("w") as file:
        for i in range(60):
            answer = f"{i}+1 = <<{i}+1={i + 1}>>{i + 1}\n#### {i + 1}"
            file.write(json.dumps({"question": f"{i} and 1?", "answer": answer}) + "\n")
    return path


@pytest.fixture
def run(folder, monkeypatch):
    monkeypatch.chdir(folder)

    def command(stage, *more):
        return main([stage, "--run", "own", "--text", "text.txt", "--workers", "1", *more])

    assert command("stage0", *TINY) == 0 and command("stage1", "--steps", "3", "--rows", "4") == 0
    return command


def exams(folder, stage):
    return json.loads((folder / "runs" / "own" / stage / "exams.json").read_text())


def test_both_stages_learn_from_files_of_ones_own(folder, run, capsys):
    assert run("stage2", "--data", "data.jsonl", "--steps", "6", "--tokens", "512") == 0
    lines = (folder / "runs/own/2-instruct/metrics.jsonl").read_text().splitlines()
    seen = [json.loads(line)["validation_loss"] for line in lines if "validation_loss" in line]
    assert len(seen) >= 3 and seen[-1] < seen[0]
    assert "Say" in (folder / "runs/own/2-instruct/samples.txt").read_text()
    capsys.readouterr()
    assert run("stage4", "--data", "problems.jsonl", "--steps", "4", "--tokens", "512") == 0
    said = capsys.readouterr().out
    assert "held-out problems of problems.jsonl" in said and "commonest answer" in said
    assert exams(folder, "4-reason")["own_problems_exact"]["n"] > 0
    assert json.loads((folder / "runs/own/4-reason/stage.json").read_text())["parent"]["folder"].endswith(
        "2-instruct"
    )
    assert main(["show-mask", "--run", "own"]) == 0
    shown = capsys.readouterr().out
    assert "<|user|>" in shown and "[" in shown and "tokens are learned" in shown


def test_a_stage_without_its_parent_or_with_a_bad_file_says_so(folder, run, capsys):
    assert main(["stage2", "--run", "nothing"]) == 1
    assert "make stage1" in capsys.readouterr().err
    assert main(["stage4", "--run", "nothing"]) == 1
    assert "make stage2" in capsys.readouterr().err
    assert run("stage2", "--data", "missing.json", "--from", "runs/own/1-pretrain", "--run", "bad") == 1
    assert "missing.json" in capsys.readouterr().err
    (folder / "bad.jsonl").write_text("{}\n")
    assert run("stage4", "--data", "bad.jsonl", "--from", "runs/own/1-pretrain", "--run", "bad") == 1
    assert "line 1" in capsys.readouterr().err


def test_what_is_too_long_is_counted(folder, run, capsys):
    (folder / "long.jsonl").write_text(
        json.dumps({"instruction": "x " * 500, "output": "y"})
        + "\n"
        + json.dumps({"instruction": "x", "output": "y"})
    )
    assert (
        run(
            "stage2", "--data", "long.jsonl", "--steps", "2", "--from", "runs/own/1-pretrain", "--run", "long"
        )
        == 0
    )
    assert "1 of 2 conversations are longer than the context of 64" in capsys.readouterr().err


@pytest.mark.parametrize("stage, name, more", [("stage2", "2-instruct", ["--steps", "4"]),
                                               ("stage4", "4-reason", ["--steps", "2", "--rollouts", "2"])])
def test_interrupted_and_resumed_ends_in_the_bytes_of_uninterrupted(stage, name, more, tmp_path, monkeypatch):
    """Stage 4 is interrupted among its solutions, and while it reinforces."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tinyllm.exams.run", lambda *_: {})
    world = ["--size", "nano", "--workers", "1"]
    assert main(["stage0", *world, *TINY[:-1], "256"]) == 0
    origin = ["--from", "runs/demo/0-random", "--tokens", "1024"]
    assert main([stage, *world, *origin, *more, "--run", "whole"]) == 0

    train, stopped = Run.train, []

    def train_and_stop(run, step, *rest, **options):
        loss = train(run, step, *rest, **options)
        if step in (0, 2) and step not in stopped:
            stopped.append(step)
            run.signal = signal.SIGINT
        return loss

    monkeypatch.setattr(Run, "train", train_and_stop)
    status = [main([stage, *world, *origin, *more, "--run", "cut", "--resume"]) for _ in range(3)]
    assert status == [130, 130, 0] and stopped == [0, 2]
    model = lambda run: (tmp_path / "runs" / run / name / "model.safetensors").read_bytes()
    assert model("whole") == model("cut")
