"""world: a seed always gives the same texts, every fact in them is true, and no exam item occurs in training.

Otherwise exams would measure what a model has memorised, and no two runs could be compared.
"""

import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.world import TOPIC_SHARES, World, lexicon, people, split_of
from tinyllm.world.dice import Dice

ROOT = Path(__file__).parents[3]
WORLD = World(0)
SPLITS = ("train", "val", "test")
seeds = st.integers(0, 1000)
splits = st.sampled_from(SPLITS)
END_OF_STORY = r"Now (\w+) has the (\w+) in the (\w+)\."


@settings(max_examples=10)
@given(seeds, splits)
def test_the_same_seed_gives_the_same_texts_and_another_seed_gives_another_world(seed, split):
    assert World(seed).documents(split, 2000) == World(seed).documents(split, 2000)
    assert World(seed).documents(split, 2000) != World(seed + 1).documents(split, 2000)
    assert World(seed).facts != World(seed + 1).facts
    assert World(seed).trained_relations != World(seed + 1).trained_relations
    assert World(seed).instructions(split, 5) != World(seed + 1).instructions(split, 5)
    assert World(seed).problems(split, 5) != World(seed + 1).problems(split, 5)
    assert World(seed).problems(split, 5) != World(seed).problems(split, 5, draw=1)


