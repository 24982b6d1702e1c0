"""The scoreboard of a run: every exam after every stage, side by side.

scoreboard.json is for programs, scoreboard.md for people; both are made from the exams.json of the stages.
"""

from pathlib import Path

from tinyllm.stages import FOLDERS
from tinyllm.training import RunError, read_json, write_json

ROWS = {                     # key of the exams -> what the row means
    "bits_per_byte": "surprise at held-out text, bits per byte",
    "validation_nats_per_character": "the same in nats per character",
    "masked_top1": "hidden tokens guessed right (masked model)",
    "fact_cloze": "facts of the world completed",
    "story_cloze": "ends of unseen stories completed",
}
BASELINES = ("floor_bits_per_byte", "fivegram_bits_per_byte", "fivegram_nats_per_character",
             "masked_majority")


def scoreboard(run):
    """Read what stages there are in runs/<run>, write scoreboard.json and .md there -> the table as text.

    Raises RunError where there is no finished stage.
    """
    root = Path("runs") / run
    there = [name for name in FOLDERS if (root / name / "exams.json").exists()]
    stages = {name: read_json(root / name / "exams.json") for name in there}
    if not stages:
        raise RunError(f"{root} has no finished stage. Make one with: make train RUN={run}")
    notes = [read_json(root / name / "stage.json") for name in stages]
    baselines = {key: exams[key] for exams in stages.values() for key in BASELINES if key in exams}
    board = {"seed": notes[0]["settings"]["seed"], "size": notes[0]["settings"]["size"],
             "wall_seconds": round(sum(note["wall_seconds"] for note in notes), 1), "baselines": baselines,
             "stages": {name: {key: exams.get(key) for key in ROWS} for name, exams in stages.items()}}
    write_json(root / "scoreboard.json", board)
    table = [["", *stages]]
    for key, meaning in ROWS.items():
        cells = [_cell(board["stages"][name][key]) for name in stages]
        if any(cells):
            table.append([meaning, *cells])
    text = "\n".join("| " + " | ".join(row) + " |" for row in [table[0], ["---"] * len(table[0]), *table[1:]])
    text += "\n\n" + "\n".join(f"{key}: {_cell(value)}" for key, value in baselines.items()) + "\n"
    (root / "scoreboard.md").write_text(text, encoding="utf-8", newline="\n")
    return text


def _cell(result):
    if result is None:
        return ""
    if isinstance(result, dict):
        return f"{result['value']:.3f} ({result['low']:.3f} to {result['high']:.3f})"
    return f"{result:.3f}"
