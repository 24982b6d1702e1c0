"""wordings: every question has trained and held-out wordings, and no wording is both.

Otherwise training would use wordings that the exams count as unseen.
"""

from collections import Counter

from tinyllm.world.wordings import WORDINGS


def tables_of(value):
    """Every table {"trained": ..., "held_out": ...} in the data file."""
    if isinstance(value, dict):
        if "trained" in value:
            yield value
        for part in value.values():
            yield from tables_of(part)


def texts_of(value):
    if isinstance(value, str):
        yield value
    else:
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts_of(part)


def lists_of(value):
    if isinstance(value, list):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from lists_of(part)


def test_every_question_has_at_least_four_trained_wordings_and_different_held_out_wordings():
    tables = list(tables_of(WORDINGS))
    assert tables
    for table in tables:
        assert len(table["trained"]) >= 4 and table["held_out"]
        assert not set(table["trained"]) & set(table["held_out"])


def test_every_follow_up_has_four_wordings():
    tables = [*WORDINGS["follow_ups"].values()]
    tables += [table["follow_ups"] for table in WORDINGS["people"]["relations"].values()]
    assert [len(table) for table in tables if isinstance(table, list)] == [4] * 11


def test_no_list_holds_the_same_entry_twice():
    for entries in lists_of(WORDINGS):
        assert not [entry for entry, count in Counter(entries).items() if count > 1]


def test_texts_are_ascii_so_each_character_is_one_byte():
    assert all(text.isascii() for text in texts_of(WORDINGS))
