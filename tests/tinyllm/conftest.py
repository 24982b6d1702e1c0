"""Runs that tests of the stages start from."""

import shutil

import pytest

from tinyllm.errors import tell_once
from tinyllm.stages import s0_random, s1_pretrain, s2_instruct


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """A folder where the run "demo" has finished stages 0, 1 and 2 at SIZE=tiny. Tests get a copy: `tiny`."""
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
    """Let every test see the messages that a process prints once."""
    tell_once.cache_clear()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny(finished_run, tmp_path, monkeypatch):
    """A copy of finished_run for one test, which works in its folder."""
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
