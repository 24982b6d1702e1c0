"""runs: settings are checked, all that determines a stage is recorded, and the stages of a run are found.

What could go wrong: a stage overwrites another one, is repeated although it is finished, or learns from files
that do not belong together.
"""

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_runs import read_stage, weights
from strategies import random_model

from tinyllm import checkpoint, tokenizer
from tinyllm.__main__ import COMMANDS
from tinyllm.checkpoint.files import write_json
from tinyllm.errors import TinyllmError, UsageError
from tinyllm.runs import (
    WORLD,
    Settings,
    ancestors,
    describe,
    fingerprint,
    finished_stages,
    lock,
    make_command,
    nothing_to_do,
    option,
    parent_folder,
    path_of,
    sources,
    stage_folder,
)
from tinyllm.stages.s4_reason import ReasonSettings
from tinyllm.training import Run
from tinyllm.transformer import Config, Transformer

BYTES = tokenizer.train("", 256)
CONFIG = Config(vocab=len(BYTES), context=4, layers=1, width=2, heads=1)
ROOT = Path(__file__).parents[2]
ALL_SETTINGS = sorted({settings for settings, _ in COMMANDS.values()}, key=str)


pytestmark = pytest.mark.usefixtures("empty_folder")


@dataclasses.dataclass(frozen=True)
class StageSettings(Settings):
    data: str = option("", "questions", source="instructions")
    text: str = option("", "a text", source="text")
    origin: str = option("", "checkpoint folder to start from", flag="from")
    steps: int = option(0, "steps")
    save_every: int = option(10, "steps between saves", (1, 100))


@dataclasses.dataclass(frozen=True)
class TextSettings(Settings):
    text: str = option("", "a text", source="text", replaces=True)
    origin: str = option("", "checkpoint folder to start from", flag="from")


def train(settings, stage, parent=None):
    """Make a finished stage with random weights, which depend on the number of the stage."""
    with Run(settings, stage, random_model(CONFIG, np.random.default_rng(ord(stage[0]))), BYTES, 0, parent):
        pass
    return settings.folder(stage)


# ---- settings


@pytest.mark.parametrize("settings", ALL_SETTINGS)
def test_a_number_outside_its_limits_is_refused_and_the_error_names_the_option(settings):
    for field in dataclasses.fields(settings):
        if field.type not in (int, float):
            continue
        low, high = field.metadata["limits"]
        assert high < 10**7 or field.name == "seed", (
            f"{field.name}: the limit is higher than any machine can handle"
        )
        for wrong in {-2, low - 1, high + 1, float("nan"), float("inf")} - {field.default}:
            with pytest.raises(UsageError, match=f"--{field.name.replace('_', '-')} must be from"):
                settings(**{field.name: wrong})
        for right in (low, high, field.default):
            assert getattr(settings(**{field.name: right}), field.name) == right


@pytest.mark.parametrize("name", ["", "..", "../out", "/tmp/out", "a/b", ".hidden", "-x", "a\\b", "a\nb"])
def test_a_run_must_have_a_plain_name(name):
    with pytest.raises(UsageError, match="cannot be the name of a folder in runs/"):
        Settings(run=name)


@given(st.from_regex(r"\w[\w.' -]{0,20}", fullmatch=True))
def test_any_plain_name_is_a_folder_inside_runs(name):
    folder = Settings(run=name).folder("0-random")
    assert folder.parent.parent == Path("runs") and folder.parent.name == name


def test_the_number_of_workers_is_as_set_and_by_default_at_most_the_number_of_cores():
    model = Transformer(Config(vocab=2, context=2, layers=1, width=2, heads=1))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for settings, expected in ((Settings(), cores), (Settings(workers=1), 1), (Settings(workers=3), 3)):
        with settings.pool(model) as pool:
            assert pool.workers <= expected if settings == Settings() else pool.workers == expected


# ---- what a stage learns from


