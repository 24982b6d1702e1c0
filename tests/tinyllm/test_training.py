"""training: every step uses the gradient of the whole batch, and an interrupted run can be resumed exactly.

What could go wrong: the number of workers changes the gradient, or a run that was killed and resumed ends
with weights that differ from those of an uninterrupted run.
"""

import dataclasses
import itertools
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_runs import logged, metrics, read_stage, record, weights
from strategies import configs, random_model, rngs

from tinyllm import checkpoint, optimizer, tokenizer
from tinyllm.__main__ import main
from tinyllm.checkpoint import safetensors
from tinyllm.errors import TinyllmError
from tinyllm.objectives import weighted_nll
from tinyllm.optimizer import Rates
from tinyllm.parallel import LOGITS
from tinyllm.runs import RESUME, Settings, nothing_to_do, option
from tinyllm.training import Run, compute_gradient, share_out
from tinyllm.transformer import Config, Parameters, Transformer

ROOT = Path(__file__).parents[2]
BYTES = tokenizer.train("", 256)
CONFIG = Config(vocab=len(BYTES), context=8, layers=2, width=8, heads=2)
SMALL = dataclasses.replace(CONFIG, layers=1, width=4)
STAGE = "9-test"


pytestmark = pytest.mark.usefixtures("empty_folder")


@dataclasses.dataclass(frozen=True)
class TestSettings(Settings):
    __test__ = False  # for pytest: this class is not a test
    save_every: int = option(0, "steps between saves")
    origin: str = option("", "checkpoint folder to start from", flag="from")


def new_run(steps=20, model=None, log_every=1, workers=1, **settings):
    model = model or random_model(CONFIG, np.random.default_rng(0), np.float32, 0.3)
    return Run(TestSettings(workers=workers, **settings), STAGE, model, BYTES, steps, log_every=log_every)


def pieces(seed=0, shapes=((5, 6), (2, 3))):
    """A batch of pieces with the given shapes (rows, tokens), and with positive and negative weights."""
    rng = np.random.default_rng(seed)
    return [
        {
            "ids": rng.integers(0, CONFIG.vocab, shape),
            "targets": rng.integers(0, CONFIG.vocab, shape),
            "weights": rng.integers(-1, 3, shape).astype(np.float32) + 0.25,
        }
        for shape in shapes
    ]


def plain_gradient(model, batch, total):
    """The loss and the gradient (one vector), computed row by row in float64."""
    model = Transformer(model.config, Parameters(model.config, model.params.flat.astype(np.float64)))
    loss, gradient = 0.0, np.zeros(model.config.size())
    for piece in batch:
        for row in range(len(piece["ids"])):
            ids, targets, weights = (piece[name][row : row + 1] for name in ("ids", "targets", "weights"))
            logits, cache = model.forward(ids)
            row_loss, dlogits = weighted_nll(logits, targets, weights.astype(np.float64), total)
            row_gradient = Parameters(model.config, dtype=np.float64)
            model.backward(dlogits, cache, row_gradient)
            loss, gradient = loss + row_loss, gradient + row_gradient.flat
    return loss, gradient


@given(configs(head="tokens"), st.integers(1, 3), st.integers(1, 2), st.sampled_from([0.0, 0.2, 1.0]), rngs)
def test_the_loss_and_the_gradient_equal_those_computed_row_by_row_with_all_positions(
    config, workers, accumulate, share, rng
):
    """It does not matter that positions of weight 0 are left out, or how rows are divided among workers."""
    model, batch = random_model(config, rng), []
    for shape in ((5, config.context), (2, 1), (1, 2)):
        weights = rng.standard_normal(shape) * (rng.random(shape) < share)
        ids, targets = rng.integers(0, config.vocab, (2, *shape))
        batch.append({"ids": ids, "targets": targets, "weights": weights})
    expected_loss, expected = plain_gradient(model, batch, 3.0)
    loss, gradient = 0.0, 0.0
    for part in share_out(batch, workers, accumulate):
        worker = SimpleNamespace(model=model, gradient=Parameters(config, dtype=np.float64))
        loss += compute_gradient(worker, (weighted_nll, 3.0, part))
        gradient += worker.gradient.flat
    assert loss == pytest.approx(expected_loss, rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=1e-12)


# ---- a step