def test_texts_do_not_depend_on_the_hash_seed_of_a_process():
    code = "from tinyllm.world import World; print(b''.join(World(3).documents('val', 5000)))"
    outputs = set()
    for hash_seed in ("0", "1"):
        environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", code]
        outputs.add(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    assert len(outputs) == 1


def test_20_percent_of_all_keys_belong_to_test_and_10_percent_to_val():
    counts = Counter(split_of(f"key {i}") for i in range(20_000))
    assert abs(counts["test"] - 4000) < 200 and abs(counts["val"] - 2000) < 150
    assert set(counts) == set(SPLITS)
    assert counts == Counter(split_of(f"key {i}") for i in range(20_000))


@given(splits, seeds)
def test_a_draw_is_repeated_until_its_key_belongs_to_the_split_and_only_the_last_draw_adds_bits(split, seed):
    def draw(dice):
        number = dice.integer(1, 100)
        return number, f"number {number}"

    dice = Dice(str(seed))
    number, key = WORLD.draw_in_split(dice, split, draw)
    assert key == f"number {number}" and split_of(key) == split
    assert math.isclose(dice.bits, math.log2(100))


@given(seeds)
def test_each_unknown_name_is_in_one_split(seed):
    by_split = World(seed).unknown_names
    assert sorted(sum(by_split.values(), [])) == sorted(people.UNKNOWN_NAMES)
    assert all(split_of(f"stranger {name}") == split for split in SPLITS for name in by_split[split])


@settings(max_examples=5)
@given(seeds, splits)
def test_texts_state_only_true_facts_and_their_stories_and_sums_belong_to_the_split(seed, split):
    world = World(seed)
    text = b"\n".join(world.documents(split, 100_000)).decode()
    sentences, stated = set(re.split(r"(?<=\.)\s+", text)), set()
    for (name, relation), value in world.facts.items():
        for template in people.STATEMENTS[relation]:
            for other in people.VALUES[relation]:
                if template.format(name=name, value=other) in sentences:
                    stated.add((name, relation))
                    assert other == value
    assert len(stated) > 450
    ends = re.findall(END_OF_STORY, text)
    assert len(ends) > 50
    assert all(split_of(f"story {' '.join(end)}") == split for end in ends)
    sums = re.findall(r"(\w+) (\w+) (?:\w+ )?\w+ (\d+) is (\d+)([+-])(\d+):[^.]*?(\d+)\.", text)
    assert len(sums) > 5
    for *_, a, sign, b, result in sums:
        assert int(result) == (int(a) + int(b) if sign == "+" else int(a) - int(b))
        assert split in (split_of(f"sum {a}{sign}{b}"), split_of(f"sum {b}{sign}{a}"))


@settings(max_examples=20)
@given(seeds, splits, st.integers(0, 3000))
def test_documents_are_added_until_they_reach_the_size_and_each_document_starts_with_a_space(
    seed, split, size
):
    documents = World(seed).documents(split, size)
    assert sum(map(len, documents[:-1])) < size or size == 0
    assert sum(map(len, documents)) >= size
    assert all(re.match(rb" \S", document) for document in documents)


def topic_of(text):
    """The topic of a document, recognised by its form."""
    if re.search(END_OF_STORY, text):
        return "stories"
    if re.search(r"\d=\d", text):
        return "numbers"
    if "Tal" in text or " means " in text:
        return "lexicon"
    if re.search(r", \w+(, \w+)*\.|^ \w+, \w+\.", text):
        return "lists"
    names = {word for word in re.findall(r"\w+", text) if word in people.NAMES}
    return "biography" if len(names) == 1 else "gossip"


def test_every_topic_has_its_share_of_documents():
    counts = Counter(topic_of(text.decode()) for text in WORLD.documents("train", 700_000))
    shares = {"biography": 4, "gossip": 3, "stories": 6, "numbers": 4, "lists": 2, "lexicon": 1}
    assert sum(shares.values()) == sum(TOPIC_SHARES.values()) and set(counts) == set(shares)
    for topic, share in shares.items():
        assert abs(counts[topic] / counts.total() - share / 20) < 0.02


def test_there_are_many_words_and_every_wording_of_a_fact_occurs():
    text = b" ".join(WORLD.documents("train", 400_000)).decode()
    assert len(set(re.findall(r"[A-Za-z]+", text))) > 250
    assert all(text.count(t.split("{")[0]) for ts in people.STATEMENTS.values() for t in ts)
    tasks = WORLD.instructions("train", 4000) + WORLD.problems("train", 1000)
    text = text + " ".join(task.question for task in tasks)
    assert len(set(re.findall(r"[a-z]+", text.lower()))) >= 400


def test_the_entropy_is_counted_over_the_documents_and_is_about_0_3_bits_per_byte():
    for split in SPLITS:
        dice = Dice(f"{split} of world 0")
        documents = WORLD.documents(split, 20_000, dice)
        assert documents == WORLD.documents(split, 20_000)
        entropy = dice.bits / sum(map(len, documents))
        assert WORLD.entropy_per_byte(split, 20_000) == entropy and 0.27 < entropy < 0.37
    assert WORLD.entropy_per_byte() == WORLD.entropy_per_byte("val", 100_000)


def test_fact_clozes_are_true_and_story_clozes_belong_to_the_test_split():
    world = World(1)
    clozes = world.fact_clozes(len(world.facts))
    assert world.fact_clozes(150) == clozes[::4] and world.fact_clozes(10**6) == clozes
    train = b" ".join(world.documents("train", 500_000)).decode()
    assert [value for _, value in clozes] == list(world.facts.values())
    assert all(name in text for (text, _), (name, _) in zip(clozes, world.facts))
    assert sum(f"{text} {value}." in train for text, value in clozes) > 300
    for text, answer in world.story_clozes(50):
        who, thing, place = re.search(END_OF_STORY, f"{text} {answer}.").groups()
        assert split_of(f"story {who} {thing} {place}") == "test" and place == answer
        assert f"{text} {answer}." not in train
    assert len(world.story_clozes(7)) == 7


def test_there_is_a_held_out_question_about_each_fact_that_training_does_not_ask_about():
    tasks = WORLD.held_out_fact_questions()
    held_out = [fact for fact in WORLD.facts if fact[1] not in WORLD.trained_relations[fact[0]]]
    assert [task.key for task in tasks] == [f"ask {name} {relation}" for name, relation in held_out]
    assert [task.answer for task in tasks] == [WORLD.facts[fact] for fact in held_out]
    assert len(tasks) == 240


def exam(world):
    """Items of every exam."""
    tasks = world.held_out_fact_questions()
    tasks += world.instructions("test", 300) + world.instructions("test", 300, unseen=True)
    return tasks + world.problems("test", 300) + world.problems("test", 100, kind="story", steps=5)


@pytest.mark.parametrize("seed", [0, 7])
def test_no_exam_item_is_in_any_training_text(seed):
    world = World(seed)
    exams = exam(world)
    trained = world.instructions("train", 20_000) + world.problems("train", 10_000)
    keys = {key for task in trained for key in (task.key, *task.key.split(", "))}
    assert not keys & {task.key for task in exams}
    assert not {str(task.messages) for task in trained} & {str(task.messages) for task in exams}
    text = b"\n".join(world.documents("train", 2_000_000)).decode()
    sentences = set(re.split(r"(?<=[.?]) ", text))
    for task in exams:
        pattern = rf"(?<!\d){re.escape(task.question)}(?!\d)"  # "5+72" may be part of "55+72"
        assert task.earlier_turns or task.question not in text or not re.search(pattern, text)
        if task.kind in ("translate", "transform", "story", "calculator"):
            assert f"{task.answer}." not in sentences and task.reply not in sentences
    for adjective in lexicon.ADJECTIVES:
        for noun in lexicon.NOUNS:
            if split_of(f"pair {adjective} {noun}") == "test":
                assert f" {adjective} {noun} " not in text
                assert lexicon.translate_pair(adjective, noun) not in text
