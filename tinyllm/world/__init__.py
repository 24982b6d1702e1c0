"""The built-in data: a small closed world, generated from a seed.

Training on it needs no download. Its exams are exact, because the world knows every true
answer, what training has shown, and how much randomness its texts contain.

Exams must not repeat training data, so the split of an item depends on its content, never on its position.
Each story, list, sum, question and problem has a key that stands for its meaning, however it is worded, and
`split_of` hashes the key. There are three exceptions. The texts of every split state the facts about people,
because a model has to learn these facts; but training asks about only three of each person's five facts. The
steps of a problem may be sums of any split, because only the problem as a whole has a key. And questions with
one fixed reply, such as greetings, are held out by their wording only.
"""

import hashlib

from tinyllm.world import conversations, instructions, lexicon, lists, numbers, people, problems, stories
from tinyllm.world.dice import Dice

TOPIC_SHARES = {
    people.biography: 4,
    people.gossip: 3,
    stories.document: 6,
    numbers.document: 4,
    lists.document: 2,
    lexicon.document: 1,
}


def split_of(key):
    """The split that a key belongs to: "test" for 20 of 100 keys, "val" for 10, "train" for 70."""
    percentile = int.from_bytes(hashlib.sha1(key.encode()).digest()[:8], "big") % 100
    return "test" if percentile < 20 else "val" if percentile < 30 else "train"


class World:
    """The world that a seed generates.

    facts               {(name, relation): value}
    trained_relations   {name: the relations that training asks about}
    unknown_names       {split: names that nobody in the world has}
    """

    def __init__(self, seed=0):
        self.seed = seed
        self.facts = people.make_facts(Dice(f"facts of world {seed}"))
        self.trained_relations = people.choose_trained_relations(Dice(f"questions of world {seed}"))
        self.unknown_names = {"train": [], "val": [], "test": []}
        for name in people.UNKNOWN_NAMES:
            self.unknown_names[split_of(f"stranger {name}")].append(name)

    def documents(self, split, size, dice=None):
        """Texts (bytes) of a split, at least `size` bytes in all.

        Without `dice`, every call returns the same texts. To learn how many bits of randomness the texts
        contain, pass your own `dice` and read `dice.bits`.
        """
        dice = dice or Dice(f"{split} of world {self.seed}")
        documents, length = [], 0
        while length < size:
            # The leading space makes the first word the same token as elsewhere in a text.
            document = dice.weighted_choice(TOPIC_SHARES)
            documents.append(f" {document(dice, self, split)}".encode())
            length += len(documents[-1])
        return documents

    def draw_in_split(self, dice, split, draw):
        """-> (item, key): calls draw(dice) until the key belongs to the split.

        Every story, list, sum, question and problem is drawn by this method, except questions about facts
        (see instructions.askable), about people who do not exist (unknown_names) or with a fixed reply.

        Rejected draws cost no bits. The accepted draw counts in full: a model cannot compute the
        hash of `split_of`, so it gains nothing from knowing the split.
        """
        while True:
            bits = dice.bits
            item, key = draw(dice)
            if split_of(key) == split:
                return item, key
            dice.bits = bits

    def entropy_per_byte(self, split="val", size=100_000):
        """The randomness of the text itself, in bits per byte, estimated from many documents.

        On average no model can do better than this, even if it knows every fact.
        """
        dice = Dice(f"{split} of world {self.seed}")
        length = sum(map(len, self.documents(split, size, dice)))
        return dice.bits / length

    def instructions(self, split, count, **which):
        """`count` tasks from conversations.conversation(**which). The same arguments give the same tasks."""
        dice = Dice(f"instructions {sorted(which.items())} {split} of world {self.seed}")
        return [conversations.conversation(dice, self, split, **which) for _ in range(count)]

    def problems(self, split, count, draw=0, **which):
        """`count` tasks from problems.problem(**which). A different `draw` gives different tasks."""
        dice = Dice(f"problems {sorted(which.items())} {split} {draw} of world {self.seed}")
        return [problems.problem(dice, self, split, **which) for _ in range(count)]

    def held_out_fact_questions(self):
        """One question about each fact that training does not ask about."""
        dice, trained = Dice(f"questions {self.seed}"), self.trained_relations
        held_out = [(name, relation) for name, relation in self.facts if relation not in trained[name]]
        return [instructions.fact_question(dice, self, *fact) for fact in held_out]

    def fact_clozes(self, count):
        """[(a statement of a fact without its last word, that word)].

        There are at least `count` statements, or one for each fact if there are fewer facts.
        """
        clozes, every = [], list(self.facts.items())
        for (name, relation), value in every[:: max(1, len(every) // count)]:
            statement = people.STATEMENTS[relation][1].format(name=name, value=value)
            clozes.append((statement.removesuffix(f" {value}."), value))
        return clozes

    def story_clozes(self, count):
        """[(a story without its last word, that word)]. The word is the place where the object ends up."""
        dice = Dice(f"clozes of world {self.seed}")
        texts = [stories.document(dice, self, "test") for _ in range(count)]
        return [tuple(text.removesuffix(".").rsplit(" ", 1)) for text in texts]
