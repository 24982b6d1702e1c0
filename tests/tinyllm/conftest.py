"""Fixtures: a tiny run that is trained once per session, a copy of it for each test, and an empty folder."""

import shutil

import pytest

from tinyllm.errors import tell_once
from tinyllm.stages import s0_random, s1_pretrain, s2_instruct


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """A folder where the run "demo" has finished stages 0, 1 and 2 at SIZE=tiny. The fixture
    `tiny` gives each test its own copy of this folder."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for module, settings in (
            (s0_random, s0_random.RandomSettings),
            (s1_pretrain, s1_pretrain.PretrainSettings),
            (s2_instruct, s2_instruct.InstructSettings),
        ):
            module.main(settings(size="tiny", workers=1))
    return folder


@pytest.fixture(autouse=True)
def forget_messages():
    """Some messages are printed only once per process. Let every test print them again."""
    tell_once.cache_clear()


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """An empty folder, made the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny(finished_run, tmp_path, monkeypatch):
    """A new copy of finished_run, made the current folder."""
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
