"""The reward model: a judge that has learned from rankings what people prefer.

It is the model of stage 2 with another head: one number per position, of which the one at the end token of a
reply counts (Christiano et al. 2017; Ziegler et al. 2019). A score means something only beside others, so it
is normalised afterwards: replies of stage 2 have mean 0 and deviation 1.

    P rankings of K completions -> ids (P, K, T) -> scores (P, K, T), read at last (P, K)
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from tinyllm import checkpoint
from tinyllm.conversation import pad, prompt
from tinyllm.intervals import share
from tinyllm.lessons import neighbours
from tinyllm.objectives import plackett_luce
from tinyllm.parallel import Team
from tinyllm.rankings import spelled
from tinyllm.training import Rates, Run, RunError, Settings, is_finished, option, read_json, write_json
from tinyllm.transformer import Transformer
from tinyllm.world import manners
from tinyllm.world.dice import Dice

FOLDER = "3-prefer/reward"
BUDGETS = {"nano": 40, "small": 200, "base": 400}


@dataclass(frozen=True)
class Judging(Settings):
    rankings: str = option("", "the rankings it learned from")
    origin: str = option("", "checkpoint folder it started from")
    steps: int = option(0, "batches to train on (default: as the size says)")
    tokens: int = option(4096, "tokens in a batch")
    muon_rate: float = option(0.003, "peak learning rate of Muon")
    adamw_rate: float = option(1e-3, "peak learning rate of AdamW")
    save_every: int = option(200, "steps between checkpoints")


def train(cfg, parent, rankings):
    """Learn from rankings (rankings.Ranking) -> the folder of the reward model."""
    folder = cfg.folder(FOLDER)
    if is_finished(cfg, FOLDER, parent):
        return folder
    base, tokenizer = checkpoint.load(parent)
    spell_out = lambda ranking: (spelled(tokenizer, ranking, base.config.context), ranking.ranks)
    fit = [(rows, ranks) for rows, ranks in map(spell_out, rankings) if rows]
    if not fit:
        raise RunError(f"no ranking fits into the context of {base.config.context} tokens")
    groups, ranks = zip(*fit)
    steps, rates = cfg.steps or BUDGETS[cfg.size], Rates("muon", cfg.muon_rate, cfg.adamw_rate, warmup=10)
    sizes = [max(len(ids) for ids, _ in rows) * len(rows) for rows in groups]
    batches = neighbours(sizes, cfg.tokens, steps, [cfg.seed, 14])
    batch = lambda step: together([groups[i] for i in batches[step]], [ranks[i] for i in batches[step]])
    with Run(cfg, FOLDER, with_score(base, cfg.seed), tokenizer, steps, parent, cfg.save_every) as run:
        run.announce(plackett_luce, [batch(0)], rates)
        for step in run.steps():
            run.train(step, plackett_luce, [batch(step)], rates, total=len(batches[step]))
        said = scores(run.team, [ids for rows in groups for ids, _ in rows])
        write_json(folder / "scale.json", {"mean": float(said.mean()), "deviation": float(said.std() or 1)})
        run.finish()
    return folder


def with_score(base, seed):
    """The same model with a score for a head, of random weights (deviation 1/sqrt(C+1), Ziegler et al.)."""
    model = Transformer(dataclasses.replace(base.config, head="score"))
    for name, w in model.params.items():
        w[:] = base.params[name] if name != "score" else 0
    rng = np.random.default_rng([seed, 13])
    model.params["score"][:] = rng.standard_normal(base.config.width) / np.sqrt(base.config.width + 1)
    return model


def together(groups, ranks):
    """Rankings -> ids (P, K, T), last (P, K), ranks (P, K), all padded with 0."""
    most = max(map(len, groups))
    rows = [row for group in groups for row in [*group, *[([0], [0])] * (most - len(group))]]
    ids, _ = pad(rows)
    last = np.array([len(ids) - 1 for ids, _ in rows]).reshape(-1, most)
    places = np.array([[*places, *[0] * (most - len(places))] for places in ranks])
    return ids.reshape(-1, most, ids.shape[1]), last, places


# ---- judging ---------------------------------------------------------------------------------------

def last_scores(replica, rows):
    """Lists of ids -> the score of each, at its last token."""
    ids, _ = pad([(row, row) for row in rows])
    return replica.model.forward(ids)[0][np.arange(len(rows)), [len(row) - 1 for row in rows]]


def scores(team, rows):
    """Lists of ids, each up to the end token of a reply -> scores, raw."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    parts = [order[i:i + 64] for i in range(0, len(order), 64)]
    found = np.zeros(len(rows))
    for part, said in zip(parts, team.run(last_scores, [[rows[i] for i in part] for part in parts])):
        found[part] = said
    return found


class Judge:
    """A trained reward model, ready to score. Use as a context manager."""

    def __init__(self, folder, workers):
        model, _ = checkpoint.load(folder)
        scale = read_json(folder / "scale.json")
        self.mean, self.deviation = scale["mean"], scale["deviation"]
        self.team = Team.of(model, workers)

    def scores(self, rows):
        """Lists of ids -> scores, of mean 0 and deviation 1 for replies of stage 2."""
        return (scores(self.team, rows) - self.mean) / self.deviation

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.team.close()


def accuracy(judge, tokenizer, world, split="test", count=200):
    """How often the judge prefers the better reply of constructed pairs, of each kind of prompt and in all;
    and how often the shorter, or the longer, would have been the better one."""
    kinds, longer, end = {}, 0, tokenizer.special["<|end|>"]
    row = lambda task, text: [*prompt(tokenizer, task.prompt), *tokenizer.encode(" " + text), end]
    for kind in manners.KINDS:
        dice = Dice(f"pairs {kind} {split} of world {world.seed}")
        pairs = [manners.pair(dice, world, split, kind) for _ in range(count)]
        good, bad = (judge.scores([row(pair[0], pair[side]) for pair in pairs]) for side in (1, 2))
        kinds[kind] = share(int((good > bad).sum()), count)
        words = [(len(good.split()), len(bad.split())) for _, good, bad in pairs]
        longer += sum((a > b) + 0.5 * (a == b) for a, b in words)
    total = count * len(kinds)
    hits = sum(round(kind["value"] * count) for kind in kinds.values())
    return {"reward_pair_accuracy": share(hits, total), "reward_kinds": kinds,
            "length_only_accuracy": share(max(longer, total - longer), total)}