@pytest.mark.parametrize("workers, accumulate", [(1, 1), (1, 3), (2, 1), (2, 3), (7, 1)])
@pytest.mark.parametrize("total", [None, 1000.0, 0.001])
def test_the_optimizer_receives_the_gradient_of_the_whole_batch_clipped_to_norm_1(
    total, workers, accumulate, monkeypatch
):
    """The number of workers or micro-batches does not matter.

    By default, `total` is the sum of the weights.
    """
    outputs = CONFIG.vocab * sum(piece["ids"].size for piece in pieces())
    monkeypatch.setattr("tinyllm.training.LOGITS", math.ceil(outputs / (workers * accumulate)))
    with new_run(1, workers=workers) as run:
        micro_batches = sum(len(parts) for _, _, parts in run.jobs(weighted_nll, pieces()))
        assert micro_batches >= min(workers * accumulate, 6)  # the batch has 7 rows of two lengths
        for step in run.steps():
            divisor = sum(piece["weights"].sum() for piece in pieces()) if total is None else total
            loss, gradient = plain_gradient(run.model, pieces(), divisor)
            assert run.train_step(step, weighted_nll, pieces(), Rates(), total) == pytest.approx(
                loss, rel=1e-4
            )
            norm = np.linalg.norm(gradient)
            received = run.pool.worker.gradients[0]
            np.testing.assert_allclose(received, gradient * min(1, 1 / norm), atol=1e-5)
            assert np.linalg.norm(received) < 1 + 1e-5
    assert (norm > 1) == (total == 0.001)
    (line,) = metrics(STAGE)
    assert line["gradient_norm"] == pytest.approx(norm, rel=1e-4) and line["loss"] == pytest.approx(
        loss, rel=1e-4
    )


def test_the_optimizer_receives_the_learning_rate_scale_and_the_number_of_updates_so_far(monkeypatch):
    rates = Rates("muon", steps=30)
    calls = record(monkeypatch, optimizer, "update", lambda call: {"norm": np.linalg.norm(call.gradient)})
    with new_run(30) as run:
        for step in run.steps():
            calls.clear()
            run.train_step(step, weighted_nll, pieces(step), rates, total=0.001)
            parts = sorted(call.part[:2] for call in calls)
            assert [start for start, _ in parts] == [0, *(stop for _, stop in parts[:-1])]
            assert parts[-1][1] == CONFIG.size()
            for call in calls:
                assert call.norm == pytest.approx(1, abs=1e-5) and call.rates is rates
                assert call.scale == rates.scale(step) and call.updates == step
            assert run.updates == step + 1
    scales = list(logged(STAGE, "learning_rate_scale").values())
    assert scales == [rates.scale(step) for step in range(30)]
    peak = scales.index(1.0)
    assert peak == 3 and scales[: peak + 1] == sorted(scales[: peak + 1]) and scales[0] < 0.5
    assert scales[peak:] == sorted(scales[peak:], reverse=True) and scales[-1] < 0.1


@pytest.mark.parametrize("method", ["muon", "adamw"])
def test_parameters_change_in_proportion_to_the_learning_rate_scale(method):
    changes = {}
    rates = Rates(method, muon=0.1, adamw=0.1, decay=0.0, steps=20)
    for step in (0, 10, 19):
        with new_run(20) as run:
            before = run.model.params.flat.copy()
            for _ in run.steps():
                run.train_step(step, weighted_nll, pieces(), rates)
                changes[step] = run.model.params.flat - before
                break
    assert rates.scale(10) > rates.scale(0) > rates.scale(19)
    unscaled = {step: change / rates.scale(step) for step, change in changes.items()}
    for step in (10, 19):
        np.testing.assert_allclose(unscaled[step], unscaled[0], rtol=0.02, atol=1e-4)
    assert np.abs(changes[10]).max() > 0.01


@pytest.mark.parametrize("method", ["muon", "adamw"])
@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_workers_does_not_change_the_trained_parameters(workers, method):
    trained = []
    for count in (1, workers):
        with new_run(4, workers=count, run=f"r{count}") as run:
            for step in run.steps():
                run.train_step(step, weighted_nll, pieces(step), Rates(method, adamw=1e-3))
            trained.append(run.model.params.flat.copy())
    start = random_model(CONFIG, np.random.default_rng(0), np.float32, 0.3).params.flat
    np.testing.assert_allclose(*trained, atol=5e-4)
    assert np.abs(trained[0] - start).max() > 3e-3


