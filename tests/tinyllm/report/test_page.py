"""page: every run gets a report page, even if some of its stages or files are missing.

What could go wrong: one missing file hides the whole page, a link leads nowhere, or the page needs a network
connection.
"""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from stage_runs import stage

from tinyllm.__main__ import main
from tinyllm.report import page

EMPTY = {"meta", "link", "input", "path", "circle"}  # elements without an end tag


class Page(HTMLParser):
    """A parsed page: its text, its links and what a browser would fetch. Elements must be properly nested."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.fetched, self.text = [], [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, name, attributes):
        attributes = dict(attributes)
        self.links += [attributes["href"]] if name == "a" else []
        self.fetched += [value for key, value in attributes.items() if key in ("src", "srcset", "data")]
        self.fetched += [attributes["href"]] if name in ("link", "image", "use") else []
        assert name not in ("script", "iframe", "object", "embed", "base") and not any(
            key.startswith("on") for key in attributes
        )
        if name not in EMPTY:
            self.open.append(name)

    def handle_endtag(self, name):
        if name not in EMPTY:
            assert self.open.pop() == name

    def handle_data(self, data):
        self.text += data


def read(run="demo"):
    """Parse the page of a run, and check what must be true of every page."""
    path = Path("runs", run, "report.html")
    text = path.read_text(encoding="utf-8")
    parsed = Page(text)
    assert set(parsed.fetched) <= {"data:,"} and "@import" not in text and "url(" not in text
    for link in parsed.links:
        assert (path.parent / unquote(link)).is_file(), link
    assert len(text) < 1.5e6
    headings = re.findall(r"<h2 id=.panel-(\d+).>(.*)</h2>", page.TEMPLATE)
    assert [int(number) for number, _ in headings] == list(range(1, len(page.PANELS) + 1))
    assert all(f"{heading}\n" in parsed.text for _, heading in headings)
    return parsed


def test_the_page_of_a_complete_run_has_every_panel(five_stages, capsys):
    stage("report")
    assert capsys.readouterr().out == f"{Path('runs/demo/report.html')}\n"
    text = read().text
    assert "is missing" not in text and "not finished" not in text
    for expected in (
        "0.250",
        "0.300 the estimated entropy of the text itself",
        "0.500 chance",
        "What 3-prefer should change",
    ):
        assert expected in text
    assert "<b>one</b>" in text  # what a model wrote is text, not markup
    assert "make stage2 SIZE=tiny WORKERS=1" in text


def test_a_score_without_a_value_is_not_drawn(five_stages):
    """A win rate is null if every comparison was a tie."""
    path = Path("runs/demo/3-prefer/exams.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"win_rate": None}))
    page.write("demo")
    text = read().text
    assert text.count("Win rate against stage 2") == 1 and "3-prefer should change" in text


def test_writing_the_page_changes_no_other_file_of_the_run(five_stages):
    files = lambda: {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    before = files()
    page.write("demo")
    after = files()
    assert set(after) - set(before) == {Path("runs/demo/report.html")}
    assert all(after[path] == content for path, content in before.items())
    page.write("demo")
    assert files() == after  # the same run gives the same page


def test_the_page_lists_missing_stages_and_the_commands_that_make_them(tiny):
    page.write("demo")
    text = read().text
    assert "3-prefer is missing. Make it with: make stage3 SIZE=tiny" in text
    assert "4-reason is missing. Make it with: make stage4 SIZE=tiny" in text
    shutil.rmtree("runs/demo/1-pretrain")
    shutil.rmtree("runs/demo/2-instruct")
    page.write("demo")
    assert "1-pretrain is missing. Make it with: make stage1 SIZE=tiny" in read().text


def test_a_deleted_file_is_reported_in_its_panel_and_the_other_panels_stay_complete(tiny):
    Path("runs/demo/text.safetensors").unlink()
    page.write("demo")
    text = read().text
    assert text.count("No such file or directory") == 1 and "1-pretrain: gradient norm" in text


def test_a_run_that_is_still_training_has_a_page_with_what_exists_so_far(tiny):
    path = Path("runs/demo/2-instruct/stage.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "finished": False}))
    log = Path("runs/demo/2-instruct/metrics.jsonl")
    log.write_text('{"step": 0, "loss": 5.5}\n{"step": 1, "los')
    page.write("demo")
    text = read().text
    assert "2-instruct is not finished: add RESUME=1 to make stage2 SIZE=tiny" in text
    assert "2-instruct: loss" in text
    shutil.rmtree("runs/demo/0-random")
    shutil.rmtree("runs/demo/1-pretrain")
    page.write("demo")  # no finished stage is left
    assert "0-random is missing. Make it with: make stage0 SIZE=tiny" in read().text


def test_the_page_of_a_run_on_your_own_text_leaves_out_what_needs_the_built_in_world(empty_folder):
    Path("text.txt").write_text("the cat sat on a mat. " * 300)
    stage("stage0", "--text", "text.txt")
    stage("stage1", "--text", "text.txt", "--steps", 2)
    page.write("demo")
    text = read().text
    assert "This needs a run on the built-in world" in text and "1-pretrain: loss" in text
    assert "text.txt" in text  # the command that makes the stage again names it


def test_a_run_made_before_commands_were_recorded_has_a_page(tiny):
    for notes in Path("runs/demo").glob("*/stage.json"):
        older = json.loads(notes.read_text())
        del older["command"]
        notes.write_text(json.dumps(older))
    page.write("demo")
    assert "How it was made" in read().text


def test_the_page_can_show_another_run_for_comparison(five_stages):
    shutil.copytree("runs/demo", "runs/another & more")
    stage("report", "--against", "another & more")
    parsed = read()
    assert "run demo and another & more" in parsed.text and "3-prefer other" in parsed.text
    assert any("another" in link for link in parsed.links)


@pytest.mark.parametrize("options", [["--run", "nothing"], ["--against", "nothing"]])
def test_a_run_without_a_stage_is_an_error(tiny, capsys, options):
    assert main(["report", *options]) == 1
    assert "runs/nothing has no stage. Make one with: make train RUN=nothing" in capsys.readouterr().err
