"""Who lives in the world, and the five things that are known of each.

Every value belongs to as many people as every other, so that the best blind guess is right one time
in twelve.
"""

NAMES = """
Ada Alba Amos Anna Arlo Asa Beth Bill Boris Bruno Cara Carl Clara Cora Cyril Dan Dora Doris Edgar
Elsa Emil Emma Enzo Erik Esme Eva Ezra Fay Felix Flora Frank Fred Gail Gina Grace Greta Gus Hana
Hank Heidi Henry Hilda Hugo Ida Igor Ines Ingrid Iris Ivan Jack Jada Jane Jasper Joan Jonas Judy
Julia Karl Kate Kira Kurt Lars Laura Lena Leo Lily Lola Lotte Lucy Luis Mabel Magnus Marco Maria Max
Mia Milo Mona Nadia Ned Nell Nina Noah Nora Olaf Olga Oscar Otto Pablo Paula Penny Peter Petra Quinn
Ralph Rita Robin Rosa Ruben Ruth Sally Sam Sara Sid Simon Sofia Stella Tara Theo Tilda Tina Tom Uma
Ursula Vera Victor Wanda Will Yara Zoe
""".split()

VALUES = {
    "pet": "cat dog fish horse goat duck mouse rabbit parrot turtle lizard pony".split(),
    "food": "bread soup rice cheese honey plums beans apples noodles cake eggs corn".split(),
    "home": "Alden Brook Corvo Delmar Essex Farrow Glenby Harwick Irondale Juniper Kelso Lomond".split(),
    "coat": "red blue green yellow brown black white grey purple orange pink golden".split(),
    "job": "baker miller tailor painter doctor farmer singer writer teacher sailor hunter potter".split(),
}

TELL = {                     # relation -> ways to say it; the value comes last, so that it can be asked for
    "pet": ("{name} has a {value}.", "The pet of {name} is a {value}.", "{name} keeps a {value}.",
            "At night {name} feeds a {value}.", "The animal that {name} loves is a {value}."),
    "food": ("{name} likes {value}.", "The food that {name} likes is {value}.", "{name} often eats {value}.",
             "For dinner {name} wants {value}.", "What {name} cooks best is {value}."),
    "home": ("{name} lives in {value}.", "The home of {name} is {value}.", "{name} has a house in {value}.",
             "You can find {name} in {value}.", "The town where {name} lives is {value}."),
    "coat": ("{name} wears a coat that is {value}.", "The coat of {name} is {value}.",
             "{name} bought a coat in {value}.", "The colour of the coat of {name} is {value}.",
             "In winter the coat of {name} looks {value}."),
    "job": ("{name} works as a {value}.", "The job of {name} is that of a {value}.", "{name} is a {value}.",
            "By day {name} is a {value}.", "People know {name} as a {value}."),
}


def facts(dice):
    """(name, relation) -> value, balanced."""
    known = {}
    for relation, values in VALUES.items():
        known |= {(name, relation): values[i % len(values)] for i, name in enumerate(dice.shuffled(NAMES))}
    return known


def tell(dice, known, name, relation):
    """One fact in one of its wordings. Which value it is costs no bits: the world is known."""
    return dice.pick(TELL[relation]).format(name=name, value=known[name, relation])


def biography(dice, known):
    """All that is known of one person, in any order."""
    name = dice.pick(NAMES)
    return " ".join(tell(dice, known, name, relation) for relation in dice.shuffled(VALUES))


def gossip(dice, known):
    """A few facts about anybody."""
    return " ".join(tell(dice, known, dice.pick(NAMES), dice.pick(tuple(VALUES))) for _ in range(5))
