"""Text and questions that have nothing to do with the built-in world: a register of ships.

The text states every fact many times, in two wordings. There is one question about each fact. About one
question in ten is held out: training never asks it, but the text states its answer.
"""

import json
import random

SHIPS = [
    f"{first} {second}"
    for first in (
        "Grey",
        "Morning",
        "Northern",
        "Silver",
        "Old",
        "Proud",
        "Lucky",
        "Silent",
        "Western",
        "Bright",
    )
    for second in (
        "Heron",
        "Tide",
        "Anchor",
        "Gannet",
        "Lantern",
        "Petrel",
        "Harvest",
        "Compass",
        "Otter",
        "Breeze",
    )
]
FACTS = {  # name -> (values, statements, question)
    "captain": (
        "Ahlberg Brandt Castellan Dumont Eklund Fontaine Grimaldi Hoekstra Ivarsson Jelinek".split(),
        ("Captain {value} commands the {ship}.", "The master of the {ship} is Captain {value}."),
        "Who commands the {ship}?",
    ),
    "cargo": (
        "timber salt coal barley granite wool copper slate paper cotton".split(),
        ("The {ship} carries {value}.", "In the hold of the {ship} lies {value}."),
        "What does the {ship} carry?",
    ),
    "port": (
        "Bergen Cork Danzig Esbjerg Falmouth Genoa Hull Izmir Kiel Lisbon".split(),
        ("The {ship} is registered in {value}.", "Home port of the {ship}: {value}."),
        "Where is the {ship} registered?",
    ),
    "hull": (
        "black white green crimson grey ochre teal brown yellow violet".split(),
        ("The hull of the {ship} is {value}.", "They painted the {ship} {value}."),
        "What colour is the hull of the {ship}?",
    ),
    "engine": (
        "Wartsila Sulzer Deutz Perkins Volvo Caterpillar Scania Yanmar Doosan Mirrlees".split(),
        ("A {value} engine drives the {ship}.", "The {ship} has an engine made by {value}."),
        "Which engine drives the {ship}?",
    ),
}


def facts(seed=0):
    """{(ship, name of the fact): value}"""
    rng = random.Random(f"ships {seed}")
    return {(ship, name): rng.choice(values) for ship in SHIPS for name, (values, _, _) in FACTS.items()}


def write_text(path, size, seed=0):
    """Write at least `size` bytes of register entries, one ship per entry, to one file."""
    rng, values, entries, length = random.Random(f"text {seed}"), facts(seed), [], 0
    while length < size:
        ship, names = rng.choice(SHIPS), rng.sample(sorted(FACTS), 5)
        sentences = [rng.choice(FACTS[name][1]).format(ship=ship, value=values[ship, name]) for name in names]
        entries.append(" ".join(sentences))
        length += len(entries[-1]) + 1
    path.write_text("\n".join(entries) + "\n", encoding="utf-8")


def write_questions(path, seed=0):
    """Write one question about each of the 500 facts, in Alpaca format."""
    pairs = [(FACTS[name][2].format(ship=ship), f"{value}.") for (ship, name), value in facts(seed).items()]
    random.Random(f"questions {seed}").shuffle(pairs)
    lines = [json.dumps({"instruction": question, "output": answer}) for question, answer in pairs]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
