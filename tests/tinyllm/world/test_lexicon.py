"""lexicon: translations follow the grammar of the made-up language Tal.

The texts of a split define no adjective-noun pairs of another split. If training defined the pairs of the
exams, the exams would test memory instead of grammar.
"""

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from tinyllm.world import World, lexicon, split_of
from tinyllm.world.dice import Dice

WORLD = World(0)
seeds = st.integers(0, 1000)
pairs = st.tuples(st.sampled_from(list(lexicon.ADJECTIVES)), st.sampled_from(list(lexicon.NOUNS)))
verbs = st.sampled_from(list(lexicon.VERBS))


def test_the_example_in_the_docstring_is_correct():
    english, tal = lexicon.translate_sentence(("red", "cat"), "sees", ("old", "dog"))
    assert f"{english}   ->   {tal}" in lexicon.__doc__


def test_240_pairs_have_240_different_translations():
    pairs = list(itertools.product(lexicon.ADJECTIVES, lexicon.NOUNS))
    assert len({lexicon.translate_pair(*pair) for pair in pairs}) == len(pairs) == 240


@given(pairs, verbs, pairs)
def test_the_verb_comes_last_and_an_adjective_ends_in_the_last_letter_of_its_noun(subject, verb, other):
    english, tal = lexicon.translate_sentence(subject, verb, other)
    assert english == f"the {subject[0]} {subject[1]} {verb} the {other[0]} {other[1]}"
    noun, adjective, other_noun, other_adjective, tal_verb = tal.split()
    assert (noun, other_noun) == (lexicon.NOUNS[subject[1]], lexicon.NOUNS[other[1]])
    assert adjective == lexicon.ADJECTIVES[subject[0]] + noun[-1]
    assert other_adjective == lexicon.ADJECTIVES[other[0]] + other_noun[-1]
    assert tal_verb == lexicon.VERBS[verb]


@given(seeds, st.sampled_from(["train", "val", "test"]))
def test_a_definition_is_correct_and_its_pair_belongs_to_the_split(seed, split):
    line = lexicon.definition(Dice(str(seed)), WORLD, split)
    words = lexicon.NOUNS | lexicon.VERBS
    pairs = itertools.product(lexicon.ADJECTIVES, lexicon.NOUNS)
    words |= {" ".join(pair): lexicon.translate_pair(*pair) for pair in pairs}
    english_of = {tal: english for english, tal in words.items()}
    tal = max((tal for tal in english_of if re.search(rf"\b{tal}\b", line)), key=len)
    english = english_of[tal]
    assert re.search(rf"\b{english}\b", line)
    assert " " not in english or split_of(f"pair {english}") == split


def test_half_of_the_definitions_define_pairs_and_a_document_has_four_definitions():
    dice = Dice("definitions")
    lines = [lexicon.definition(dice, WORLD, "train") for _ in range(2000)]
    of_pairs = [line for line in lines if set(line.replace(".", "").split()) & set(lexicon.ADJECTIVES)]
    assert 900 < len(of_pairs) < 1100
    document = lexicon.document(Dice("document"), WORLD, "train")
    assert document.count(".") == 4
