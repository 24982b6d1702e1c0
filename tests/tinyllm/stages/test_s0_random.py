"""Stage 0 must learn a vocabulary from training text only, and save a random model of the requested shape.

A vocabulary learned from held-out text would make later results look better than they are.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from stage_runs import logged, parameters, read_stage, record, weights

from tinyllm import checkpoint
from tinyllm.data import corpus
from tinyllm.errors import TinyllmError, UsageError
from tinyllm.objectives import weighted_nll
from tinyllm.stages import s0_random
from tinyllm.stages.sizes import SIZES
from tinyllm.world import World

STAGE = "0-random"


@pytest.fixture(autouse=True)
def text_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("the cat sat on a mat. " * 200)


def stage0(**options):
    options = {"size": "tiny", "workers": 1, "text": "text.txt"} | options
    return s0_random.main(s0_random.RandomSettings(**options))


def test_the_vocabulary_is_learned_from_the_training_texts_and_from_conversations(monkeypatch):
    calls = record(monkeypatch, s0_random.tokenizer, "train")
    stage0(text="")
    (call,) = calls
    texts, _ = corpus.load("", 0, SIZES["tiny"].characters)
    assert list(call.documents) == texts + corpus.conversations_for_vocabulary(0)
    assert call.vocab == SIZES["tiny"].vocab
    whole = b"".join(call.documents)
    assert all(f" {task.question}".encode() in whole for task in World(0).instructions("train", 20))


def test_the_vocabulary_of_your_own_text_is_learned_from_the_training_part_only(monkeypatch):
    calls = record(monkeypatch, s0_random.tokenizer, "train")
    stage0()
    training, text = b"".join(calls[0].documents), Path("text.txt").read_bytes()
    assert set(training) <= set(text)
    assert 1 - len(training) / len(text) == pytest.approx(0.1, abs=0.01)
    _, tokenizer = checkpoint.load(Path("runs/demo", STAGE))
    ids = tokenizer.encode(" the cat sat")
    assert "".join(tokenizer.decode([i]) for i in ids) == " the cat sat"
    assert len(ids) < len(" the cat sat")


@pytest.mark.parametrize("shape", [{}, {"layers": 2, "width": 64}])
def test_the_loss_of_the_random_model_is_close_to_the_loss_of_a_uniform_guess(shape):
    model, tokenizer = checkpoint.load(stage0(text="", **shape))
    batches = corpus.every_window(corpus.load("", 0, 20_000)[1], tokenizer, 128, 64)
    total = sum(batch["weights"].sum() for batch in batches)
    losses = [weighted_nll(model.forward(b["ids"])[0], b["targets"], b["weights"], total)[0] for b in batches]
    assert sum(losses) == pytest.approx(math.log(len(tokenizer)), rel=0.05)


def test_the_seed_decides_the_weights():
    for run, seed in (("one", 0), ("same", 0), ("other", 1)):
        stage0(run=run, seed=seed)
    assert weights(STAGE, "one") == weights(STAGE, "same") != weights(STAGE, "other")
    one, other = parameters(STAGE, "one"), parameters(STAGE, "other")
    matrices = np.abs(one - 1) > 0.1  # without the gains of the norms, which are 1 for every seed
    assert np.abs(np.corrcoef(one[matrices], other[matrices])[0, 1]) < 0.1


def test_the_size_sets_the_shape():
    model, tokenizer = checkpoint.load(stage0())
    config, size = model.config, SIZES["tiny"]
    assert (config.layers, config.width, config.heads) == (size.layers, size.width, size.heads)
    assert config.context == size.context and config.vocab == len(tokenizer)
    assert config.tied and config.causal and config.kv_heads == size.heads


def test_settings_of_the_shape_override_the_size():
    shape = {"layers": 3, "width": 24, "heads": 6, "kv_heads": 3, "context": 32}
    model, tokenizer = checkpoint.load(stage0(vocab=256, untied=True, **shape))
    assert {name: getattr(model.config, name) for name in shape} == shape
    assert tokenizer.ordinary == 256 and not model.config.tied


def test_stage_0_finishes_without_a_training_step():
    stage0()
    stage = read_stage(STAGE)
    assert stage["finished"] and stage["steps"] == stage["tokens"] == 0 and stage["parent"] is None
    assert not logged(STAGE, "loss")
    config = json.loads(Path("runs/demo", STAGE, "tokenizer_config.json").read_text())
    assert "<|assistant|>" in config["chat_template"]


def test_a_finished_stage_0_is_kept_and_other_settings_are_refused():
    stage0()
    before = weights(STAGE)
    stage0()
    assert weights(STAGE) == before
    with pytest.raises(TinyllmError, match="seed=0 instead of 3"):
        stage0(seed=3)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"vocab": 255}, "256"),
        ({"width": 10, "heads": 3}, "choose a width that is a multiple of 3$"),
        ({"heads": 4, "kv_heads": 3}, "do not divide"),
        ({"width": 6, "heads": 2}, r"width / heads \(head_dim\) must be even"),
    ],
)
def test_an_impossible_shape_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        stage0(**options)
    assert not Path("runs/demo", STAGE, "stage.json").exists()
