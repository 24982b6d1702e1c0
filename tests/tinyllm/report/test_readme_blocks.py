"""readme_blocks: it fills the marked blocks of README.md from a run and changes nothing else in the file.

The tests also notice an edit by hand that changes the format of a block, because the next run of the
script would undo the edit.
"""

import json
import re
from pathlib import Path

import pytest
import readme_blocks
from readme_blocks import BLOCK, BLOCKS, SCORES
from stage_runs import copy_stage

from tinyllm.errors import TinyllmError

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
IN_README = {name: content for _, name, content, _ in BLOCK.findall(README)}


def skeleton(name, content):
    """A block without its numbers and samples, which differ from run to run."""
    assert all(len(line) <= 110 for line in content.splitlines() if line.startswith("    "))
    if name == "scores":
        content = re.sub(r"\b\d+\.\d{3}\b", "#", content)
        return re.sub(r"(\| #?(?= \|))", "| #", content).replace("| # |", "| |").replace("| #", "|")
    if name == "abilities":
        return re.sub(r"\| \*[^*|]+\* (\\\||[^|])*\|$", "| # |", content, flags=re.M)
    if name == "chat":
        content = re.sub(r"^      .*\n", "", content, flags=re.M)  # replies may take any number of lines
    if name == "samples":
        content = re.sub(r"^(      \d  |         |    (?=\S)).*", r"\1#", content, flags=re.M)
        content = re.sub(r"^((?: {9}| {4})#\n)+", r"", content, flags=re.M)
    return content


@pytest.fixture
def run(tiny):
    """A run with five stages and exam results, and a copy of README.md."""
    copy_stage("2-instruct", "3-prefer")
    copy_stage("2-instruct", "4-reason")
    exams = {key: {"value": i / 7, "low": 0.0, "high": 1.0, "n": 9} for i, key in enumerate(SCORES)}
    exams |= {"fivegram_bits_per_byte": 1.25, "entropy_bits_per_byte": 0.25}
    for path in Path("runs/demo").glob("*/stage.json"):
        path.with_name("exams.json").write_text(json.dumps(exams))
    Path("README.md").write_text(README, encoding="utf-8")
    return tiny


def test_the_blocks_of_the_readme_have_the_format_that_the_script_writes(run):
    assert IN_README.keys() == BLOCKS.keys()
    readme_blocks.main("demo")
    written = Path("README.md").read_text(encoding="utf-8")
    for _, name, content, _ in BLOCK.findall(written):
        assert skeleton(name, content) == skeleton(name, IN_README[name]), name
        assert (content == IN_README[name]) == (name == "tools"), name
    outside = lambda text: BLOCK.sub(r"\1\4", text)
    assert outside(written) == outside(README)
    readme_blocks.main("demo")
    assert Path("README.md").read_text(encoding="utf-8") == written


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("scores", r"\d\.\d{3}", "0.35"),
        ("scores", r"\d\.\d{3}", "high"),
        ("scores", r"\n\| bits per byte.*", ""),
        ("scores", r"bits per byte", "bits a byte"),
        ("scores", r"0 random", "random"),
        ("scores", r"5-gram", "4-gram"),
        ("abilities", r"3 prefer", "3"),
        ("abilities", r"\* [^|]*\|\n", "|\n"),
        ("chat", r"    > And.*\n", ""),
        ("chat", r"Use the", "Use a"),
        ("tools", r"2026-12-01", "2026-12-02"),
        ("samples", r"\n      1 .*", ""),
        ("samples", r"\n      2 ", "\n      2, 3 "),
        ("samples", r"\n      4 ", "\n    4 "),
    ],
)
def test_a_block_that_was_edited_by_hand_is_noticed(name, old, new):
    edited = re.sub(old, new, IN_README[name], count=1)
    assert edited != IN_README[name] and skeleton(name, edited) != skeleton(name, IN_README[name])


def test_the_scores_are_those_of_the_exams(run):
    readme_blocks.main("demo")
    table = BLOCK.findall(Path("README.md").read_text(encoding="utf-8"))
    rows = {name: content for _, name, content, _ in table}["scores"].splitlines()
    assert "A 5-gram table needs 1.250," in rows[-2] and "and 0.250 is the estimated entropy" in rows[-1]
    for i, row in enumerate(rows[2:-3]):
        assert row.split(" | ")[1:] == [f"{i / 7:.3f}"] * 4 + [f"{i / 7:.3f} |"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("<!-- readme: scores -->\n", "a block without the line <!-- end -->"),
        (
            "<!-- readme: prices -->\n<!-- end -->\n",
            f"an unknown block 'prices'; known blocks: {', '.join(BLOCKS)}",
        ),
    ],
)
def test_a_block_that_cannot_be_written_is_reported_and_the_file_does_not_change(run, text, message):
    Path("README.md").write_text(text)
    with pytest.raises(TinyllmError, match=message):
        readme_blocks.main("demo")
    assert Path("README.md").read_text() == text


def test_nothing_is_written_if_the_run_lacks_a_stage(tiny):
    Path("README.md").write_text(README, encoding="utf-8")
    with pytest.raises(TinyllmError, match="3-prefer is missing"):
        readme_blocks.main("demo")
    assert Path("README.md").read_text(encoding="utf-8") == README
    assert readme_blocks.rewritten("no blocks", None) == "no blocks"
