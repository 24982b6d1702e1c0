"""Stage 4: think. Solutions step by step, then reinforcement by what can be checked.

Each step of a chain of thought is small enough for a small model (Nye et al. 2021; Wei et al. 2022). After
it has seen such chains, it writes its own: several for each problem, at temperature 1; those that end in the
right answer are made likelier, the others less likely.

    reward      1 if the answer is right, else 0; a reply that did not end in time is wrong
    advantage   reward - mean reward of the group (RLOO, Ahmadian et al. 2024, up to the factor (G-1)/G)
    gradient    that of the next token, weighted with the advantage: weighted_nll once more
"""

from dataclasses import dataclass

import numpy as np

from tinyllm import checkpoint, corpus, exams, formats, interviews, rollouts, verdicts
from tinyllm.advantages import against_group
from tinyllm.conversation import prompt, read
from tinyllm.lessons import Lessons, spell_all
from tinyllm.objectives import weighted_nll
from tinyllm.parallel import Team
from tinyllm.training import Rates, Run, RunError, Settings, is_finished, option, parent_of
from tinyllm.world import World, manners
from tinyllm.world.dice import Dice
from tinyllm.world.instructions import MEASURED
from tinyllm.world.task import final_answer, right

BUDGETS = {"nano": {"problems": 4000, "steps": 80, "rollouts": 2},
           "small": {"problems": 40_000, "steps": 850, "rollouts": 6},
           "base": {"problems": 80_000, "steps": 3000, "rollouts": 100}}  # fmt: skip
OWN = 8000  # replies of stage 3 that are repeated
GROUP, PROMPTS = 8, 16
# Not Muon: it makes every step as large, however little is known.
REINFORCEMENT = Rates("adamw", adamw=2e-5, falling=0)


@dataclass(frozen=True)
class Reason(Settings):
    data: str = option("", "problems in GSM8K's JSONL (default: the built-in world)")
    text: str = option("", "file or folder of text to replay (default: the built-in world)")
    origin: str = option("", "checkpoint folder to start from (default: 3-prefer of this run, "
                             "else 2-instruct)", flag="from")  # fmt: skip
    steps: int = option(0, "batches of solutions to train on (default: as the size says)")
    rollouts: int = option(-1, "steps of reinforcement after them (default: as the size says)")
    tokens: int = option(4096, "tokens in a batch, replayed text included")
    replay: float = option(0.25, "share of pre-training text in every batch")
    answers: float = option(0.5, "share of earlier stages' conversations among the conversations")
    chains: str = option("written", "are chains of thought written out, or is the answer given at once?",
                         choices=("written", "left-out"))  # fmt: skip
    muon_rate: float = option(0.015, "peak learning rate of Muon")
    adamw_rate: float = option(5e-3, "peak learning rate of AdamW")
    save_every: int = option(200, "steps between checkpoints")


