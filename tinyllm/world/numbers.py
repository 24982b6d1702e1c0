"""Counting, and sums written out: the ones, then all the tens, then the result.

    47+85:7+5=12,4+8+1=13,132          a result of two digits leaves one for the tens
    132-85:12-5=7,13-8-1=4,47          ten is lent to the ones before it is needed: a result of one digit
    147-85:17-5=12,14-8=6,62           used it up, and the tens have one less

So nothing has to be compared before it is computed; whether a digit has to borrow is what a small model gets
wrong. It cannot see 132 in "47+85" at once either, but each of these steps is small (Nye et al. 2021, "Show
Your Work"; Lee et al. 2023, "Teaching Arithmetic to Small Transformers").
"""

COUNT = ("Count from {a}: {line}.", "After {a} come {line}.", "{line} follow {a}.")
SUM = (
    "{a} and {b} is {a}+{b}:{columns}.",
    "To add {b} to {a} is {a}+{b}:{columns}.",
    "{a} more than {b} is {b}+{a}:{turned}.",
)
LESS = (
    "{a} less {b} is {a}-{b}:{columns}.",
    "To take {b} from {a} is {a}-{b}:{columns}.",
    "{a} without {b} is {a}-{b}:{columns}.",
)


def columns(a, sign, b):
    """The steps of a + b or a - b (a >= b >= 0), and the result at their end."""
    one, other = a % 10 + 10 * (sign == "-"), b % 10
    ones = one + other if sign == "+" else one - other
    carry = (ones > 9) == (sign == "+")
    terms = [a // 10] + [b // 10] * (b > 9) + [1] * carry
    tens = sum(terms) if sign == "+" else 2 * terms[0] - sum(terms)
    return f"{one}{sign}{other}={ones},{sign.join(map(str, terms))}={tens},{10 * tens + ones % 10}"


def compare(a, b):
    """a's digits less b's, ten more each, up to the first that is not 10: 132, 142 are "12-2=10,13-4=9"."""
    width, steps = max(len(str(a)), len(str(b))), []
    for one, two in zip(f"{a:0{width}}"[::-1], f"{b:0{width}}"[::-1]):
        steps.append(f"1{one}-{two}={10 + int(one) - int(two)}")
        if one != two:
            break
    return ",".join(steps)


def counting(dice):
    a = dice.number(0, 190)
    return dice.pick(COUNT).format(a=a, line=", ".join(str(a + i) for i in range(1, 6)))


def operands(dice):
    """-> (a, sign, b), result from 0 to 200."""
    sign, a, b = dice.pick("+-"), dice.number(0, 100), dice.number(0, 100)
    return (a, sign, b) if sign == "+" else (a + b, sign, b)


def key_of(a, sign, b):
    return f"sum {a}{sign}{b}"


def sum_up(dice):
    """-> (sentence, key): a sum or a difference."""
    a, sign, b = operands(dice)
    wording = dice.pick(SUM if sign == "+" else LESS)
    turned = columns(b, sign, a) if sign == "+" else ""
    return wording.format(a=a, b=b, columns=columns(a, sign, b), turned=turned), key_of(a, sign, b)
