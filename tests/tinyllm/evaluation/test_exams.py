"""exams: each stage is examined once, on what it has learned, and a crash in an exam loses nothing.

Results count only for the weights that were examined. Otherwise the results of one model could be shown
for another model.
"""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from strategies import random_model

from tinyllm import checkpoint, training
from tinyllm.checkpoint.files import read_json, write_json
from tinyllm.errors import TinyllmError
from tinyllm.evaluation import exams
from tinyllm.evaluation.exams import examine, is_examined
from tinyllm.evaluation.scoreboard import BASELINE_KEYS, ROWS
from tinyllm.preferences import reward_model
from tinyllm.runs import Settings
from tinyllm.stages.s0_random import RandomSettings
from tinyllm.stages.s3_prefer import PreferSettings
from tinyllm.stages.s4_reason import ReasonSettings
from tinyllm.tokenizer import train
from tinyllm.training import Run
from tinyllm.transformer import Config

BYTES = train("", 256)
CONFIG = Config(len(BYTES), context=256, layers=1, width=8, heads=2)
SETTINGS = RandomSettings(size="tiny", workers=1)
TEXT = {"bits_per_byte", "validation_nats_per_character"}
FIVEGRAM = {"fivegram_bits_per_byte", "fivegram_nats_per_character"}
NOTES = {"weights", "seconds"}


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_stage(name, settings=SETTINGS, parent=None, **config):
    """Write a finished stage with a random model -> its folder."""
    model = random_model(dataclasses.replace(CONFIG, **config), np.random.default_rng(0), np.float32, 0.3)
    with Run(settings, name, model, BYTES, 0, parent) as run:
        pass
    return run.folder


def exam_results(folder, settings=SETTINGS):
    examine(folder, settings)
    return read_json(folder / "exams.json")


