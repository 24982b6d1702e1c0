"""show: `sample` prints what a stage writes, and `show-mask` marks the tokens that the loss covers.

A wrong mark would hide a common mistake: training a model to write the user's words as well.
"""

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
    """A function that runs the command `sample` -> what it prints."""

    def run(**options):
        show.sample(SampleSettings(**{"size": "tiny", "tokens": 12} | options))
        return capsys.readouterr().out

    return run


def continuation(stage, text, max_tokens, draws=None, **options):
    model, tokenizer = checkpoint.load(Path("runs/demo", stage))
    start, end = [tokenizer.special["<|begin|>"], *tokenizer.encode(text)], tokenizer.special["<|end|>"]
    (ids,) = generate(model, [start], max_tokens, draws, stop=end, **options)
    return tokenizer.decode(ids[:-1] if ids[-1] == end else ids)


def test_at_temperature_0_a_prompt_is_continued_with_the_likeliest_tokens(sample):
    expected = "Ada has" + continuation("2-instruct", " Ada has", 12)
    assert sample(prompt="Ada has", temperature=0.0) == expected + "\n"
    assert sample(prompt="Ada has", temperature=0.0, seed=5) == expected + "\n"


def test_a_sample_is_from_the_stage_that_was_named_or_by_default_from_the_last_stage(sample):
    for name in ("0-random", "1-pretrain", "2-instruct"):
        expected = "A" + continuation(name, " A", 12) + "\n"
        assert sample(stage=name, prompt="A", temperature=0.0) == expected
        assert sample(stage=name[0], prompt="A", temperature=0.0) == expected
    assert sample(prompt="A", temperature=0.0) == expected


def test_the_seed_determines_the_sample(sample):
    first = sample(tokens=20, seed=1)
    assert sample(tokens=20, seed=1) == first != sample(tokens=20, seed=2)
    draws = np.random.default_rng(1).random((1, 20))
    expected = continuation("2-instruct", " ", 20, draws, temperature=0.5, top_k=9, top_p=0.9)
    assert sample(tokens=20, seed=1, temperature=0.5, top_k=9, top_p=0.9) == expected.removeprefix(" ") + "\n"


def test_with_your_own_text_no_space_comes_before_the_prompt(empty_folder, monkeypatch):
    Path("text.txt").write_text("the cat sat on a mat. " * 100)
    s0_random.main(s0_random.RandomSettings(size="tiny", workers=1, text="text.txt", vocab=256))
    _, tokenizer = checkpoint.load(Path("runs/demo/0-random"))
    calls = record(monkeypatch, show, "generate")
    show.sample(SampleSettings(prompt="the", temperature=0.0, tokens=9))
    assert calls[0].prompts == [[tokenizer.special["<|begin|>"], *b"the"]]


def test_with_the_text_of_the_built_in_world_a_space_comes_before_the_prompt(tiny, monkeypatch):
    _, tokenizer = checkpoint.load(Path("runs/demo/2-instruct"))
    calls = record(monkeypatch, show, "generate")
    show.sample(SampleSettings(prompt="the", tokens=9))
    assert calls[0].prompts == [[tokenizer.special["<|begin|>"], *tokenizer.encode(" the")]]


@pytest.mark.parametrize("wrong", [{"top_p": 0.0}, {"top_p": 1.5}, {"tokens": 0}])
def test_values_outside_their_limits_are_usage_errors(wrong):
    with pytest.raises(UsageError, match="must be from 1"):
        show.sample(SampleSettings(**wrong))


def bracketed(messages):
    """What show-mask must print for a conversation."""
    ids, mask = encode_conversation(checkpoint.load("runs/demo/2-instruct")[1], messages)
    text = "<|begin|>"
    for message in messages:
        content = f" {message['content']}<|end|>"
        text += f"<|{message['role']}|>" + (f"[{content}]" if message["role"] == "assistant" else content)
    return f"{text}\nthe loss covers {sum(mask)} of {len(ids)} tokens\n\n"


def test_show_mask_puts_brackets_around_what_the_loss_covers_in_one_conversation_of_each_kind(tiny, capsys):
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
    with pytest.raises(TinyllmError, match="seen no conversations: run make stage2 with DATA="):
        show.show_mask(Settings())


def test_in_a_terminal_show_mask_uses_colour(tiny, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    show.show_mask(Settings())
    assert re.search("\033\\[32m .*<\\|end\\|>\033\\[0m", capsys.readouterr().out)


def test_a_missing_stage_is_an_error(tiny, capsys):
    assert main(["sample", "--run", "nothing"]) == 1 and "make train RUN=nothing" in capsys.readouterr().err
    assert main(["sample", "--stage", "9"]) == 1 and "no finished stage 9" in capsys.readouterr().err
