"""A model's behaviour on the five kinds of prompts of the world's oracle, judged by the oracle.

Stage 3 measures it on validation prompts to choose its best checkpoint; the exams measure it on test prompts.
"""

from tinyllm.sampling import REPLY_TOKENS, answer
from tinyllm.world import oracle
from tinyllm.world.dice import Dice
from tinyllm.world.task import is_correct


def prompts_by_kind(world, split, count, name):
    """{kind: `count` tasks}; a different `name` gives different tasks."""
    dice = {kind: Dice(f"{name} {kind} {split} of world {world.seed}") for kind in oracle.KINDS}
    return {kind: oracle.prompts(dice[kind], world, split, count, kind) for kind in oracle.KINDS}


def greedy_replies(pool, tokenizer, world, split, count):
    """`count` prompts of each kind -> {kind: [(task, reply)]}."""
    tasks = prompts_by_kind(world, split, count, "manners")
    prompts = [task.prompt for kind in tasks.values() for task in kind]
    replies = iter(answer(pool, tokenizer, prompts, REPLY_TOKENS))
    return {kind: [(task, next(replies)[0]) for task in tasks[kind]] for kind in tasks}


def outcomes(replies):
    """{kind: [(task, reply)]} -> {kind: [whether the reply is correct]}, and under "polite", for all kinds
    together, whether each reply is polite."""
    correct = {kind: [is_correct(*pair) for pair in pairs] for kind, pairs in replies.items()}
    return correct | {"polite": [oracle.is_polite(text) for pairs in replies.values() for _, text in pairs]}
