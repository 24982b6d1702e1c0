"""Lists of words and numbers, said again, backwards, counted, compared: to copy is what all else needs."""

from tinyllm.world import people, stories

WORDS = stories.THINGS + people.VALUES["pet"] + people.VALUES["food"]
AGAIN = ("Again: {again}.", "Once more: {again}.", "The same again is {again}.")
BACK = ("Backwards: {back}.", "From its end: {back}.", "Turned around it is {back}.")
END = ("The last is {last}, of {count}.", "It has {count}, last {last}.", "{last} ends all {count}.")

SAME = ("{one} and {two} are {same}.", "{one} beside {two}: {same}.", "{one}={two}? {same}.")


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


def pairs(dice):
    """Words or numbers side by side: the same, or different?"""
    said, count = [], dice.pick((True, False))
    draw = lambda: str(dice.number(0, 200)) if count else dice.pick(WORDS)
    for _ in range(3):
        one = draw()
        two = one if dice.pick((True, False)) else draw()
        said.append(dice.pick(SAME).format(one=one, two=two, same="the same" if one == two else "different"))
    return " ".join(said)
