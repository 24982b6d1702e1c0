"""annotator: it ranks five replies to each prompt by their true quality, with some mistakes.

An interrupted annotator must leave no file: an incomplete file would be taken for a complete one.
"""

import json

import numpy as np
import pytest
from strategies import random_model

from tinyllm import checkpoint
from tinyllm.preferences import annotator, rankings
from tinyllm.runs import Settings
from tinyllm.tokenizer import train
from tinyllm.transformer import Config
from tinyllm.world import World, oracle
from tinyllm.world.dice import Dice

BYTES = train("", 256)
SETTINGS = Settings(workers=1)


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """The folder of a random model, which writes noise."""
    folder = tmp_path_factory.mktemp("annotator") / "2-instruct"
    config = Config(len(BYTES), context=256, layers=1, width=16, heads=2)
    checkpoint.save(folder, random_model(config, np.random.default_rng(0), np.float32, 0.1), BYTES)
    return folder


def annotator_tasks(count):
    """The tasks whose replies the annotator of world 0 ranks."""
    return oracle.prompts(Dice("rankings of world 0"), World(0), "train", count)


def annotate(parent, count, path, monkeypatch=None, replies=None):
    """Run the annotator -> the entries that it writes. replies(task, i) replaces the model's i-th reply."""
    if replies:
        tasks = [task for task in annotator_tasks(count) for _ in range(annotator.GROUP)]
        texts = [replies(task, i % annotator.GROUP) for i, task in enumerate(tasks)]

        def answer(pool, tokenizer, prompts, max_tokens, seed):
            assert prompts == [task.prompt for task in tasks]
            return [(text, True) for text in texts]

        monkeypatch.setattr(annotator, "answer", answer)
    annotator.annotate(SETTINGS, parent, count, path)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_fifth_reply_comes_from_a_random_prompt_of_the_same_sort(parent, tmp_path, monkeypatch):
    """Each reply states its number and its subject, so the test sees which prompt the reply comes from."""
    tasks, numbers = annotator_tasks(60), iter(range(240))
    subjects = [oracle.subject(task)[1] for task in tasks]
    entries = annotate(
        parent,
        60,
        tmp_path / "r.jsonl",
        monkeypatch,
        lambda task, i: f"{next(numbers)} about {oracle.subject(task)[1]}.",
    )
    assert [entry["prompt"] for entry in entries] == [task.prompt for task in tasks]
    assert [text for entry in entries for text in entry["completions"][:4]] == [
        f"{i} about {subjects[i // 4]}." for i in range(240)
    ]
    fifth_replies = [entry["completions"][4].split(" ", 1) for entry in entries]
    origins = [int(number) // 4 for number, _ in fifth_replies]
    sorts = [oracle.subject(task)[0] for task in tasks]
    assert [sorts[origin] for origin in origins] == sorts and {"person", "errand", ""} == set(sorts)
    # the random prompt may be the prompt itself
    assert sum(origin != i for i, origin in enumerate(origins)) > 50
    assert [text for _, text in fifth_replies] == [f"about {subject}." for subject in subjects]


def test_the_annotator_ranks_by_true_quality_and_makes_some_mistakes(parent, tmp_path, monkeypatch):
    dice, world = Dice("replies"), World(0)

    def reply(task, i):
        right, wrong = oracle.right_and_wrong(dice, world, task)
        return [right, wrong, f"{right} I am quite sure.", ""][i]

    entries = annotate(parent, 100, tmp_path / "r.jsonl", monkeypatch, reply)
    exact = 0
    for task, entry in zip(annotator_tasks(100), entries):
        qualities = [oracle.quality(task, text) for text in entry["completions"]]
        order = sorted(set(qualities), reverse=True)
        exact += entry["ranks"] == [order.index(each) + 1 for each in qualities]
    # A ranking has two to four pairs of neighbours. Each pair is swapped with probability 0.1.
    assert 50 < exact < 95


def test_the_file_can_be_read_and_states_its_annotator_and_model_and_how_replies_were_sampled(
    parent, tmp_path
):
    entries = annotate(parent, 12, tmp_path / "sub" / "r.jsonl")
    assert len(entries) == 12
    assert all(len(entry["completions"]) == len(entry["ranks"]) == 5 for entry in entries)
    assert rankings.read(tmp_path / "sub" / "r.jsonl")
    for entry in entries:
        assert entry["annotator"] == "simulated" and entry["model"] == checkpoint.digest(parent)
        assert entry["sampling"]["temperature"] == 1.0 and "time" in entry
    assert len({text for entry in entries for text in entry["completions"][:4]}) > 40  # sampled, not greedy


def test_the_same_seed_gives_the_same_replies_and_ranks(parent, tmp_path):
    ranked = lambda path: [(e["completions"], e["ranks"]) for e in annotate(parent, 6, path)]
    assert ranked(tmp_path / "a.jsonl") == ranked(tmp_path / "b.jsonl")


def test_the_file_is_complete_or_does_not_exist(parent, tmp_path, monkeypatch):
    entry, calls = rankings.entry, []

    def fail_at_the_fourth(ranking, *notes):
        calls.append(ranking)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return entry(ranking, *notes)

    monkeypatch.setattr(rankings, "entry", fail_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        annotate(parent, 6, tmp_path / "r.jsonl")
    assert not list(tmp_path.iterdir())