def test_a_stage_learns_from_its_own_files_or_those_of_its_parent_or_the_built_in_world():
    assert sources(StageSettings(), None) == {"text": WORLD, "instructions": WORLD}
    Path("sea.txt").write_text("The sea is wide.")
    Path("qa.jsonl").write_text("{}")
    text = train(TextSettings(run="sea", text="sea.txt"), "1-text")
    learned = sources(StageSettings(data="qa.jsonl"), text)
    assert path_of(learned, "text") == str(Path("sea.txt").resolve())
    assert path_of(learned, "instructions") == str(Path("qa.jsonl").resolve())
    assert path_of(learned, "problems") is None
    assert learned["text"]["sha256"] == fingerprint("sea.txt")


def test_the_built_in_world_is_not_mixed_with_your_own_files():
    Path("sea.txt").write_text("The sea is wide.")
    text = train(TextSettings(text="sea.txt"), "1-text")
    with pytest.raises(TinyllmError, match="cannot use the built-in instructions: name your own with DATA="):
        sources(StageSettings(), text)
    # It is not recorded which text a checkpoint from elsewhere learned from, so the path is None.
    foreign = Path("foreign")
    checkpoint.save(foreign, random_model(CONFIG, np.random.default_rng(0)), BYTES)
    assert path_of(sources(StageSettings(data="sea.txt"), foreign), "text") is None
    assert sources(StageSettings(), foreign) == {"text": WORLD, "instructions": WORLD}


def test_training_continues_on_another_text_only_if_the_from_option_is_given():
    Path("sea.txt").write_text("The sea is wide.")
    Path("land.txt").write_text("The land is flat.")
    text = train(TextSettings(text="sea.txt"), "1-text")
    with pytest.raises(TinyllmError, match=r"learned from .*sea.txt; land.txt is a different text"):
        sources(StageSettings(text="land.txt", data="land.txt"), text)
    with pytest.raises(TinyllmError, match="learned from .*sea.txt; land.txt is a different text"):
        sources(TextSettings(text="land.txt"), text)
    continued = sources(TextSettings(text="land.txt", origin=str(text)), text)
    assert path_of(continued, "text") == str(Path("land.txt").resolve())
    Path("copy.txt").write_text("The sea is wide.")  # the same content under another name is allowed
    assert path_of(sources(TextSettings(text="copy.txt"), text), "text") == str(Path("copy.txt").resolve())


def test_a_file_that_has_changed_since_a_stage_learned_from_it_is_an_error():
    Path("sea.txt").write_text("The sea is wide.")
    settings = TextSettings(text="sea.txt")
    text = train(settings, "1-text")
    assert nothing_to_do(settings, "1-text")
    Path("sea.txt").write_text("The sea was wide.")
    with pytest.raises(TinyllmError, match="1-text was made with text other than .*sea.txt"):
        nothing_to_do(settings, "1-text")
    with pytest.raises(TinyllmError, match=r"sea.txt has changed since .*1-text learned from it"):
        sources(StageSettings(data="sea.txt"), text)
    Path("sea.txt").unlink()
    with pytest.raises(TinyllmError, match="sea.txt not found"):
        sources(StageSettings(), text)


def test_an_option_that_is_newer_than_a_finished_stage_is_assumed_to_have_had_its_default():
    settings = StageSettings(text="sea.txt", data="sea.txt")
    Path("sea.txt").write_text("The sea is wide.")
    notes = train(settings, "1-text") / "stage.json"
    older = json.loads(notes.read_text())
    del older["settings"]["steps"]
    notes.write_text(json.dumps(older))
    assert nothing_to_do(settings, "1-text")
    with pytest.raises(TinyllmError, match="made with steps=0 instead of 7"):
        nothing_to_do(dataclasses.replace(settings, steps=7), "1-text")


