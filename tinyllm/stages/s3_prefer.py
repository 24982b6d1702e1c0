"""Stage 3: please. People rank what stage 2 answers, a reward model learns their rankings (reward.py), and
reinforcement makes likelier what it scores higher, on a leash to stage 2.

    J = E[ score(reply) - kl * sum_t KL_t ],   KL_t = KL(policy || stage 2) at position t, over all V tokens

    grad J = E[ sum_t grad log p(y_t) A_t - kl * sum_t grad KL_t ]
    A_t    = score - baseline - kl * (KL of the positions after t): what token t is to blame or to praise for

ALGORITHM= changes the advantage, and no more: reinforce (Williams 1992; the mean of the batch is the
baseline), rloo (the mean of the other replies to the prompt), grpo (standardised within the group), ppo (a
value for each position, GAE, two clipped updates for each batch of replies); dpo needs no reward model and no
replies: it learns from the rankings straight.
"""

import sys
from dataclasses import dataclass

import numpy as np

from tinyllm import advantages, checkpoint, exams, rankings, reward, rollouts, verdicts
from tinyllm.conversation import pad, prompt, read, shift
from tinyllm.objectives import on_a_leash, preference
from tinyllm.parallel import Team
from tinyllm.training import Rates, Run, RunError, Settings, UsageError, is_finished, option, parent_of
from tinyllm.world import World, manners
from tinyllm.world.dice import Dice

BUDGETS = {"nano": {"rankings": 300, "steps": 6}, "small": {"rankings": 2000, "steps": 50},
           "base": {"rankings": 4000, "steps": 150}}  # fmt: skip
PROMPTS, GROUP, ROOM = 32, 4, 64
TRUNCATED = -3.0             # the score of a reply that did not end: as bad as any
BASELINES = {"reinforce": advantages.against_batch, "rloo": advantages.leave_one_out,
             "grpo": advantages.standardised}  # fmt: skip
BETA = 0.1                   # of DPO
FALLING = 0.5                # the rate falls in the second half only: from the beginning on, it teaches too
                             # little; never, the kinds of prompts get better and worse in turns
ASKED = 40                   # prompts of each kind for validation


@dataclass(frozen=True)
class Prefer(Settings):
    algorithm: str = option("reinforce", "how the policy learns",
                            choices=("reinforce", "rloo", "ppo", "grpo", "dpo"))  # fmt: skip
    rankings: str = option("", "rankings or chosen/rejected JSONL (default: runs/<run>/rankings.jsonl of "
                               "make rank, else a simulated annotator)")  # fmt: skip
    text: str = option("", "file or folder of text to measure with (default: the built-in world)")
    origin: str = option("", "checkpoint folder to start from (default: 2-instruct of this run)", flag="from")
    steps: int = option(0, "steps of reinforcement (default: as the size says)")
    kl: float = option(0.2, "the leash: what a nat of divergence from stage 2 costs, in score")
    rate: float = option(2e-4, "peak learning rate of AdamW")
    draw: int = option(0, "another number draws other prompts and replies")
    save_every: int = option(20, "steps between checkpoints")


def main(cfg, stage="3-prefer"):
    if cfg.text and not cfg.rankings:
        raise UsageError("the built-in annotator knows the built-in world only: after a --text of your own, "
                         "stage 3 needs --rankings of your own")
    parent = parent_of(cfg, "2-instruct", "stage2")
    if is_finished(cfg, stage, parent):
        return
    model, tokenizer = checkpoint.load(parent)
    if tokenizer is None or not model.config.causal:
        raise RunError(f"{parent} cannot learn preferences: it has no tokenizer, or is a masked model")
    world, found = World(cfg.seed), find_rankings(cfg, parent)
    with Team.of(model, cfg.team_size()) as reference:
        if cfg.algorithm == "dpo":
            align(cfg, stage, parent, tokenizer, reference, None, found, world)
        else:
            folder = reward.train(judging(cfg), parent, found)
            with reward.Judge(folder, cfg.team_size()) as judge:
                if not cfg.rankings:
                    tell(reward.accuracy(judge, tokenizer, world, "val"))
                align(cfg, stage, parent, tokenizer, reference, judge, found, world)


def judging(cfg):
    return reward.Judging(cfg.run, cfg.size, cfg.seed, cfg.workers, cfg.resume, cfg.rankings, cfg.origin)


def tell(found):
    """A good average hides a bad judge: each kind of prompt is shown."""
    each = ", ".join(f"{kind} {result['value']:.2f}" for kind, result in found["reward_kinds"].items())
    share = found["reward_pair_accuracy"]["value"]
    print(f"the judge prefers the better reply in {share:.2f} of pairs ({each})")