def main(cfg, folder="4-reason"):
    parent = origin(cfg)
    if is_finished(cfg, folder, parent):
        return
    model, tokenizer = checkpoint.load(parent)
    if tokenizer is None or not model.config.causal:
        raise RunError(f"{parent} cannot be taught to reason: it has no tokenizer, or is a masked model")
    context, world, budget = model.config.context, World(cfg.seed), BUDGETS[cfg.size]
    training, _ = corpus.load(cfg)
    steps = cfg.steps or budget["steps"]
    rollouts = budget["rollouts"] if cfg.rollouts < 0 else cfg.rollouts
    if cfg.data or cfg.chains == "left-out":
        rollouts = 0
    problems, held_out = lesson_material(cfg, world, budget["problems"], parent)
    rows = spell_all(tokenizer, problems, context, "problems")
    if not rows:
        raise RunError(f"no problem fits into the context of {context} tokens")
    text = corpus.pack(training, tokenizer)
    lessons = Lessons(rows, text, cfg.tokens, cfg.replay, cfg.seed, model.config.vocab)
    batches, rates = lessons.batches(steps), Rates("muon", cfg.muon_rate, cfg.adamw_rate)

    with Run(cfg, folder, model, tokenizer, steps + rollouts, parent, cfg.save_every) as run:
        run.announce(weighted_nll, lessons.batch(batches[0], 0), rates)
        for step in run.steps():
            if step < steps:
                run.train(step, weighted_nll, lessons.batch(batches[step], step), rates, until=steps)
                if (step + 1) % max(1, steps // 4) == 0:
                    story = world.problems("val", 20, kind="story")[step % 20]
                    run.sample(step, interviews.say(run, story.prompt))
            else:
                if step == steps:            # else a few unlucky replies would be blown up to their size
                    run.forget_moments()
                reinforce(run, world, step, cfg.seed)
        run.finish()
        results = exams.run(run.team, tokenizer, cfg, run.folder, held_out)
        if held_out:
            right, common = results["own_problems_exact"], results["own_problems_majority"]["value"]
            print(f"held-out problems of {cfg.data}: {right['value']:.3f} right ({right['low']:.3f} to "
                  f"{right['high']:.3f}, n={right['n']}); always the commonest answer: {common:.3f}")


def origin(cfg):
    """Stage 3's checkpoint where there is one, else stage 2's."""
    if not cfg.origin and (cfg.folder("3-prefer") / "model.safetensors").exists():
        return parent_of(cfg, "3-prefer", "stage3")
    return parent_of(cfg, "2-instruct", "stage2")


def lesson_material(cfg, world, count, parent):
    """-> (conversations to learn from: problems, and some of earlier stages so that they are not forgotten;
    problems of a file that are held out)."""
    held_out = []
    if cfg.data:
        found, held_out = formats.split(formats.problems(cfg.data))
    else:
        tasks = world.problems("train", count)
        if cfg.chains == "left-out":
            tasks = [task if task.turns else task._replace(reply=f"#### {task.answer}") for task in tasks]
        found = [task.messages for task in tasks]
    more = int(len(found) * cfg.answers / (1 - cfg.answers))
    own = own_replies(cfg, world, parent, min(more, OWN)) if parent.name == "3-prefer" else []
    if not own:
        return found + [task.messages for task in world.instructions("train", more)], held_out
    return found + [own[i % len(own)] for i in range(more)], held_out


def own_replies(cfg, world, parent, count):
    """What stage 3 itself answers: to learn the answers of stage 2's writers again would undo it. Only right
    ones are kept: what is repeated is learned, mistakes too."""
    tasks = [task for task in world.instructions("train", count * 6 // 7) if task.kind in MEASURED]
    tasks += manners.prompts(Dice(f"kept of world {world.seed}"), world, "train", count - len(tasks))
    model, tokenizer = checkpoint.load(parent)
    with Team.of(model, cfg.team_size()) as team:
        said = interviews.asked(team, tokenizer, tasks, verdicts.ROOM)
    return [task._replace(reply=text).messages for task, (text, ended) in zip(tasks, said)
            if ended and right(task, text)]  # fmt: skip


def reinforce(run, world, step, seed):
    """One step of REINFORCE with verifiable rewards. The end token is part of the reply."""
    tasks = world.problems("train", PROMPTS, kind="story", steps=None, draw=step)
    prompts = [prompt(run.tokenizer, task.prompt) for task in tasks for _ in range(GROUP)]
    most = run.model.config.context - max(map(len, prompts))
    got = rollouts.collect(run.team, run.tokenizer, prompts, most, [seed, 9, step])
    answers = [final_answer(read(run.tokenizer, ids)) if ended else None
               for ids, ended in zip(got.written, got.ended)]  # fmt: skip
    reward = np.array([said == tasks[i // GROUP].answer for i, said in enumerate(answers)], np.float32)
    advantage = against_group(reward.reshape(-1, GROUP)).reshape(-1, 1)
    pieces = [(got.ids, got.targets, advantage * got.mask)]
    run.train(step, weighted_nll, pieces, REINFORCEMENT, got.mask.sum())
    run.metric(step=step, reward=float(reward.mean()))
