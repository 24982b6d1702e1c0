"""Counting, and sums written out column by column, as at school.

    47+85:7+5=12,4+8+1=13,132           the carry goes on to the next column, the last sum stays whole
    132-85:12-5=7,13-8-1=4,1-1=0,47     a column that would be negative borrows ten from the next

A small model cannot see 132 in "47+85" at once, but each of these steps is small (Nye et al. 2021, "Show Your
Work"; Lee et al. 2023, "Teaching Arithmetic to Small Transformers").
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
    top, low = str(a)[::-1], str(b)[::-1]
    steps, result, carry = [], "", 0
    width = max(len(top), len(low))
    for i in range(width):
        digit = int(top[i]) if i < len(top) else 0
        other = int(low[i]) if i < len(low) else 0
        terms = [digit] + [other] * (i < len(low)) + [carry] * bool(carry)
        value = terms[0] + sum(terms[1:]) if sign == "+" else terms[0] - sum(terms[1:])
        borrowed = sign == "-" and value < 0
        if borrowed:
            value, terms[0] = value + 10, terms[0] + 10
        steps.append(f"{sign.join(map(str, terms))}={value}")
        carry = value // 10 if sign == "+" else int(borrowed)
        result = str(value if i == width - 1 else value % 10) + result
    return ",".join([*steps, str(int(result))])


def compare(a, b):
    """a - b column by column, up to the first that is not 0: 132 and 142 are "2-2=0,13-4=9"."""
    width, steps = max(len(str(a)), len(str(b))), []
    for one, two in zip(f"{a:0{width}}"[::-1], f"{b:0{width}}"[::-1]):
        top = int(one) + 10 * (one < two)
        steps.append(f"{top}-{two}={top - int(two)}")
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
