"""stage 0: the vocabulary, the random model, and the settings that are refused."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from stage_runs import logged, parameters, read_stage, record, weights

from tinyllm import checkpoint, tokenizer
from tinyllm.data import corpus
from tinyllm.errors import TinyllmError, UsageError
from tinyllm.objectives import weighted_nll
from tinyllm.stages import s0_random
from tinyllm.stages.sizes import SIZES
from tinyllm.world import World

STAGE = "0-random"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("the cat sat on a mat. " * 200)
    return tmp_path


def stage0(**options):
    options = {"size": "tiny", "workers": 1, "text": "text.txt"} | options
    return s0_random.main(s0_random.RandomSettings(**options))


def test_the_vocabulary_is_learned_from_the_training_texts_and_from_conversations(monkeypatch):
    notes = record(monkeypatch, tokenizer, "train")
    stage0(text="")
    (note,) = notes
    documents, spoken = (
        corpus.load("", 0, SIZES["tiny"].characters)[0],
        corpus.conversations_for_vocabulary(0),
    )
    assert list(note.documents) == documents + spoken and note.vocab == SIZES["tiny"].vocab
    said = b"".join(note.documents)
    assert all(f" {task.question}".encode() in said for task in World(0).instructions("train", 20))


def test_with_your_own_text_the_vocabulary_is_learned_from_its_training_part_only(monkeypatch):
    notes = record(monkeypatch, tokenizer, "train")
    stage0()
    held_out = 1 - len(b"".join(notes[0].documents)) / len(Path("text.txt").read_bytes())
    assert set(b"".join(notes[0].documents)) <= set(Path("text.txt").read_bytes())
    assert held_out == pytest.approx(0.1, abs=0.01)
    _, words = checkpoint.load(Path("runs/demo", STAGE))
    assert "".join(map(words.decode, [[i] for i in words.encode(" the cat sat")])) == " the cat sat"
    assert len(words.encode(" the cat sat")) < len(" the cat sat")


@pytest.mark.parametrize("shape", [{}, {"layers": 2, "width": 64}])
def test_its_loss_is_about_that_of_a_uniform_guess(shape):
    model, words = checkpoint.load(stage0(text="", **shape))
    batches = corpus.every_window(corpus.load("", 0, 20_000)[1], words, 128, 64)
    total = sum(batch["weights"].sum() for batch in batches)
    losses = [weighted_nll(model.forward(b["ids"])[0], b["targets"], b["weights"], total)[0] for b in batches]
    assert sum(losses) == pytest.approx(math.log(len(words)), rel=0.05)


def test_the_seed_decides_the_weights_and_the_settings_the_shape():
    model, words = checkpoint.load(stage0())
    stage0(run="again")
    stage0(run="other", seed=1)
    assert weights(STAGE) == weights(STAGE, "again") != weights(STAGE, "other")
    matrices = np.abs(parameters(STAGE) - 1) > 0.1  # not the gains
    assert np.abs(np.corrcoef(parameters(STAGE)[matrices], parameters(STAGE, "other")[matrices])[0, 1]) < 0.1
    size = SIZES["tiny"]
    assert (model.config.layers, model.config.width, model.config.heads) == (
        size.layers,
        size.width,
        size.heads,
    )
    assert model.config.context == size.context and model.config.vocab == len(words)
    assert model.config.tied and model.config.causal and model.config.kv_heads == size.heads
    shape = {"layers": 3, "width": 24, "heads": 6, "kv_heads": 3, "context": 32, "vocab": 256, "untied": True}
    made, plain = checkpoint.load(stage0(run="shape", **shape))
    assert {name: getattr(made.config, name) for name in shape if name not in ("vocab", "untied")} == {
        name: value for name, value in shape.items() if name not in ("vocab", "untied")
    }
    assert plain.ordinary == 256 and not made.config.tied


def test_it_is_finished_without_a_step():
    stage0()
    notes = read_stage(STAGE)
    assert notes["finished"] and notes["steps"] == notes["tokens"] == 0 and notes["parent"] is None
    assert not logged(STAGE, "loss")
    text = json.loads(Path("runs/demo", STAGE, "tokenizer_config.json").read_text())["chat_template"]
    assert "<|assistant|>" in text


def test_a_finished_stage_0_is_left_as_it_is():
    stage0()
    before = weights(STAGE)
    stage0()
    assert weights(STAGE) == before
    with pytest.raises(TinyllmError, match="seed=0 instead of 3"):
        stage0(seed=3)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"vocab": 255}, "256"),
        ({"width": 10, "heads": 3}, "choose a width that is a multiple of 3$"),
        ({"heads": 4, "kv_heads": 3}, "do not divide"),
        ({"width": 6, "heads": 2}, r"width / heads \(head_dim\) must be even"),
    ],
)
def test_an_impossible_shape_is_refused(options, words):
    with pytest.raises(UsageError, match=words):
        stage0(**options)
    assert not Path("runs/demo", STAGE, "stage.json").exists()
