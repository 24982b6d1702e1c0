"""scoreboard: it shows the results of all examined stages side by side, on the screen and in two files.

A stage without results must not appear, and a row without results must not be printed.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.checkpoint.files import write_json
from tinyllm.errors import TinyllmError
from tinyllm.evaluation import scoreboard

VALUE = {"value": 0.25, "low": 0.125, "high": 0.5, "n": 8}
words = st.text("abc ä", max_size=9)


def write_stage(name, run="demo", finished=True, seconds=1.5, **exams):
    folder = Path("runs", run, name)
    settings = {"seed": 3, "size": "tiny"}
    write_json(folder / "stage.json", {"finished": finished, "settings": settings, "wall_seconds": seconds})
    if exams:
        write_json(folder / "exams.json", exams | {"seconds": 0.5, "weights": "abc"})


@pytest.fixture
def board(tmp_path, monkeypatch):
    """The printed text, scoreboard.json and scoreboard.md of a run with two examined stages."""
    monkeypatch.chdir(tmp_path)
    write_stage("0-random", bits_per_byte=VALUE, fivegram_bits_per_byte=2.0, masked_majority=0.125)
    write_stage(
        "1-pretrain",
        bits_per_byte={**VALUE, "value": 0.375},
        validation_nats_per_character=1.0,
        fivegram_bits_per_byte=2.0,
        polite=None,
        stops=VALUE,
        masked_majority=0.125,
    )
    write_stage("2-instruct", finished=False, bits_per_byte=VALUE)
    write_stage("3-prefer")  # finished, but not yet examined
    return SimpleNamespace(
        printed=scoreboard.scoreboard("demo"),
        data=json.loads(Path("runs/demo/scoreboard.json").read_text()),
        markdown=Path("runs/demo/scoreboard.md").read_text(),
    )


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(words, min_size=n, max_size=n), min_size=1)))
@settings(max_examples=50)
def test_a_table_is_aligned_markdown(rows):
    lines = scoreboard.table(rows).splitlines()
    header, rule, *body = lines
    bars = lambda line: [i for i, character in enumerate(line) if character == "|"]
    assert len(lines) == len(rows) + 1 and len({len(line) for line in lines}) == 1
    assert all(bars(line) == bars(header) for line in lines)
    assert set(rule) <= set("|- ") and len(bars(header)) == len(rows[0]) + 1
    cells = lambda line: [cell.strip() for cell in line.strip("|").split("|")]
    assert [cells(line) for line in (header, *body)] == [[cell.strip() for cell in row] for row in rows]


def test_a_cell_shows_a_value_and_on_request_its_interval():
    assert scoreboard.cell(None, True) == ""
    assert scoreboard.cell(VALUE, False) == "0.250"
    assert scoreboard.cell(VALUE, True) == "0.250 (0.125 to 0.500)"
    assert scoreboard.cell(1.0, True) == scoreboard.cell(1, False) == "1.000"
    assert scoreboard.cell(0.0, False) == "0.000"


def test_no_two_rows_have_the_same_label_and_the_printed_rows_and_the_baselines_are_among_the_rows():
    assert set(scoreboard.STORY) <= set(scoreboard.ROWS)
    assert len(set(scoreboard.ROWS.values())) == len(scoreboard.ROWS)
    assert set(scoreboard.BASELINES) <= set(scoreboard.ROWS)


def test_the_command_prints_a_selection_of_the_rows(board):
    lines = board.printed.splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == ["", "0-random", "1-pretrain"]
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == [
        "bits per byte on held-out text",
        "0.250",
        "0.375",
    ]
    assert "replies that end with the end token" not in board.printed  # not in STORY
    assert lines[-1] == "every row, with intervals: runs/demo/scoreboard.md"
    assert sum(line.startswith("|") for line in lines) == 3


def test_scoreboard_md_has_every_row_with_its_interval_and_the_baselines(board):
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in board.markdown.splitlines()]
    assert ["bits per byte on held-out text", "0.250 (0.125 to 0.500)", "0.375 (0.125 to 0.500)"] in rows
    assert ["replies that end with the end token", "", "0.250 (0.125 to 0.500)"] in rows
    assert ["nats per character on held-out text", "", "1.000"] in rows
    assert "polite replies" not in board.markdown  # no stage has a value in this row
    assert "fivegram_bits_per_byte: 2.000\n" in board.markdown
    assert "masked_majority: 0.125\n" in board.markdown


def test_scoreboard_json_has_every_row_of_every_examined_stage(board):
    data = board.data
    assert list(data["stages"]) == ["0-random", "1-pretrain"]
    for exams in data["stages"].values():
        assert list(exams) == list(scoreboard.ROWS)
    assert data["stages"]["0-random"]["bits_per_byte"] == VALUE
    assert data["stages"]["0-random"]["stops"] is None and data["stages"]["1-pretrain"]["stops"] == VALUE
    assert data["baselines"] == {"fivegram_bits_per_byte": 2.0, "masked_majority": 0.125}
    assert (data["seed"], data["size"]) == (3, "tiny")
    assert data["wall_seconds"] == 2 * (1.5 + 0.5)  # training and exams


def test_a_run_without_an_examined_stage_has_no_scoreboard(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_stage("0-random")
    for run in ("demo", "nothing"):
        with pytest.raises(TinyllmError, match=f"make train RUN={run}"):
            scoreboard.scoreboard(run)
    assert not Path("runs/demo/scoreboard.md").exists()
