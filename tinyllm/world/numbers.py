"""Counting, and sums worked out in columns: the ones, then the tens, then the result.

A small model cannot compute 132 from "47+85" at once, but each step below is small enough for it (Nye et
al. 2021, "Show Your Work"; Lee et al. 2023, "Teaching Arithmetic to Small Transformers").

    47+85:7+5=12,4+8+1=13,132     the ones make 12: 1 is carried to the tens
    132-85:12-5=7,13-8-1=4,47     the ones borrow 10; 7 is less than 10, so the tens lose 1
    147-85:17-5=12,14-8=6,62      12 still contains the borrowed 10, so the tens lose nothing

Every subtraction borrows, because a small model often decides wrongly whether to borrow.
"""

from tinyllm.world.wordings import WORDINGS

TEMPLATES = WORDINGS["numbers"]


def columns(a, sign, b):
    """The steps of a + b, or of a - b for a >= b >= 0, with the result at the end."""
    top, bottom = a % 10, b % 10
    if sign == "+":
        result, ones = a + b, top + bottom
        carry = ones // 10
    else:
        top += 10
        result, ones = a - b, top - bottom
        carry = 1 - ones // 10
    # The carry and b's tens are written only if they are not 0.
    tens = sign.join(str(term) for term in (a // 10, *filter(None, (b // 10, carry))))
    return f"{top}{sign}{bottom}={ones},{tens}={result // 10},{result}"


def compare(a, b):
    """For each digit from the right, 10 plus a's digit minus b's digit, until a result is not 10.

    132 and 142 give "12-2=10,13-4=9": the ones are equal, the tens are not.
    """
    width, steps = max(len(str(a)), len(str(b))), []
    for digit_a, digit_b in zip(f"{a:0{width}}"[::-1], f"{b:0{width}}"[::-1]):
        steps.append(f"1{digit_a}-{digit_b}={10 + int(digit_a) - int(digit_b)}")
        if digit_a != digit_b:
            break
    return ",".join(steps)


def counting(dice):
    """A sentence such as "After 7 come 8, 9, 10, 11, 12."."""
    a = dice.integer(0, 190)
    line = ", ".join(str(a + i) for i in range(1, 6))
    return dice.choice(TEMPLATES["counting"]).format(a=a, line=line)


def key_of(a, sign, b):
    """The key of a sum or difference: the same for 47+85 and 85+47, whose columns are nearly the same."""
    if sign == "+":
        a, b = sorted((a, b))
    return f"sum {a}{sign}{b}"


def draw_operands(dice):
    """-> ((a, sign, b), key), with a result from 0 to 200."""
    sign, a, b = dice.choice("+-"), dice.integer(0, 100), dice.integer(0, 100)
    drawn = (a, "+", b) if sign == "+" else (a + b, "-", b)
    return drawn, key_of(*drawn)


def worked_sum(dice):
    """-> (a sentence with a sum or difference in columns, key)."""
    (a, sign, b), key = draw_operands(dice)
    template = dice.choice(TEMPLATES[sign])
    # Only the wording "{a} more than {b} is {b}+{a}:{turned}" uses `turned`.
    turned = columns(b, sign, a) if sign == "+" else ""
    return template.format(a=a, b=b, columns=columns(a, sign, b), turned=turned), key


def document(dice, world, split):
    """A line of counting, then two sums or differences."""
    sums = [world.draw_in_split(dice, split, worked_sum)[0] for _ in range(2)]
    return " ".join([counting(dice), *sums])
