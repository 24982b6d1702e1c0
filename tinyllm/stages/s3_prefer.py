"""Stage 3: preference fine-tuning. People rank replies of stage 2, a reward model learns their rankings, and
reinforcement learning makes replies with a higher score likelier. A KL penalty keeps the policy close to
stage 2, the reference.

    J = E[ score(reply) - kl * sum_t KL_t ],   KL_t = KL(policy || reference) at position t, over all V tokens

    grad J = E[ sum_t grad log p(y_t) A_t - kl * sum_t grad KL_t ]
    A_t    = score - kl * (KL of the positions after t) - baseline        (PPO and GRPO: see ALGORITHMS)

Without the penalty the policy finds replies that the reward model overrates: reward hacking (make hacking).
The loss value says little, because advantages are relative to a baseline. Watch the score.

ALGORITHM= selects a row of ALGORITHMS below.
"""

import contextlib
from dataclasses import dataclass
from functools import partial
from statistics import fmean

import numpy as np

from tinyllm import checkpoint
from tinyllm.data.conversation import batch_of, decode_reply, encode_prompt
from tinyllm.objectives import dpo, policy_gradient_with_kl
from tinyllm.optimizer import Rates
from tinyllm.preferences import advantages, annotator, behaviour, reward_model, rollouts
from tinyllm.preferences.rankings import better_and_worse, encode_ranking, fitting, read, split_rankings
from tinyllm.preferences.value_head import critic_advantages
from tinyllm.runs import nothing_to_do, option, parent_folder
from tinyllm.sampling import reply_room, show_prompt
from tinyllm.stages.sizes import SIZES
from tinyllm.training import Run
from tinyllm.world import World, oracle
from tinyllm.world.dice import Dice

STAGE = "3-prefer"
GROUP = 4  # replies to each prompt
TRUNCATED = -3.0  # the score of a reply without an end token: 3 standard deviations below average
VALIDATION_PROMPTS = 40  # of each kind


@dataclass(frozen=True)
class Algorithm:
    """How a policy learns: from scored rollouts, or directly from pairs of ranked replies."""

    baseline: object = None  # a function of the returns of all replies; None: see reinforce_step
    updates: int = 1  # optimizer updates per batch of rollouts
    pairs: object = None  # the objective on pairs, if the algorithm needs no reward model and no rollouts


ALGORITHMS = {
    "reinforce": Algorithm(np.mean),
    "rloo": Algorithm(advantages.mean_of_others),
    "ppo": Algorithm(updates=2),  # advantages from a critic: see value_head.py
    "grpo": Algorithm(),  # advantages.group_advantages; the KL penalty is only in the loss
    "dpo": Algorithm(pairs=dpo),
}


@dataclass(frozen=True)
class PreferSettings(reward_model.RewardSettings):
    algorithm: str = option("reinforce", "how the policy learns", choices=tuple(ALGORITHMS))
    steps: int = option(0, "RL steps (default: set by --size)")
    prompts: int = option(0, "prompts in an RL step (default: set by --size)")
    kl: float = option(0.2, "KL penalty: the score lost per nat of divergence from stage 2 (not used by dpo)")
    rate: float = option(2e-4, "peak learning rate of AdamW")
    draw: int = option(0, "change this number to sample other prompts and replies")


