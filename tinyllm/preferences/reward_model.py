"""The reward model learns from rankings to score a reply as people would.

People cannot rank every reply that reinforcement learning samples, so the reward model scores them instead.
It is the model of stage 2 with another head, which gives one number per position. The number at the end token
of a reply is the score (Christiano et al. 2017; Ziegler et al. 2019). Only differences between scores carry
meaning, so scores are normalised after training: over the training replies they have mean 0 and standard
deviation 1.

    P rankings of K completions -> ids (P, K, T) -> scores (P, K, T), read at the positions `last` (P, K)
"""

import contextlib
import dataclasses
from dataclasses import dataclass

import numpy as np

from tinyllm import checkpoint
from tinyllm.checkpoint.files import read_json, write_json
from tinyllm.data.batches import length_buckets
from tinyllm.data.conversation import pad
from tinyllm.objectives import plackett_luce
from tinyllm.optimizer import Rates
from tinyllm.parallel import map_by_length
from tinyllm.preferences.rankings import encode_ranking
from tinyllm.runs import TrainingSettings, nothing_to_do, option
from tinyllm.training import Run
from tinyllm.transformer import Transformer

STAGE = "3-prefer/reward"
TOKENS = 4096  # in a batch


@dataclass(frozen=True)
class RewardSettings(TrainingSettings):
    """The settings of stage 3 that the reward model depends on. If only other settings change, the reward
    model is not trained again."""

    rankings: str = option("", "file of rankings or preference pairs (default: simulated)", source="rankings")
    reward_steps: int = option(0, "batches that the reward model learns from (default: set by --size)")
    save_every: int = option(20, "steps between saves", (1, 10**6))


def train(settings, parent, rankings, steps):
    """Train a reward model on `steps` batches of rankings (rankings.Ranking) and return its folder. Training
    starts from the checkpoint `parent`."""
    settings = dataclasses.replace(settings.as_settings(RewardSettings), reward_steps=steps)
    folder = settings.folder(STAGE)
    if nothing_to_do(settings, STAGE, parent):
        return folder
    base, tokenizer = checkpoint.load_language_model(parent)
    groups = [(encode_ranking(tokenizer, ranking), ranking.ranks) for ranking in rankings]
    sizes = [max(len(ids) for ids, _ in rows) * len(rows) for rows, _ in groups]
    plan = length_buckets(sizes, TOKENS, steps, [settings.seed, 14])
    rates = Rates("muon", muon=0.003, adamw=1e-3, warmup=10, steps=steps)
    model = with_score_head(base, settings.seed)
    with Run(settings, STAGE, model, tokenizer, steps, parent) as run:
        for step in run.steps():
            batch = [ranking_batch([groups[i] for i in plan[step]])]
            run.train_step(step, plackett_luce, batch, rates, total=len(plan[step]))
        scores = raw_scores(run.pool, [ids for rows, _ in groups for ids, _ in rows])
        scale = {"mean": float(scores.mean()), "deviation": float(scores.std() or 1)}
        write_json(folder / "scale.json", scale)
    return folder


def with_score_head(base, seed):
    """A copy of `base` with a random score head of standard deviation 1/sqrt(C + 1) (Ziegler et al. 2019)."""
    model = Transformer(dataclasses.replace(base.config, head="score"))
    for name, w in model.params.items():
        if name != "score":
            w[:] = base.params[name]
    rng = np.random.default_rng([seed, 13])
    model.params["score"][:] = rng.standard_normal(base.config.width) / np.sqrt(base.config.width + 1)
    return model


def ranking_batch(groups):
    """[(rows, ranks)] -> ids (P, K, T), last (P, K), ranks (P, K), padded with 0."""
    most = max(len(rows) for rows, _ in groups)
    empty = ([0], [0])
    padded = [ids for rows, _ in groups for ids, _ in [*rows, *[empty] * (most - len(rows))]]
    last = np.array([len(ids) - 1 for ids in padded]).reshape(-1, most)
    # Not with `pad`, which makes 32-bit integers: the ranks in a file may be larger.
    ranks = np.array([[*ranks, *[0] * (most - len(ranks))] for _, ranks in groups])
    return {"ids": pad(padded).reshape(*last.shape, -1), "last": last, "ranks": ranks}


@contextlib.contextmanager
def scorer(folder, settings):
    """A context manager that gives the reward model in `folder` as a function: lists of ids, each a prompt
    and a reply -> normalised scores, read at the last token of each."""
    model, _ = checkpoint.load(folder)
    scale = read_json(folder / "scale.json")
    with settings.pool(model) as pool:
        yield lambda rows: (raw_scores(pool, rows) - scale["mean"]) / scale["deviation"]


def raw_scores(pool, rows):
    """Lists of ids -> the score at the last token of each."""
    return np.array(map_by_length(pool, _last_scores, rows, size=64), float)


def _last_scores(model, rows):
    return model.forward(pad(rows))[0][np.arange(len(rows)), [len(row) - 1 for row in rows]]
