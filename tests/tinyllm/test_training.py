"""Stages at the doors users use: the command line, the files, signals."""

import hashlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tinyllm import checkpoint
from tinyllm.__main__ import COMMANDS, main, parser
from tinyllm.induction import repeats
from tinyllm.stages import s1_pretrain

ROOT = Path(__file__).parent.parent
TINY = ["--layers", "1", "--width", "16", "--heads", "2", "--context", "16"]
QUICK = ["--rows", "4", "--warmup", "2"]
STEPS = 2000


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty place to work in, with a text."""
    monkeypatch.chdir(tmp_path)
    words = random.Random(0).choices("the cat sat on a mat and saw that it was flat".split(), k=3000)
    (tmp_path / "text.txt").write_text(" ".join(words))
    return tmp_path


def stage0(run="demo", *more):
    return main(["stage0", "--run", run, "--text", "text.txt", "--workers", "1", *TINY, *more])


def stage1(run="demo", steps=30, *more, workers="1"):
    return main(
        [
            "stage1",
            "--run",
            run,
            "--text",
            "text.txt",
            "--workers",
            workers,
            "--steps",
            str(steps),
            *QUICK,
            *more,
        ]
    )


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "tinyllm", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def weights(run, stage="1-pretrain"):
    return hashlib.sha256(Path("runs", run, stage, "model.safetensors").read_bytes()).hexdigest()


def test_a_run_from_nothing_learns_and_leaves_all_its_files(here, capsys):
    assert stage0() == 0 and stage1("demo", 300) == 0
    folder = here / "runs" / "demo" / "1-pretrain"
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "SHA256SUMS",
        "stage.json",
        "metrics.jsonl",
        "samples.txt",
        "exams.json",
    }
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[0] > 5 and losses[-1] < 3
    assert [line["step"] for line in lines if "validation_loss" in line] == [74, 149, 224, 299]
    before, after = (
        json.loads((folder.parent / name / "exams.json").read_text()) for name in ("0-random", "1-pretrain")
    )
    assert after["bits_per_byte"]["value"] < before["bits_per_byte"]["value"] / 2
    model, tokenizer = checkpoint.load(folder)
    assert model.logits(np.array([tokenizer.encode("the cat")])).shape[-1] == len(tokenizer)
    assert "parameters" in capsys.readouterr().err
    assert main(["sample", "--prompt", "the cat", "--temperature", "0", "--tokens", "9"]) == 0
    assert capsys.readouterr().out.startswith("the cat ")


def test_the_same_seed_and_workers_give_the_same_bytes(here):
    for run in ("a", "b"):
        assert stage0(run) == 0 and stage1(run, 12, workers="2") == 0
    assert stage0("c", "--seed", "1") == 0 and stage1("c", 12, "--seed", "1", workers="2") == 0
    assert weights("a") == weights("b") != weights("c")
    assert weights("a", "0-random") == weights("b", "0-random")


def test_the_timed_step_before_the_run_leaves_no_trace(here, monkeypatch):
    from tinyllm import training

    assert stage0("a") == 0 and stage1("a", 5) == 0
    monkeypatch.setattr(training.Run, "announce", lambda *_: None)
    assert stage0("b") == 0 and stage1("b", 5) == 0
    assert weights("a") == weights("b")


@pytest.mark.skipif(os.name == "nt", reason="kills with a signal")
def test_killed_twenty_times_it_ends_in_the_same_bytes(here):
    """SIGKILL at random moments, while it trains and while it saves: with a checkpoint every second step."""
    more = ["--save-every", "3", "--evaluate-every", "100"]
    assert stage0() == 0 and stage0("whole") == 0
    assert stage1("whole", STEPS, *more, workers="2") == 0
    kills, chance = 0, random.Random(0)
    while kills < 20:
        process = start(
            "stage1", "--text", "text.txt", "--workers", "2", "--steps", str(STEPS), *QUICK, *more, "--resume"
        )
        process.stderr.readline()  # it has said what it is about to do
        try:
            process.wait(chance.uniform(0, 0.25))
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    assert stage1("demo", STEPS, *more, "--resume", workers="2") == 0
    assert kills == 20 and weights("demo") == weights("whole")
    metrics, expected = (
        [
            {k: v for k, v in json.loads(line).items() if "second" not in k}
            for line in Path("runs", run, "1-pretrain", "metrics.jsonl").read_text().splitlines()
        ]
        for run in ("demo", "whole")
    )
    assert metrics == expected
    samples = [Path("runs", run, "1-pretrain", "samples.txt").read_bytes() for run in ("demo", "whole")]
    assert samples[0] == samples[1]


@pytest.mark.skipif(os.name == "nt", reason="sends signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_saves_and_says_how_to_go_on(here, number):
    assert stage0() == 0
    process = start("stage1", "--text", "text.txt", "--workers", "2", "--steps", "2000", *QUICK)
    process.stderr.readline()
    time.sleep(0.3)
    process.send_signal(number)
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 130 and "RESUME=1" in said and "Traceback" not in said
    state = json.loads((here / "runs/demo/1-pretrain/resume/state.json").read_text())
    assert 0 < state["step"] < 2000 and not (here / "runs/demo/1-pretrain/model.safetensors").exists()


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks for the worker in /proc")
def test_a_killed_worker_ends_the_run_with_a_sentence_and_it_can_go_on(here):
    assert stage0() == 0
    arguments = [
        "stage1",
        "--text",
        "text.txt",
        "--workers",
        "2",
        "--steps",
        "900",
        *QUICK,
        "--save-every",
        "5",
    ]
    process = start(*arguments)
    process.stderr.readline()
    while not (here / "runs/demo/1-pretrain/resume/state.json").exists():
        time.sleep(0.01)
    worker = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    os.kill(worker, signal.SIGKILL)
    said = process.communicate(timeout=20)[1]
    assert (
        process.returncode == 1 and "exit code -9" in said and "RESUME=1" in said and "Traceback" not in said
    )
    assert main([*arguments, "--resume"]) == 0


def test_an_interrupted_run_is_not_trained_over(here, capsys, monkeypatch):
    from tinyllm import training

    assert stage0() == 0
    with monkeypatch.context() as patch:
        patch.setattr(training.Run, "train", interrupt_after(training.Run.train, 7))
        assert stage1("demo", 20) == 130
    assert stage1("demo", 20) == 1 and "RESUME=1" in capsys.readouterr().err
    assert stage1("demo", 21, "--resume") == 1 and "steps=20 instead of 21" in capsys.readouterr().err
    assert stage1("demo", 20, "--resume") == 0
    stage0("whole")
    stage1("whole", 20)
    assert weights("demo") == weights("whole")


def interrupt_after(train, steps):
    def wrapped(run, step, *args, **kwargs):
        if step == steps:
            run.signal = signal.SIGINT
        return train(run, step, *args, **kwargs)

    return wrapped


def test_a_finished_stage_is_left_as_it_is(here, capsys):
    assert stage0() == 0 and stage1("demo", 5) == 0
    before = weights("demo")
    assert (
        stage1("demo", 5) == 0 and "finished already" in capsys.readouterr().out and weights("demo") == before
    )
    assert stage1("demo", 6) == 1 and "made with steps=5 instead of 6" in capsys.readouterr().err
    assert stage0("demo", "--seed", "3") == 1 and weights("demo") == before


def test_a_loss_that_is_not_a_number_stops_the_run(here, capsys):
    assert stage0() == 0
    assert stage1("demo", 400, "--adamw-rate", "1e30", "--muon-rate", "1e30", "--save-every", "1") == 1
    said = capsys.readouterr().err
    assert "at step" in said and "last good checkpoint" in said
    state = json.loads((here / "runs/demo/1-pretrain/resume/state.json").read_text())
    model, _ = checkpoint.load(here / "runs/demo/1-pretrain/resume")
    assert f"that of step {state['step']}" in said and np.isfinite(model.params.flat).all()


def test_masked_models_live_apart_and_say_so(here):
    (here / "text.txt").write_text("one two three four five six seven eight nine ten. " * 300)
    assert stage0() == 0 and stage1("demo", 400, "--objective", "masked") == 0
    folder = here / "runs/demo/1-masked"
    assert json.loads((folder / "config.json").read_text())["is_causal"] is False
    exams = json.loads((folder / "exams.json").read_text())
    assert exams["masked_top1"]["value"] > exams["masked_majority"]["value"]
    assert main(["sample", "--stage", "1-masked"]) == 1


def test_training_can_start_from_any_folder(here):
    assert stage0("a") == 0 and stage1("a", 200) == 0
    assert stage1("b", 3, "--from", "runs/a/1-pretrain") == 0
    first = json.loads((here / "runs/b/1-pretrain/metrics.jsonl").read_text().splitlines()[0])
    assert first["loss"] < 4


def test_a_folder_without_a_tokenizer_cannot_be_trained_on_text(here, capsys):
    assert stage0() == 0
    model, _ = checkpoint.load("runs/demo/0-random")
    checkpoint.save("bare", model)
    assert stage1("b", 3, "--from", "bare") == 1 and "no tokenizer" in capsys.readouterr().err


def test_damaged_notes_are_said(here, capsys):
    assert stage0() == 0
    for text in ("{", "[]", "{}"):
        (here / "runs/demo/0-random/stage.json").write_text(text)
        assert stage1() == 1 and "Traceback" not in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_every_target_of_the_makefile_is_a_command_that_exists():
    shown = subprocess.run(["make", "-s", "-C", ROOT], capture_output=True, text=True, check=True).stdout
    targets = [line.split()[0] for line in shown.splitlines()[1:-1]]
    promised = "help setup train stage0 stage1 shakespeare sample exams test test-oracle bench lint clean"
    assert set(promised.split()) <= set(targets)
    odd = ["RUN=it's", "TEXT=a b", 'PROMPT=say "hi"', "RESUME=1", "SEED=3", "ARGS=--count 2"]
    for target in set(targets) & COMMANDS.keys():
        dry = ["make", "-n", "-o", "setup", "-C", ROOT, target, *odd]
        lines = subprocess.run(dry, capture_output=True, text=True, check=True).stdout.splitlines()
        line = next(line for line in lines if "-m tinyllm" in line)
        words = shlex.split(line)[3:]
        assert words[0] == target and words[words.index("--run") + 1] == "it's" and "--resume" in words
        if target == "sample":
            options = vars(parser().parse_args(words))
            assert options["prompt"] == 'say "hi"' and options["count"] == 2 and options["seed"] == 3


def test_pieces_of_a_batch_give_the_same_model(here):
    for run, pieces in (("a", "1"), ("b", "3")):
        assert stage0(run) == 0 and stage1(run, 5, "--accumulate", pieces) == 0
    a, b = (checkpoint.load(here / "runs" / run / "1-pretrain")[0].params.flat for run in "ab")
    np.testing.assert_allclose(a, b, atol=2e-4)


def test_repetitions_come_first_and_among_texts_where_asked_for(here, monkeypatch):
    """All rows of the first batches, then one of eight: and none for a text of one's own unless asked for.
    Special tokens too are said in them."""
    made = []
    spy = lambda vocab, rows, *more: made.append((rows, vocab)) or repeats(vocab, rows, *more)
    monkeypatch.setattr(s1_pretrain, "repeats", spy)
    assert stage0("a") == 0 and stage1("a", 5, "--rows", "8", "--practice", "2") == 0
    vocab = checkpoint.load(here / "runs/a/1-pretrain")[0].config.vocab
    assert made == [(rows, vocab) for rows in (8, 8, 8, 1, 1, 1)]  # the first one twice: it is timed
    made.clear()
    assert stage0("b") == 0 and stage1("b", 5, "--rows", "8") == 0 and not made


def test_train_ends_with_a_scoreboard(here, capsys, monkeypatch):
    monkeypatch.setitem(s1_pretrain.BUDGETS, "nano", {"rows": 4, "steps": 100})
    (here / "text.txt").write_text("a rose is a rose is a rose. " * 400)
    assert main(["train", "--size", "nano", "--text", "text.txt", "--workers", "1"]) == 0
    board = json.loads((here / "runs/demo/scoreboard.json").read_text())
    keys = """bits_per_byte fact_cloze story_cloze instruction_exact fact_questions unseen_wording stops
        reasoning_direct reasoning_exact reasoning_majority8 reasoning_five_steps chain_valid logic_exact
        calculator_exact tool_call_valid tool_call_valid_masked win_rate polite refuses_unsafe
        refuses_by_object answers_harmless admits_unknown mean_words kl_nats_per_reply"""
    assert set(board["stages"]["1-pretrain"]) == set(keys.split())
    assert set(board["stages"]) == {"0-random", "1-pretrain"} and board["size"] == "nano"
    assert (
        board["stages"]["1-pretrain"]["bits_per_byte"]["value"] < 0.5
        and board["stages"]["1-pretrain"]["fact_cloze"] is None
    )
    assert "| 0-random | 1-pretrain |" in capsys.readouterr().out
    assert main(["exams"]) == 0
    assert json.loads((here / "runs/demo/scoreboard.json").read_text())["stages"] == board["stages"]


@pytest.mark.parametrize(
    "arguments, status, words",
    [
        (["stage0", "--text", "none.txt"], 1, "none.txt not found"),
        (["stage0", "--text", "empty.txt"], 1, "empty.txt is empty"),
        (["stage0", "--text", "folder"], 1, "folder holds no text"),
        (["stage0", "--text", "text.txt", "--vocab", "255"], 2, "choose 256"),
        (["stage0", "--text", "text.txt", "--width", "10", "--heads", "3"], 2, "do not divide"),
        (["stage0", "--workers", "-1"], 2, "--workers must be 0 or more"),
        (["stage1"], 1, "make stage0 RUN=demo"),
        (["stage1", "--from", "nowhere"], 1, "nowhere not found"),
        (["sample"], 1, "make train RUN=demo"),
        (["sample", "--top-p", "0"], 2, "--top-p in"),
        (["exams"], 1, "make train RUN=demo"),
        (["shakespeare"], 2, "which text"),
    ],
)
def test_mistakes_are_answered_in_one_line(here, capsys, arguments, status, words):
    (here / "empty.txt").write_text("")
    (here / "folder").mkdir()
    assert main(arguments) == status
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and "Traceback" not in said


def test_a_text_shorter_than_one_context_is_refused(here, capsys):
    assert stage0() == 0
    (here / "text.txt").write_text("short")
    assert stage1() == 1 and "one context needs 17" in capsys.readouterr().err


def test_unknown_options_are_refused(here, capsys):
    for arguments in (["stage1", "--speed", "9"], ["nonsense"], ["stage0", "--size", "huge"], []):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
    with pytest.raises(SystemExit) as stop:
        main(["stage1", "--help"])
    assert stop.value.code == 0 and "--muon-rate" in capsys.readouterr().out
