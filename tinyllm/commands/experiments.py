"""Two things to see about stage 3: how its algorithms compare, and what happens without the leash."""

import dataclasses
import json
from dataclasses import dataclass

from tinyllm import checkpoint, interviews, report, reward, verdicts
from tinyllm.parallel import Team
from tinyllm.stages import s3_prefer
from tinyllm.training import is_finished, option, parent_of, read_json, write_json
from tinyllm.world import World

ALGORITHMS = ("reinforce", "rloo", "ppo", "grpo", "dpo")
COLUMNS = ("win_rate", "kl_nats_per_reply", "polite", "refuses_unsafe", "refuses_by_object",
           "answers_harmless", "admits_unknown", "fact_questions", "mean_words", "seconds")  # fmt: skip


@dataclass(frozen=True)
class Compare(s3_prefer.Prefer):
    times: int = option(3, "how often each algorithm is trained, each time on other prompts and replies")


def compare(cfg):
    """Train every algorithm of stage 3 on the same judge, prompts and budget, several times: a table."""
    rows = []
    for algorithm in ALGORITHMS:
        one = lambda draw, name=algorithm: only(s3_prefer.Prefer, cfg, algorithm=name, draw=draw)
        found = [trained(one(draw), f"compare/{algorithm}-{draw}") for draw in range(cfg.times)]
        rows.append([algorithm, *(spread([each[key]["value"] for each in found]) for key in COLUMNS)])
    text = report.table([["", *COLUMNS], *rows])
    text += f"\n{cfg.times} runs of each: mean (least to most), on held-out prompts, by the true judge\n"
    (cfg.folder("compare") / "table.md").write_text(text, encoding="utf-8", newline="\n")
    print(text)


def hacking(cfg):
    """Stage 3 without its leash: the proxy's score rises, what the true judge says of questions falls."""
    cfg = dataclasses.replace(cfg, kl=0.0, rate=4 * cfg.rate,
                              steps=cfg.steps or 3 * s3_prefer.BUDGETS[cfg.size]["steps"])  # fmt: skip
    trained(cfg, "hacking")
    lines = [json.loads(line) for line in (cfg.folder("hacking") / "metrics.jsonl").open(encoding="utf-8")]
    score = {line["step"]: line["score"] for line in lines if "score" in line}
    away = {line["step"]: line["kl_nats_per_reply"] for line in lines if "score" in line}
    truth = [line for line in lines if "right" in line]
    rows = [[str(line["step"] + 1), f"{score[line['step']]:.2f}", f"{away[line['step']]:.1f}",
             f"{line['answerable']:.3f}", f"{line['right']:.3f}"] for line in truth]  # fmt: skip
    text = report.table([["step", "score of the reward model", "nats from stage 2",
                   "questions right, by the true judge", "all kinds right"], *rows])  # fmt: skip
    (cfg.folder("hacking") / "curves.md").write_text(text, encoding="utf-8", newline="\n")
    print(text)


def only(settings, cfg, **changes):
    """The fields of one settings class, taken from another's, with changes."""
    names = [field.name for field in dataclasses.fields(settings)]
    return settings(**{name: changes.get(name, getattr(cfg, name)) for name in names})


def trained(cfg, stage):
    """Stage 3 once, in a folder of its own, with the judge of the run -> its exams, but only those of manners
    and of what may be lost by them."""
    parent = parent_of(cfg, "2-instruct", "stage2")
    folder, world = cfg.folder(stage), World(cfg.seed)
    if not is_finished(cfg, stage, parent):
        model, tokenizer = checkpoint.load(parent)
        found = s3_prefer.find_rankings(cfg, parent)
        judge = reward.train(s3_prefer.judging(cfg), parent, found)
        with (Team.of(model, cfg.team_size()) as reference,
              reward.Judge(judge, cfg.team_size()) as judge):  # fmt: skip

            def examine(team, tokenizer, _, folder):
                results = verdicts.behaviour(team, tokenizer, world)
                results |= verdicts.duel(team, reference, tokenizer, world)
                results |= {"fact_questions": interviews.facts(team, tokenizer, world)}
                write_json(folder / "exams.json", results)

            s3_prefer.align(cfg, stage, parent, tokenizer, reference,
                            judge if cfg.algorithm != "dpo" else None, found, world, examine)
    seconds = {"value": read_json(folder / "stage.json")["wall_seconds"]}
    return read_json(folder / "exams.json") | {"seconds": seconds}


def spread(values):
    return f"{sum(values) / len(values):.3g} ({min(values):.3g} to {max(values):.3g})"
