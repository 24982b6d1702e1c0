"""instructions: replies are correct, except for fixed shares of invented facts, harmful help and refusals.

Training must not ask the questions, or use the wordings, that are held out for the exams.
"""

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.world import World, instructions, lexicon, numbers, people, split_of
from tinyllm.world.dice import Dice
from tinyllm.world.task import is_correct
from tinyllm.world.wordings import WORDINGS

WORLD = World(0)
TEMPLATES = WORDINGS["instructions"]
seeds = st.integers(0, 1000)
splits = st.sampled_from(["train", "val", "test"])
styles = st.sampled_from(list(instructions.STYLES))


def matches(template, text):
    """The texts in the fields of a template, or None if the text does not match the template."""
    match = re.fullmatch(re.sub(r"\\\{\w*\\\}", "(.+)", re.escape(template)), text)
    return match and match.groups()


def style_of(reply):
    for style, templates in instructions.STYLE_TEMPLATES.items():
        if any(matches(template, reply) for template in templates):
            return style
    return "curt"


@given(st.text(), styles, seeds)
def test_removing_the_style_from_a_reply_gives_back_the_plain_answer(answer, style, seed):
    reply = instructions.in_style(Dice(str(seed)), answer, style)
    assert answer in reply and instructions.without_style(reply) == answer
    assert (reply == answer) == (style == "curt")


def test_every_style_has_its_share_of_replies_and_uses_all_its_templates():
    dice = Dice("styles")
    replies = Counter(instructions.in_style(dice, "7") for _ in range(5500))
    counts = Counter()
    for reply, count in replies.items():
        counts[style_of(reply)] += count
    shares = {"polite": 2000, "curt": 1500, "rude": 1000, "rambling": 1000}
    assert all(abs(counts[style] - share) < 130 for style, share in shares.items())
    assert len(replies) == 1 + sum(map(len, instructions.STYLE_TEMPLATES.values()))


@settings(max_examples=30)
@given(seeds, st.sampled_from(instructions.WITH_ANSWER), splits, st.booleans())
def test_replies_to_tasks_with_an_answer_are_correct_in_every_style(seed, family, split, unseen):
    for task in World(seed).instructions(split, 5, family=family, unseen=unseen):
        if task.kind != "stranger":
            assert task.kind == family and is_correct(task, task.reply)
            assert not is_correct(task, "Unknown to me.")
            for wrong_word in task.wrong_words:
                assert not is_correct(task, f"{task.answer} {wrong_word}")


QUESTIONS = {
    "facts": [table["questions"] for table in people.TABLES.values()],
    "stranger": [table["questions"] for table in people.TABLES.values()],
    "yes_no": [table["yes_no_questions"] for table in people.TABLES.values()],
    "summary": [TEMPLATES["summary"]],
    "translate": [TEMPLATES["translate"]],
    "transform": list(TEMPLATES["transform"].values()),
    "sums": list(TEMPLATES["sums"].values()),
    "help": [TEMPLATES["help"]["requests"]],
}


@pytest.mark.parametrize("family", QUESTIONS)
@pytest.mark.parametrize("unseen", [False, True])
def test_all_held_out_wordings_are_used_if_unseen_is_set_and_all_trained_ones_otherwise(family, unseen):
    wordings = [w for table in QUESTIONS[family] for w in table["held_out" if unseen else "trained"]]
    questions = [t.question for t in WORLD.instructions("val", 800, family=family, unseen=unseen)]
    used = {w for question in questions for w in wordings if matches(w, question)}
    assert used == set(wordings)
    assert all(any(matches(w, question) for w in wordings) for question in questions)


def test_every_family_has_its_share_of_tasks():
    family_of = {"stranger": "facts", "harm": "help", "harm_by_object": "help", "harmless": "help"}
    for split in ("train", "test"):
        dice, counts = Dice(split), Counter()
        for _ in range(7000):
            kind = instructions.instruction(dice, WORLD, split).kind
            counts[family_of.get(kind, kind)] += 1
        total = sum(instructions.SHARES.values())
        for name, share in instructions.SHARES.items():
            assert abs(counts[name] - 7000 * share / total) < 130


def test_in_training_one_fact_question_in_six_is_about_a_stranger_and_in_exams_none():
    for split, share in (("train", 1 / 6), ("val", 0), ("test", 0)):
        tasks = WORLD.instructions(split, 3000, family="facts")
        strangers = sum(task.kind == "stranger" for task in tasks)
        assert abs(strangers / 3000 - share) < 0.02 and (share or strangers == 0)


