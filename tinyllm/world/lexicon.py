"""Tal, an invented language. Pre-training shows its dictionary; translation exams also need its grammar.

The verb comes last. An adjective follows its noun and ends in the noun's last letter:

    the red cat sees the old dog   ->   mira ruda bonto veto visu
                                        cat  red  dog   old  sees

Some adjective-noun pairs never occur in training. Translating them shows whether a model has learned the
rules or only the pairs.
"""

from tinyllm.world.wordings import WORDINGS

NOUNS = WORDINGS["lexicon"]["nouns"]
ADJECTIVES = WORDINGS["lexicon"]["adjectives"]
VERBS = WORDINGS["lexicon"]["verbs"]


def draw_pair(dice):
    """-> ((adjective, noun), key)."""
    adjective, noun = dice.choice(tuple(ADJECTIVES)), dice.choice(tuple(NOUNS))
    return (adjective, noun), f"pair {adjective} {noun}"


def translate_pair(adjective, noun):
    return f"{NOUNS[noun]} {ADJECTIVES[adjective]}{NOUNS[noun][-1]}"


def translate_sentence(subject, verb, other):
    """-> (the sentence in English, its translation). `subject` and `other` are (adjective, noun)."""
    english = f"the {' '.join(subject)} {verb} the {' '.join(other)}"
    return english, f"{translate_pair(*subject)} {translate_pair(*other)} {VERBS[verb]}"


def definition(dice, world, split):
    """A line of the dictionary: an adjective with its noun, or a single noun or verb, and the translation."""
    pair, _ = world.draw_in_split(dice, split, draw_pair)
    if dice.choice((True, False)):
        english, tal = " ".join(pair), translate_pair(*pair)
    else:
        english, tal = dice.choice([*NOUNS.items(), *VERBS.items()])
    return dice.choice(WORDINGS["lexicon"]["definitions"]).format(plain=english, tal=tal)


def document(dice, world, split):
    """Four lines of the dictionary."""
    return " ".join(definition(dice, world, split) for _ in range(4))