# ---- rankings ------------------------------------------------------------------------------------

def find_rankings(cfg, parent):
    """Those named, else those of a person, else those of the simulated annotator."""
    by_hand = cfg.folder("rankings.jsonl")
    if cfg.rankings or by_hand.exists():
        print(f"rankings: {cfg.rankings or by_hand}", file=sys.stderr)
        return rankings.read(cfg.rankings or by_hand)
    simulated = cfg.folder("3-prefer") / "rankings.jsonl"
    if not simulated.exists():
        simulate(cfg, parent, simulated)
    return rankings.read(simulated)


def simulate(cfg, parent, path, group=4):
    """Replies of the parent to prompts of the world, ranked by its annotator -> a file of rankings. The last
    of each was the reply to another prompt of its sort (a person, an errand), moved to this one: a judge who
    has never seen "unknown to me" out of place, or somebody's town for his pet, takes it for good everywhere,
    and reinforcement finds that out."""
    world, dice = World(cfg.seed), Dice(f"rankings of world {cfg.seed}")
    tasks = manners.prompts(dice, world, "train", BUDGETS[cfg.size]["rankings"])
    model, tokenizer = checkpoint.load(parent)
    with Team.of(model, cfg.team_size()) as team:
        prompts = [prompt(tokenizer, task.prompt) for task in tasks for _ in range(group)]
        written = rollouts.collect(team, tokenizer, prompts, ROOM, [cfg.seed, 15]).written
    texts = [read(tokenizer, ids) for ids in written]
    sorts = [manners.subject(task)[0] for task in tasks]
    alike = {sort: [i for i, other in enumerate(sorts) if other == sort] for sort in set(sorts)}
    notes = {"annotator": "simulated", "sampling": {"temperature": 1.0, "most_tokens": ROOM},
             "model": checkpoint.digest(parent)}  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    with beside.open("w", encoding="utf-8", newline="\n") as file:
        for i, task in enumerate(tasks):
            j = dice.pick(alike[sorts[i]])
            moved = manners.moved(texts[j * group + dice.number(0, group - 1)], tasks[j], task)
            replies = [*texts[i * group:i * group + group], moved]
            ranks = manners.annotate(dice, [manners.verdict(task, text) for text in replies])
            rankings.write(file, rankings.Ranking(task.prompt, replies, ranks), **notes)
    beside.replace(path)


# ---- alignment -------------------------------------------------------------------------------------

