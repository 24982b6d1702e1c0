"""make readme: rewrite the marked blocks of README.md from a run, so that nobody types their numbers by hand.

<!-- readme: scores -->
| | 0 random | ...
<!-- end -->
"""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

from tinyllm.checkpoint.files import write_text
from tinyllm.errors import TinyllmError
from tinyllm.evaluation.generation import converse_with_tools
from tinyllm.evaluation.scoreboard import ROWS, cell
from tinyllm.report.panels import questions
from tinyllm.report.record import STAGES, TOKENS, Record
from tinyllm.world.conversations import TOOLS_MESSAGE
from tools.builtin import calculator
from tools.registry import Registry

README = Path("README.md")
BLOCK = re.compile(r"(<!-- readme: ([^>\n]*) -->\n)(.*?)(<!-- end -->\n)", re.S)
HEADER = ("", "0 random", "1 pre-trained", "2 instruction-tuned", "3 preference-tuned", "4 reasoning")
SCORES = (
    "bits_per_byte",
    "instruction_exact",
    "fact_questions",
    "refuses_unsafe",
    "win_rate",
    "reasoning_exact",
)
ABILITIES = (  # stage, its new ability, index of the question in the report that shows it
    ("2-instruct", "answers questions about what it has read", 0),
    ("3-prefer", "refuses harmful requests and admits what it does not know", 3),
    ("4-reason", "solves problems step by step", 5),
)
TYPED = ("What is the home of Cara?", "And what pet does she have?", "Use the calculator. What is 12*7?")


def main(run):
    """Rewrite the marked blocks of README.md from a run with all its stages."""
    text = README.read_text(encoding="utf-8")
    write_text(README, rewritten(text, Record(run)))


def rewritten(text, run):
    """The text with new contents in its blocks. Raises TinyllmError for a block with an unknown name or
    without an end, or if a stage is not finished."""

    def block(match):
        if match[2] not in BLOCKS:
            raise TinyllmError(
                f"README.md has an unknown block {match[2]!r}; the known blocks are {', '.join(BLOCKS)}"
            )
        return match[1] + BLOCKS[match[2]](run) + match[4]

    if text.count("<!-- readme: ") != len(BLOCK.findall(text)):
        raise TinyllmError("README.md has a block without its line <!-- end -->")
    return BLOCK.sub(block, text)


def abilities(run):
    """A table of three stages: what each can do now, and one real answer."""
    rows = [("stage", "what it can do now", "one real answer"), ("---",) * 3]
    for name, ability, number in ABILITIES:
        task = questions(run)[number]
        answer = f"*{task.question}* {reply_of(run.stage(name), task)}"
        rows.append((name.replace("-", " "), ability, answer.replace("|", "\\|")))
    return table(rows)


def scores(run):
    """The rows of the scoreboard that tell the story, as a table."""
    stages = [run.stage(name) for name in STAGES]
    rows = [HEADER, ["---"] * len(HEADER)]
    rows += [[ROWS[key], *(cell(stage.exams.get(key), interval=False) for stage in stages)] for key in SCORES]
    pretrained = stages[1].exams
    return table(rows) + (
        "\nBits per byte measure how badly a text is predicted: lower is better. "
        f"A 5-gram table needs {pretrained['fivegram_bits_per_byte']:.3f},\n"
        f"and {pretrained['entropy_bits_per_byte']:.3f} is the estimated entropy of the text itself.\n"
    )


def table(rows):
    return "".join(f"| {' | '.join(row)} |\n" for row in rows).replace("  ", " ")


def samples(run):
    """Two prompts of the first panel of the report page, and the replies of all stages."""
    lines = []
    for task in (questions(run)[i] for i in (0, 4)):
        lines += ["", *textwrap.wrap(task.question, 100)]
        for stage in map(run.stage, STAGES):
            reply = reply_of(stage, task)
            reply = reply if stage.name == STAGES[-1] else textwrap.shorten(reply, 100, placeholder=" ...")
            lines += folded(reply, f"  {stage.name[0]}  ", " " * 5)
    return indented(lines[1:])


def chat(run):
    """A conversation with the last stage, which can use the calculator."""
    stage, messages, lines = run.stage(STAGES[-1]), [TOOLS_MESSAGE], []
    for question in TYPED:
        prompt = [*messages, {"role": "user", "content": question}]
        tokenizer, registry = stage.checkpoint[1], Registry([calculator])
        (messages,) = converse_with_tools(stage.pool, tokenizer, [prompt], registry, TOKENS[stage.name])
        for message in messages[len(prompt) - 1 :]:
            head = {"user": "> ", "tool": "  result: "}.get(message["role"], "  ")
            lines += folded(printable(message["content"]), head, "  ")
    return indented(lines)


def reply_of(stage, task):
    (reply,) = stage.replies([task])
    return printable(reply)


def printable(text):
    return "".join(each if each.isprintable() else " " for each in text)


def folded(text, head, below):
    return textwrap.wrap(text, 106, initial_indent=head, subsequent_indent=below) or [head.rstrip()]


def indented(lines):
    return textwrap.indent("\n".join(lines) + "\n", "    ")


def tools(run):
    """The end of the fourth part of `make tools`: a call, its result and the answer."""
    command = [sys.executable, "-m", "tools"]
    printed = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
    lines = re.search(r"^\[assistant\] Fixed.*?\[assistant\] 84.*?$", printed, re.M | re.S)[0].splitlines()
    return indented([each for line in lines for each in folded(line, "", "  ")])


BLOCKS = {"abilities": abilities, "samples": samples, "chat": chat, "scores": scores, "tools": tools}

if __name__ == "__main__":
    main(*sys.argv[1:] or ["demo"])
