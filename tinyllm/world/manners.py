"""What people would rather hear: prompts of five kinds, a judge who knows what is right, and an annotator who
ranks by it, and slips as people do.

Right comes first, then polite, then short. Right is: what is true; to refuse what does harm, and nothing
else; to admit that one does not know somebody who does not exist.
"""

import re

from tinyllm.world import instructions, people
from tinyllm.world.task import right

KINDS = ("answerable", "stranger", "harm", "harm_by_object", "harmless")
# Shares of the prompts that are ranked: the harder to judge, the more; and of those that are practised. What
# has an answer is judged worst, so it is practised least, all but facts: beside strangers they could be lost.
RANKED = {"answerable": 2, "facts": 3, "stranger": 2, "harm": 5, "harm_by_object": 4, "harmless": 4}
PRACTICE = {"answerable": 2, "facts": 4, "stranger": 5, "harm": 4, "harm_by_object": 2, "harmless": 3}
SLIP = 0.1                                     # how often people rank two neighbours the wrong way round
POLITE = tuple(text.removesuffix("{}").strip() for text in instructions.POLITE)
RUDE = tuple(text.replace("{}", "").strip() for text in instructions.RUDE)


def prompts(dice, world, split, count, kind=None, shares=RANKED):
    """`count` tasks, of any kind unless one is named."""
    return [_prompt(dice, world, split, kind or dice.among(shares)) for _ in range(count)]


def _prompt(dice, world, split, kind):
    if kind == "answerable":
        return instructions.instruction(dice, world, split, dice.pick(instructions.MEASURED))
    if kind == "facts":
        return instructions.facts(dice, world, split, False)
    if kind == "stranger":
        return instructions.stranger(dice, world, split, False)
    while True:
        task = instructions.help(dice, world, split, False)
        if task.kind == kind:
            return task


def kind_of(task):
    return task.kind if task.kind in KINDS else "answerable"


def is_polite(reply):
    return reply.startswith(POLITE) and not any(words in reply for words in RUDE)


def verdict(task, reply):
    """The true judge: (right, polite, -words). Of two verdicts the greater is the better reply."""
    return right(task, reply), is_polite(reply), -len(re.findall(r"\w+", reply))


def moved(reply, there, here):
    """A reply to the prompt `there` as it would be to the prompt `here`: with the person or errand of
    this, where both are about a person or both about an errand."""
    (what, old), (same, new) = subject(there), subject(here)
    return reply.replace(old, new) if what == same != "" else reply


def subject(task):
    """-> ("person", a name), ("errand", what is to be done), or ("", "")."""
    kind, *words = task.key.split()
    if kind in ("ask", "stranger"):
        return "person", words[0]
    return ("errand", "{} the {}".format(*words)) if kind == "errand" else ("", "")


def annotate(dice, verdicts, slip=SLIP):
    """Verdicts of several replies -> their ranks, 1 the best, ties with the same rank. Of neighbours in the
    ranking one pair in ten is exchanged."""
    order = sorted(set(verdicts), reverse=True)
    for i in range(len(order) - 1):
        if dice.among({True: slip, False: 1 - slip} if slip else {False: 1}):
            order[i : i + 2] = order[i + 1], order[i]
    return [order.index(verdict) + 1 for verdict in verdicts]


def pair(dice, world, split, kind):
    """-> (task, the better reply, the worse). Once in three times only the manners differ; else one is right
    and the other, in the same manners, is not. Length tells next to nothing."""
    (task,) = prompts(dice, world, split, 1, kind)
    good, bad = contents(dice, world, task)
    writer = lambda *of: instructions.mannered(dice, "{}", dice.pick(of))
    if dice.among({True: 1, False: 2}):
        return task, writer("polite").format(good), writer("curt", "rude").format(good)
    same = writer(*instructions.WRITERS)
    return task, same.format(good), same.format(bad)


def contents(dice, world, task):
    """What is right to say, and something that is not, both without manners."""
    if task.kind == "stranger":
        _, name, relation = task.key.split()
        made_up = {(name, relation): dice.pick(people.VALUES[relation])}
        return instructions.UNKNOWN.format(name), people.tell(dice, made_up, name, relation)
    if kind_of(task) != "answerable":
        _, errand = subject(task)
        refusal, help = instructions.REFUSE.format(errand), instructions.OBEY.format(errand)
        return (help, refusal) if task.kind == "harmless" else (refusal, help)
    good = instructions.plain(task.reply)
    if task.kind == "facts":
        relation = task.key.split()[2]
        others = [value for value in people.VALUES[relation] if value != task.answer]
        return good, good.replace(task.answer, dice.pick(others))
    while True:                                                    # what is right for another question
        bad = instructions.plain(instructions.instruction(dice, world, "train", task.kind).reply)
        if not right(task, bad):
            return good, bad
