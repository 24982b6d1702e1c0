"""train: `train` and `mine` run the stages in order, each with its exams, and continue after an interruption.

What could go wrong: a finished stage is trained again, a useless file is noticed only after hours of
training, or a model is trained on the held-out answers that its exams ask for.
"""

import io
import json
import os
import re
import shutil
import signal
from pathlib import Path

import own_files
import pytest
from stage_runs import TINY, parameters, read_stage, record, shorten_rollouts, stage, weights

from tinyllm.__main__ import main
from tinyllm.commands import train
from tinyllm.data import formats
from tinyllm.evaluation import exams
from tinyllm.evaluation.exams import is_examined
from tinyllm.evaluation.scoreboard import ROWS
from tinyllm.preferences.rankings import read, split_rankings
from tinyllm.runs import Settings
from tinyllm.stages import s0_random
from tinyllm.training import Run

NAMES = ["0-random", "1-pretrain", "2-instruct", "3-prefer", "4-reason"]


@pytest.fixture
def text(empty_folder):
    """Options that name a text file in the current folder."""
    Path("text.txt").write_text("a rose is a rose is a rose. " * 400)
    return ["--text", "text.txt"]


def read_scoreboard():
    return json.loads(Path("runs/demo/scoreboard.json").read_text())


def read_exams(name):
    return json.loads(Path("runs/demo", name, "exams.json").read_text())


BITS = {"bits_per_byte": {"value": 2.0, "low": 1.0, "high": 3.0, "n": 9}}


def test_the_train_command_runs_every_stage_with_its_exams_and_prints_the_scoreboard(
    tiny, capsys, monkeypatch
):
    """Stages 0 to 2 of the run are finished already, and stages 0 and 1 have exam results."""
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
    stages = read_scoreboard()["stages"]
    assert list(stages) == NAMES and read_scoreboard()["size"] == "tiny" and read_scoreboard()["seed"] == 0
    assert all(set(values) == set(ROWS) for values in stages.values())
    filled = {name: {key for key in ROWS if values[key] is not None} for name, values in stages.items()}
    assert filled["0-random"] == set(BITS) and stages["0-random"]["bits_per_byte"]["value"] == 2
    assert filled["2-instruct"] >= {"bits_per_byte", "instruction_exact", "reasoning_exact", "polite"}
    assert filled["3-prefer"] - filled["4-reason"] >= {"reward_pair_accuracy", "length_only_accuracy"}
    assert filled["4-reason"] - filled["2-instruct"] >= {"win_rate", "kl_nats_per_reply"}

    results = {name: read_exams(name) for name in NAMES}
    stage("train")
    assert "finished already" in capsys.readouterr().out
    assert {name: read_exams(name) for name in NAMES} == results
    assert read_scoreboard()["stages"] == stages


def test_with_only_a_text_the_mine_command_makes_stages_0_and_1_and_suggests_make_sample(text, capsys):
    stage("mine", *text)
    assert list(read_scoreboard()["stages"]) == NAMES[:2]
    assert read_scoreboard()["stages"]["1-pretrain"]["fact_cloze"] is None
    before, after = (read_scoreboard()["stages"][name]["bits_per_byte"]["value"] for name in NAMES[:2])
    assert after < before
    out = capsys.readouterr().out
    assert "| 0-random | 1-pretrain |" in out and "make sample RUN=demo" in out
    for name in NAMES[:2]:
        assert read_stage(name)["sources"]["text"]["path"] == str(Path("text.txt").resolve())


# ---- your own assistant


@pytest.fixture
def files(empty_folder):
    """The current folder, with a text, questions and rankings."""
    own_files.write_text(Path("ships.txt"), 30_000)
    own_files.write_questions(Path("qa.jsonl"))
    pair = lambda ship: {"prompt": f"Where is the {ship}?", "chosen": "In Cork.", "rejected": "Who knows?"}
    Path("ranked.jsonl").write_text("\n".join(json.dumps(pair(ship)) for ship in own_files.SHIPS))
    return empty_folder