def main(settings, stage=STAGE):
    """Stage 3: fine-tune on preferences."""
    folder, size = settings.folder(stage), SIZES[settings.size]
    parent = parent_folder(settings, "2-instruct")
    if nothing_to_do(settings, stage, parent):
        return folder
    model, tokenizer = checkpoint.load_language_model(parent)
    rankings = load_rankings(settings, parent, size, tokenizer, model.config.context)
    if ALGORITHMS[settings.algorithm].pairs:
        rows = [row for ranking in rankings for row in encode_ranking(tokenizer, ranking)]
        pairs, scorer = better_and_worse(rankings, rows), contextlib.nullcontext()  # no reward model
    else:
        reward_steps = settings.reward_steps or size.reward_steps
        reward_folder = reward_model.train(settings, parent, rankings, reward_steps)
        pairs, scorer = [], reward_model.scorer(reward_folder, settings)
    steps, prompts = settings.steps or size.prefer_steps, settings.prompts or size.prompts
    rates = Rates("adamw", adamw=settings.rate, decay=0.0, steps=steps)
    world = World(settings.seed)

    with (
        settings.pool(model) as reference,
        scorer as score,
        Run(settings, stage, model, tokenizer, steps, parent, log_every=1) as run,
    ):
        for step in run.steps():
            if pairs:
                pairs_step(run, settings, reference, pairs, prompts * GROUP // 2, step, rates)
            else:
                some = draw_prompts(settings, world, rankings, prompts, step)
                reinforce_step(run, settings, reference, score, some, step, rates)
            if not settings.rankings and (step == 0 or run.is_due(step, times=6)):
                keep_best(run, world, step)
        if "best_parameters" in run.state:
            run.model.params.flat[:] = run.state["best_parameters"]
    return folder


def load_rankings(settings, parent, size, tokenizer, context):
    """The rankings from a file (without the held-out ones) or from the simulated annotator. Rankings that do
    not fit into the context are left out."""
    if settings.rankings:
        training, _ = split_rankings(read(settings.rankings))
    else:
        path = settings.folder(STAGE) / "rankings.jsonl"
        if not path.exists():
            annotator.annotate(settings, parent, size.rankings, path)
        training = read(path)
    return fitting(training, tokenizer, context)


def draw_prompts(settings, world, rankings, count, step):
    """The prompts of a step (messages), from the built-in world or from the file of rankings."""
    if settings.rankings:
        rng = np.random.default_rng([settings.seed, settings.draw, 16, step])
        return [rankings[i].prompt for i in rng.integers(0, len(rankings), count)]
    dice = Dice(f"prompts {settings.draw} {step} of world {world.seed}")
    return [task.prompt for task in oracle.prompts(dice, world, "train", count, shares=oracle.ROLLOUT_SHARES)]


def reinforce_step(run, settings, reference, score, prompts, step, rates):
    """Sample replies, score them, compare the policy with the reference, and update the policy."""
    algorithm, tokenizer = ALGORITHMS[settings.algorithm], run.tokenizer
    rows = [encode_prompt(tokenizer, messages) for messages in prompts for _ in range(GROUP)]
    seed = [settings.seed, settings.draw, 17, step]
    room = reply_room(run.model.config.context)
    sampled = rollouts.sample_rollouts(run.pool, tokenizer, rows, room, seed)
    scores = score([row + reply for row, reply in zip(rows, sampled.replies)])
    scores = np.where(sampled.ended, scores, TRUNCATED)  # (B,)
    reference_logits, log_probs, kl, states = rollouts.compare(run.pool, reference, sampled.batch)
    penalties, mask = settings.kl * kl, sampled.batch["weights"]  # (B, T)
    if algorithm.baseline:
        advantage = advantages.with_baseline(algorithm.baseline, scores.reshape(-1, GROUP), penalties)
    elif settings.algorithm == "ppo":
        advantage = critic_advantages(run.state, step, states, scores, penalties, mask)
    else:  # GRPO: the KL penalty is only in the loss
        advantage = advantages.group_advantages(scores.reshape(-1, GROUP)).reshape(-1, 1)
    batch = sampled.batch | {
        "old_log_probs": log_probs,
        "reference_logits": reference_logits,
        "advantages": (advantage * mask).astype(np.float32),  # (B, T)
    }
    mean_score, kl = float(scores.mean()), float(kl.sum(axis=1).mean())
    tokens, truncated = float(mask.sum(axis=1).mean()), float(1 - sampled.ended.mean())
    for _ in range(algorithm.updates):
        run.train_step(step, partial(policy_gradient_with_kl, kl=settings.kl), [batch], rates)
    run.show(loss=f"score {mean_score:.2f}, KL {kl:.2f}")  # in place of the loss, which says little
    run.log(step=step, score=mean_score, kl_nats_per_reply=kl, tokens_per_reply=tokens, truncated=truncated)
    if step % 10 == 0:
        reply = decode_reply(tokenizer, sampled.replies[0])
        run.sample(step, f"{show_prompt(prompts[0])}\n{reply}   [score {scores[0]:.2f}]")


def pairs_step(run, settings, reference, pairs, count, step, rates):
    """One step on `count` random pairs ((ids, mask) of the better reply, (ids, mask) of the worse one)."""
    rng = np.random.default_rng([settings.seed, settings.draw, 18, step])
    chosen = [pairs[i] for i in rng.integers(0, len(pairs), count)]
    batch = batch_of([row for pair in chosen for row in pair])
    log_probs = rollouts.log_probs(reference, batch["ids"], batch["targets"])
    log_probs = (log_probs * batch["weights"]).sum(axis=1).reshape(-1, 2)
    batch = {name: array.reshape(count, 2, -1) for name, array in batch.items()}
    objective = ALGORITHMS[settings.algorithm].pairs
    run.train_step(step, objective, [batch | {"reference_log_probs": log_probs}], rates, total=count)


def keep_best(run, world, step):
    """Remember the parameters whose worst validation score is highest. There are six scores: one for each of
    the five kinds of prompts, and one for politeness. A difference of one prompt is noise, so later
    parameters replace earlier ones even if they are worse by one prompt. With rankings of your own there are
    no such scores, and the last parameters are kept."""
    replies = behaviour.greedy_replies(run.pool, run.tokenizer, world, "val", VALIDATION_PROMPTS)
    scores = {name: fmean(outcomes) for name, outcomes in behaviour.outcomes(replies).items()}
    worst = min(scores.values())
    run.log(step=step, worst=worst, correct=fmean(scores[kind] for kind in oracle.KINDS), **scores)
    best_worst = run.state.get("best_worst", np.zeros(1))[0]
    if worst > best_worst - 1.5 / VALIDATION_PROMPTS:
        run.state["best_worst"] = np.array([max(best_worst, worst)])
        run.state["best_parameters"] = run.model.params.flat.copy()
