"""Lists of words or numbers, and statements that repeat, reverse or describe them.

Instructions ask for the same operations, so pre-training shows them first.
"""

from tinyllm.world import people, stories
from tinyllm.world.wordings import WORDINGS

WORDS = [*stories.THINGS, *sum(people.VALUES.values(), []), *people.NAMES]


def key_of(items):
    """The key of a list. The reversed list has the same key, because either list gives away the other."""
    return f"words {' '.join(min(items, items[::-1]))}"


def draw_words(dice):
    """-> (3 to 6 different words, key)."""
    words = dice.sample(WORDS, dice.integer(3, 6))
    return words, key_of(words)


def draw_numbers(dice):
    """-> (2 to 5 numbers as text, key)."""
    numbers = [str(dice.integer(0, 200)) for _ in range(dice.integer(2, 5))]
    return numbers, key_of(numbers)


def fields(items):
    """The values for the fields in templates about a list."""
    return dict(again=", ".join(items), back=", ".join(items[::-1]), last=items[-1], count=len(items))


def describe(dice, items):
    """The list, then three statements about it, of different kinds."""
    i = dice.integer(0, len(items) - 2)
    parts = fields(items) | {"one": items[i], "two": items[i + 1]}
    sentences = [f"{parts['again']}."]
    for templates in dice.sample(WORDINGS["lists"].values(), 3):
        sentences.append(dice.choice(templates).format(**parts))
    return " ".join(sentences)


def document(dice, world, split):
    """A description of one list, of words or of numbers."""
    draw = dice.choice((draw_words, draw_numbers))
    return describe(dice, world.draw_in_split(dice, split, draw)[0])
