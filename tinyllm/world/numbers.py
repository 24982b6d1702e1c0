"""Counting and one-step sums: what numbers are, before anybody asks about them."""

COUNT = ("Count from {a}: {line}.", "After {a} come {line}.", "{line} follow {a}.")
SUM = ("{a} and {b} make {c}.", "{a} + {b} = {c}.", "The sum of {a} and {b} is {c}.", "{c} is {a} plus {b}.")
LESS = ("{c} less {a} leaves {b}.", "{c} - {a} = {b}.", "Take {a} from {c} and {b} is left.")


def counting(dice):
    a = dice.number(0, 190)
    return dice.pick(COUNT).format(a=a, line=", ".join(str(a + i) for i in range(1, 6)))


def sum_up(dice):
    """-> (sentence, key): a sum or a difference, results up to 200."""
    a, b = dice.number(0, 100), dice.number(0, 100)
    return dice.pick(SUM + LESS).format(a=a, b=b, c=a + b), f"sum {a} {b}"
