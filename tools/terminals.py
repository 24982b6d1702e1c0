"""Terminals: which bytes may come next inside a number, a string or one of several fixed texts.

Terminals are immutable. `moves` gives {allowed byte: the rest of the terminal after it}. `far` gives the
number of bytes in the shortest completion: if it is 0, the terminal may end. grammar.py combines terminals;
masks.py walks a vocabulary through them."""

import re
from collections import defaultdict
from functools import lru_cache
from math import ceil, floor, inf
from typing import NamedTuple

from tools.schema import exact

QUOTE = ord('"')
remember = lru_cache(1 << 15)
INTEGER_DIGITS, DIGITS = 20, 15  # the limits for an integer and for a decimal
CHARACTERS = (  # the kinds of characters inside a string, with one regular expression for each byte
    r"[\x20!#-\[\]-\x7f]",
    r"\\ [\"\\bfnrt]",
    r"\\ u 0 0 0 [0-7bef]",
    r"\\ u 0 0 1 [0-9a-f]",
    r"[\xc2-\xdf] [\x80-\xbf]",
    r"\xe0 [\xa0-\xbf] [\x80-\xbf]",
    r"[\xe1-\xec\xee\xef] [\x80-\xbf] [\x80-\xbf]",
    r"\xed [\x80-\x9f] [\x80-\xbf]",
    r"\xf0 [\x90-\xbf] [\x80-\xbf] [\x80-\xbf]",
    r"[\xf1-\xf3] [\x80-\xbf] [\x80-\xbf] [\x80-\xbf]",
    r"\xf4 [\x80-\x8f] [\x80-\xbf] [\x80-\xbf]",
)


class Words(NamedTuple):
    """One of several texts."""

    texts: frozenset

    def moves(self):
        left = defaultdict(set)
        for text in filter(None, self.texts):
            left[text[0]].add(text[1:])
        return {byte: Words(frozenset(texts)) for byte, texts in left.items()}

    def far(self):
        return min(map(len, self.texts), default=inf)


class Number(NamedTuple):
    """The remaining digits of a number, after its sign.

    `ways` has a tuple (whole, places, low, high) for each number of digits that the whole part may have:
    `whole` digits are still to come before the point, and up to `places` after it. All these digits, padded
    with zeros at the end, form an integer from `low` to `high`. `whole` becomes -1 at the point, and -2 at
    the next digit. `low` is at least 0 and `high` at most 99...9, so that tuples with the same continuations
    are equal."""

    ways: frozenset

    @remember
    def moves(self):
        moves = defaultdict(set)
        for whole, places, low, high in self.ways:
            if whole == 0 < places:
                moves[ord(".")].add((-1, places, low, high))
            elif whole > 0 or places:
                whole, places = (whole - 1, places) if whole > 0 else (-2, places - 1)
                unit = 10 ** (max(whole, 0) + places)  # place value of the next digit
                for digit in range(low // unit, high // unit + 1):
                    limits = max(low - digit * unit, 0), min(high - digit * unit, unit - 1)
                    moves[ord("0") + digit].add((whole, places, *limits))
        return {byte: same(Number(frozenset(ways))) for byte, ways in moves.items()}

    @remember
    def far(self):
        return min(map(shortest, self.ways), default=inf)


same = lru_cache(1 << 14)(lambda item: item)  # equal items become one object, which is quicker to compare


def shortest(way):
    """The number of bytes in the shortest completion of a way. n digits after the point can express any
    multiple of 10 ** (places - n)."""
    whole, places, low, high = way
    units = ((n, 10 ** (places - n)) for n in range(whole == -1, places + 1))
    decimals = next(n for n, unit in units if high // unit * unit >= low)
    return decimals if whole < 0 else whole + decimals + (decimals > 0)


@lru_cache
def numbers(bounds, integer, sign):
    """The numbers with this sign (1 or -1) that lie within the bounds, which are (keyword, value) pairs."""
    ways = set()
    for whole in range(1, INTEGER_DIGITS + 1):
        places = 0 if integer else max(DIGITS - whole, 0)
        low, high = 10 ** (whole + places - 1) if whole > 1 else 0, 10 ** (whole + places) - 1
        for keyword, value in bounds:
            bound, exclusive = exact(value) * 10**places * sign, keyword.startswith("exclusive")
            if keyword.lower().endswith("minimum") == (sign > 0):
                low = max(low, floor(bound) + 1 if exclusive else ceil(bound))
            else:
                high = min(high, ceil(bound) - 1 if exclusive else floor(bound))
        if low <= high:
            ways.add((whole, places, low, high))
    return Number(frozenset(ways))


class Text(NamedTuple):
    """The rest of a string after its opening quote. `character` holds the possible endings of a character
    that has begun, or is BETWEEN if none has. `low` to `high` further characters must follow."""

    character: frozenset
    low: int
    high: float

    def moves(self):
        begins = self.character is BETWEEN
        low, high = max(self.low - begins, 0), self.high - begins
        after = following(self.character) if high >= 0 else {}
        moves = {byte: Text(character, low, high) for byte, character in after.items()}
        return {**moves, QUOTE: DONE} if begins and not self.low else moves

    def far(self):
        more = 0 if self.character is BETWEEN else min(map(len, self.character))
        return more + self.low + 1 if self.low <= self.high else inf


def word(text):
    return Words(frozenset([text]))


BETWEEN = frozenset(tuple(character.split()) for character in CHARACTERS)
DONE = word(b"")


@lru_cache
def following(character):
    """The possible endings of a character -> {next byte: the possible endings after it}"""
    endings = defaultdict(set)
    for left in character:
        for (byte,) in re.findall(f"(?s){left[0]}".encode(), bytes(range(256))):
            endings[byte].add(left[1:])
    return {byte: BETWEEN if () in after else frozenset(after) for byte, after in endings.items()}