def align(cfg, stage, parent, tokenizer, reference, judge, found, world, examine=None):
    """The loop. The best checkpoint by the worst kind of prompt for validation is what remains of it."""
    model, _ = checkpoint.load(parent)
    steps = cfg.steps or BUDGETS[cfg.size]["steps"]
    every, rates = max(1, steps // 6), Rates("adamw", adamw=cfg.rate, decay=0.0, falling=FALLING)
    pairs = chosen_and_rejected(tokenizer, found, model.config.context) if judge is None else None
    with Run(cfg, stage, model, tokenizer, steps, parent, cfg.save_every, log_every=1) as run:
        for step in run.steps():
            if judge is None:
                compare(run, cfg, reference, pairs, step, rates)
            else:
                reinforce(run, cfg, reference, judge, ask(cfg, world, found, step), step, rates)
            if not cfg.rankings and (step in (0, steps - 1) or (step + 1) % every == 0):
                keep_best(run, world, step)
        if "best" in run.memory:
            run.model.params.flat[:] = run.memory["best"]
        run.finish()
        (examine or exams.run)(run.team, tokenizer, cfg, run.folder)


def ask(cfg, world, found, step):
    """The prompts of a step (messages): the world's, or those of a file of rankings."""
    if cfg.rankings:
        rng = np.random.default_rng([cfg.seed, cfg.draw, 16, step])
        return [found[i].prompt for i in rng.integers(0, len(found), PROMPTS)]
    dice = Dice(f"prompts {cfg.draw} {step} of world {world.seed}")
    return [task.prompt for task in manners.prompts(dice, world, "train", PROMPTS, shares=manners.PRACTICE)]


def reinforce(run, cfg, reference, judge, prompts, step, rates):
    """Replies, their scores, their advantages, and one update (PPO: two) of the policy."""
    rows = [prompt(run.tokenizer, messages) for messages in prompts for _ in range(GROUP)]
    most = min(ROOM, run.model.config.context - max(map(len, rows)))
    got = rollouts.collect(run.team, run.tokenizer, rows, most, [cfg.seed, cfg.draw, 17, step])
    score = np.where(got.ended, judge.scores([p + w for p, w in zip(rows, got.written)]), TRUNCATED)    # (B,)
    theirs, old, away, states = rollouts.against(run.team, reference, got.ids, got.targets)
    away = away * got.mask
    if cfg.algorithm == "ppo":
        advantage, updates = by_value(run, states, score, cfg.kl * away, got.mask), 2
    else:
        advantage, updates = by_group(cfg, score, away), 1
    beta = np.full(len(rows), cfg.kl, np.float32)[:, None]
    pieces = [(got.ids, got.targets, old, theirs, beta, advantage.astype(np.float32), got.mask)]
    for i in range(updates):
        run.train(step, on_a_leash, pieces, rates, updates=step * updates + i)
    said = read(run.tokenizer, got.written[0])
    run.metric(step=step, score=float(score.mean()), kl_nats_per_reply=float(away.sum(axis=1).mean()),
               tokens_per_reply=float(got.mask.sum(axis=1).mean()), truncated=float(1 - got.ended.mean()))
    if step % 10 == 0:
        run.sample(step, f"{prompts[0][-1]['content']}\n{said}   [score {score[0]:.2f}]")


def by_group(cfg, score, away):
    """score (B,), divergence (B, T) -> advantages (B, T), against the baseline of the algorithm."""
    baseline = BASELINES[cfg.algorithm]
    if cfg.algorithm == "grpo":                                    # its leash is in the loss alone
        return baseline(score.reshape(-1, GROUP)).reshape(-1, 1) + 0 * away
    total = cfg.kl * away.sum(axis=1)
    advantage = baseline((score - total).reshape(-1, GROUP)).reshape(-1, 1)
    return advantage + total[:, None] - cfg.kl * advantages.later(away)


def by_value(run, states, score, cost, mask, keep=0.9, ridge=1.0):
    """PPO's advantages (B, T), standardised: GAE with a value head that is linear in the policy's last states
    (B, T, C), fitted to the returns of this and earlier steps by least squares."""
    rewards = -cost
    rewards[np.arange(len(mask)), mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)] += score      # at the end
    x = np.concatenate([states, np.ones_like(states[..., :1])], axis=-1).astype(np.float64)
    xx = run.memory.get("value.xx", ridge * np.eye(x.shape[-1]))
    xy = run.memory.get("value.xy", np.zeros(x.shape[-1]))
    value = (x @ np.linalg.solve(xx, xy)) * mask
    here, returns = x[mask > 0], advantages.to_go(rewards)[mask > 0]
    run.memory |= {"value.xx": keep * xx + here.T @ here, "value.xy": keep * xy + here.T @ returns}
    found = advantages.generalised(rewards, value)
    inside = found[mask > 0]
    return (found - inside.mean()) / (inside.std() + 1e-8)


def chosen_and_rejected(tokenizer, found, context):
    """Rankings -> [two (ids, learned): a better reply, a worse one], of every two that are not tied."""
    pairs = []
    for ranking in found:
        rows = rankings.spelled(tokenizer, ranking, context)
        for a, one in enumerate(ranking.ranks if rows else []):
            pairs += [(rows[a], rows[b]) for b, two in enumerate(ranking.ranks) if one < two]
    return pairs


def compare(run, cfg, reference, pairs, step, rates):
    """One step of DPO, on as many replies as a step of reinforcement has."""
    rng = np.random.default_rng([cfg.seed, cfg.draw, 18, step])
    chosen = [pairs[i] for i in rng.integers(0, len(pairs), PROMPTS * GROUP // 2)]
    ids, targets, mask = shift(*pad([row for pair in chosen for row in pair]))
    before = (rollouts.likelihood(reference, ids, targets) * mask).sum(axis=1)
    pieces = [array.reshape(len(chosen), 2, -1) for array in (ids, targets, before, mask)]
    pieces[2:3] = [before.reshape(-1, 2), np.full(len(chosen), BETA)]
    run.train(step, preference, [tuple(pieces)], rates, total=len(chosen))


def keep_best(run, world, step):
    """Remember the parameters where the worst kind of prompt does best. One prompt more or less is chance:
    then the later ones are."""
    least, each, right = verdicts.worst(run.team, run.tokenizer, world, ASKED)
    run.metric(step=step, worst=least, right=right, **each)
    best = run.memory.get("worst", np.zeros(1))[0]
    if least > best - 1.5 / ASKED:
        run.memory |= {"worst": np.array([max(best, least)]), "best": run.model.params.flat.copy()}
