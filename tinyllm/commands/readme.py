"""make readme: rewrite the marked blocks of README.md from a run, so that no figure in them is typed by hand.

<!-- readme: scores -->
| | 0 random | ...
<!-- end -->
"""

import re
import textwrap
from pathlib import Path

from tinyllm.checkpoint.files import replacing
from tinyllm.errors import TinyllmError
from tinyllm.evaluation.scoreboard import ROWS, cell
from tinyllm.report.panels import LONG, SHORT, questions
from tinyllm.report.record import STAGES, Record

README = Path("README.md")
BLOCK = re.compile(r"(<!-- readme: ([^>\n]*) -->\n)(.*?)(<!-- end -->\n)", re.S)
HEADER = ("", "0 random", "1 pre-trained", "2 instruction-tuned", "3 preference-tuned", "4 reasoning")
TOKENS = {"s0": 20, "s4": LONG}  # of a reply, where not SHORT
SCORES = (
    "bits_per_byte",
    "story_cloze",
    "instruction_exact",
    "fact_questions",
    "follow_up_exact",
    "refuses_unsafe",
    "win_rate",
    "reasoning_exact",
)


def readme(settings):
    """Rewrite the marked blocks of README.md from a run with all its stages."""
    text = README.read_text(encoding="utf-8")
    with replacing(README) as beside:
        beside.write_text(rewritten(text, Record(settings.run, Path())), encoding="utf-8", newline="\n")


def rewritten(text, run):
    """The text with the contents of its blocks made anew. Raises TinyllmError for a block of unknown name, or
    one without an end, and Missing if a stage is not finished."""

    def block(match):
        if match[2] not in BLOCKS:
            raise TinyllmError(f"README.md has a block {match[2]!r}: known are {', '.join(BLOCKS)}")
        return match[1] + BLOCKS[match[2]](run) + match[4]

    if text.count("<!-- readme: ") != len(BLOCK.findall(text)):
        raise TinyllmError("README.md has a block without its line <!-- end -->")
    return BLOCK.sub(block, text)


def scores(run):
    """The rows of the scoreboard that tell the story, as a table."""
    stages = [run.stage(name) for name in STAGES]
    rows = [HEADER, ["---"] * len(HEADER)]
    rows += [[ROWS[key], *(cell(stage.exams.get(key), interval=False) for stage in stages)] for key in SCORES]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows).replace("  ", " ")


def samples(run):
    """Two prompts of the report page's first panel and the replies of all stages."""
    lines = []
    for task in (questions(run)[i] for i in (0, 4)):
        lines += ["", *textwrap.wrap(task.question, 100)]
        for stage in map(run.stage, STAGES):
            (reply,) = stage.replies([task.prompt], TOKENS.get(stage.kind, SHORT))
            reply = "".join(each if each.isprintable() else " " for each in reply)
            head = f"  {stage.name[0]}  "
            lines += textwrap.wrap(reply, 106, initial_indent=head, subsequent_indent=" " * 5) or [head]
    return textwrap.indent("\n".join(lines[1:]) + "\n", "    ")


BLOCKS = {"scores": scores, "samples": samples}
