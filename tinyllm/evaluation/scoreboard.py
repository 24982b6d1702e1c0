"""The scoreboard of a run: every exam after every stage, side by side.

scoreboard.json is for programs, scoreboard.md for people; both are made from the stages' exams.json. The
commands train, mine, control and exams print only the rows of STORY.
"""

from pathlib import Path

from tinyllm.checkpoint.files import read_json, write_json, write_text
from tinyllm.errors import TinyllmError
from tinyllm.runs import finished_stages

ROWS_MOVED_BY = {  # the stage that should change these scores -> {key in exams.json: meaning of the row}
    "1-pretrain": {
        "bits_per_byte": "bits per byte on held-out text",
        "validation_nats_per_character": "nats per character on held-out text",
        "masked_top1": "hidden tokens guessed right (masked model)",
        "induction": "random tokens, written twice: tokens of the second copy predicted",
        "fact_cloze": "facts of the world completed correctly",
        "story_cloze": "endings of unseen stories predicted correctly",
    },
    "2-instruct": {
        "instruction_exact": "instructions answered correctly",
        "instruction_yes_no": "yes/no questions answered correctly",
        "fact_questions": "questions about facts that training stated but never asked about",
        "unseen_wording": "instructions in unseen wordings",
        "instruction_exact_with_tools": "instructions answered correctly after a description of the tools",
        "follow_up_exact": "follow-up questions, in conversations of 2 to 4 turns",
        "small_talk_exact": "greetings, thanks and questions about the model, in unseen wordings",
        "unknown_topic_exact": "questions about unknown topics: the model says that it does not know",
        "stops": "replies that end with the end token",
        "own_questions_exact": "your held-out questions answered as expected",
        "own_questions_commonest": "your held-out questions answered by always giving the most common answer",
        "own_questions_log_prob": "log-prob of the expected answer, nats",
    },
    "3-prefer": {
        "win_rate": "win rate against stage 2, judged by the oracle",
        "polite": "polite replies",
        "refuses_unsafe": "harmful requests refused",
        "refuses_by_object": "harmful requests refused (harmful only because of their object)",
        "answers_harmless": "harmless requests answered",
        "admits_unknown": "replies that admit not knowing a person who does not exist",
        "mean_words": "words per reply",
        "kl_nats_per_reply": "KL divergence from stage 2, nats per reply",
        "reward_pair_accuracy": "pairs that the reward model ranks correctly",
        "reward_pairs_answerable": "pairs ranked correctly: questions that have an answer",
        "reward_pairs_stranger": "pairs ranked correctly: questions about people who do not exist",
        "reward_pairs_harm": "pairs ranked correctly: harmful requests",
        "reward_pairs_harm_by_object": "pairs ranked correctly: requests made harmful by their object",
        "reward_pairs_harmless": "pairs ranked correctly: harmless requests",
        "length_only_accuracy": "pairs ranked correctly by length alone",
        "own_win_rate": "win rate against stage 2 on your held-out prompts, judged by the reward model",
        "own_pair_accuracy": "your held-out pairs that the reward model ranks correctly",
    },
    "4-reason": {
        "reasoning_exact": "problems of 2 to 4 steps, with a chain of thought",
        "reasoning_five_steps": "problems of 5 steps (training has at most 4)",
        "reasoning_direct": "problems of 2 to 4 steps, answered at once",
        "chain_valid": "problems solved with every step right",
        "logic_exact": "logic problems solved",
        "logic_order": "logic problems solved: who is first or last",
        "logic_truth": "logic problems solved: whether A is taller than B",
        "logic_mistake": "logic problems solved: which sum is wrong",
        "calculator_exact": "problems solved with the calculator",
        "tool_call_valid": "tool calls that are valid",
        "tool_call_valid_masked": "tool calls that are valid when the grammar's mask constrains them",
        "own_problems_exact": "your held-out problems solved",
        "own_problems_commonest": "your held-out problems solved by always giving the most common answer",
    },
}
ROWS = {key: meaning for rows in ROWS_MOVED_BY.values() for key, meaning in rows.items()}
STORY = (  # the rows that the commands print
    "bits_per_byte",
    "story_cloze",
    "instruction_exact",
    "fact_questions",
    "unseen_wording",
    "follow_up_exact",
    "small_talk_exact",
    "win_rate",
    "polite",
    "refuses_unsafe",
    "admits_unknown",
    "reasoning_exact",
    "logic_exact",
    "calculator_exact",
    "own_questions_exact",
    "own_questions_commonest",
    "own_questions_log_prob",
    "own_problems_exact",
    "own_win_rate",
    "own_pair_accuracy",
)
# row -> {key in exams.json: name of a limit or of a method without a model}. The key "even" stands for 0.5.
BASELINES = {
    "bits_per_byte": {
        "entropy_bits_per_byte": "the estimated entropy of the text itself",
        "fivegram_bits_per_byte": "a 5-gram table",
    },
    "validation_nats_per_character": {"fivegram_nats_per_character": "a 5-gram table"},
    "masked_top1": {"masked_majority": "always the most frequent token"},
    "instruction_exact": {"instruction_exact_commonest_answer": "always the most common answer"},
    "reasoning_exact": {
        "reasoning_exact_commonest_answer": "always the most common answer",
        "reasoning_exact_add_all_numbers": "the sum of all numbers",
    },
    "logic_exact": {"logic_exact_commonest_answer": "always the most common answer"},
    "win_rate": {"even": "chance"},
    "reward_pair_accuracy": {"even": "chance", "length_only_accuracy": "by length alone"},
    "own_questions_exact": {"own_questions_commonest": "always the most common answer"},
    "own_problems_exact": {"own_problems_commonest": "always the most common answer"},
}
BASELINE_KEYS = [key for keys in BASELINES.values() for key in keys]


