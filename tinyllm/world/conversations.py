"""Conversations of several turns, in which the last question cannot be answered without an earlier turn.

    user         What pet does Cara have?
    assistant    Cara keeps a goat.
    user         And where does she live?
    assistant    The home of Cara is Lomond.

A model that is trained on single questions gets lost at the second question of a conversation: it has learned
that everything before an answer is one question.
"""

from functools import partial

from tinyllm.world import instructions, numbers, people
from tinyllm.world.task import as_context
from tinyllm.world.wordings import WORDINGS
from tools import agent
from tools.builtin import calculator
from tools.registry import Registry

TEMPLATES = WORDINGS["follow_ups"]
TURNS = {2: 3, 3: 2, 4: 1}  # number of turns in a conversation -> weight
TOOLS_IN_FRONT = 32  # one conversation in this many describes the tools
(TOOLS_MESSAGE,) = agent.introduced([], Registry([calculator]))


def conversation(dice, world, split, family=None, unseen=False):
    """One task of `family` (one of instructions.FAMILIES, or "follow_up"), or of a random one if it is None.

    One in four random tasks is a follow-up. If `family` is given, `unseen` makes its questions use
    held-out wordings. Follow-ups have no held-out wordings.
    """
    if family is None:
        make = follow_up if dice.one_in(4) else instructions.instruction
        task = make(dice, world, split)
        return with_tools(task) if dice.one_in(TOOLS_IN_FRONT) else task
    if family == "follow_up":
        return follow_up(dice, world, split)
    return instructions.instruction(dice, world, split, family, unseen)


def with_tools(task):
    """The task with the description of the tools as its first message, and no other copy of this message."""
    turns = [message for message in task.earlier_turns if message != TOOLS_MESSAGE]
    return task._replace(earlier_turns=(TOOLS_MESSAGE, *turns))


def in_chat(dice, world, task):
    """Put a problem into a chat. One problem in eight follows other turns, which the loss does not cover. One
    in four calculator problems, and one in 32 problems of other kinds, begin with the description of the
    tools. Problems of the kinds "story" and "mistake" stand alone: after other turns, some would not fit into
    the context.
    """
    if task.kind in ("story", "mistake"):
        return task
    if dice.one_in(8):
        other = follow_up(dice, world, "train")
        task = task._replace(earlier_turns=tuple(as_context(other.messages)))
    has_tools = dice.one_in(4 if task.kind == "calculator" else TOOLS_IN_FRONT)
    return with_tools(task) if has_tools else task


def follow_up(dice, world, split):
    """A conversation of two to four turns, in which the last question follows up on an earlier one.

    Turns between the first and the last are follow-ups, new subjects, or small talk. Small talk does not
    change the subject.
    """
    task = first = subject = opening(dice, world, split)
    earlier = first.messages
    for _ in range(dice.weighted_choice(TURNS) - 2):
        kind = dice.choice(("follow_up", "opening", "small_talk"))
        if kind == "small_talk":
            task = instructions.small_talk(dice, world, split, unseen=False)
        elif kind == "opening":
            task = subject = opening(dice, world, split)
        else:
            task = subject = dice.choice(FOLLOW_UPS[subject.kind])(dice, world, split, subject)
        earlier += task.messages
    makers = (*FOLLOW_UPS[subject.kind], partial(first_question, first=first))
    if task.kind == "small_talk":  # "Say that again." would refer to the small talk
        makers = [make for make in makers if make not in (again, backwards)]
    task = dice.choice(makers)(dice, world, split, subject)
    return task._replace(kind="follow_up", earlier_turns=tuple(earlier))


def opening(dice, world, split):
    """A question that allows a follow-up."""
    make = instructions.FAMILIES[dice.choice(tuple(FOLLOW_UPS))]
    while True:
        task = make(dice, world, split, unseen=False)
        if task.kind != "transform" or ", " in task.answer:  # "backwards" needs a list as the last answer
            return task


def same_person(dice, world, split, subject):
    """Ask for another fact about the same person, now called "she" or "he"."""
    _, name, known = subject.key.split()
    relation = dice.choice([each for each in instructions.askable(world, name, split) if each != known])
    task = instructions.fact_question(dice, world, name, relation)
    they = "she" if name in people.WOMEN else "he"
    question = dice.choice(people.TABLES[relation]["follow_ups"]).format(they=they)
    return task._replace(question=question)


def other_person(dice, world, split, subject):
    """Ask for the same fact about somebody else."""
    _, known, relation = subject.key.split()
    names = [name for name in people.NAMES if relation in instructions.askable(world, name, split)]
    name = dice.choice([name for name in names if name != known])
    task = instructions.fact_question(dice, world, name, relation)
    return task._replace(question=dice.choice(TEMPLATES["other_person"]).format(name=name))


def again(dice, world, split, subject):
    """Ask for the last answer once more."""
    question = dice.choice(TEMPLATES["again"])
    reply = instructions.in_style(dice, instructions.without_style(subject.reply))
    return subject._replace(question=question, reply=reply)


def backwards(dice, world, split, subject):
    """Ask for the list in the last answer, in reverse order."""
    answer = ", ".join(subject.answer.split(", ")[::-1])
    question = dice.choice(TEMPLATES["backwards"])
    return subject._replace(question=question, answer=answer, reply=instructions.in_style(dice, f"{answer}."))


def first_question(dice, world, split, subject, first):
    """Ask what the user's first question was, whatever the subject is now."""
    question = dice.choice(TEMPLATES["first_question"])
    reply = instructions.in_style(dice, TEMPLATES["first_question_reply"].format(first.question))
    return subject._replace(question=question, answer=first.question, reply=reply, wrong_words=())


def add_or_take(dice, world, split, subject):
    """Ask for a sum or difference that starts from the last result."""
    result = int(subject.answer)
    sign = "+" if result <= 100 else "-"

    def draw(dice):
        b = dice.integer(1, 100)
        return b, numbers.key_of(result, sign, b)

    b, key = world.draw_in_split(dice, split, draw)
    question = dice.choice(TEMPLATES[sign]).format(b=b)
    return instructions.with_columns(dice, question, result, sign, b, key)


# These functions return a task of the same kind as the subject, so another follow-up can come after it.
FOLLOW_UPS = {
    "facts": (same_person, same_person, other_person, again),
    "transform": (backwards, again),
    "sums": (add_or_take, add_or_take, again),
}