def test_a_source_with_a_relative_path_is_found_from_another_current_folder(monkeypatch, tmp_path):
    Path("sea.txt").write_text("The sea is wide.")
    text = train(TextSettings(text="sea.txt"), "1-text").resolve()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert path_of(sources(TextSettings(), text), "text") == str(tmp_path / "sea.txt")


def test_the_fingerprint_of_a_folder_depends_on_every_name_and_byte():
    Path("texts/more").mkdir(parents=True)
    Path("texts/a.txt").write_text("a")
    Path("texts/more/b.txt").write_text("b")
    fingerprints = {fingerprint("texts")}
    Path("texts/more/b.txt").write_text("c")
    fingerprints.add(fingerprint("texts"))
    Path("texts/more/b.txt").rename("texts/more/d.txt")
    fingerprints.add(fingerprint("texts"))
    Path("texts/a.txt").unlink()
    fingerprints.add(fingerprint("texts"))
    assert len(fingerprints) == 4
    for missing, problem in (("nothing", "nothing not found"), (os.devnull, "is not a file or folder")):
        with pytest.raises(TinyllmError, match=problem):
            fingerprint(missing)


# ---- the folders of a run


@pytest.mark.parametrize("settings", ALL_SETTINGS)
def test_the_record_of_a_stage_has_all_settings_that_determine_the_bytes_of_the_stage(settings):
    default = describe(settings(), "stage", None)
    for field in dataclasses.fields(settings):
        if "source" in field.metadata:  # recorded as a hash of the content
            continue
        value = {bool: True, int: max(7, field.metadata["limits"][0]), float: 0.7, str: "other"}[field.type]
        changed = describe(dataclasses.replace(settings(), **{field.name: value}), "stage", None)
        may_differ = field.name in ("run", "workers", "resume", "save_every", "origin")
        assert (changed == default) == may_differ, field.name


def test_a_finished_stage_is_not_repeated_and_for_other_settings_the_error_suggests_a_new_run(capsys):
    Path("my questions.jsonl").write_text("{}")
    settings = StageSettings(size="tiny")
    parent = train(TextSettings(size="tiny"), "1-text")
    folder = train(settings, "2-stage", parent)
    before = weights("2-stage")
    assert nothing_to_do(settings, "2-stage", parent)
    assert "finished already" in capsys.readouterr().out and weights("2-stage") == before
    with pytest.raises(TinyllmError, match="made with seed=0 instead of 3"):
        nothing_to_do(StageSettings(size="tiny", seed=3), "2-stage", parent)
    with pytest.raises(TinyllmError, match="another parent checkpoint"):
        nothing_to_do(settings, "2-stage", folder)
    with pytest.raises(TinyllmError) as error:
        nothing_to_do(StageSettings(size="tiny", steps=5, data="my questions.jsonl"), "2-stage", parent)
    another = (
        "make stage2 RUN=demo-2 SIZE=tiny DATA='my questions.jsonl' FROM=runs/demo/1-text ARGS=\"--steps 5\""
    )
    assert sorted(shlex.split(str(error.value))[-7:]) == sorted(shlex.split(another))
    with pytest.raises(TinyllmError, match="repeat your command with RUN=demo-2$"):
        nothing_to_do(settings, "2-stage")
    assert not nothing_to_do(settings, "3-other")
    train(settings, "3-other/part", parent)  # a part lacks the settings that only a whole stage has
    with pytest.raises(TinyllmError, match="repeat your command with RUN=demo-2$"):
        nothing_to_do(StageSettings(size="tiny", steps=5), "3-other/part", parent)


