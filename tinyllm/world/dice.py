"""Chance that keeps count: dice that know how surprising their throws were.

Every choice among n equal possibilities is log2(n) bits that no reader can foresee. Added up over a
text, they are the floor below which no model's bits per byte can fall.
"""

import math
import random


class Dice:
    """Seeded by any text, so that the same text gives the same throws on every machine."""

    def __init__(self, seed):
        self._random = random.Random(seed)
        self.bits = 0.0

    def pick(self, options):
        """One of a sequence."""
        self.bits += math.log2(len(options))
        return options[int(self._random.random() * len(options))]

    def among(self, shares):
        """A key of {key: share}, as often as its share of all says."""
        (key,) = self._random.choices(tuple(shares), tuple(shares.values()))
        self.bits += math.log2(sum(shares.values()) / shares[key])
        return key

    def number(self, low, high):
        """A whole number from low to high, both included."""
        return self.pick(range(low, high + 1))

    def shuffled(self, options):
        """All of them, in some order: the first of n, then one of those that are left, and so on."""
        left, order = list(options), []
        while left:
            order.append(left.pop(left.index(self.pick(left))))
        return order

    def few(self, options, count):
        """`count` different ones, in some order."""
        left, order = list(options), []
        for _ in range(count):
            order.append(left.pop(left.index(self.pick(left))))
        return order
