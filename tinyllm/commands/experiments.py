"""Two experiments on stage 3: its algorithms side by side, and reward hacking without the KL penalty."""

import dataclasses
import json
from dataclasses import dataclass

from tinyllm import checkpoint
from tinyllm.checkpoint.files import read_json, replacing, write_json
from tinyllm.errors import UsageError
from tinyllm.evaluation import generation, preferences
from tinyllm.evaluation.scoreboard import table
from tinyllm.runs import ancestor, learned_by, option, parent_folder, path_of
from tinyllm.stages import s3_prefer
from tinyllm.stages.sizes import SIZES
from tinyllm.world import World

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
    "seconds",
)


@dataclass(frozen=True)
class AlgorithmsSettings(s3_prefer.PreferSettings):
    times: int = option(
        3, "training runs per algorithm, each with different prompts and sampled replies", (1, 100)
    )


def algorithms(settings):
    """Train with every algorithm of stage 3, several times each, on the same rankings for as many steps."""
    check_world(settings)
    names = [field.name for field in dataclasses.fields(s3_prefer.PreferSettings)]
    shared = {name: getattr(settings, name) for name in names}
    rows = []
    for algorithm in s3_prefer.ALGORITHMS:
        results = []
        for draw in range(settings.times):
            one = s3_prefer.PreferSettings(**shared | {"algorithm": algorithm, "draw": draw})
            results.append(train_and_examine(one, f"algorithms/{algorithm}-{draw}"))
        cells = [mean_and_range([result[key]["value"] for result in results]) for key in COLUMNS]
        rows.append([algorithm, *cells])
    text = table([["", *COLUMNS], *rows])
    text += f"\n{settings.times} runs each: mean (min to max), on held-out prompts, judged by the oracle\n"
    save_text(settings.folder("algorithms") / "table.md", text)


def hacking(settings):
    """Reward hacking: stage 3 without the KL penalty, at 4 times the learning rate and 3 times the steps."""
    if s3_prefer.ALGORITHMS[settings.algorithm].pairs:
        raise UsageError(
            f"{settings.algorithm} has no reward model whose score could be hacked: choose another"
        )
    check_world(settings)
    steps = settings.steps or 3 * SIZES[settings.size].prefer_steps
    settings = dataclasses.replace(settings, kl=0.0, rate=4 * settings.rate, steps=steps)
    train_and_examine(settings, "hacking")
    log = settings.folder("hacking") / "metrics.jsonl"
    scores, curves = {}, []
    for line in map(json.loads, log.read_text(encoding="utf-8").splitlines()):
        if "score" in line:
            scores[line["step"]] = line["score"], line["kl_nats_per_reply"]
        if "correct" in line:
            score, kl = scores[line["step"]]
            curves.append((line["step"] + 1, score, kl, line["answerable"], line["correct"]))
    rows = [[f"{step}", f"{s:.2f}", f"{kl:.1f}", f"{a:.3f}", f"{c:.3f}"] for step, s, kl, a, c in curves]
    header = [
        "step",
        "score of the reward model",
        "KL, nats per reply",
        "questions correct",
        "all kinds correct",
    ]
    save_text(settings.folder("hacking") / "curves.md", table([header, *rows]))


def check_world(settings):
    """Raises UsageError unless stage 2 and the rankings are those of the built-in world."""
    parent = parent_folder(settings, "2-instruct")
    if settings.rankings or path_of(learned_by(parent), "instructions") != "":
        raise UsageError(
            "replies are judged by the oracle of the built-in world: leave out RANKINGS=, and start "
            "from a stage 2 that has learned from the built-in world"
        )


def train_and_examine(settings, stage):
    """Run stage 3 in a separate folder, with the reward model of the run -> exam results."""
    folder = s3_prefer.main(settings, stage)
    if not (folder / "exams.json").exists():
        world, items = World(settings.seed), SIZES[settings.size].exam_items
        model, tokenizer = checkpoint.load_language_model(folder)
        start, _ = checkpoint.load(ancestor(folder, "2-instruct"))
        with settings.pool(model) as pool, settings.pool(start) as reference:
            results = preferences.measure_behaviour(pool, tokenizer, world, items)
            results |= preferences.compare_with_reference(pool, reference, tokenizer, world, items)
            results["fact_questions"] = generation.fact_questions(pool, tokenizer, world, items)
        results["seconds"] = {"value": read_json(folder / "stage.json")["wall_seconds"]}
        write_json(folder / "exams.json", results)
    return read_json(folder / "exams.json")


def mean_and_range(values):
    return f"{sum(values) / len(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def save_text(path, text):
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")
    print(text)
