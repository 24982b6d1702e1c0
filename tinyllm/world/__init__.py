"""A small closed world, made from a seed: its people, their stories, its numbers, its second language.

Nothing has to be downloaded to train on it, and it is its own oracle: it knows every true answer, what
was said in training and what was not, and how many bits of chance its texts hold.

What is held out is decided by content, never by position: `split_of` hashes a key that says what a story, a
sum or a question means, whatever its wording, and texts of one split hold only keys of that split. Facts
about people are in every split: they are what there is to know. Two of the five of each person are never
asked about in training.
"""

import hashlib

from tinyllm.world import instructions, lexicon, lists, numbers, people, problems, stories
from tinyllm.world.dice import Dice

TOPICS = {"biography": 4, "gossip": 3, "story": 3, "numbers": 4, "lists": 2, "lexicon": 1}


def split_of(key):
    """A key of meaning -> "test" (20 of 100), "val" (10) or "train"."""
    place = int.from_bytes(hashlib.sha1(key.encode()).digest()[:8], "big") % 100
    return "test" if place < 20 else "val" if place < 30 else "train"


def texts(dice, make, characters):
    """Each begins with a space, so that a word at its beginning is the token that it is elsewhere."""
    made, length = [], 0
    while length < characters:
        made.append(f" {make(dice)}".encode())
        length += len(made[-1])
    return made


class World:
    """The world of a seed: facts[name, relation] -> value; asked[name] -> relations asked about in training;
    strangers[split] -> names of nobody."""

    def __init__(self, seed=0):
        self.seed = seed
        self.facts = people.facts(Dice(f"facts of world {seed}"))
        self.asked = people.asked(Dice(f"questions of world {seed}"))
        self.strangers = {split: [name for name in people.STRANGERS if split_of(f"stranger {name}") == split]
                          for split in ("train", "val", "test")}

    def documents(self, split, characters):
        """Texts (bytes) of a split, `characters` long together. The same call gives the same texts."""
        dice = Dice(f"{split} of world {self.seed}")
        return texts(dice, lambda dice: self.document(dice, split), characters)

    def document(self, dice, split):
        """One text of the split: of a person, of several, a story, numbers, lists, or words of Tal."""
        topic = dice.among(TOPICS)
        if topic == "biography":
            return people.biography(dice, self.facts)
        if topic == "gossip":
            return people.gossip(dice, self.facts)
        if topic == "story":
            return " ".join(self.held(dice, split, stories.story)[0])
        if topic == "lexicon":
            return " ".join(lexicon.line(dice, self.held(dice, split, lexicon.pair)[0]) for _ in range(4))
        if topic == "lists":
            return lists.lines(dice, self.held(dice, split, dice.pick((lists.words, lists.numbers)))[0])
        sums = [self.held(dice, split, numbers.sum_up)[0] for _ in range(2)]
        return " ".join([numbers.counting(dice), *sums])

    def held(self, dice, split, make):
        """make(dice) -> (text, key), again until the key belongs to the split. What was thrown away costs
        no bits, and that the key is of this split saves some: too few to be told apart."""
        while True:
            before = dice.bits
            text, key = make(dice)
            if split_of(key) == split:
                return text, key
            dice.bits = before

    def instructions(self, split, count, **which):
        """`count` tasks (task.py) of instructions.py; which=family, unseen. The same call gives the same."""
        dice = Dice(f"instructions {sorted(which.items())} {split} of world {self.seed}")
        return [instructions.instruction(dice, self, split, **which) for _ in range(count)]

    def problems(self, split, count, draw=0, **which):
        """`count` tasks of problems.py; which=kind, steps; another `draw` gives others."""
        dice = Dice(f"problems {sorted(which.items())} {split} {draw} of world {self.seed}")
        return [problems.problem(dice, self, split, **which) for _ in range(count)]

    def questions(self):
        """Every fact that training never asks about, once."""
        dice, found = Dice(f"questions {self.seed}"), []
        for name, relation in self.facts:
            if relation not in self.asked[name]:
                found.append(instructions.about(dice, self, name, relation))
        return found

    def floor(self, split="val", characters=100_000):
        """Bits per byte that nobody can foresee who knows all facts: an estimate from many documents."""
        dice = Dice(f"{split} of world {self.seed}")
        said = texts(dice, lambda dice: self.document(dice, split), characters)
        return dice.bits / sum(map(len, said))

    def fact_clozes(self):
        """[(beginning, answer)] for every fact, in a wording that the texts use."""
        return [(people.TELL[relation][1].format(name=name, value="").removesuffix(" ."), value)
                for (name, relation), value in self.facts.items()]

    def story_clozes(self, count, split="test"):
        """[(all but the last word, that word)] of `count` stories of a split: where does the thing end up?"""
        dice = Dice(f"clozes of world {self.seed}")
        told = [" ".join(self.held(dice, split, stories.story)[0]) for _ in range(count)]
        return [tuple(text.removesuffix(".").rsplit(" ", 1)) for text in told]
