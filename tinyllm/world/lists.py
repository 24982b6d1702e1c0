"""Lists of words or numbers, and what can be said of one."""

from tinyllm.world import people, stories

WORDS = stories.THINGS + sum(people.VALUES.values(), []) + people.NAMES
AGAIN = ("Again: {again}.", "Once more: {again}.", "The same again is {again}.")
BACK = ("Backwards: {back}.", "From its end: {back}.", "Turned around it is {back}.")
NEXT = ("After {one} comes {two}.", "{two} follows {one}.", "Before {two} stands {one}.")
END = ("The last is {last}, of {count}.", "It has {count}, last {last}.", "{last} ends all {count}.")


def words(dice):
    """-> (3 to 6 different words, key). A list and the same backwards have one key."""
    found = dice.few(WORDS, dice.number(3, 6))
    return found, f"words {' '.join(min(found, found[::-1]))}"


def numbers(dice):
    found = [str(dice.number(0, 200)) for _ in range(dice.number(2, 5))]
    return found, f"words {' '.join(min(found, found[::-1]))}"


def lines(dice, items):
    """A list, and three things said of it."""
    again, back = ", ".join(items), ", ".join(items[::-1])
    at = dice.number(0, len(items) - 2)
    parts = {"again": again, "back": back, "one": items[at], "two": items[at + 1],
             "last": items[-1], "count": len(items)}  # fmt: skip
    said = [dice.pick(wordings).format(**parts) for wordings in dice.few((AGAIN, BACK, NEXT, END), 3)]
    return " ".join([f"{again}.", *said])