def test_the_mine_command_runs_the_stages_that_the_files_allow_and_shows_answers_to_held_out_questions(
    files, capsys, monkeypatch
):
    shorten_rollouts(monkeypatch)
    stage("mine", "--text", "ships.txt", "--data", "qa.jsonl", "--rankings", "ranked.jsonl")
    out = capsys.readouterr().out
    stages = read_scoreboard()["stages"]
    assert list(stages) == NAMES[:4]
    assert "make chat RUN=demo" in out and out.count("expected: ") == out.count("answered: ") == 10
    training, held_out = formats.split(formats.instructions("qa.jsonl"))
    printed = re.findall(r"\n(.*)\n  expected: (.*)\n", out)
    assert printed == [(m[0]["content"], m[1]["content"]) for m in held_out[:10]]
    assert stages["2-instruct"]["own_questions_exact"]["n"] == len(held_out)
    assert stages["1-pretrain"]["own_questions_exact"] is None
    assert 0 <= stages["3-prefer"]["own_win_rate"]["value"] <= 1
    assert stages["3-prefer"]["own_pair_accuracy"]["n"] == len(split_rankings(read("ranked.jsonl"))[1])
    about_the_world = {"fact_cloze", "instruction_exact", "polite", "reasoning_exact", "win_rate"}
    assert all(values[key] is None for values in stages.values() for key in about_the_world)
    for name in NAMES[:4]:
        assert read_stage(name)["sources"]["text"]["path"] == str(files / "ships.txt")
    stage("exams")
    assert read_scoreboard()["stages"] == stages  # the exams use the files recorded in the run


def test_without_a_text_the_mine_command_pre_trains_on_the_conversations_that_are_not_held_out(files, capsys):
    stage("mine", "--data", "qa.jsonl")
    training, held_out = formats.split(formats.instructions("qa.jsonl"))
    text = Path("runs/demo/text.txt").read_text()
    assert all(messages[0]["content"] in text for messages in training)
    assert not any(messages[0]["content"] in text for messages in held_out)
    assert list(read_scoreboard()["stages"]) == NAMES[:3]
    stage("mine", "--data", "qa.jsonl")
    assert "finished already" in capsys.readouterr().out


def test_every_stage_brings_the_scoreboard_up_to_date(text):
    for number, name in enumerate(NAMES[:2]):
        stage(f"stage{number}", *text)
        assert [*read_scoreboard()["stages"]][-1] == name


def test_the_mine_command_with_different_questions_is_refused_and_does_not_change_the_run(files, capsys):
    stage("mine", "--data", "qa.jsonl")
    text, lines = Path("runs/demo/text.txt").read_bytes(), Path("qa.jsonl").read_text().splitlines(True)
    Path("other.jsonl").write_text("".join(lines[:200]))
    assert main(["mine", *TINY, "--data", "other.jsonl"]) == 1
    assert "choose another RUN=" in capsys.readouterr().err
    assert Path("runs/demo/text.txt").read_bytes() == text
    Path("runs/demo").rename("runs/moved")  # text.txt moves with the run
    stage("stage2", "--run", "moved", "--data", "qa.jsonl", "--steps", 0)
    stage("exams", "--run", "moved")


def test_the_mine_command_says_so_if_no_question_is_held_out(files, capsys):
    lines = [{"question": f"{i}?", "answer": "yes"} for i in range(40)]
    training, _ = formats.split([[{"role": "user", "content": line["question"]}] for line in lines])
    questions = {messages[0]["content"] for messages in training}
    lines = [json.dumps(line) + "\n" for line in lines if line["question"] in questions]
    Path("few.jsonl").write_text("".join(lines))
    stage("mine", "--text", "ships.txt", "--data", "few.jsonl")
    assert "no held-out question fits" in capsys.readouterr().out


def test_the_exams_refuse_a_text_that_has_changed_since_training(files, capsys):
    stage("mine", "--text", "ships.txt")
    before = read_exams("1-pretrain")
    own_files.write_text(Path("ships.txt"), 10_000, seed=1)
    assert main(["exams", *TINY]) == 1 and "ships.txt has changed" in capsys.readouterr().err
    assert read_exams("1-pretrain") == before


