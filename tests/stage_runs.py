"""Helpers for the tests of stages: they read a stage's files and record the calls of a function.

The fixture `tiny` (tests/tinyllm/conftest.py) is a run of SIZE=tiny to start from.
"""

import functools
import inspect
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from tinyllm import checkpoint
from tinyllm.__main__ import main
from tinyllm.preferences import rollouts

TINY = ["--size", "tiny", "--workers", "1"]


def record(monkeypatch, owner, name, also=lambda arguments: {}, call=True):
    """Wrap a function so that each call is recorded -> the list of notes, one per call.

    A note holds the arguments by name. It also holds what `also` computes from them before the function
    runs. With call=False the function does not run.
    """
    original, notes = getattr(owner, name), []
    signature = inspect.signature(original)

    @functools.wraps(original)
    def recorded(*args, **options):
        bound = signature.bind(*args, **options)
        bound.apply_defaults()
        note = SimpleNamespace(**bound.arguments)
        notes.append(note)
        vars(note).update(also(note))
        return original(*args, **options) if call else None

    monkeypatch.setattr(owner, name, recorded)
    return notes


def shorten_rollouts(monkeypatch, most=8):
    """Cut rollouts short, and put the end token at the end of every second reply, because a model of
    SIZE=tiny rarely writes one."""
    generate = rollouts.generate_replies

    def short(pool, tokenizer, prompts, room, seed):
        replies = generate(pool, tokenizer, prompts, min(most, room), seed)
        end = tokenizer.special["<|end|>"]
        return [[*reply[:-1], end] if row % 2 else reply for row, reply in enumerate(replies)]

    monkeypatch.setattr(rollouts, "generate_replies", short)


def stage(*words):
    """Run a command at SIZE=tiny. It must succeed."""
    assert main([words[0], *TINY, *map(str, words[1:])]) == 0


def set_recipe(monkeypatch, module, epochs, fewest, **sizes):
    """Set how long a stage trains on the user's own files, and change settings of SIZE=tiny."""
    monkeypatch.setattr(module, "EPOCHS", epochs)
    monkeypatch.setattr(module, "FEWEST_STEPS", fewest)
    monkeypatch.setitem(module.SIZES, "tiny", SimpleNamespace(**vars(module.SIZES["tiny"]) | sizes))


def read_stage(name, run="demo"):
    return json.loads(Path("runs", run, name, "stage.json").read_text())


def metrics(name, run="demo"):
    """The lines of metrics.jsonl."""
    lines = Path("runs", run, name, "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def logged(name, key, run="demo"):
    """{step: value} of one key of metrics.jsonl."""
    return {line["step"]: line[key] for line in metrics(name, run) if key in line}


def weights(name, run="demo"):
    """The bytes of a stage's weights."""
    return Path("runs", run, name, "model.safetensors").read_bytes()


def parameters(name, run="demo"):
    return checkpoint.load(Path("runs", run, name))[0].params.flat


def copy_stage(name, to, run="demo", to_run="demo"):
    shutil.copytree(Path("runs", run, name), Path("runs", to_run, to))


def rows_of(batch):
    """A batch -> [(ids followed by the last target, weights of ids[1:])], one pair per row."""
    rows = []
    for piece in batch:
        ids = np.concatenate([piece["ids"], piece["targets"][..., -1:]], axis=-1)
        rows += zip(ids.reshape(-1, ids.shape[-1]), piece["weights"].reshape(-1, piece["weights"].shape[-1]))
    return rows