@pytest.mark.parametrize("chains, direct", [("left-out", True), ("written-out", False)])
def test_in_older_stages_the_direct_option_is_recognised_by_its_former_name(chains, direct):
    path = train(ReasonSettings(direct=direct), "4-control") / "stage.json"
    notes = json.loads(path.read_text())
    assert notes["settings"].pop("direct") == direct
    notes["settings"]["chains"] = chains
    path.write_text(json.dumps(notes))
    assert nothing_to_do(ReasonSettings(direct=direct), "4-control")
    with pytest.raises(TinyllmError, match=f"made with direct={direct} instead of {not direct}"):
        nothing_to_do(ReasonSettings(direct=not direct), "4-control")


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_every_value_in_a_suggested_command_is_quoted_for_the_shell(value):
    command = make_command(StageSettings(data=value, seed=4, steps=3, origin="runs/a b/1"), "2-stage")
    assert shlex.split(command) == [
        "make", "stage2", "SEED=4", f"DATA={value}", "FROM=runs/a b/1", "ARGS=--steps 3"
    ]  # fmt: skip


@pytest.mark.parametrize("settings", ALL_SETTINGS)
def test_a_suggested_command_uses_only_variables_and_options_that_exist(settings):
    """Options that have no variable in the Makefile go into ARGS."""
    values = {bool: True, int: 300, float: 0.5, str: "b"}
    left_out = ("times", "group", "resume")
    fields = [field for field in dataclasses.fields(settings) if field.name not in left_out]
    chosen = settings(**{field.name: values[field.type] for field in fields})
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    variables = re.search(r"KNOWN   =((?:.*\\\n)*.*)", makefile)[1].replace("\\", "").split()
    target, *arguments = shlex.split(make_command(chosen, "2-stage"))[1:]
    options = [each.removeprefix("ARGS=") for each in arguments if each.startswith("ARGS=")]
    assert {argument.partition("=")[0] for argument in arguments} <= set(variables)
    flags = {"--" + field.metadata.get("flag", field.name).replace("_", "-") for field in fields}
    assert {word for text in options for word in text.split() if word.startswith("--")} <= flags
    assert "True" not in " ".join(options), "an option of type bool takes no value"


@pytest.mark.parametrize(
    "stage, target",
    [
        ("0-random", "stage0"),
        ("1-masked", "stage1"),
        ("3-prefer/reward", "stage3"),
        ("algorithms/ppo-1", "algorithms"),
        ("4-control", "control"),
    ],
)
def test_a_suggested_command_has_the_make_target_of_the_stage(stage, target):
    assert make_command(StageSettings(), stage) == f"make {target}"


def test_a_damaged_stage_json_gives_an_error_message_not_a_traceback():
    train(StageSettings(), "2-stage")
    for text in ("{", "[]", '{"settings": {}}'):
        Path("runs/demo/2-stage/stage.json").write_text(text)
        with pytest.raises(TinyllmError):
            nothing_to_do(StageSettings(), "2-stage")


def test_the_parent_must_have_the_same_seed_size_and_run_unless_the_from_option_names_the_parent():
    with pytest.raises(TinyllmError, match=r"1-text not found. Make it with: make stage1 SIZE=tiny SEED=4$"):
        parent_folder(StageSettings(size="tiny", seed=4), "1-text")
    train(TextSettings(), "1-text")
    assert parent_folder(StageSettings(), "1-text") == Path("runs/demo/1-text")
    assert parent_folder(StageSettings(), "3-later", "1-text") == Path("runs/demo/1-text")
    with pytest.raises(
        TinyllmError, match=r"made with size='small' instead of 'tiny': use SIZE=small SEED=0"
    ):
        parent_folder(StageSettings(size="tiny"), "1-text")
    with pytest.raises(TinyllmError, match="made with seed=0 instead of 1"):
        parent_folder(StageSettings(seed=1), "1-text")
    with pytest.raises(
        TinyllmError, match=r"make stage1 RUN=mine, or start from another run: FROM=runs/demo/1-text"
    ):
        parent_folder(StageSettings(run="mine"), "1-text")
    write_json(Path("runs/demo/3-later/stage.json"), {"finished": False})
    with pytest.raises(TinyllmError, match="3-later holds an unfinished stage: continue it with RESUME=1"):
        parent_folder(StageSettings(), "3-later", "1-text")
    settings = StageSettings(size="tiny", seed=1, origin="any/where")
    assert parent_folder(settings, "1-text") == Path("any/where")
    write_json("any/where", {})
    with pytest.raises(TinyllmError, match="any/where is a file, not a folder: convert it with make"):
        parent_folder(settings, "1-text")


