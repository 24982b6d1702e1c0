"""Random draws, and a count of the bits of randomness that they use.

A model can learn every fact of the world, but it cannot predict the draws that made a text. Drawing one of
n equally likely options takes log2(n) bits. The bits of a text, summed over its draws, are the loss
of a perfect model. Without this count, nobody could say how far from perfect a measured loss is.
"""

import math
import random


class Dice:
    """Random draws decided by a seed (a string). The same seed gives the same draws on every machine."""

    def __init__(self, seed):
        self._random = random.Random(seed)
        self.bits = 0.0

    def choice(self, options):
        """One item of a sequence. Every item is equally likely."""
        self.bits += math.log2(len(options))
        return options[int(self._random.random() * len(options))]

    def weighted_choice(self, weights):
        """One key of {key: weight}, drawn with a probability proportional to its weight."""
        (key,) = self._random.choices(tuple(weights), tuple(weights.values()))
        self.bits += math.log2(sum(weights.values()) / weights[key])
        return key

    def one_in(self, n):
        """True with probability 1/n, otherwise False."""
        return self.weighted_choice({True: 1, False: n - 1})

    def integer(self, low, high):
        """A whole number from low to high, both included."""
        return self.choice(range(low, high + 1))

    def sample(self, options, count):
        """`count` items in random order, each item at most once."""
        remaining, drawn = list(options), []
        for _ in range(count):
            drawn.append(self.choice(remaining))
            remaining.remove(drawn[-1])
        return drawn

    def shuffled(self, options):
        """All items in random order."""
        return self.sample(options, len(options))
