import math
import re
import subprocess
import sys
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.world import World, numbers, people, split_of, stories
from tinyllm.world.dice import Dice

seeds = st.integers(0, 1000)
splits = st.sampled_from(["train", "val", "test"])


@settings(max_examples=10)
@given(seeds, splits)
def test_the_same_seed_gives_the_same_texts_and_another_another_world(seed, split):
    assert World(seed).documents(split, 2000) == World(seed).documents(split, 2000)
    assert World(seed).documents(split, 2000) != World(seed + 1).documents(split, 2000)
    assert World(seed).facts != World(seed + 1).facts


def test_texts_do_not_depend_on_the_hashes_of_a_process():
    code = "from tinyllm.world import World; print(b''.join(World(3).documents('val', 5000)))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": h, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for h in ("0", "1")
    }
    assert len(runs) == 1


@given(seeds)
def test_facts_are_whole_and_balanced(seed):
    facts = World(seed).facts
    assert len(facts) == len(people.NAMES) * 5 and len(set(people.NAMES)) == 120
    counts = Counter((relation, value) for (_, relation), value in facts.items())
    assert set(counts.values()) == {10} and all(len(values) >= 10 for values in people.VALUES.values())


@settings(max_examples=5)
@given(seeds, splits)
def test_texts_hold_only_keys_of_their_split_and_only_true_facts(seed, split):
    world = World(seed)
    text = b"\n".join(world.documents(split, 90_000)).decode()
    said = set()
    for (name, relation), value in world.facts.items():
        for wording in people.TELL[relation]:
            for other in people.VALUES[relation]:
                if wording.format(name=name, value=other) in text:
                    said.add((name, relation))
                    assert other == value
    assert len(said) > 100
    ends = re.findall(r"Now (\w+) has the (\w+) in the (\w+)\.", text)
    assert len(ends) > 50 and all(
        split_of(f"story {who} {thing} {place}") == split for who, thing, place in ends
    )
    sums = re.findall(r"(\w+) (\w+) (?:\w+ )?\w+ (\d+) is (\d+)([+-])(\d+):[^.]*?(\d+)\.", text)
    assert len(sums) > 5
    for *_, a, sign, b, c in sums:
        assert int(c) == (int(a) + int(b) if sign == "+" else int(a) - int(b))
        assert split in (split_of(f"sum {a}{sign}{b}"), split_of(f"sum {b}{sign}{a}"))


@given(seeds)
def test_a_story_ends_as_it_went(seed):
    told, key = stories.story(Dice(str(seed)))
    holder, where = None, {}
    for sentence in told[:-1]:
        words = sentence.strip(".").split()
        names = [w for w in words if w in people.NAMES]
        places = [w for w in words if w in stories.PLACES]
        if "gave" in words:
            holder = words[-1] if words[-1] in people.NAMES else words[0]
            where[holder] = where[next(n for n in names if n != holder)]
        else:
            where[names[0]] = places[-1]  # "from the barn to the mill"
            holder = names[0] if any(w in stories.THINGS for w in words) else holder
    thing = told[-1].split()[4]
    assert told[-1] == stories.END.format(who=holder, thing=thing, place=where[holder])
    assert key == f"story {holder} {thing} {where[holder]}"


@given(seeds)
def test_sums_are_right(seed):
    text, key = numbers.sum_up(Dice(str(seed)))
    a, sign, b, c = re.search(r"(\d+)([+-])(\d+):.*?(\d+)\.$", text).groups()
    assert int(c) == (int(a) + int(b) if sign == "+" else int(a) - int(b)) <= 200
    assert sorted(re.findall(r"\d+", key)) == sorted((a, b)) == sorted(re.findall(r"\d+", text)[:2])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), seeds)
def test_dice_count_their_bits(sides, seed):
    dice = Dice(str(seed))
    thrown = [dice.pick(range(n)) for n in sides]
    assert all(0 <= x < n for x, n in zip(thrown, sides))
    assert math.isclose(dice.bits, math.log2(math.prod(sides)), abs_tol=1e-9)
    before = dice.bits
    assert sorted(dice.shuffled(sides)) == sorted(sides)
    assert math.isclose(dice.bits - before, math.log2(math.factorial(len(sides))), abs_tol=1e-9)
    before = dice.bits
    shares = {i: n for i, n in enumerate(sides)}
    chosen = dice.among(shares)
    assert math.isclose(dice.bits - before, -math.log2(shares[chosen] / sum(sides)), abs_tol=1e-9)


def test_there_is_enough_of_everything():
    world = World(0)
    text = b" ".join(world.documents("train", 300_000)).decode()
    assert len(set(re.findall(r"[A-Za-z]+", text))) > 250
    assert len(people.NAMES) * len(stories.THINGS) * len(stories.PLACES) * 100 > 100_000
    assert all(text.count(wording.split("{")[0]) for ways in people.TELL.values() for wording in ways)


def test_clozes_are_true_and_stories_of_the_test_split():
    world = World(1)
    assert len(world.fact_clozes()) == 600
    train = b" ".join(world.documents("train", 500_000)).decode()
    for text, answer in world.story_clozes(50):
        who, thing, place = re.search(r"Now (\w+) has the (\w+) in the (\w+)\.", f"{text} {answer}.").groups()
        assert split_of(f"story {who} {thing} {place}") == "test" and place == answer
        assert f"{text} {answer}." not in train
