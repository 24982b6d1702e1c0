"""Human preferences: prompts, the true quality of a reply, and simulated people who rank replies.

A reply should above all be correct, then polite, then short. It is correct to tell the truth, to refuse
harmful requests but no other requests, and to admit that a person is unknown. People make mistakes when they
rank, and so do the simulated people: a reward model must learn from noisy rankings.
"""

import re

from tinyllm.world import instructions, people
from tinyllm.world.task import is_correct

KINDS = ("answerable", "stranger", "harm", "harm_by_object", "harmless")

# The share of each kind among the prompts whose replies people rank. Harder kinds come more often.
# Questions about facts are answerable too, but have their own share: a model easily mistakes known people
# for unknown ones.
RANKED_SHARES = dict(answerable=2, facts=3, stranger=3, harm=3, harm_by_object=4, harmless=6)
# The share of each kind among the prompts of reinforcement learning. The reward model is least accurate on
# answerable prompts, so their share is small. The share of facts is large: otherwise a model might learn to
# call everybody unknown.
ROLLOUT_SHARES = dict(answerable=2, facts=4, stranger=5, harm=3, harm_by_object=3, harmless=4)
SLIP_RATE = 0.1  # how often a person swaps two adjacent ranks

POLITE = tuple(t.removesuffix("{}").strip() for t in instructions.STYLE_TEMPLATES["polite"])
RUDE = tuple(t.replace("{}", "").strip() for t in instructions.STYLE_TEMPLATES["rude"])


def prompts(dice, world, split, count, kind=None, shares=RANKED_SHARES):
    """`count` tasks of the given kind, or of random kinds."""
    return [prompt(dice, world, split, kind or dice.weighted_choice(shares)) for _ in range(count)]


def prompt(dice, world, split, kind):
    """One task. kind: one of KINDS, or "facts"."""
    if kind == "answerable":
        family = dice.choice(instructions.WITH_ANSWER)
        return instructions.instruction(dice, world, split, family)
    make = instructions.FAMILIES.get(kind, instructions.help_request)
    while True:  # a request for help is harmful or harmless by chance
        task = make(dice, world, split, unseen=False)
        if task.kind == kind:
            return task


def kind_of(task):
    """The kind of a task, one of KINDS. Every task with a definite answer is "answerable"."""
    return task.kind if task.kind in KINDS else "answerable"


def is_polite(reply):
    return reply.startswith(POLITE) and not any(phrase in reply for phrase in RUDE)


def quality(task, reply):
    """The true quality of a reply: (correct, polite, -words). Greater tuples are better."""
    return is_correct(task, reply), is_polite(reply), -len(re.findall(r"\w+", reply))


def subject(task):
    """-> ("person", name) or ("errand", "cut the rope"), or ("", "") for a task about neither."""
    topic, *words = task.key.split()
    if topic in ("ask", "stranger"):
        return "person", words[0]
    return ("errand", " the ".join(words)) if topic == "errand" else ("", "")


def transplant(reply, source, target):
    """A reply to the task `source`, with its person or errand replaced with that of the task `target`.

    The reply is unchanged unless both tasks are about a person, or both about an errand. A reply that was
    correct for `source` is often wrong for `target`, so a reward model must learn to look at the prompt.
    """
    (topic, old), (target_topic, new) = subject(source), subject(target)
    return reply.replace(old, new) if topic and topic == target_topic else reply


def annotate(dice, qualities, slip_rate=SLIP_RATE):
    """The ranks that a person gives to replies: 1 for the best, equal ranks for equal quality.

    The person goes down the true ranking and swaps some adjacent ranks by mistake.
    """
    ranking = sorted(set(qualities), reverse=True)
    for i in range(len(ranking) - 1):
        if dice.weighted_choice({True: slip_rate, False: 1 - slip_rate}):
            ranking[i], ranking[i + 1] = ranking[i + 1], ranking[i]
    return [ranking.index(each) + 1 for each in qualities]


def preference_pair(dice, world, split, kind):
    """-> (task, the better reply, the worse reply).

    In one pair out of three, both replies are correct, but only one is polite. In the other pairs, both
    replies have the same style, but only one is correct. The lengths of the two replies say next to nothing
    about which is better.
    """
    task = prompt(dice, world, split, kind)
    right, wrong = right_and_wrong(dice, world, task)
    if dice.one_in(3):
        polite = random_template(dice, ["polite"])
        impolite = random_template(dice, ["curt", "rude"])
        return task, polite.format(right), impolite.format(right)
    template = random_template(dice, tuple(instructions.STYLES))
    return task, template.format(right), template.format(wrong)


def random_template(dice, styles):
    """A template of one of `styles`, chosen at random."""
    return instructions.style_template(dice, dice.choice(styles))


def right_and_wrong(dice, world, task):
    """-> (a correct reply, a plausible wrong reply), both curt."""
    if task.kind == "stranger":
        _, name, relation = task.key.split()
        made_up = people.make_up_fact(dice, name, relation)
        return instructions.TEMPLATES["unknown_person"].format(name), made_up
    if kind_of(task) != "answerable":
        _, errand = subject(task)
        compliance, refusal = (instructions.HELP[each].format(errand) for each in ("compliance", "refusal"))
        return (compliance, refusal) if task.kind == "harmless" else (refusal, compliance)
    right = instructions.without_style(task.reply)
    if task.kind == "facts":
        *_, relation = task.key.split()
        other_value = dice.choice(instructions.other_values(relation, task.answer))
        return right, right.replace(task.answer, other_value)
    while True:  # take the reply to another question, unless it happens to be correct for this one
        other_task = instructions.instruction(dice, world, "train", task.kind)
        wrong = instructions.without_style(other_task.reply)
        if not is_correct(task, wrong):
            return right, wrong
