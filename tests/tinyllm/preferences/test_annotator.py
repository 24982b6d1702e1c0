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


def tasks_of(count):
    """The tasks whose replies the annotator of world 0 ranks."""
    return oracle.prompts(Dice("rankings of world 0"), World(0), "train", count)


def annotate(parent, count, path, monkeypatch=None, replies=None):
    """-> the file's entries. replies(task, i): the i-th reply to each prompt, in place of the model's."""
    if replies:
        tasks = [task for task in tasks_of(count) for _ in range(annotator.GROUP)]
        texts = [replies(task, i % annotator.GROUP) for i, task in enumerate(tasks)]

        def answer(pool, tokenizer, prompts, max_tokens, seed):
            assert prompts == [task.prompt for task in tasks]
            return [(text, True) for text in texts]

        monkeypatch.setattr(annotator, "answer", answer)
    annotator.annotate(SETTINGS, parent, count, path)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_fifth_reply_comes_from_a_random_prompt_of_the_same_sort(parent, tmp_path, monkeypatch):
    """Each reply says its number and what it is about, so that the test can see where it comes from."""
    tasks, numbers = tasks_of(60), iter(range(240))
    about = [oracle.subject(task)[1] for task in tasks]
    entries = annotate(
        parent,
        60,
        tmp_path / "r.jsonl",
        monkeypatch,
        lambda task, i: f"{next(numbers)} about {oracle.subject(task)[1]}.",
    )
    assert [entry["prompt"] for entry in entries] == [task.prompt for task in tasks]
    assert [text for entry in entries for text in entry["completions"][:4]] == [
        f"{i} about {about[i // 4]}." for i in range(240)
    ]
    foreign = [entry["completions"][4].split(" ", 1) for entry in entries]
    origins = [int(number) // 4 for number, _ in foreign]
    sorts = [oracle.subject(task)[0] for task in tasks]
    assert [sorts[origin] for origin in origins] == sorts and {"person", "errand", ""} == set(sorts)
    assert sum(origin != i for i, origin in enumerate(origins)) > 50  # sometimes it is the same prompt
    assert [text for _, text in foreign] == [f"about {each}." for each in about]


def test_it_ranks_by_true_quality_and_makes_some_mistakes(parent, tmp_path, monkeypatch):
    dice, world = Dice("replies"), World(0)

    def reply(task, i):
        right, wrong = oracle.right_and_wrong(dice, world, task)
        return [right, wrong, f"{right} Most gladly I say so.", ""][i]

    entries = annotate(parent, 100, tmp_path / "r.jsonl", monkeypatch, reply)
    exact = 0
    for task, entry in zip(tasks_of(100), entries):
        qualities = [oracle.quality(task, text) for text in entry["completions"]]
        order = sorted(set(qualities), reverse=True)
        exact += entry["ranks"] == [order.index(each) + 1 for each in qualities]
    assert 50 < exact < 95  # each of two to four pairs of neighbours is swapped with probability 0.1


def test_its_file_can_be_read_and_says_where_it_comes_from(parent, tmp_path):
    entries = annotate(parent, 12, tmp_path / "sub" / "r.jsonl")
    assert len(entries) == 12
    assert all(len(entry["completions"]) == len(entry["ranks"]) == 5 for entry in entries)
    assert rankings.read(tmp_path / "sub" / "r.jsonl")
    for entry in entries:
        assert entry["annotator"] == "simulated" and entry["model"] == checkpoint.digest(parent)
        assert entry["sampling"]["temperature"] == 1.0 and "time" in entry
    assert len({text for entry in entries for text in entry["completions"][:4]}) > 40  # sampled, not greedy


def test_the_seed_decides_replies_and_ranks(parent, tmp_path):
    decided = lambda path: [(e["completions"], e["ranks"]) for e in annotate(parent, 6, path)]
    assert decided(tmp_path / "a.jsonl") == decided(tmp_path / "b.jsonl")


def test_the_file_is_complete_or_does_not_exist(parent, tmp_path, monkeypatch):
    entry, written = rankings.entry, []

    def fail_at_the_fourth(ranking, *notes):
        written.append(ranking)
        if len(written) == 4:
            raise KeyboardInterrupt
        return entry(ranking, *notes)

    monkeypatch.setattr(rankings, "entry", fail_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        annotate(parent, 6, tmp_path / "r.jsonl")
    assert not list(tmp_path.iterdir())
