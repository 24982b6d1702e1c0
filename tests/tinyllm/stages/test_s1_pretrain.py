"""Stage 1 must learn to predict the training text, and validate on held-out text only.

Validating on training text would measure memorisation. A masked model would see padding, so its batches must
have none.
"""

import json
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from stage_runs import TINY, logged, parameters, read_stage, record, rows_of, set_recipe, stage, weights

from tinyllm import checkpoint
from tinyllm.__main__ import main
from tinyllm.checkpoint import safetensors
from tinyllm.data import corpus
from tinyllm.errors import TinyllmError
from tinyllm.optimizer import Rates
from tinyllm.runs import RESUME
from tinyllm.stages import s1_pretrain
from tinyllm.stages.sizes import SIZES
from tinyllm.training import Run

STAGE = "1-pretrain"
SHAPE = ["--layers", "1", "--width", "16", "--heads", "2", "--context", "16"]


@pytest.fixture
def world(tiny):
    """A run that has finished stage 0 on the built-in world."""
    for name in (STAGE, "2-instruct"):
        shutil.rmtree(Path("runs/demo", name))
    return tiny


@pytest.fixture
def text(tmp_path, monkeypatch):
    """A run that has finished stage 0 on the user's own text."""
    monkeypatch.chdir(tmp_path)
    words = "the cat sat on a mat and saw that it was flat".split()
    Path("text.txt").write_text(" ".join(random.Random(0).choices(words, k=3000)))
    stage("stage0", "--text", "text.txt", *SHAPE)
    return tmp_path


def pretrain(**options):
    return s1_pretrain.main(s1_pretrain.PretrainSettings(**{"size": "tiny", "workers": 1} | options))


def is_text(piece, ids):
    """Whether every row is a piece of the packed training text, and the loss covers every target."""
    whole = "," + ",".join(map(str, ids)) + ","
    rows = rows_of([piece])
    return piece["weights"].all() and all("," + ",".join(map(str, row)) + "," in whole for row, _ in rows)


def packed(name, text=""):
    """The training text as one row of ids, encoded by the tokenizer of a stage."""
    tokenizer = checkpoint.load(Path("runs/demo", name))[1]
    return corpus.pack(corpus.load(text, 0, SIZES["tiny"].characters)[0], tokenizer)


# ---- batches


def test_a_row_is_a_document_of_the_world_and_no_document_is_repeated_in_an_epoch(world, monkeypatch):
    steps = record(monkeypatch, Run, "train_step")
    pretrain(rows=6, steps=8)
    ids = packed("0-random")
    left = Counter(tuple(row) for row, _ in corpus.document_rows(ids, SIZES["tiny"].context))
    for note in steps:
        for row, learned in rows_of(note.batch):
            length = int(learned.sum()) + 1
            assert learned.tolist() == [1] * (length - 1) + [0] * (len(row) - length)
            left[tuple(row[:length])] -= 1
        tokens = sum(piece["ids"].size for piece in note.batch)
        assert len(note.batch) > 1 and tokens == pytest.approx(6 * s1_pretrain.ROW, rel=0.5)
    assert min(left.values()) == 0


def test_windows_of_your_own_text_fill_the_context(text, monkeypatch):
    steps = record(monkeypatch, Run, "train_step")
    pretrain(text="text.txt", rows=8, steps=9)
    ids = packed("0-random", "text.txt")
    for note in steps:
        (piece,) = note.batch
        assert is_text(piece, ids) and piece["ids"].shape == (8, 16)


