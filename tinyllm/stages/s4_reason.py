"""Stage 4: reasoning fine-tuning. Step-by-step solutions, then RL with verifiable rewards.

Each step of a chain of thought is small enough for a small model (Nye et al. 2021; Wei et al. 2022). After
learning from such chains, the model samples several chains of its own for each problem. Chains that end in
the right answer become likelier, the others less likely.

    reward      1 if the answer is right, else 0; a reply that is cut off counts as wrong
    advantage   reward - mean reward of the group (RLOO, Ahmadian et al. 2024, up to the factor (G-1)/G)
    gradient    that of the next-token loss, weighted by the advantage (weighted_nll, as in stages 1 and 2)
"""

from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np

from tinyllm import checkpoint
from tinyllm.data import corpus, formats
from tinyllm.data.batches import encode_fitting, report_left_out, with_replay
from tinyllm.data.conversation import decode_reply, encode_prompt, prompt_of
from tinyllm.objectives import weighted_nll
from tinyllm.optimizer import Rates
from tinyllm.preferences.advantages import group_mean
from tinyllm.preferences.rollouts import sample_rollouts
from tinyllm.runs import TrainingSettings, nothing_to_do, option, parent_folder, path_of, sources
from tinyllm.sampling import REPLY_TOKENS, answer, show_reply
from tinyllm.stages.sizes import SIZES
from tinyllm.training import Run
from tinyllm.world import World, conversations, oracle
from tinyllm.world.dice import Dice
from tinyllm.world.task import as_context, final_answer, is_correct

STAGE = "4-reason"
OWN_REPLIES = 12000  # stage 4 rehearses at most this many replies of stage 3
GROUP, PROMPTS = 8, 16  # replies per problem, and problems per RL step
# Not Muon: an orthogonalised step is equally large in all directions, but in RL most directions are noise.
REINFORCE_RATES = Rates("adamw", adamw=2e-5)


@dataclass(frozen=True)
class ReasonSettings(TrainingSettings):
    data: str = option("", "problems in GSM8K JSONL format (default: the built-in world)", source="problems")
    text: str = option("", "pre-training text, if the parent has none on record", source="text")
    steps: int = option(0, "batches of solutions to train on (default: set by --size)")
    rollouts: int = option(-1, "RL steps at the end; none with --data or --direct (default: set by --size)")
    tokens: int = option(4096, "tokens in a batch, including replayed text", (1, 10**6))
    replay: float = option(0.15, "share of pre-training text in every batch", (0, 0.9))
    direct: bool = option(False, "learn to answer at once, without a chain of thought")
    muon_rate: float = option(0.01, "peak learning rate of Muon")
    adamw_rate: float = option(3e-3, "peak learning rate of AdamW")


def main(settings, stage=STAGE):
    """Stage 4: fine-tune on reasoning."""
    folder, size = settings.folder(stage), SIZES[settings.size]
    parent = parent_folder(settings, "3-prefer", "2-instruct")
    if nothing_to_do(settings, stage, parent):
        return folder
    model, tokenizer = checkpoint.load_language_model(parent)
    context, world, learned = model.config.context, World(settings.seed), sources(settings, parent)
    steps = settings.steps or size.reason_steps
    reinforce_steps = size.reinforce_steps if settings.rollouts < 0 else settings.rollouts
    if settings.data or settings.direct:
        reinforce_steps = 0
    problems, unseen = load_problems(settings, world, size.problems)
    rows = encode_fitting(tokenizer, problems, context)
    report_left_out(rows, problems, "problem", context)
    earlier = load_rehearsal(settings, world, len(problems), parent, path_of(learned, "instructions"))
    rows += encode_fitting(tokenizer, earlier, context)
    batches = with_replay(rows, settings, learned, size.characters, tokenizer, steps)
    rates = Rates("muon", settings.muon_rate, settings.adamw_rate, steps=steps)

    with Run(settings, stage, model, tokenizer, steps + reinforce_steps, parent) as run:
        for step in run.steps():
            if step < steps:
                run.train_step(step, weighted_nll, batches.batch(step), rates)
                if unseen and run.is_due(step):
                    prompt = prompt_of(unseen[step % len(unseen)], last=False)
                    run.sample(step, show_reply(run.pool, tokenizer, prompt))
            else:
                if step == steps:  # old moments would amplify the first RL gradients, which are noisy
                    run.reset_moments()
                reinforce_step(run, world, settings.seed, step)
    return folder