def test_the_mine_command_refuses_questions_in_the_folder_of_texts_because_it_would_train_on_held_out_answers(
    files, capsys
):
    Path("notes").mkdir()
    Path("qa.jsonl").rename("notes/qa.jsonl")
    assert main(["mine", *TINY, "--text", "notes", "--data", "notes/qa.jsonl"]) == 2
    assert "lies inside notes" in capsys.readouterr().err and not Path("runs").exists()


def test_the_text_made_from_conversations_leaves_out_replies_whose_weight_is_0(files):
    turns = [("user", "a?", 1), ("assistant", "secret", 0), ("user", "b?", 1), ("assistant", "known", 1)]
    turns = [{"role": role, "content": text, "weight": weight} for role, text, weight in turns]
    path = train.own_text(train.MineSettings(), [turns])
    assert path.read_text() == "a?\nb?\nknown"


def test_a_text_folder_that_contains_runs_is_refused(files, capsys):
    assert main(["mine", *TINY, "--text", ".", "--data", ""]) == 2
    assert "contains runs/" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        ([], 2, "name your files: TEXT="),
        (["--text", "ships.txt", "--rankings", "ranked.jsonl"], 2, "RANKINGS= needs DATA="),
        (["--text", "none.txt", "--data", "qa.jsonl"], 1, "none.txt not found"),
        (["--text", "ships.txt", "--data", "bad.jsonl"], 1, "bad.jsonl has no usable entry: line 1"),
        (["--data", "qa.jsonl", "--rankings", "bad.jsonl"], 1, "bad.jsonl has no usable entry: line 1"),
    ],
)
def test_the_mine_command_checks_every_file_before_it_trains(files, capsys, arguments, status, message):
    Path("bad.jsonl").write_text('{"a": 1}\n')
    assert main(["mine", *TINY, *arguments]) == status
    assert message in capsys.readouterr().err and not Path("runs").exists()


@pytest.mark.parametrize("long, name", [("qa.jsonl", "conversation"), ("ranked.jsonl", "ranking")])
def test_if_no_entry_of_a_file_fits_into_the_context_the_mine_command_says_so_before_pre_training(
    files, capsys, long, name
):
    entries = [json.loads(line) for line in Path(long).read_text().splitlines()]
    longer = [{key: text + " ahoy" * 300 for key, text in entry.items()} for entry in entries]
    Path(long).write_text("\n".join(map(json.dumps, longer)))
    arguments = ["--text", "ships.txt", "--data", "qa.jsonl", "--rankings", "ranked.jsonl"]
    assert main(["mine", *TINY, *arguments]) == 1
    assert f"no {name} fits into the context of 256 tokens" in capsys.readouterr().err
    assert [path.name for path in Path("runs/demo").iterdir() if path.is_dir()] == ["0-random"]


def test_the_rank_and_show_mask_commands_use_the_files_of_the_run(files, capsys, monkeypatch):
    stage("mine", "--text", "ships.txt", "--data", "qa.jsonl")
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.StringIO("1 2\nq\n"))
    stage("rank", "--count", 3, "--group", 2)
    out = capsys.readouterr().out
    training, _ = formats.split(formats.instructions("qa.jsonl"))
    assert f"[1 of 3] {training[0][0]['content']}\n" in out
    command = out.rpartition("To learn from them: ")[2].strip()
    assert command == "make stage3 SIZE=tiny RANKINGS=runs/demo/rankings.jsonl"
    stage("show-mask")
    assert training[0][0]["content"] in capsys.readouterr().out
    assert main(["stage3", *TINY]) == 1  # the simulated annotator knows only the built-in world
    assert "name your own with RANKINGS=" in capsys.readouterr().err


# ---- exams


def test_the_exams_command_measures_every_stage_again_and_gets_the_same_results(text, capsys):
    """Altered results on disk are replaced."""
    stage("mine", *text)
    first = read_scoreboard()["stages"]
    for name in NAMES[:2]:
        results = read_exams(name)
        results["bits_per_byte"]["value"] += 1
        Path("runs/demo", name, "exams.json").write_text(json.dumps(results))
        assert is_examined(Path("runs/demo", name))
    stage("exams")
    assert read_scoreboard()["stages"] == first
    assert main(["exams", "--run", "nope"]) == 1
    assert "runs/nope has no finished stage; make one with: make train" in capsys.readouterr().err