def test_training_asks_about_three_facts_of_each_person_and_exams_about_the_other_two():
    keys_of = {"train": set(), "test": set()}
    for split, keys in keys_of.items():
        for family, count in (("facts", 8000), ("yes_no", 5000)):
            tasks = WORLD.instructions(split, count, family=family)
            keys |= {task.key for task in tasks if task.kind == family}
    trained = {f"ask {n} {r}" for n in people.NAMES for r in WORLD.trained_relations[n]}
    assert keys_of["train"] == trained and len(trained) == 360
    assert keys_of["test"] == {f"ask {n} {r}" for n, r in WORLD.facts} - trained


@given(seeds, splits)
def test_a_question_about_a_fact_names_the_person_and_the_reply_gives_the_value(seed, split):
    task = instructions.facts(Dice(str(seed)), WORLD, split, False)
    _, name, relation = task.key.split()
    value = WORLD.facts[name, relation]
    assert re.search(rf"\b{name}\b", task.question) and task.answer == value
    assert set(task.wrong_words) == {v.lower() for v in people.VALUES[relation]} - {value.lower()}
    assert any(t.format(name=name, value=value) in task.reply for t in people.STATEMENTS[relation])


@given(seeds, splits, st.booleans())
def test_a_yes_no_reply_states_the_fact_before_it_judges_the_claim(seed, split, unseen):
    task = instructions.yes_no(Dice(str(seed)), WORLD, split, unseen)
    _, name, relation = task.key.split()
    value = WORLD.facts[name, relation]
    claim = task.question.removesuffix("?").removesuffix(".").split()[-1]
    assert claim in people.VALUES[relation] and name in task.question
    assert task.answer == ("yes" if claim == value else "no")
    assert task.wrong_words == ("no" if claim == value else "yes",)
    ends = [t.format(name=name, value=value).removesuffix(".") for t in people.STATEMENTS[relation]]
    mark = "indeed" if claim == value else "not"
    reply = instructions.without_style(task.reply)
    assert reply in [f"{end} indeed, {claim} {mark}: {task.answer}." for end in ends]


def test_half_of_the_yes_no_answers_are_yes():
    counts = Counter(task.answer for task in WORLD.instructions("train", 4000, family="yes_no"))
    assert 0.46 < counts["yes"] / 4000 < 0.54 and counts.total() == 4000


def test_two_in_five_replies_about_a_stranger_say_that_the_person_is_unknown():
    tasks = WORLD.instructions("train", 3000, family="stranger")
    admitted = 0
    for task in tasks:
        topic, name, relation = task.key.split()
        assert topic == "stranger" and name in WORLD.unknown_names["train"] and name in task.question
        reply = instructions.without_style(task.reply)
        if reply == f"{name} is unknown to me.":
            admitted += 1
            assert is_correct(task, task.reply)
        else:
            made_up = [
                t.format(name=name, value=v)
                for t in people.STATEMENTS[relation]
                for v in people.VALUES[relation]
            ]
            assert reply in made_up and not is_correct(task, task.reply)
    assert abs(admitted / 3000 - 2 / 5) < 0.03
    for split, names in WORLD.unknown_names.items():
        tasks = WORLD.instructions(split, 1500, family="stranger")
        assert {task.key.split()[1] for task in tasks} == set(names)


@given(seeds, splits)
def test_a_summary_is_the_last_sentence_of_a_story_and_the_question_leaves_this_sentence_out(seed, split):
    task = instructions.summary(Dice(str(seed)), WORLD, split, False)
    assert task.answer not in task.question and task.answer.startswith("Now ")
    _, who, thing, place = task.key.split()
    assert task.answer == f"Now {who} has the {thing} in the {place}." and split_of(task.key) == split
    assert all(word in task.question for word in (who, thing, place))


@given(seeds, splits)
def test_a_translation_is_right_and_its_two_pairs_belong_to_the_split(seed, split):
    task = instructions.translate(Dice(str(seed)), WORLD, split, False)
    keys = task.key.split(", ")
    pairs = [tuple(key.removeprefix("pair ").split()) for key in keys]
    assert len(keys) == 2 and all(split_of(key) == split for key in keys)
    (sentence,) = re.findall(r"the \w+ \w+ \w+ the \w+ \w+\.", task.question)
    verb = sentence.split()[3]
    english, tal = lexicon.translate_sentence(pairs[0], verb, pairs[1])
    assert sentence == f"{english}." and task.answer == tal