def load_problems(settings, world, count):
    """Training problems and held-out problems as conversations, from --data or from the built-in world."""
    if settings.data:
        training, held_out = formats.split(formats.problems(settings.data))
        return [without_chain(each) for each in training] if settings.direct else training, held_out
    dice = Dice(f"chats of world {world.seed}")
    tasks = [conversations.in_chat(dice, world, task) for task in world.problems("train", count)]
    if settings.direct:  # calculator problems have no chain of thought to remove
        tasks = [task if task.later_turns else task._replace(reply=f"#### {task.answer}") for task in tasks]
    held_out = world.problems("val", 20, kind="story")
    return [task.messages for task in tasks], [task.messages for task in held_out]


def without_chain(messages):
    """The same problem, answered without a chain of thought."""
    answer = f"####{messages[-1]['content'].rpartition('####')[2]}"
    return [*prompt_of(messages, last=False), {"role": "assistant", "content": answer}]


def load_rehearsal(settings, world, count, parent, path):
    """`count` conversations of earlier stages, to prevent forgetting: from the file `path`, or from the
    built-in world if `path` is "". Returns [] if `path` is None.

    After stage 3, the replies in the world's conversations are the model's own, because training on stage 2's
    answers again would undo stage 3.
    """
    if path is None:
        return []
    own = path == "" and parent.name == "3-prefer"
    earlier = own_replies(settings, world, parent, min(count, OWN_REPLIES)) if own else []
    earlier = earlier or corpus.load_conversations(path, settings.seed, count)[0]
    return list(islice(cycle(earlier), count))


def own_replies(settings, world, parent, count):
    """Correct replies of `parent` to training prompts: answerable questions, extra follow-up questions (which
    would be forgotten first) and prompts of stage 3. At least one prompt in eight begins with a description
    of the tools. Wrong replies are dropped, because the model would learn the mistakes."""
    tasks = world.instructions("train", count * 3 // 5)
    tasks += world.instructions("train", count // 5, family="follow_up")
    tasks = [task for task in tasks if oracle.kind_of(task) == "answerable"]
    dice, left = Dice(f"kept of world {world.seed}"), count - len(tasks)
    tasks += oracle.prompts(dice, world, "train", left, shares=oracle.ROLLOUT_SHARES)
    tasks[::8] = map(conversations.with_tools, tasks[::8])
    model, tokenizer = checkpoint.load_language_model(parent)
    with settings.pool(model) as pool:
        replies = answer(pool, tokenizer, [task.prompt for task in tasks], REPLY_TOKENS)
    return [
        [*as_context(task.prompt), {"role": "assistant", "content": text}]
        for task, (text, ended) in zip(tasks, replies)
        if ended and is_correct(task, text)
    ]


def reinforce_step(run, world, seed, step):
    """One step of REINFORCE with verifiable rewards. The end token is part of the reply."""
    problems = world.problems("train", PROMPTS, kind="story", steps=None, draw=step)
    tasks = [task for task in problems for _ in range(GROUP)]
    prompts = [encode_prompt(run.tokenizer, task.prompt) for task in tasks]
    room = max(1, run.model.config.context - max(map(len, prompts)))
    sampled = sample_rollouts(run.pool, run.tokenizer, prompts, room, [seed, 9, step])
    texts = [decode_reply(run.tokenizer, ids) for ids in sampled.replies]
    correct = [final_answer(text) == task.answer for task, text in zip(tasks, texts)]
    rewards = (np.array(correct) & sampled.ended).astype(np.float32).reshape(-1, GROUP)
    advantages = (rewards - group_mean(rewards)).reshape(-1, 1)
    mask = sampled.batch["weights"]
    batch = sampled.batch | {"weights": advantages * mask}
    run.train_step(step, weighted_nll, [batch], REINFORCE_RATES, total=mask.sum())
    run.show(loss=f"reward {rewards.mean():.2f}")  # in place of the loss, which says little
    run.log(step=step, reward=float(rewards.mean()))
