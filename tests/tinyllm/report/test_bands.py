"""bands: the lowest and the highest of several runs, of those that got equally far."""

import json
from pathlib import Path

import pytest
from stage_runs import stage

from tinyllm.__main__ import main
from tinyllm.report import bands


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Three runs with a log; the third stopped early."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bands, "FILE", tmp_path / "bands.json")
    bands.FILE.write_text('{"small": {"kept": {}}}')
    for name, offset, steps in (("a", 0.0, 100), ("b", 1.0, 100), ("c", 9.0, 50)):
        folder = Path("runs", name, "1-pretrain")
        folder.mkdir(parents=True)
        notes = {"settings": {"size": "tiny", "seed": 0}, "sources": {}, "finished": False}
        (folder / "stage.json").write_text(json.dumps(notes))
        log = [{"step": i, "loss": offset + i} for i in range(steps)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))


def test_the_band_lies_between_the_lowest_and_the_highest_run(runs, capsys):
    stage("bands", "--runs", "a b c")
    written = json.loads(bands.FILE.read_text())
    assert written["small"] == {"kept": {}} and list(written["tiny"]) == ["1-pretrain"]
    band = written["tiny"]["1-pretrain"]["loss"]
    assert len(band) == bands.POINTS and list(written["tiny"]["1-pretrain"]) == ["loss"]
    for step, low, high in band:
        assert low == pytest.approx(step, abs=0.01) and high == pytest.approx(step + 1, abs=0.01)
    assert band[0][0] < 3 and band[-1][0] > 96


@pytest.mark.parametrize("names", ["", "a"])
def test_one_run_makes_no_band(runs, capsys, names):
    assert main(["bands", "--runs", names]) == 2
    assert 'RUNS="one two three"' in capsys.readouterr().err


def test_the_bands_that_are_shipped_are_those_of_size_small():
    shipped = json.loads(bands.FILE.read_text())
    for name in ("1-pretrain", "2-instruct", "3-prefer", "4-reason"):
        assert all(low <= high for curve in shipped["small"][name].values() for _, low, high in curve)
