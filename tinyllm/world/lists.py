"""Lists of words and numbers, said again, backwards, counted: to copy is what all else needs."""

from tinyllm.world import people, stories

WORDS = stories.THINGS + sum(people.VALUES.values(), []) + people.NAMES
AGAIN = ("Again: {again}.", "Once more: {again}.", "The same again is {again}.")
BACK = ("Backwards: {back}.", "From its end: {back}.", "Turned around it is {back}.")
END = ("The last is {last}, of {count}.", "It has {count}, last {last}.", "{last} ends all {count}.")


def words(dice):
    """-> (3 to 5 different words, key). A list and the same backwards have one key."""
    found = dice.few(WORDS, dice.number(3, 5))
    return found, f"words {' '.join(min(found, found[::-1]))}"


def numbers(dice):
    found = [str(dice.number(0, 200)) for _ in range(dice.number(2, 4))]
    return found, f"words {' '.join(min(found, found[::-1]))}"


def lines(dice, items):
    """A list, and two things said of it."""
    again, back = ", ".join(items), ", ".join(items[::-1])
    parts = {"again": again, "back": back, "last": items[-1], "count": len(items)}
    said = [dice.pick(wordings).format(**parts) for wordings in dice.few((AGAIN, BACK, END), 2)]
    return " ".join([f"{again}.", *said])
