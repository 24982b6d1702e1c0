"""Which digits may come next, in a number that must lie within bounds.

The canonical text of a number is what json.dumps writes: an integer's digits, or the shortest decimal that
reads back as the same float (repr). No finite automaton knows the second, so this asks arithmetic instead:
the texts that begin with a prefix are an interval of values for each number of further digits, and an
interval either holds a multiple of the step or it does not.

    interval of "12" with one more digit:     120 .. 129     step 1
    interval of "0.2" with one more digit:   0.20 .. 0.29    step 1/100
"""

from fractions import Fraction
from functools import lru_cache, partial
from itertools import chain, islice, product
from math import ceil, floor, gcd, inf
from typing import NamedTuple

from tools.json_reader import MAX_DIGITS

POWERS = {  # where repr writes an exponent; short spellings first
    f"e{power:+03d}": Fraction(10) ** power
    for power in sorted([*range(16, 309), *range(-5, -325, -1)], key=lambda power: len(f"{power:+03d}"))
}
DIGITS = [["".join(digits) for digits in product("0123456789", repeat=n)] for n in range(3)]
REACH = 4  # bytes that `likeness` looks ahead


class Bounds(NamedTuple):
    """The numbers from low to high (Fractions, or infinite) that are multiples of step (None: all numbers).

    open_low and open_high leave the bound itself out. An integer is a multiple of 1: JSON Schema takes 1.0
    for one."""

    low: Fraction | float = -inf
    open_low: bool = False
    high: Fraction | float = inf
    open_high: bool = False
    step: Fraction | None = None

    def __contains__(self, value):
        return (
            (self.low < value or value == self.low and not self.open_low)
            and (value < self.high or value == self.high and not self.open_high)
            and (self.step is None or (value / self.step).denominator == 1)
        )

    def __and__(self, other):
        low, high = max(self.low, other.low), min(self.high, other.high)
        steps = [b.step for b in (self, other) if b.step is not None]
        return Bounds(
            low,
            any(b.open_low and b.low == low for b in (self, other)),
            high,
            any(b.open_high and b.high == high for b in (self, other)),
            common(*steps) if len(steps) == 2 else steps[0] if steps else None,
        )

    def mirrored(self):
        return Bounds(-self.high, self.open_high, -self.low, self.open_low, self.step)