@pytest.mark.parametrize("epochs, fewest, most", [(2, 1, 900), (2, 300, 900), (2, 1, 7)])
def test_your_own_text_sets_the_default_number_of_steps_within_limits(
    text, monkeypatch, epochs, fewest, most
):
    set_recipe(monkeypatch, s1_pretrain, epochs, fewest, pretrain_steps=most)
    steps = record(monkeypatch, Run, "train_step", call=False)
    pretrain()
    tokens = steps[0].batch[0]["ids"].size
    assert len(steps) == min(most, max(fewest, epochs * len(packed("0-random", "text.txt")) // tokens))


def test_no_window_of_your_own_text_is_repeated_in_an_epoch(text, monkeypatch):
    steps = record(monkeypatch, Run, "train_step")
    pretrain(text="text.txt", rows=4, steps=30)
    rows = [tuple(row) for note in steps for row, _ in rows_of(note.batch)]
    assert len(set(rows)) == len(rows) < len(packed("0-random", "text.txt")) / 16


@pytest.mark.parametrize("own", [False, True])
def test_a_masked_model_sees_the_tokens_on_both_sides_and_learns_only_the_hidden_ones(
    own, request, monkeypatch
):
    request.getfixturevalue("text" if own else "world")
    steps, validations = record(monkeypatch, Run, "train_step"), record(monkeypatch, Run, "validate")
    name = "text.txt" if own else ""
    assert pretrain(text=name, objective="masked", rows=8, steps=5).name == "1-masked"
    model, tokenizer = checkpoint.load(Path("runs/demo/1-masked"))
    assert not model.config.causal and not steps[0].self.model.config.causal
    shares = []  # (share of tokens that are hidden, share of hidden tokens that are mask tokens)
    for note in steps + validations[:1]:
        for piece in note.batch:
            hidden = piece["weights"] > 0
            np.testing.assert_array_equal(piece["ids"][~hidden], piece["targets"][~hidden])
            shares.append((hidden.mean(), (piece["ids"][hidden] == tokenizer.special["<|mask|>"]).mean()))
            assert (piece["targets"][hidden] < tokenizer.ordinary).all()
    hidden, masked = np.mean(shares, axis=0)
    assert hidden == pytest.approx(0.15, abs=0.03) and masked == pytest.approx(0.8, abs=0.08)
    whole = ",".join(map(str, packed("1-masked", name)))
    for note in steps:  # no row is padded
        for piece in note.batch:
            assert piece["ids"].shape == (8, model.config.context if own else s1_pretrain.ROW)
            assert all(",".join(map(str, row)) in whole for row in piece["targets"])
    assert len({(note.batch[0]["weights"] > 0).tobytes() for note in steps}) == 5
    assert validations[0].batch[0]["ids"].tobytes() == validations[-1].batch[0]["ids"].tobytes()
    row = steps[0].batch[0]["ids"][:1]
    last_masked = np.append(row[:, :-1], [[tokenizer.special["<|mask|>"]]], axis=1)
    assert not np.allclose(model.logits(row)[:, 0], model.logits(last_masked)[:, 0])


def test_a_model_that_is_not_masked_sees_only_earlier_tokens(world):
    pretrain()
    model, _ = checkpoint.load(Path("runs/demo", STAGE))
    assert model.config.causal
    row = np.arange(20)[None]
    np.testing.assert_allclose(model.logits(row)[:, :19], model.logits(row[:, :19]), atol=1e-5)


# ---- steps


@pytest.mark.parametrize("method", ["muon", "adamw"])
def test_all_steps_share_one_schedule_with_the_learning_rates_from_the_settings(text, monkeypatch, method):
    steps = record(monkeypatch, Run, "train_step")
    pretrain(text="text.txt", steps=12, method=method, muon_rate=0.5, adamw_rate=0.25)
    expected = Rates(method, muon=0.5, adamw=0.25, steps=12)
    assert [note.step for note in steps] == list(range(12))
    assert all(note.rates == expected and note.total is None for note in steps)


def test_stage_1_validates_four_times_on_all_held_out_documents(world, monkeypatch):
    validations = record(monkeypatch, Run, "validate")
    pretrain(steps=12, rows=4)
    assert [note.step for note in validations] == [2, 5, 8, 11] == list(logged(STAGE, "validation_loss"))
    tokenizer = checkpoint.load(Path("runs/demo", STAGE))[1]
    training, held_out = corpus.load("", 0, SIZES["tiny"].characters)
    for note in validations:
        targets = sum(int(piece["weights"].sum()) for piece in note.batch)
        assert targets == sum(len(corpus.pack([document], tokenizer)) - 1 for document in held_out)
        starts = {tuple(row[:12]) for row, _ in rows_of(note.batch)}
        assert starts == {tuple(corpus.pack([document], tokenizer)[:12]) for document in held_out}
    assert not set(training) & set(held_out)
    samples = Path("runs/demo", STAGE, "samples.txt").read_text()
    assert [line for line in samples.splitlines() if line.startswith("--- step")] == [
        f"--- step {step}" for step in (2, 5, 8, 11)
    ]


def test_stage_1_starts_from_the_weights_of_stage_0(world, monkeypatch):
    copy = lambda note: {"parameters": note.self.model.params.flat.copy()}
    steps = record(monkeypatch, Run, "train_step", copy)
    pretrain()
    np.testing.assert_array_equal(steps[0].parameters, parameters("0-random"))
    assert read_stage(STAGE)["parent"]["sha256"] == checkpoint.digest("runs/demo/0-random")
    assert np.abs(parameters(STAGE) - parameters("0-random")).max() > 1e-3


# ---- the command line


def test_stage_1_learns_the_text_and_writes_all_its_files(text, capsys):
    stage("stage1", "--text", "text.txt", "--steps", 200, "--rows", 4)
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
        "exams.json",
    }
    losses = list(logged(STAGE, "loss").values())
    assert losses[0] > 5 and losses[-1] < 3
    assert list(logged(STAGE, "validation_loss")) == [49, 99, 149, 199]
    before, after = (
        json.loads((folder.parent / name / "exams.json").read_text()) for name in ("0-random", STAGE)
    )
    assert after["bits_per_byte"]["value"] < before["bits_per_byte"]["value"] / 2
    assert "parameters" in capsys.readouterr().err
    assert main(["sample", "--prompt", "the cat", "--temperature", "0", "--tokens", "9"]) == 0
    assert capsys.readouterr().out.startswith("the cat ")


def test_a_masked_model_does_better_than_always_guessing_the_most_common_token_but_cannot_write_text(
    text, capsys
):
    Path("text.txt").write_text("one two three four five six seven eight nine ten. " * 300)
    shutil.rmtree("runs")
    stage("stage0", "--text", "text.txt", *SHAPE)
    stage("stage1", "--text", "text.txt", "--steps", 300, "--objective", "masked")
    exams = json.loads(Path("runs/demo/1-masked/exams.json").read_text())
    assert exams["masked_top1"]["value"] > exams["masked_majority"]["value"]
    assert json.loads(Path("runs/demo/1-masked/config.json").read_text())["is_causal"] is False
    assert "[" in Path("runs/demo/1-masked/samples.txt").read_text()
    capsys.readouterr()
    assert main(["sample", "--stage", "1-masked"]) == 1 and "masked model" in capsys.readouterr().err


def test_a_run_that_diverges_stops_with_an_error_and_keeps_the_last_good_step(text, capsys):
    rates = ["--adamw-rate", "1e6", "--muon-rate", "1e6", "--save-every", "1"]
    assert main(["stage1", *TINY, "--text", "text.txt", "--steps", "400", *rates]) == 1
    err = capsys.readouterr().err
    saved, metadata = safetensors.read(Path("runs/demo", STAGE, RESUME))
    step = json.loads(metadata["counters"])["step"]
    assert f"Last saved step: {step}. Try a lower learning rate" in err and "Traceback" not in err
    assert np.isfinite(saved["parameters"]).all()


def test_the_same_seed_and_number_of_workers_give_the_same_bytes(text):
    for run, seed in (("a", 0), ("b", 0), ("c", 1)):
        stage("stage0", "--text", "text.txt", "--run", run, "--seed", seed, *SHAPE)
        pretrain(text="text.txt", run=run, seed=seed, steps=8, workers=2)
    assert weights("0-random", "a") == weights("0-random", "b")
    assert weights(STAGE, "a") == weights(STAGE, "b") != weights(STAGE, "c")


def test_training_can_start_from_a_checkpoint_of_another_run(text):
    pretrain(text="text.txt", steps=200)
    pretrain(text="text.txt", steps=3, run="b", origin="runs/demo/1-pretrain")
    assert logged(STAGE, "loss", "b")[0] < 4 and not Path("runs/b/0-random").exists()


def test_a_missing_or_unusable_parent_or_text_is_refused(text):
    with pytest.raises(TinyllmError, match="make stage0 RUN=other SIZE=tiny, or .* FROM=runs/demo/0-random"):
        pretrain(run="other")
    checkpoint.save("bare", checkpoint.load(Path("runs/demo/0-random"))[0])
    with pytest.raises(TinyllmError, match="lacks a tokenizer"):
        pretrain(text="text.txt", run="other", origin="bare")
    with pytest.raises(TinyllmError, match="nowhere not found"):
        pretrain(text="text.txt", run="other", origin="nowhere")
    Path("short.txt").write_text("short")
    with pytest.raises(TinyllmError, match="one window needs 17"):
        pretrain(text="short.txt", run="other", origin="runs/demo/0-random")
    assert main(["stage1", *TINY, "--text", "none.txt"]) == 1
