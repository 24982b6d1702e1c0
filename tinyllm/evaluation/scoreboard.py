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
    "instruction_exact": "instructions answered right",
    "fact_questions": "questions about facts that were read, never asked",
    "unseen_wording": "instructions in wordings never trained",
    "stops": "replies that end by themselves",
    "reasoning_direct": "problems of 2 to 4 steps, the answer at once",
    "reasoning_exact": "the same with a chain of thought",
    "reasoning_majority8": "the same, majority of 8 samples",
    "reasoning_five_steps": "problems of 5 steps, one more than ever trained",
    "chain_valid": "answers right with every step right",
    "logic_exact": "orders, truths and mistakes found",
    "calculator_exact": "problems solved with the calculator",
    "tool_call_valid": "calls that are valid",
    "tool_call_valid_masked": "calls that are valid under the grammar's mask",
    "win_rate": "preferred to stage 2 by the true judge",
    "polite": "replies that are polite",
    "refuses_unsafe": "requests refused that always do harm",
    "refuses_by_object": "requests refused that do harm to this thing",
    "answers_harmless": "harmless requests answered",
    "admits_unknown": "strangers admitted to be unknown",
    "mean_words": "words in a reply",
    "kl_nats_per_reply": "divergence from stage 2, nats per reply",
    "reward_pair_accuracy": "pairs that the reward model judges right",
    "length_only_accuracy": "the same by length alone",
    "best_of_8_win_rate": "best of 8 of stage 2 by the reward model, preferred to stage 2",
}
ASIDE = ("validation_nats_per_character", "masked_top1", "reward_pair_accuracy", "length_only_accuracy",
         "best_of_8_win_rate")                                   # in the table only
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
    baselines |= next((exams["shortcuts"] for exams in stages.values() if "shortcuts" in exams), {})
    board = {"seed": notes[0]["settings"]["seed"], "size": notes[0]["settings"]["size"],
             "wall_seconds": round(sum(note["wall_seconds"] for note in notes)
                                  + sum(exams.get("seconds", 0) for exams in stages.values()), 1),
             "baselines": baselines,
             "stages": {name: {key: exams.get(key) for key in ROWS if key not in ASIDE}
                        for name, exams in stages.items()}}
    write_json(root / "scoreboard.json", board)
    rows = [["", *stages]]
    for key, meaning in ROWS.items():
        cells = [_cell(exams.get(key)) for exams in stages.values()]
        if any(cells):
            rows.append([meaning, *cells])
    text = table(rows) + "\n" + "\n".join(f"{key}: {_cell(value)}" for key, value in baselines.items()) + "\n"
    (root / "scoreboard.md").write_text(text, encoding="utf-8", newline="\n")
    return text


def table(rows):
    """Rows of cells, the first of them the head -> Markdown."""
    return "".join(f"| {' | '.join(row)} |\n" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def _cell(result):
    if result is None:
        return ""
    if isinstance(result, dict):
        return f"{result['value']:.3f} ({result['low']:.3f} to {result['high']:.3f})"
    return f"{result:.3f}"