def write_text(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("A text of your own, long enough to be split. " * 20)
    return str(path)


@pytest.fixture
def measured_folders(monkeypatch):
    """Replace measure() with a stand-in -> a list of the folders it is called with."""
    folders = []

    def measure(pool, tokenizer, folder, stage_settings, settings):
        folders.append(folder)
        return {"bits_per_byte": len(folders)}

    monkeypatch.setattr(exams, "measure", measure)
    return folders


# ---- what is measured


def test_every_result_is_shown_in_a_row_or_as_a_baseline_and_every_row_has_a_result():
    """Stage 3 with a reward model takes all exams of the built-in world."""
    settings = PreferSettings(size="tiny", workers=1)
    folder = write_stage("3-prefer", settings, parent=write_stage("2-instruct"))
    base = random_model(CONFIG, np.random.default_rng(1), np.float32, 0.3)
    reward = reward_model.with_score_head(base, 0)
    with Run(SETTINGS, "3-prefer/reward", reward, BYTES, steps=0) as run:
        write_json(run.folder / "scale.json", {"mean": 0.0, "deviation": 1.0})
    results = exam_results(folder)
    shown = set(ROWS) | set(BASELINE_KEYS) - {"even"} | NOTES
    of_other_stages = {key for key in shown if key.startswith(("masked", "own"))}
    assert set(results) == shown - of_other_stages
    for key in set(ROWS) & set(results):
        result = results[key]
        if isinstance(result, dict):
            assert result["low"] <= result["value"] <= result["high"] and result["n"] > 0
    assert 0 < results["entropy_bits_per_byte"] < results["fivegram_bits_per_byte"] < 8
    assert results["seconds"] > 0


def test_a_masked_model_takes_only_the_exam_on_hidden_tokens():
    results = exam_results(write_stage("1-masked", causal=False))
    assert set(results) == {"masked_top1", "masked_majority"} | FIVEGRAM | NOTES


@pytest.mark.parametrize("settings, count", [(SETTINGS, 8), (ReasonSettings(size="tiny", workers=1), 40)])
def test_a_stage_that_has_not_learned_to_answer_gets_only_a_fifth_of_the_exam_items(
    settings, count, monkeypatch
):
    monkeypatch.setitem(
        exams.SIZES, "tiny", SimpleNamespace(**vars(exams.SIZES["tiny"]) | {"exam_items": 40})
    )
    assert exam_results(write_stage("4-reason", settings))["follow_up_exact"]["n"] == count


def test_a_stage_trained_on_your_own_text_has_no_exams_about_the_world(tmp_path):
    settings = dataclasses.replace(SETTINGS, text=write_text(tmp_path))
    results = exam_results(write_stage("1-pretrain", settings))
    assert set(results) == TEXT | FIVEGRAM | NOTES
    assert set(exam_results(write_stage("1-masked", settings, causal=False))) == (
        {"masked_top1", "masked_majority"} | FIVEGRAM | NOTES
    )


def test_the_settings_of_the_stage_and_not_those_of_the_command_decide_what_is_measured(
    tmp_path, monkeypatch
):
    """`make exams` is not told which text the run uses, but stage.json records it."""
    settings = dataclasses.replace(SETTINGS, text=write_text(tmp_path), seed=7)
    folder, calls = write_stage("1-pretrain", settings), []
    load = exams.corpus.load
    monkeypatch.setattr(exams.corpus, "load", lambda *arguments: calls.append(arguments) or load(*arguments))
    assert set(exam_results(folder, Settings(workers=1))) == TEXT | FIVEGRAM | NOTES
    assert calls == [(settings.text, 7, 20000)]


def problems_file(tmp_path, count=40):
    lines = [json.dumps({"question": f"{i} and 1?", "answer": f"#### {i + 1}"}) for i in range(count)]
    (tmp_path / "own.jsonl").write_text("\n".join(lines))
    return str(tmp_path / "own.jsonl")


def test_stage_4_is_examined_on_the_held_out_problems_of_its_file(tmp_path):
    settings = ReasonSettings(size="tiny", workers=1, data=problems_file(tmp_path), text=write_text(tmp_path))
    results = exam_results(write_stage("4-reason", settings))
    assert set(results) == TEXT | FIVEGRAM | NOTES | {"own_problems_exact", "own_problems_commonest"}
    assert 0 < results["own_problems_exact"]["n"] < 20
    few = dataclasses.replace(settings, data=problems_file(tmp_path, 1))  # too few problems to hold one out
    results = exam_results(write_stage("4-control", few))
    assert set(results) == TEXT | FIVEGRAM | NOTES


# ---- when a stage is examined


def test_a_stage_is_examined_only_once_unless_a_repeat_is_requested(measured_folders):
    folder = write_stage("0-random")
    assert not is_examined(folder)
    assert exam_results(folder)["bits_per_byte"] == 1 and is_examined(folder)
    assert exam_results(folder)["bits_per_byte"] == 1
    examine(folder, SETTINGS, again=True)
    assert read_json(folder / "exams.json")["bits_per_byte"] == 2
    assert measured_folders == [folder, folder]


def test_exam_results_count_only_for_the_weights_that_were_examined(measured_folders):
    folder = write_stage("0-random")
    assert exam_results(folder)["weights"] == checkpoint.digest(folder)
    model, tokenizer = checkpoint.load(folder)
    model.params.flat[:] += 1
    checkpoint.save(folder, model, tokenizer)
    assert not is_examined(folder)
    notes = read_json(folder / "stage.json")
    write_json(folder / "stage.json", notes | {"sha256": checkpoint.digest(folder)})
    assert exam_results(folder)["bits_per_byte"] == 2 and is_examined(folder)


def test_an_unfinished_or_missing_stage_is_not_examined(measured_folders, tmp_path):
    unfinished = write_stage("1-pretrain")
    write_json(unfinished / "stage.json", read_json(unfinished / "stage.json") | {"finished": False})
    for folder in (unfinished, tmp_path / "missing"):
        examine(folder, SETTINGS)
        assert not (folder / "exams.json").exists()
    assert not measured_folders


def test_a_crash_in_an_exam_loses_nothing_and_leaves_no_results(monkeypatch):
    folder = write_stage("0-random")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(exams.generation, "reasoning", crash)
    monkeypatch.setattr(exams.generation, "instructions", lambda *_: {})
    monkeypatch.setattr(exams.text, "cloze", lambda *_: {})
    with pytest.raises(KeyboardInterrupt):
        examine(folder, SETTINGS)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not is_examined(folder)


def test_a_damaged_checkpoint_is_refused_and_not_examined(measured_folders):
    folder = write_stage("0-random")
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(TinyllmError, match="altered or truncated"):
        examine(folder, SETTINGS)
    assert not measured_folders


def test_training_imports_nothing_from_the_exams():
    """Training does not need the exams, so a crash in an exam cannot lose a trained model."""
    package = Path(training.__file__).parent
    sources = [package / "training.py", *package.glob("stages/*.py"), *package.glob("preferences/*.py")]
    assert len(sources) > 10
    for source in sources:
        assert "tinyllm.evaluation" not in source.read_text(encoding="utf-8"), source
