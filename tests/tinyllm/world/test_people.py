"""people: texts state only true facts, and every value of a relation belongs to the same number of people.

If some values were more common, a model could guess them without knowing any fact.
"""

import math
import re
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.world import World, people
from tinyllm.world.dice import Dice

WORLD = World(0)
seeds = st.integers(0, 1000)
names = st.sampled_from(people.NAMES)
relations = st.sampled_from(people.RELATIONS)


def statements_in(text):
    """The statements about people in a text: a list of tuples (name, relation, value)."""
    statements = []
    for sentence in re.findall(r"[^.]+\.", text):
        for relation, templates in people.STATEMENTS.items():
            for template in templates:
                pattern = re.escape(template).replace(r"\{name\}", r"(\w+)").replace(r"\{value\}", r"(\w+)")
                match = re.fullmatch(pattern, sentence.strip())
                if match and match[2] in people.VALUES[relation]:
                    statements.append((match[1], relation, match[2]))
    return statements


def test_there_are_120_people_and_five_relations_with_twelve_values_each():
    assert len(set(people.NAMES)) == len(people.NAMES) == 120
    assert not set(people.NAMES) & set(people.UNKNOWN_NAMES)
    assert people.RELATIONS == tuple(people.VALUES) and len(people.RELATIONS) == 5
    assert all(len(set(values)) == 12 for values in people.VALUES.values())


@given(seeds)
def test_facts_are_complete_and_every_value_belongs_to_ten_people(seed):
    facts = people.make_facts(Dice(str(seed)))
    assert set(facts) == {(name, relation) for name in people.NAMES for relation in people.RELATIONS}
    counts = Counter((relation, value) for (_, relation), value in facts.items())
    assert len(counts) == 60 and set(counts.values()) == {10}
    assert facts != people.make_facts(Dice(f"{seed}x"))


@given(seeds)
def test_training_asks_about_three_relations_of_each_person(seed):
    trained = people.choose_trained_relations(Dice(str(seed)))
    assert list(trained) == people.NAMES
    assert all(len(set(three)) == 3 and set(three) < set(people.RELATIONS) for three in trained.values())
    counts = Counter(relation for three in trained.values() for relation in three)
    assert len(counts) == 5 and min(counts.values()) > 45


@given(seeds, names, relations)
def test_a_statement_is_true_and_ends_with_the_value_and_only_its_wording_adds_bits(seed, name, relation):
    dice = Dice(str(seed))
    statement = people.state_fact(dice, WORLD.facts, name, relation)
    assert statement.endswith(f" {WORLD.facts[name, relation]}.")
    assert (name, relation, WORLD.facts[name, relation]) in statements_in(statement)
    assert dice.bits == math.log2(5)


@settings(max_examples=10)
@given(names, relations)
def test_a_made_up_fact_may_have_any_value(name, relation):
    dice = Dice(f"{name} {relation}")
    sentences = " ".join(people.make_up_fact(dice, name, relation) for _ in range(200))
    statements = {each for each in statements_in(sentences) if each[1] == relation}
    assert statements == {(name, relation, value) for value in people.VALUES[relation]}


@given(seeds)
def test_a_biography_states_the_five_facts_of_one_person(seed):
    statements = statements_in(people.biography(Dice(str(seed)), WORLD, "train"))
    assert {relation for _, relation, _ in statements} == set(people.RELATIONS)
    assert len({name for name, _, _ in statements}) == 1 and len(statements) == 5
    assert all(WORLD.facts[name, relation] == value for name, relation, value in statements)


def test_gossip_states_five_true_facts_and_600_such_documents_state_nearly_all_facts():
    dice, all_statements = Dice("gossip"), set()
    for _ in range(600):
        statements = statements_in(people.gossip(dice, WORLD, "train"))
        assert len(statements) == 5
        assert all(WORLD.facts[name, relation] == value for name, relation, value in statements)
        all_statements |= set(statements)
    assert len(all_statements) > 560
