"""lists: statements about a list are true, and a list has the same key as its reversal.

If the keys differed, training could show a list whose reversal is asked for in an exam.
"""

import re

from hypothesis import given
from hypothesis import strategies as st

from tinyllm.world import World, lists, split_of
from tinyllm.world.dice import Dice
from tinyllm.world.wordings import WORDINGS

WORLD = World(0)
seeds = st.integers(0, 10_000)
items = st.lists(st.sampled_from(lists.WORDS), min_size=2, max_size=6, unique=True)


def kind_and_parts(sentence):
    """The kind of a statement and the texts in its fields, or None if it is not a statement."""
    for kind, templates in WORDINGS["lists"].items():
        for template in templates:
            pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+)", re.escape(template))
            match = re.fullmatch(pattern, sentence)
            if match:
                return kind, match.groupdict()
    return None


@given(items)
def test_a_list_and_its_reversal_have_the_same_key_and_a_shorter_list_has_a_different_key(words):
    assert lists.key_of(words) == lists.key_of(words[::-1]) != lists.key_of(words[1:])
    assert lists.key_of(words) in (f"words {' '.join(words)}", f"words {' '.join(words[::-1])}")


def test_lists_of_words_and_numbers_have_the_right_lengths_and_ranges():
    dice = Dice("draws")
    word_lists = [lists.draw_words(dice) for _ in range(1000)]
    number_lists = [lists.draw_numbers(dice) for _ in range(1000)]
    assert all(key == lists.key_of(entries) for entries, key in word_lists + number_lists)
    assert all(len(set(words)) == len(words) and set(words) <= set(lists.WORDS) for words, _ in word_lists)
    assert {len(words) for words, _ in word_lists} == {3, 4, 5, 6}
    assert {len(entries) for entries, _ in number_lists} == {2, 3, 4, 5}
    assert {int(number) for entries, _ in number_lists for number in entries} == set(range(201))


@given(items, seeds)
def test_a_list_is_described_by_three_true_statements_of_different_kinds(words, seed):
    first, *statements = re.findall(r"[^.]+\.", lists.describe(Dice(str(seed)), words))
    assert first == f"{', '.join(words)}."
    kinds = set()
    for statement in statements:
        kind, parts = kind_and_parts(statement.strip())
        kinds.add(kind)
        if kind == "repeat":
            assert parts == {"again": ", ".join(words)}
        elif kind == "reverse":
            assert parts == {"back": ", ".join(reversed(words))}
        elif kind == "neighbours":
            assert (parts["one"], parts["two"]) in zip(words, words[1:])
        else:
            assert parts == {"last": words[-1], "count": str(len(words))}
    assert len(kinds) == len(statements) == 3


def test_every_kind_of_statement_and_every_pair_of_neighbours_occurs():
    dice, words = Dice("kinds"), ["ball", "book", "lamp", "key"]
    texts = " ".join(lists.describe(dice, words) for _ in range(100))
    statements = [kind_and_parts(sentence.strip()) for sentence in re.findall(r"[^.]+\.", texts)]
    assert {each[0] for each in statements if each} == set(WORDINGS["lists"])
    neighbours = {(p["one"], p["two"]) for kind, p in filter(None, statements) if kind == "neighbours"}
    assert neighbours == set(zip(words, words[1:]))


def test_half_of_the_documents_are_about_words_and_half_about_numbers_and_all_belong_to_their_split():
    dice, number_lists = Dice("documents"), 0
    for _ in range(300):
        entries = lists.document(dice, WORLD, "test").split(".")[0].split(", ")
        assert split_of(lists.key_of(entries)) == "test"
        number_lists += entries[0].isdigit()
    assert 110 < number_lists < 190
