"""Two experiments on stage 3: its algorithms side by side, and reward hacking without the KL penalty."""

import dataclasses

from tinyllm.checkpoint.files import read_json
from tinyllm.errors import UsageError
from tinyllm.evaluation.exams import examine
from tinyllm.evaluation.scoreboard import table
from tinyllm.report import page
from tinyllm.report.record import Record
from tinyllm.runs import learned_by, parent_folder, path_of
from tinyllm.stages import s3_prefer
from tinyllm.stages.sizes import SIZES

DRAWS = 3  # runs of each algorithm, with different prompts and sampled replies
COLUMNS = (
    "win_rate",
    "kl_nats_per_reply",
    "polite",
    "refuses_unsafe",
    "refuses_by_object",
    "answers_harmless",
    "admits_unknown",
    "fact_questions",
    "mean_words",
)


def algorithms(settings):
    """Run each of stage 3's algorithms three times, on the same rankings and for the same number of steps."""
    check_world(settings)
    rows = []
    for algorithm in s3_prefer.ALGORITHMS:
        results = []
        for draw in range(DRAWS):
            one = dataclasses.replace(settings, algorithm=algorithm, draw=draw)
            folder = s3_prefer.main(one, f"algorithms/{algorithm}-{draw}")
            examine(folder, settings)
            results.append(read_json(folder / "exams.json"))
        cells = [mean_and_range([result[key]["value"] for result in results]) for key in COLUMNS]
        rows.append([algorithm, *cells])
    print(table([["", *COLUMNS], *rows]))
    print(f"{DRAWS} runs of each algorithm: mean (min to max), on held-out prompts, judged by the oracle")


def mean_and_range(values):
    return f"{sum(values) / len(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def hacking(settings):
    """Reward hacking: stage 3 with no KL penalty, 4 times the learning rate and 3 times the steps."""
    if s3_prefer.ALGORITHMS[settings.algorithm].pairs:
        raise UsageError(f"{settings.algorithm} has no reward model to hack: choose another ALGORITHM=")
    check_world(settings)
    steps = settings.steps or 3 * SIZES[settings.size].prefer_steps
    usual, rate = s3_prefer.PreferSettings.rate, settings.rate
    settings = dataclasses.replace(settings, kl=0.0, rate=4 * usual if rate == usual else rate, steps=steps)
    s3_prefer.main(settings, "hacking")
    log = Record(settings.run).stages["hacking"]
    scores = dict(log.series("score"))
    for step, correct in log.series("correct"):
        print(f"step {step + 1}: score of the reward model {scores[step]:.2f}, correct replies {correct:.1%}")
    print(f"curves and replies: panel 5 of {page.write(settings.run)}")


def check_world(settings):
    """Raises UsageError unless stage 2 has learned from the built-in world and no RANKINGS= are given."""
    parent = parent_folder(settings, "2-instruct")
    if settings.rankings or path_of(learned_by(parent), "instructions") != "":
        raise UsageError(
            "replies are judged by the oracle of the built-in world: leave out RANKINGS=, and start "
            "from a stage 2 that has learned from the built-in world"
        )
