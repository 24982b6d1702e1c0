"""The people of the world, and five facts about each of them.

Pre-training states these facts and later stages ask about them, so exams can measure what a model
remembers. Each of the twelve values of a relation belongs to the same number of people. So a guess is right
one time in twelve, and no value is a better guess than another.
"""

from tinyllm.world.wordings import WORDINGS

NAMES = WORDINGS["people"]["names"]
UNKNOWN_NAMES = WORDINGS["people"]["unknown_names"]  # no person in the world has one of these names
WOMEN = frozenset(WORDINGS["people"]["women"])
TABLES = WORDINGS["people"]["relations"]
RELATIONS = tuple(TABLES)
VALUES = {relation: table["values"] for relation, table in TABLES.items()}
STATEMENTS = {relation: table["statements"] for relation, table in TABLES.items()}


def make_facts(dice):
    """{(name, relation): value}, with every value of a relation used equally often."""
    facts = {}
    for relation, values in VALUES.items():
        for i, name in enumerate(dice.shuffled(NAMES)):
            facts[name, relation] = values[i % len(values)]
    return facts


def choose_trained_relations(dice):
    """{name: the three relations that training asks about}. The other two are left for exams."""
    return {name: dice.sample(RELATIONS, 3) for name in NAMES}


def state_fact(dice, facts, name, relation):
    """One fact as a sentence that ends in the value, as clozes require: "Ada has a duck."

    The value costs no bits, because a model can know the facts.
    """
    return dice.choice(STATEMENTS[relation]).format(name=name, value=facts[name, relation])


def make_up_fact(dice, name, relation):
    """A sentence with a random value, true or not."""
    return state_fact(dice, {(name, relation): dice.choice(VALUES[relation])}, name, relation)


def biography(dice, world, split):
    """All five facts about one person, in random order."""
    name = dice.choice(NAMES)
    relations = dice.shuffled(RELATIONS)
    return " ".join(state_fact(dice, world.facts, name, relation) for relation in relations)


def gossip(dice, world, split):
    """Five facts about random people."""
    return " ".join(
        state_fact(dice, world.facts, dice.choice(NAMES), dice.choice(RELATIONS)) for _ in range(5)
    )