def test_after_its_moments_are_reset_the_optimizer_behaves_like_a_new_one():
    rates = Rates("muon")
    with new_run(3) as run:
        for step in run.steps():
            run.train_step(step, weighted_nll, pieces(step), rates)
        assert all(moment.any() for moment in run.pool.worker.moments) and run.updates == 3
        run.reset_moments()
        assert not any(moment.any() for moment in run.pool.worker.moments) and run.updates == 0
        start = run.model.params.flat.copy()
        run.train_step(2, weighted_nll, pieces(9), rates)
        reset = run.model.params.flat.copy()
    with new_run(1, Transformer(CONFIG, Parameters(CONFIG, start)), run="new") as run:
        for step in run.steps():
            run.train_step(step, weighted_nll, pieces(9), rates)
        np.testing.assert_array_equal(run.model.params.flat, reset)


def test_tokens_and_steps_are_counted_and_every_tenth_step_is_logged():
    with new_run(25, log_every=10) as run:
        for step in run.steps():
            run.train_step(step, weighted_nll, pieces(step), Rates())
    tokens = 5 * 6 + 2 * 3
    assert logged(STAGE, "tokens") == {step: (step + 1) * tokens for step in (0, 10, 20, 24)}
    notes = read_stage(STAGE)
    assert notes["tokens"] == 25 * tokens and notes["steps"] == 25 and notes["workers"] == 1


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_ends_the_run_before_the_update(broken):
    def objective(logits, targets, weights, total):
        loss, dlogits = weighted_nll(logits, targets, weights, total)
        return (math.nan, dlogits) if broken == "loss" else (loss, dlogits * np.inf)

    before = []
    with (
        pytest.raises(TinyllmError, match=r"at step 5: .*Last saved step: 4"),
        new_run(9, save_every=2) as run,
    ):
        for step in run.steps():
            before.append(run.model.params.flat.copy())
            run.train_step(step, objective if step == 5 else weighted_nll, pieces(), Rates())
    np.testing.assert_array_equal(run.model.params.flat, before[5])
    saved, metadata = safetensors.read(Path("runs/demo", STAGE, RESUME))
    np.testing.assert_array_equal(saved["parameters"], before[4])
    assert json.loads(metadata["counters"])["step"] == 4 and not read_stage(STAGE)["finished"]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_validation_loss_is_the_weighted_mean_over_all_pieces(workers):
    batch = pieces(3, ((5, 6), (2, 3), (1, 8)))
    with new_run(2, workers=workers) as run:
        for step in run.steps():
            run.train_step(step, weighted_nll, pieces(step), Rates())
            loss, _ = plain_gradient(run.model, batch, sum(piece["weights"].sum() for piece in batch))
            before = run.model.params.flat.copy()
            run.validate(step, weighted_nll, batch)
            assert logged(STAGE, "validation_loss")[step] == pytest.approx(loss, rel=1e-4)
            np.testing.assert_array_equal(run.model.params.flat, before)
            assert f"(val {loss:.3f})" in run.bar.desc
    assert list(logged(STAGE, "validation_loss")) == [0, 1]