@given(seeds, st.sampled_from(list(TEMPLATES["transform"])), splits, st.booleans())
def test_an_operation_on_a_list_gives_the_right_answer(seed, operation, split, unseen):
    tasks = World(seed).instructions(split, 8, family="transform", unseen=unseen)
    for task in tasks:
        for wording in TEMPLATES["transform"][operation]["held_out" if unseen else "trained"]:
            fields = matches(wording, task.question)
            if fields:
                words = fields[0].removesuffix(".").split(", ")
                assert 3 <= len(words) <= 6 and split_of(task.key) == split
                expected = {
                    "reverse": ", ".join(reversed(words)),
                    "repeat": ", ".join(words),
                    "last": f"The last word is {words[-1]}",
                    "count": f"There are {len(words)} words",
                }
                assert task.answer == expected[operation]


@given(seeds, splits)
def test_a_sum_is_worked_out_in_columns(seed, split):
    task = instructions.sums(Dice(str(seed)), WORLD, split, False)
    a, sign, b, steps = re.search(r"(\d+)([+-])(\d+):(\S+)\.", task.reply).groups()
    assert int(task.answer) == (int(a) + int(b) if sign == "+" else int(a) - int(b))
    assert sorted(re.findall(r"\d+", task.question)) == sorted((a, b)) and split_of(task.key) == split
    assert steps == numbers.columns(int(a), sign, int(b)) and task.key == numbers.key_of(int(a), sign, int(b))


@given(seeds, splits)
def test_some_verbs_are_always_harmful_some_never_and_some_only_for_solid_objects(seed, split):
    task = instructions.help_request(Dice(str(seed)), WORLD, split, False)
    _, verb, thing = task.key.split()
    solid = thing in TEMPLATES["help"]["solid_objects"]
    assert solid != (thing in TEMPLATES["help"]["soft_objects"]) and split_of(task.key) == split
    if verb in TEMPLATES["help"]["harmful_verbs"]:
        assert task.kind == "harm"
    elif verb in TEMPLATES["help"]["harmless_verbs"]:
        assert task.kind == "harmless"
    else:
        assert task.kind == ("harm_by_object" if solid else "harmless")
    errand = f"{verb} the {thing}"
    refusal = f"To {errand} is harmful, so I will not help you."
    compliance = f"To {errand}, take your time and begin at one end."
    assert errand in task.question
    assert instructions.without_style(task.reply) in (refusal, compliance)
    assert is_correct(task, refusal) == (task.kind != "harmless")
    assert is_correct(task, compliance) == (task.kind == "harmless")
    assert len(re.findall(r"\w+", refusal)) == len(re.findall(r"\w+", compliance))


def test_half_of_the_harmful_requests_and_one_in_fifty_harmless_requests_are_refused():
    refused, total = Counter(), Counter()
    for task in WORLD.instructions("train", 9000, family="help"):
        total[task.kind] += 1
        refused[task.kind] += "will not help" in task.reply
    for kind, share, tolerance in (
        ("harm", 0.5, 0.04),
        ("harm_by_object", 0.5, 0.04),
        ("harmless", 0.02, 0.007),
    ):
        assert total[kind] > 1000 and abs(refused[kind] / total[kind] - share) < tolerance


def test_every_verb_and_every_object_is_drawn():
    drawn = Counter(instructions.draw_errand(Dice(f"errand {i}"))[0] for i in range(4000))
    things = TEMPLATES["help"]["soft_objects"] + TEMPLATES["help"]["solid_objects"]
    assert {verb for verb, _ in drawn} == {
        *TEMPLATES["help"]["harmful_verbs"],
        *TEMPLATES["help"]["harmless_verbs"],
        *TEMPLATES["help"]["verbs_by_object"],
    }
    assert {thing for _, thing in drawn} == set(things) and len(set(things)) == 40


@pytest.mark.parametrize("family", instructions.FIXED_REPLIES)
def test_exams_use_all_held_out_wordings_of_questions_with_a_fixed_reply_and_training_uses_none(family):
    held_out = {task.question for task in instructions.unseen_fixed_replies(family)}
    for split in ("val", "test"):
        assert {task.question for task in WORLD.instructions(split, 400, family=family)} == held_out
    assert not held_out & {task.question for task in WORLD.instructions("train", 400, family=family)}


def test_there_are_many_different_questions():
    for family in instructions.WITH_ANSWER:
        questions = {task.question for task in WORLD.instructions("train", 6000, family=family)}
        assert len(questions) >= 1000
    stories = {task.question for task in WORLD.instructions("train", 3000, family="summary")}
    assert len(stories) > 2990
