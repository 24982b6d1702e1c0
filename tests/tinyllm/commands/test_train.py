"""train: all stages and their exams in a row, again, after a kill, and the control."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from stage_runs import TINY, parameters, read_stage, record, shorten_rollouts, stage, weights

from tinyllm.__main__ import main
from tinyllm.commands import train
from tinyllm.evaluation import exams
from tinyllm.evaluation.exams import is_examined
from tinyllm.evaluation.scoreboard import ROWS
from tinyllm.stages import s0_random
from tinyllm.training import Run

NAMES = ["0-random", "1-pretrain", "2-instruct", "3-prefer", "4-reason"]


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("a rose is a rose is a rose. " * 400)
    return ["--text", "text.txt"]


def board():
    return json.loads(Path("runs/demo/scoreboard.json").read_text())


def read_exams(name):
    return json.loads(Path("runs/demo", name, "exams.json").read_text())


BITS = {"bits_per_byte": {"value": 2.0, "low": 1.0, "high": 3.0, "n": 9}}


def test_train_runs_every_stage_with_its_exams_and_prints_the_scoreboard(tiny, capsys, monkeypatch):
    """Here stages 0 to 2 are finished already, and stages 0 and 1 have taken their exams."""
    shorten_rollouts(monkeypatch)
    before = {name: weights(name) for name in NAMES[:3]}
    for name in NAMES[:2]:
        results = BITS | {"weights": read_stage(name)["sha256"], "seconds": 1}
        Path("runs/demo", name, "exams.json").write_text(json.dumps(results))
    stage("train")
    out = capsys.readouterr().out
    assert " | ".join(NAMES) in " ".join(out.split()) and "runs/demo/scoreboard.md" in out
    for name in NAMES:
        assert read_stage(name)["finished"] and is_examined(Path("runs/demo", name))
    for older, newer in zip(NAMES, NAMES[1:]):
        assert read_stage(newer)["parent"]["folder"].endswith(older)
    assert {name: weights(name) for name in NAMES[:3]} == before
    stages = board()["stages"]
    assert list(stages) == NAMES and board()["size"] == "tiny" and board()["seed"] == 0
    assert all(set(values) == set(ROWS) for values in stages.values())
    filled = {name: {key for key in ROWS if values[key] is not None} for name, values in stages.items()}
    assert filled["0-random"] == set(BITS) and stages["0-random"]["bits_per_byte"]["value"] == 2
    assert filled["2-instruct"] >= {"bits_per_byte", "instruction_exact", "reasoning_exact", "polite"}
    assert filled["3-prefer"] - filled["4-reason"] >= {"reward_pair_accuracy", "best_of_8_win_rate"}
    assert filled["4-reason"] - filled["2-instruct"] >= {"win_rate", "kl_nats_per_reply"}

    results = {name: read_exams(name) for name in NAMES}
    stage("train")
    assert "finished already" in capsys.readouterr().out
    assert {name: read_exams(name) for name in NAMES} == results
    assert board()["stages"] == stages


def test_a_text_of_ones_own_goes_as_far_as_stage_1(text, capsys):
    stage("train", *text)
    assert list(board()["stages"]) == NAMES[:2]
    assert board()["stages"]["1-pretrain"]["fact_cloze"] is None
    before, after = (board()["stages"][name]["bits_per_byte"]["value"] for name in NAMES[:2])
    assert after < before
    assert "| 0-random | 1-pretrain |" in capsys.readouterr().out
    for name in NAMES[:2]:
        assert read_stage(name)["sources"]["text"]["path"] == str(Path("text.txt").resolve())


def test_the_exams_can_be_taken_again_and_give_the_same_results(text):
    """Also where a stage has its exams: here they were tampered with."""
    stage("train", *text)
    first = board()["stages"]
    for name in NAMES[:2]:
        results = read_exams(name)
        results["bits_per_byte"]["value"] += 1
        Path("runs/demo", name, "exams.json").write_text(json.dumps(results))
        assert is_examined(Path("runs/demo", name))
    stage("exams")
    assert board()["stages"] == first


def test_the_settings_of_the_command_reach_every_stage(tiny, monkeypatch):
    seen = []

    def note(module):
        def noted(settings):
            seen.append((module.__name__.split(".")[-1], settings))
            return Path("nowhere")

        return noted

    for module in (train.s0_random, train.s1_pretrain, train.s2_instruct, train.s3_prefer, train.s4_reason):
        monkeypatch.setattr(module, "main", note(module))
    monkeypatch.setattr(train, "scoreboard", lambda run: run)
    train.train(train.TrainSettings(run="r", size="nano", seed=3, workers=2, resume=True))
    assert [name for name, _ in seen] == ["s0_random", "s1_pretrain", "s2_instruct", "s3_prefer", "s4_reason"]
    for _, settings in seen:
        assert (settings.run, settings.size, settings.seed) == ("r", "nano", 3)
        assert (settings.workers, settings.resume) == (2, True)


def test_the_help_of_a_stage_is_that_of_its_main_function():
    assert train.with_exams(s0_random.main).__doc__ == s0_random.main.__doc__


# ---- interruptions


def measured(monkeypatch):
    return record(monkeypatch, exams, "measure")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills with a signal")
def test_killed_in_its_exams_a_stage_is_finished_and_the_next_command_examines_it(text, monkeypatch):
    child = os.fork()
    if not child:
        try:
            exams.measure = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            main(["stage0", *TINY, *text])
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    folder = Path("runs/demo/0-random")
    made = weights("0-random")
    assert read_stage("0-random")["finished"] and not is_examined(folder)
    notes = measured(monkeypatch)
    stage("stage0", *text)
    assert len(notes) == 1 and is_examined(folder) and weights("0-random") == made
    stage("stage0", *text)
    assert len(notes) == 1


def test_a_crash_in_the_exams_leaves_the_stage_finished(text, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(exams, "measure", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(["stage0", *TINY, *text]) == 130
    assert read_stage("0-random")["finished"] and not Path("runs/demo/0-random/exams.json").exists()


def test_exams_belong_to_their_weights(text, monkeypatch):
    stage("stage0", *text)
    stage("stage0", *text, "--run", "other", "--seed", 1)
    notes = measured(monkeypatch)
    shutil.copy("runs/other/0-random/model.safetensors", "runs/demo/0-random/model.safetensors")
    changed = json.loads(Path("runs/demo/0-random/stage.json").read_text())
    changed["sha256"] = read_stage("0-random", "other")["sha256"]
    Path("runs/demo/0-random/stage.json").write_text(json.dumps(changed))
    stage("stage0", *text)
    assert len(notes) == 1


def test_an_interrupted_train_continues_where_it_stopped(text, monkeypatch, capsys):
    stage("train", *text, "--run", "whole")

    def interrupt(note):
        if note.step == 1 and not note.self.start:
            note.self.signal = signal.SIGINT
        return {}

    record(monkeypatch, Run, "train_step", interrupt)
    assert main(["train", *TINY, *text]) == 130 and "RESUME=1" in capsys.readouterr().err
    assert main(["train", *TINY, *text]) == 1 and "RESUME=1" in capsys.readouterr().err
    stage("train", *text, "--resume")
    assert weights("1-pretrain") == weights("1-pretrain", "whole")


# ---- the control


def test_the_control_is_stage_4_without_chains_beside_stage_4(tiny, capsys, monkeypatch):
    monkeypatch.setattr(exams, "measure", lambda *_: BITS)
    stage("control", "--steps", 2, "--tokens", 1024)
    notes = read_stage("4-control")
    assert notes["settings"]["chains"] == "left-out" and notes["steps"] == 2
    assert "4-control" in capsys.readouterr().out and is_examined(Path("runs/demo/4-control"))
    assert not Path("runs/demo/4-reason").exists()
    assert (parameters("4-control") != parameters("2-instruct")).any()