def test_the_settings_of_the_command_reach_every_stage(tiny, monkeypatch):
    calls = []

    def record_call(module):
        def main(settings):
            calls.append((module.__name__.split(".")[-1], settings))
            return Path("nowhere")

        return main

    for module in (train.s0_random, train.s1_pretrain, train.s2_instruct, train.s3_prefer, train.s4_reason):
        monkeypatch.setattr(module, "main", record_call(module))
    monkeypatch.setattr(train, "scoreboard", lambda run: run)
    monkeypatch.setattr(train.page, "write", lambda run: run)
    train.train(Settings(run="r", size="nano", seed=3, workers=2, resume=True))
    assert [name for name, _ in calls] == [
        "s0_random",
        "s1_pretrain",
        "s2_instruct",
        "s3_prefer",
        "s4_reason",
    ]
    for _, settings in calls:
        assert (settings.run, settings.size, settings.seed) == ("r", "nano", 3)
        assert (settings.workers, settings.resume) == (2, True)


def test_the_help_text_of_a_stage_is_the_docstring_of_its_main_function():
    assert train.with_exams(s0_random.main).__doc__ == s0_random.main.__doc__


# ---- interruptions


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills with a signal")
def test_a_stage_killed_during_its_exams_counts_as_finished_and_the_next_command_examines_it(
    text, monkeypatch
):
    child = os.fork()
    if not child:
        try:
            exams.measure = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            main(["stage0", *TINY, *text])
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    folder = Path("runs/demo/0-random")
    before = weights("0-random")
    assert read_stage("0-random")["finished"] and not is_examined(folder)
    examinations = record(monkeypatch, exams, "measure")
    stage("stage0", *text)
    assert len(examinations) == 1 and is_examined(folder) and weights("0-random") == before
    stage("stage0", *text)
    assert len(examinations) == 1


def test_ctrl_c_during_the_exams_leaves_the_stage_finished(text, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(exams, "measure", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(["stage0", *TINY, *text]) == 130
    assert read_stage("0-random")["finished"] and not Path("runs/demo/0-random/exams.json").exists()


def test_a_stage_whose_weights_have_changed_is_examined_again(text, monkeypatch):
    stage("stage0", *text)
    stage("stage0", *text, "--run", "other", "--seed", 1)
    examinations = record(monkeypatch, exams, "measure")
    shutil.copy("runs/other/0-random/model.safetensors", "runs/demo/0-random/model.safetensors")
    changed = json.loads(Path("runs/demo/0-random/stage.json").read_text())
    changed["sha256"] = read_stage("0-random", "other")["sha256"]
    Path("runs/demo/0-random/stage.json").write_text(json.dumps(changed))
    stage("stage0", *text)
    assert len(examinations) == 1


def test_the_mine_command_with_resume_continues_where_it_was_interrupted(text, monkeypatch, capsys):
    stage("mine", *text, "--run", "whole")

    def interrupt(call):
        if call.step == 1 and not call.self.start:
            call.self.signal = signal.SIGINT
        return {}

    record(monkeypatch, Run, "train_step", interrupt)
    assert main(["mine", *TINY, *text]) == 130 and "RESUME=1" in capsys.readouterr().err
    assert main(["mine", *TINY, *text]) == 1 and "RESUME=1" in capsys.readouterr().err
    stage("mine", *text, "--resume")
    assert weights("1-pretrain") == weights("1-pretrain", "whole")


# ---- the control


def test_the_control_command_uses_its_own_folder_and_no_chains_of_thought(tiny, capsys, monkeypatch):
    monkeypatch.setattr(exams, "measure", lambda *_: BITS)
    stage("control", "--steps", 2, "--tokens", 1024)
    notes = read_stage("4-control")
    assert notes["settings"]["direct"] is True and notes["steps"] == 2
    assert "4-control" in capsys.readouterr().out and is_examined(Path("runs/demo/4-control"))
    assert not Path("runs/demo/4-reason").exists()
    assert (parameters("4-control") != parameters("2-instruct")).any()