def scoreboard(run):
    """Write scoreboard.json and scoreboard.md in runs/<run>, and return the rows of STORY as text.

    Raises TinyllmError if no stage has exam results.
    """
    root = Path("runs") / run
    folders = [folder for folder in finished_stages(run) if (folder / "exams.json").exists()]
    if not folders:
        raise TinyllmError(f"{root} has no exam results. Run: make train RUN={run}, or make exams RUN={run}")
    stages = {folder.name: read_json(folder / "exams.json") for folder in folders}
    notes = [read_json(path) for folder in folders for path in sorted(folder.rglob("stage.json"))]
    keys = [key for key in BASELINE_KEYS if key not in ROWS]
    baselines = {key: exams[key] for exams in stages.values() for key in keys if key in exams}
    seconds = sum(note["wall_seconds"] for note in notes) + sum(exams["seconds"] for exams in stages.values())
    board = {"seed": notes[0]["settings"]["seed"], "size": notes[0]["settings"]["size"]}
    board |= {"wall_seconds": round(seconds, 1), "baselines": baselines}
    board["stages"] = {name: {key: exams.get(key) for key in ROWS} for name, exams in stages.items()}
    write_json(root / "scoreboard.json", board)
    footer = "\n".join(f"{key}: {cell(value, interval=True)}" for key, value in baselines.items())
    write_text(root / "scoreboard.md", f"{rows_of(stages, ROWS, interval=True)}\n{footer}\n")
    return f"{rows_of(stages, STORY, interval=False)}\nevery row, with intervals: {root / 'scoreboard.md'}"


def rows_of(stages, keys, interval):
    rows = [["", *stages]]
    for key in keys:
        cells = [cell(exams.get(key), interval) for exams in stages.values()]
        if any(cells):
            rows.append([ROWS[key], *cells])
    return table(rows)


def table(rows):
    """Rows of cells, the header first -> a Markdown table, padded so that it reads well as plain text."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    rows = [rows[0], ["-" * width for width in widths], *rows[1:]]
    lines = [" | ".join(text.ljust(width) for text, width in zip(row, widths)) for row in rows]
    return "".join(f"| {line} |\n" for line in lines)


def cell(result, interval):
    if result is None:
        return ""
    if not isinstance(result, dict):
        return f"{result:.3f}"
    value = f"{result['value']:.3f}"
    return f"{value} ({result['low']:.3f} to {result['high']:.3f})" if interval else value