@given(st.integers(1, 60), st.integers(1, 9))
def test_a_validation_is_due_at_equal_intervals_and_after_the_last_step(steps, times):
    run = SimpleNamespace(total_steps=steps)
    due = [step + 1 for step in range(steps) if Run.is_due(run, step, times)]
    first, last = due[0], due[-1]
    assert last == steps and due == sorted({*range(first, steps + 1, first), steps})
    assert min(times, steps) <= len(due) and first == max(1, steps // times)


def test_a_reward_shown_after_every_step_takes_the_place_of_the_loss_in_the_progress_line(capsys):
    with new_run(4) as run:
        for step in run.steps():
            run.bar.mininterval = 0
            run.train_step(step, weighted_nll, pieces(step), Rates())
            if step > 1:
                run.show(loss="reward 0.50")
    lines = [line for line in capsys.readouterr().err.split("\r") if "tok/s" in line]
    shown = ["reward 0.50" in line for line in lines]
    assert shown == [False, False, True, True] and shown == ["loss" not in line for line in lines]


def test_ctrl_c_after_the_last_step_lets_the_stage_finish_and_then_ends_the_program():
    with pytest.raises(KeyboardInterrupt, match="is finished"), new_run(1) as run:
        for step in run.steps():
            run.train_step(step, weighted_nll, pieces(step), Rates())
        run.signal = signal.SIGINT
    assert read_stage(STAGE)["finished"]


def test_the_progress_line_is_drawn_once_for_every_step(capsys):
    with new_run(3) as run:
        for step in run.steps():
            run.bar.mininterval = 0
            run.train_step(step, weighted_nll, pieces(step), Rates())
    lines = capsys.readouterr().err.split("\r")
    assert [sum(f" {step}/3 " in line for line in lines) for step in range(4)] == [1] * 4


shapes = st.lists(st.tuples(st.integers(1, 7), st.integers(1, 40)), min_size=1, max_size=4)


@given(shapes, st.integers(1, 5), st.integers(1, 4))
def test_workers_receive_consecutive_rows_and_similar_numbers_of_tokens(shapes, workers, accumulate):
    batch = pieces(0, shapes)
    for number, piece in enumerate(batch):
        piece["row"] = np.array([(number, row) for row in range(len(piece["ids"]))])
    shares = share_out(batch, workers, accumulate)
    parts = [part for share in shares for part in share]
    rows = [tuple(row) for part in parts for row in part["row"]]
    assert rows == [(number, row) for number, piece in enumerate(batch) for row in range(len(piece["ids"]))]
    for part in parts:
        for (number, row), ids, targets in zip(part["row"], part["ids"], part["targets"], strict=True):
            np.testing.assert_array_equal(ids, batch[number]["ids"][row])
            np.testing.assert_array_equal(targets, batch[number]["targets"][row])
    mean, longest = sum(piece["ids"].size for piece in batch) / workers, max(length for _, length in shapes)
    tokens = [sum(part["ids"].size for part in share) for share in shares]
    assert all(0 < count <= mean + longest for count in tokens)
    assert len(shares) == workers or mean <= longest
    assert len(shares) < workers or min(tokens) >= mean - longest
    assert all(0 < part["ids"].size <= mean / accumulate + longest for part in parts)


@given(st.integers(1, 4), st.integers(1, 9))
def test_with_fewer_rows_than_workers_each_row_has_its_own_worker(rows, more):
    shares = share_out(pieces(0, [(rows, 3)]), rows + more, 2)
    assert [len(part["ids"]) for share in shares for part in share] == [1] * rows == [*map(len, shares)]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("head", ["tokens", "score"])
def test_no_part_of_a_batch_has_more_logits_than_the_limit(workers, head):
    """With a vocabulary of 30,000 the batch has 81 million logits. A score head has one output per token."""
    batch = pieces(0, [(40, 30), (3, 500)])
    config = dataclasses.replace(SMALL, vocab=30_000, head=head)
    with new_run(0, Transformer(config), workers=workers) as run:
        shares = [parts for _, _, parts in run.jobs(weighted_nll, batch)]
    sizes = [part["ids"].size * 30_000 for share in shares for part in share]
    assert len(shares) == workers and sum(sizes) == 81_000_000
    if head == "tokens":
        assert max(sizes) <= LOGITS + 500 * 30_000  # parts are cut at the nearest row
    else:
        assert len(sizes) <= workers + 1  # only a piece that two workers share is cut


# ---- interrupting and resuming


def short_run(workers=1, run="demo", at_step=lambda run, step: None):
    """Train a stage for three steps. The stage also keeps a state of its own, validates and writes samples.

    The function at_step is called at the beginning of each step.
    """
    settings = TestSettings(run=run, workers=workers, save_every=1, resume=True)
    if nothing_to_do(settings, STAGE):
        return
    with Run(settings, STAGE, random_model(SMALL, np.random.default_rng(0)), BYTES, 3, log_every=1) as run:
        for step in run.steps():
            at_step(run, step)
            if step == 2:
                run.reset_moments()
            run.state["totals"] = run.state.get("totals", np.zeros(2)) + [1, step]
            run.train_step(step, weighted_nll, pieces(step, ((2, 4),)), Rates(steps=3))
            run.validate(step, weighted_nll, pieces(100, ((1, 4),)))
            run.sample(step, f"{run.state['totals']} é")


def stop(run, step):
    """Stop after this step, as Ctrl-C does."""
    run.signal = signal.SIGINT


def outcome(run="demo"):
    """Those contents of a stage's folder that must be the same with and without interruptions.

    The resume file may be left over, if the process was killed just before it deleted the file.
    """
    folder = Path("runs", run, STAGE)
    without_times = lambda values: {key: value for key, value in values.items() if "second" not in key}
    lines = [without_times(line) for line in metrics(STAGE, run)]
    names = {path.name for path in folder.iterdir()} - {RESUME}
    notes = without_times(read_stage(STAGE, run))
    notes["command"] = notes["command"].replace(" RUN=whole", "")
    return names, weights(STAGE, run), lines, notes, read_samples(run)


def read_samples(run="demo"):
    return Path("runs", run, STAGE, "samples.txt").read_text(encoding="utf-8")


def killed_at(number, action):
    """Run `action` in a child process, and kill the child just before it opens, renames or removes a file
    in runs/ for the `number`-th time. Return False if the child finishes before that, and True otherwise.
    """
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    try:
        events = itertools.count()

        def watch(event, args):
            touched = event in ("open", "os.rename", "os.remove") and "runs" in str(args[0])
            if touched and next(events) == number:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        action()
    finally:
        os._exit(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills with a signal")
def test_a_run_that_is_killed_at_any_file_access_and_resumed_ends_with_the_same_bytes(monkeypatch):
    """The run may be killed while it starts, trains, saves or finishes, and again while it resumes."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # slow, and protects only against power cuts
    short_run(run="whole")
    expected, rng, number = outcome("whole"), random.Random(0), 0
    while killed_at(number, short_run):
        if number % 3 == 0:
            killed_at(rng.randrange(30), short_run)
        short_run()
        assert outcome() == expected, f"killed at access {number}"
        shutil.rmtree("runs/demo")
        number += 1
    assert number > 30 and outcome() == expected


def stage0():
    words = random.Random(0).choices("the cat sat on a mat and saw that it was flat".split(), k=3000)
    Path("text.txt").write_text(" ".join(words))
    shape = ["--layers", "1", "--width", "16", "--heads", "2", "--context", "16"]
    assert main(["stage0", "--text", "text.txt", "--workers", "1", *shape]) == 0


def stage1_command(*more):
    return ["stage1", "--text", "text.txt", "--workers", "2", "--steps", "2000", "--rows", "4", *more]


def start_stage1(*more):
    """Start stage 1 in a new process, wait until it has trained some steps, and return the process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tinyllm", *stage1_command(*more)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    log = Path("runs/demo/1-pretrain/metrics.jsonl")
    before = log.stat().st_size if log.exists() else 0
    while not log.exists() or log.stat().st_size <= before:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    return process


@pytest.mark.skipif(os.name == "nt", reason="kills with a signal")
def test_a_run_that_is_killed_while_its_workers_are_busy_and_resumed_ends_with_the_same_bytes():
    stage0()
    more, rng = ["--save-every", "5", "--steps", "200"], random.Random(0)
    shutil.copytree("runs/demo", "runs/whole")
    assert main(stage1_command(*more, "--run", "whole")) == 0
    for _ in range(2):
        process = start_stage1(*more, "--resume")
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.communicate()
    assert not (Path("runs/demo/1-pretrain") / "model.safetensors").exists()
    assert main(stage1_command(*more, "--resume")) == 0
    assert weights("1-pretrain") == weights("1-pretrain", "whole")


@pytest.mark.skipif(os.name == "nt", reason="sends signals")
def test_ctrl_c_in_the_terminal_reaches_all_processes_and_the_run_is_saved():
    stage0()
    process = start_stage1()
    os.killpg(process.pid, signal.SIGINT)
    stderr = process.communicate(timeout=20)[1]
    assert process.returncode == 130 and "RESUME=1" in stderr and "Traceback" not in stderr
    _, metadata = safetensors.read(Path("runs/demo/1-pretrain", RESUME))
    assert 0 < json.loads(metadata["counters"])["step"] < 2000
    assert not Path("runs/demo/1-pretrain/model.safetensors").exists()


@pytest.mark.skipif(os.name == "nt", reason="sends signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal_the_run_finishes_its_step_and_saves(number):
    handlers = [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)]

    def interrupt(run, step):
        if step == 1:
            os.kill(os.getpid(), number)

    short_run(run="whole")
    with pytest.raises(KeyboardInterrupt, match="after step 2 of 3.*RESUME=1"):
        short_run(at_step=interrupt)
    assert [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert [line["step"] for line in metrics(STAGE) if "loss" in line] == [0, 1]
    short_run()
    assert outcome() == outcome("whole")


def test_a_second_ctrl_c_ends_the_run_at_once_without_saving():
    def interrupt(run, step):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the step went on")

    with pytest.raises(KeyboardInterrupt):
        short_run(at_step=interrupt)
    assert not Path("runs/demo", STAGE, RESUME).exists()


def test_a_killed_worker_ends_the_run_with_a_message_and_the_run_can_continue():
    def kill_the_worker(run, step):
        if step == 2:
            multiprocessing.active_children()[0].kill()

    short_run(2, "whole")
    with pytest.raises(TinyllmError, match="exit code -9.*RESUME=1"):
        short_run(2, at_step=kill_the_worker)
    short_run(2)
    assert outcome() == outcome("whole")


def test_the_folder_of_a_finished_stage_holds_a_checkpoint_with_its_record_and_logs():
    short_run()
    folder = Path("runs/demo", STAGE)
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "stage.json",
        "metrics.jsonl",
        "samples.txt",
        ".lock",
    }
    notes = read_stage(STAGE)
    assert notes["finished"] and notes["sha256"] == checkpoint.digest(folder) and notes["parent"] is None
    assert notes["settings"] == {"size": "small", "seed": 0} and notes["sources"] == {}
    assert notes["versions"]["numpy"] == np.__version__ and notes["wall_seconds"] >= 0
    assert "--- step 2\n[3. 3.] é\n" in read_samples()
    assert checkpoint.load(folder)[0].config == dataclasses.replace(SMALL, hidden=32)


def test_an_interrupted_run_is_neither_overwritten_nor_resumed_with_other_settings():
    with pytest.raises(KeyboardInterrupt):
        short_run(at_step=stop)
    with pytest.raises(TinyllmError, match="holds an interrupted run.*RESUME=1"):
        nothing_to_do(TestSettings(), STAGE)
    with pytest.raises(TinyllmError, match="made with seed=0 instead of 3"):
        nothing_to_do(TestSettings(seed=3, resume=True), STAGE)
    with pytest.raises(TinyllmError, match="begun with WORKERS=1.*continue with WORKERS=1"):
        short_run(workers=2)
    assert not nothing_to_do(TestSettings(resume=True), STAGE)


def test_a_run_that_failed_before_its_first_save_starts_again_from_the_beginning():
    with pytest.raises(ZeroDivisionError):
        short_run(at_step=lambda run, step: 1 / 0)
    assert not nothing_to_do(TestSettings(), STAGE)
    short_run()
    assert len([line for line in metrics(STAGE) if "loss" in line]) == 3


def test_a_resume_file_of_an_older_version_is_refused_with_a_message():
    with pytest.raises(KeyboardInterrupt):
        short_run(at_step=stop)
    path = Path("runs/demo", STAGE, RESUME)
    saved, metadata = safetensors.read(path)
    first, second = saved.pop("moments")
    safetensors.write(path, {**saved, "moment1": first, "moment2": second}, metadata)
    with pytest.raises(
        TinyllmError, match=f"{STAGE} was begun by an older version: delete it to begin again"
    ):
        new_run(3)


def test_a_resumed_run_takes_its_parameters_from_the_resume_file_not_from_the_model_passed_to_run():
    with pytest.raises(KeyboardInterrupt):
        short_run(at_step=lambda run, step: stop(run, step) if step == 1 else None)
    saved, _ = safetensors.read(Path("runs/demo", STAGE, RESUME))
    with pytest.raises(ZeroDivisionError), new_run(3, random_model(SMALL, np.random.default_rng(1))) as run:
        np.testing.assert_array_equal(run.model.params.flat, saved["parameters"])
        np.testing.assert_array_equal(run.pool.worker.moments, saved["moments"])
        assert run.start == run.updates == 2 and run.state["totals"].tolist() == [2, 1]
        raise ZeroDivisionError