def test_earlier_stages_are_found_in_other_runs_and_after_the_run_is_moved():
    text = train(TextSettings(), "1-text")
    stage = train(StageSettings(), "2-stage", text)
    later = train(StageSettings(run="mine"), "3-later", stage)
    assert [*ancestors(later)] == [later, stage.resolve(), text.resolve()] and [*ancestors(text)] == [text]
    Path("runs/demo").rename("runs/moved")
    moved = Path("runs/moved/2-stage")
    assert [*ancestors(moved)] == [moved, Path("runs/moved/1-text")]
    assert [*ancestors(later)] == [later]


def test_earlier_stages_of_a_moved_run_are_found_even_if_a_new_run_has_the_old_name():
    train(StageSettings(), "2-stage", train(TextSettings(), "1-text"))
    Path("runs/demo").rename("runs/moved")
    model = random_model(CONFIG, np.random.default_rng(5))
    with Run(TextSettings(seed=1), "1-text", model, BYTES, 0):
        pass
    moved = Path("runs/moved/2-stage")
    assert [*ancestors(moved)] == [moved, Path("runs/moved/1-text")]


def test_a_stage_is_not_its_own_ancestor_even_if_its_parent_had_the_same_name_and_weights():
    """A stage of 0 steps has the weights of its parent. Here the parent's folder was renamed."""
    folder = train(StageSettings(run="mine"), "1-text", train(TextSettings(), "1-text"))
    Path("runs/demo").rename("runs/moved")
    assert [*ancestors(folder)] == [folder]


def test_a_stage_is_found_by_its_number_or_name_and_the_default_is_the_last_finished_stage():
    for name in ("0-random", "1-masked", "1-pretrain", "2-instruct", "notes"):
        folder = Path("runs/demo", name)
        folder.mkdir(parents=True)
        (folder / "stage.json").write_text(json.dumps({"finished": name != "2-instruct"}))
    names = lambda folders: [folder.name for folder in folders]
    assert names(finished_stages("demo")) == ["0-random", "1-masked", "1-pretrain"]
    folders = {name: stage_folder("demo", name).name for name in ("", "0", "1", "1-masked")}
    assert folders == {"": "1-pretrain", "0": "0-random", "1": "1-pretrain", "1-masked": "1-masked"}
    with pytest.raises(TinyllmError, match="no finished stage 2; it has 0-random, 1-masked, 1-pretrain"):
        stage_folder("demo", "2")
    with pytest.raises(TinyllmError, match="no finished stage; make one with: make train RUN=other"):
        stage_folder("other", "")


HOLD_LOCK = """
import sys
from pathlib import Path
from tinyllm.runs import lock
file = lock(Path("runs/demo/2-stage"))
print("locked", flush=True)
sys.stdin.read()
"""


def test_only_one_process_at_a_time_may_write_in_a_folder_and_a_dead_process_holds_no_lock():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen([sys.executable, "-c", HOLD_LOCK], **pipes) as process:
        assert process.stdout.readline() == "locked\n"
        for attempt in (lambda: lock(Path("runs/demo/2-stage")), lambda: train(StageSettings(), "2-stage")):
            with pytest.raises(TinyllmError, match=rf"process {process.pid} is working in runs.demo.2-stage"):
                attempt()
        train(StageSettings(), "3-other")
        process.kill()
    assert read_stage("3-other")["finished"]
    train(StageSettings(), "2-stage")
    assert re.fullmatch(r"\d+", Path("runs/demo/2-stage/.lock").read_text())
    train(StageSettings(run="again"), "2-stage")  # training releases the lock when it ends
    lock(Path("runs/again/2-stage")).close()