def common(a, b):
    """The smallest number that is a multiple of both fractions."""
    top = a.numerator * b.denominator, b.numerator * a.denominator
    return Fraction(top[0] * top[1] // gcd(*top), a.denominator * b.denominator)


def multiples(low, high, bounds, unit):
    """Multiples of `unit` in low <= x < high that lie within the bounds, from the smallest up."""
    step = unit if bounds.step is None else common(unit, bounds.step)
    count = ceil(max(low, bounds.low) / step)
    while (value := count * step) < high and value <= bounds.high:
        if value in bounds:
            yield value
        count += 1


@lru_cache(maxsize=1 << 16)
def tail(prefix, bounds):
    """How many more bytes the shortest canonical number within the bounds needs that begins with the prefix;
    0 where the prefix is one, None where no number begins so."""
    if prefix.startswith("-"):
        return unsigned(prefix[1:], bounds.mirrored(), negative=True)
    found = [unsigned(prefix, bounds, negative=False)]
    if not prefix:
        below = tail("-", bounds)
        found.append(None if below is None else below + 1)
    return min((n for n in found if n is not None), default=None)


def unsigned(text, bounds, negative):
    if bounds.high < 0 or not text:
        ways = [] if bounds.high < 0 else [unsigned(digit, bounds, negative) for digit in "0123456789"]
        return min((n + 1 for n in ways if n is not None), default=None)
    mantissa, e, exponent = text.partition("e")
    whole, point, part = mantissa.partition(".")
    if (
        not whole.isdigit()
        or (part and not part.isdigit())
        or (whole[0] == "0" and len(whole) > 1)
        or (e and point and not part)
    ):
        return None
    if bounds.step in (None, 1) and text.strip("0.") and all_pass(whole, point, part, bounds):
        return unbounded(mantissa, e + exponent, bounds.step)
    bounds, ways = bounds & Bounds(low=Fraction(0)), []
    if not e and not point:
        ways += integers(whole, bounds, negative)
    if not e and (not ways or min(ways) > 1):
        ways += decimals(whole, point, part, bounds)
    if len(whole) == 1 and whole != "0" and (not ways or min(ways) > 4) and bounds.high > 0:
        ways += powers(mantissa, e + exponent, point, part, bounds)
    return min(ways, default=None)


def interval(whole, part):
    """The numbers that begin so and get no further digits before the point: from, to below."""
    scale = 10 ** len(part)
    return Fraction(int(whole + part), scale), Fraction(int(whole + part) + 1, scale)


def all_pass(whole, point, part, bounds):
    """Whether every positive number that begins so lies within the bounds."""
    if bounds.low <= 0 and bounds.high == inf:
        return True
    if not point or len(whole) == 1 and whole != "0" or len(whole) > 16:
        return False
    low, high = interval(whole, part)
    return bounds.low < low and high <= bounds.high


def unbounded(mantissa, ending, step):
    """`tail` where only spelling counts, by trying endings, the shortest first: no text of up to 17 digits is
    more than two digits from a float."""
    whole, point, part = mantissa.partition(".")
    if not point and not ending:
        return 0 if len(whole) <= MAX_DIGITS else None
    room = 0 if ending else max(min(2, 17 - len((whole + part).lstrip("0"))), not part)
    more = DIGITS[: room + 1]
    if step and not ending:
        if part in ("", "0") and canonical(mantissa + "0"[len(part) :]):
            return 1 - len(part)
    elif not ending and not (whole == "0" and part[:4] == "0000"):
        for digits in chain(*more):
            if (part or digits) and canonical(mantissa + digits):
                return len(digits)
    if len(whole) == 1 and whole != "0" and (part or not point):
        wanted = [p for p in POWERS if p.startswith(ending) and not (step and p[1] == "-")]
        for digits, power in ((digits, power) for some in more for power in wanted for digits in some):
            if canonical(mantissa + digits + power):
                return len(digits) + len(power) - len(ending)
    return None


def integers(whole, bounds, negative):
    if whole == "0":
        return [0] if 0 in bounds and not negative else []
    short = 0 if bounds.low < 1 else len(str(floor(bounds.low))) - len(whole)
    sparse = len(str(bounds.step.numerator)) if bounds.step else 0  # so many digits reach the next multiple
    for more in range(max(short, 0) + sparse + 2):
        low, unit = int(whole) * 10**more, 10**more
        if len(whole) + more > MAX_DIGITS or low > bounds.high:
            return []
        if next(multiples(Fraction(low), low + unit, bounds, Fraction(1)), None) is not None:
            return [more]
    return []


def decimals(whole, point, part, bounds):
    """Fixed notation: 17 significant digits at most, 0.0001 to below 1e16, a digit behind the point."""
    ways = []
    for more in range(0, 1 if point or whole == "0" else 17 - len(whole)):
        scale = Fraction(10**more, 10 ** len(part))
        low = int(whole + part) * scale
        if low > bounds.high:
            break
        zeros = len(part) - len(part.lstrip("0")) if whole == "0" else -len(whole) - more
        most = 17 + (3 if zeros == len(part) <= 3 else zeros)
        for digits in range(max(1, len(part)), most + 1 if zeros <= 3 else 0):
            length = more + (not point) + digits - len(part)
            if length >= min(ways, default=inf):
                break
            unit = Fraction(1, 10**digits)
            values = multiples(low, low + scale, bounds, unit)
            if any_canonical(values, partial(fixed, unit, digits), digits - zeros):
                ways.append(length)
                break
    return ways


def powers(mantissa, ending, point, part, bounds):
    """Scientific notation: d.ddde+XX, where repr uses it."""
    ways = []
    value = Fraction(mantissa.rstrip("."))
    spread = 0 if ending else Fraction(1, 10 ** len(part))
    least = max(bounds.low, bounds.step or 0)
    for spelled, scale in POWERS.items():
        if not spelled.startswith(ending) or len(spelled) - len(ending) >= min(ways, default=inf):
            continue
        if (value + spread) * scale < least or value * scale > bounds.high:
            continue
        fewest = max(len(part), point == ".")
        for digits in range(fewest, fewest + (1 if ending else 17 - fewest)):
            unit = scale / 10**digits
            ends = value * scale, (value + spread) * scale + (unit if ending else 0)
            spell = partial(scientific, unit, digits, spelled)
            if any_canonical(multiples(*ends, bounds, unit), spell, digits + 1):
                dot = digits > 0 and not point
                ways.append(dot + digits - len(part) + len(spelled) - len(ending))
                break
    return ways


def likeness(text, bounds):
    """A number's text in place of which this one may stand: the same REACH bytes or fewer may follow, and
    leave the same way to an end. What is worked out for one number is then known for many.

    Where the bounds let all numbers pass that can follow, or none, only the places of digits count: all
    decimals of up to 15 digits are floats, and no number with 17 digits before the point has a point."""
    sign, unsigned = ("-", text[1:]) if text.startswith("-") else ("", text)
    bounds = bounds.mirrored() if sign else bounds
    whole, point, part = unsigned.partition(".")
    if "e" in text or not unsigned.strip("0.") or bounds.step not in (None, 1):
        return text
    free = bounds.low <= 0 and bounds.high == inf
    if len(whole + part) + REACH > 15 + (not point) or len(whole) == 1 and whole != "0" and not free:
        return sign + "1" * 17 if free and not point and 17 <= len(whole) <= MAX_DIGITS - 2 * REACH else text
    head, zeros = part.rstrip("0"), len(part) - len(part.rstrip("0"))
    lead = len(head) - len(head.lstrip("0")) if whole == "0" else 0
    here = sides(whole, point, part, bounds)
    size = 2 if len(whole) > 2 and head else len(whole)  # then only the number of all digits counts
    head = len(head) - lead + len(whole) - size
    for digit in "19":
        like = "0" if whole == "0" else digit * size, "0" * lead + digit * head + "0" * zeros
        if None not in here and sides(like[0], point, like[1], bounds) == here:
            return sign + like[0] + point + like[1]
    return text


def sides(whole, point, part, bounds):
    """For no more digits before the point, one more, ... until it stays so: whether all numbers that begin so
    lie within the bounds (True), outside (False), or some of each (None)."""
    found = []
    low, high = interval(whole, part)
    while len(found) < 20:
        inside = (low > bounds.low or low == bounds.low and not bounds.open_low) and high <= bounds.high
        found.append(inside if inside or high <= bounds.low or low > bounds.high else None)
        if point or low > bounds.high or inside and bounds.high == inf or found[-1] is None:
            return found
        low, high = low * 10, high * 10
    return [None]


def fixed(unit, digits, value):
    return f"{floor(value)}.{str(round(value % 1 / unit)).zfill(digits)}"


def scientific(unit, digits, exponent, value):
    scaled = str(round(value / unit))
    return f"{scaled[0]}.{scaled[1:]}{exponent}" if digits else scaled + exponent


def any_canonical(values, spell, digits):
    """Whether repr writes one of the values so. A decimal of up to 15 digits is written so unless it ends in
    a zero; among longer ones floats are rarer than decimals, hence the many tries."""
    return any(canonical(spell(value)) for value in islice(values, 10 if digits <= 15 else 300))


def canonical(text):
    """Whether json.dumps would write a number so."""
    if "." in text or "e" in text:
        return repr(float(text)) == text
    return text != "-0"
