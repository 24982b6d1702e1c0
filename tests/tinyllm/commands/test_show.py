"""show: what a stage writes, and which tokens of a conversation the loss covers."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from stage_runs import record

from tinyllm import checkpoint
from tinyllm.__main__ import main
from tinyllm.commands import show
from tinyllm.commands.show import SampleSettings
from tinyllm.data import formats
from tinyllm.data.conversation import encode_conversation
from tinyllm.errors import TinyllmError, UsageError
from tinyllm.runs import Settings
from tinyllm.sampling import generate
from tinyllm.stages import s0_random
from tinyllm.world import World


@pytest.fixture
def sample(tiny, capsys):
    """What the command prints."""

    def run(**options):
        show.sample(SampleSettings(**{"size": "tiny", "tokens": 12} | options))
        return capsys.readouterr().out

    return run


def continuation(stage, text, most, draws=None, **how):
    model, words = checkpoint.load(Path("runs/demo", stage))
    start, end = [words.special["<|begin|>"], *words.encode(text)], words.special["<|end|>"]
    (ids,) = generate(model, [start], most, draws, stop=end, **how)
    return words.decode(ids[:-1] if ids[-1] == end else ids)


def test_at_temperature_0_it_continues_the_prompt_with_the_likeliest_tokens(sample):
    expected = "Ada has" + continuation("2-instruct", " Ada has", 12)
    assert sample(prompt="Ada has", temperature=0.0) == expected + "\n"
    assert sample(prompt="Ada has", temperature=0.0, seed=5) == expected + "\n"


def test_the_stage_is_the_one_that_was_named_or_else_the_last(sample):
    for name in ("0-random", "1-pretrain", "2-instruct"):
        expected = "A" + continuation(name, " A", 12) + "\n"
        assert sample(stage=name, prompt="A", temperature=0.0) == expected
        assert sample(stage=name[0], prompt="A", temperature=0.0) == expected
    assert sample(prompt="A", temperature=0.0) == expected


def test_the_seed_decides_the_sample(sample):
    first = sample(tokens=20, seed=1)
    assert sample(tokens=20, seed=1) == first != sample(tokens=20, seed=2)
    draws = np.random.default_rng(1).random((1, 20))
    expected = continuation("2-instruct", " ", 20, draws, temperature=0.5, top_k=9, top_p=0.9)
    assert sample(tokens=20, seed=1, temperature=0.5, top_k=9, top_p=0.9) == expected.removeprefix(" ") + "\n"


def test_with_your_own_text_no_space_comes_before_the_prompt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("the cat sat on a mat. " * 100)
    s0_random.main(s0_random.RandomSettings(size="tiny", workers=1, text="text.txt", vocab=256))
    words, notes = checkpoint.load(Path("runs/demo/0-random"))[1], record(monkeypatch, show, "generate")
    show.sample(SampleSettings(prompt="the", temperature=0.0, tokens=9))
    assert notes[0].prompts == [[words.special["<|begin|>"], *b"the"]]


def test_with_the_text_of_the_world_a_space_comes_before_the_prompt(tiny, monkeypatch):
    words, notes = checkpoint.load(Path("runs/demo/2-instruct"))[1], record(monkeypatch, show, "generate")
    show.sample(SampleSettings(prompt="the", tokens=9))
    assert notes[0].prompts == [[words.special["<|begin|>"], *words.encode(" the")]]


@pytest.mark.parametrize("wrong", [{"top_p": 0.0}, {"top_p": 1.5}, {"tokens": 0}])
def test_options_that_make_no_sense_are_usage_errors(wrong):
    with pytest.raises(UsageError, match="must be from 1"):
        show.sample(SampleSettings(**wrong))


def bracketed(messages):
    """What show-mask prints of a conversation."""
    ids, mask = encode_conversation(checkpoint.load("runs/demo/2-instruct")[1], messages)
    text = "<|begin|>"
    for message in messages:
        content = f" {message['content']}<|end|>"
        text += f"<|{message['role']}|>" + (f"[{content}]" if message["role"] == "assistant" else content)
    return f"{text}\nthe loss covers {sum(mask)} of {len(ids)} tokens\n\n"


def test_show_mask_brackets_what_the_loss_covers_in_a_conversation_of_each_kind(tiny, capsys):
    show.show_mask(Settings())
    world = World(0)
    tasks = world.instructions("train", 1)
    tasks += [world.problems("train", 1, kind=kind)[0] for kind in ("story", "calculator")]
    assert capsys.readouterr().out == "".join(bracketed(task.messages) for task in tasks)


def test_show_mask_shows_your_own_conversations_and_problems(tiny, capsys, monkeypatch):
    questions = [{"question": f"{i}+1?", "answer": f"#### {i + 1}"} for i in range(20)]
    Path("own.jsonl").write_text("\n".join(map(json.dumps, questions)))
    learned = {"text": "", "instructions": "own.jsonl", "problems": "own.jsonl"}
    monkeypatch.setattr(
        show, "learned_by", lambda folder: {kind: {"path": path} for kind, path in learned.items()}
    )
    show.show_mask(Settings())
    (first, *_), _ = formats.split(formats.instructions("own.jsonl"))
    assert capsys.readouterr().out == bracketed(first) * 2
    del learned["problems"]
    show.show_mask(Settings())
    assert capsys.readouterr().out == bracketed(first)
    learned.update(text="own.txt", instructions=None)
    with pytest.raises(TinyllmError, match="learned from no conversations: run make stage2 with DATA="):
        show.show_mask(Settings())


def test_in_a_terminal_show_mask_uses_colour(tiny, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    show.show_mask(Settings())
    assert re.search("\033\\[32m .*<\\|end\\|>\033\\[0m", capsys.readouterr().out)


def test_a_missing_stage_is_an_error(tiny, capsys):
    assert main(["sample", "--run", "nothing"]) == 1 and "make train RUN=nothing" in capsys.readouterr().err
    assert main(["sample", "--stage", "9"]) == 1 and "no finished stage 9" in capsys.readouterr().err
