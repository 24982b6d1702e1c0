"""Stage 2 must learn only the answers in a conversation, and replay the requested share of text.

A loss on questions would teach the model to ask them. Without replay, the model would forget the facts of
stage 1.
"""

import json
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from stage_runs import TINY, logged, parameters, read_stage, record, rows_of, set_recipe, stage, weights

from tinyllm import checkpoint
from tinyllm.__main__ import main
from tinyllm.data import corpus, formats
from tinyllm.data.conversation import encode_conversation, prompt_of
from tinyllm.errors import TinyllmError
from tinyllm.objectives import weighted_nll
from tinyllm.optimizer import Rates
from tinyllm.sampling import show_prompt
from tinyllm.stages import s2_instruct
from tinyllm.stages.sizes import SIZES
from tinyllm.training import Run
from tinyllm.world import World

STAGE = "2-instruct"


@pytest.fixture
def world(tiny):
    """A run that has finished stages 0 and 1 on the built-in world."""
    shutil.rmtree(Path("runs/demo", STAGE))
    return tiny


@pytest.fixture
def own_files(tmp_path, monkeypatch):
    """A folder with a file of instructions and a run that has finished stages 0 and 1 on the user's text."""
    monkeypatch.chdir(tmp_path)
    dice = random.Random(0)
    words = "the cat sat on a mat and saw that it was flat".split()
    Path("text.txt").write_text(" ".join(dice.choices(words, k=3000)))
    lines = [{"instruction": f"Say {dice.choice(words)} {i}.", "output": f"{i}"} for i in range(60)]
    Path("data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    stage("stage0", "--text", "text.txt", "--layers", 1, "--width", 16, "--heads", 2, "--context", 64)
    stage("stage1", "--text", "text.txt", "--steps", 3)
    return tmp_path


def instruct(**options):
    return s2_instruct.main(s2_instruct.InstructSettings(**{"size": "tiny", "workers": 1} | options))


def trimmed(row, counts):
    """Remove the padding of a row -> (ids, weights), as tuples."""
    length = int(np.flatnonzero(row)[-1]) + 1  # padding is token 0, and no conversation ends with token 0
    return tuple(row[:length].tolist()), tuple(counts[: length - 1].tolist())


def encoded(tokenizer, conversations):
    """Conversations -> the set of their (ids, weights), as `trimmed` returns them."""
    rows = [encode_conversation(tokenizer, messages) for messages in conversations]
    return {(tuple(ids), tuple(map(float, mask[1:]))) for ids, mask in rows}


@pytest.mark.parametrize("replay", [0.0, 0.25, 0.4])
def test_a_batch_holds_conversations_and_the_requested_share_of_text(replay, world, monkeypatch):
    steps = record(monkeypatch, Run, "train_step")
    instruct(steps=4, replay=replay, tokens=8192)
    tokenizer = checkpoint.load(Path("runs/demo", STAGE))[1]
    tasks = World(0).instructions("train", SIZES["tiny"].instructions)
    conversations = encoded(tokenizer, [task.messages for task in tasks])
    begin, user, system = (tokenizer.special[f"<|{name}|>"] for name in ("begin", "user", "system"))
    documents = corpus.pack(corpus.load("", 0, SIZES["tiny"].characters)[0], tokenizer)
    whole = ",".join(map(str, documents))
    text_count = row_count = 0
    for note in steps:
        assert len(note.batch) == 4
        for piece in note.batch:
            rows = rows_of([piece])
            chats = [trimmed(*row) for row in rows if row[0][1] in (user, system)]
            texts = [row for row in rows if row[0][1] not in (user, system)]
            assert set(chats) <= conversations
            for ids, counts in texts:
                assert ids[0] == begin and counts.all() and ",".join(map(str, ids)) in whole
            assert abs(len(texts) - len(chats) * replay / (1 - replay)) <= 0.5
            text_count, row_count = text_count + len(texts), row_count + len(rows)
    assert text_count / row_count == pytest.approx(replay, abs=0.05)


def test_the_loss_covers_the_answer_with_its_end_token_and_nothing_else(world, monkeypatch):
    steps = record(monkeypatch, Run, "train_step", call=False)
    instruct(steps=4, replay=0)
    tokenizer = checkpoint.load_language_model(Path("runs/demo", STAGE))[1]
    expected = set()  # (the text that the loss covers, all other text)
    for messages in (task.messages for task in World(0).instructions("train", 40)):
        replies = [f" {message['content']}<|end|>" * (message["role"] == "assistant") for message in messages]
        rest = [
            f"<|{message['role']}|>" + f" {message['content']}<|end|>" * (message["role"] != "assistant")
            for message in messages
        ]
        expected.add(("".join(replies), "<|begin|>" + "".join(rest)))
    for note in steps:
        for row, counts in rows_of(note.batch):
            ids, counts = (np.array(part) for part in trimmed(row, counts))
            learned = tokenizer.decode(ids[1:][counts == 1].tolist())
            assert (learned, tokenizer.decode([ids[0], *ids[1:][counts == 0].tolist()])) in expected


def test_every_step_minimises_the_nll_with_the_learning_rates_from_the_settings(own_files, monkeypatch):
    steps = record(monkeypatch, Run, "train_step")
    instruct(text="text.txt", data="data.jsonl", steps=4, tokens=512, muon_rate=0.5, adamw_rate=0.25)
    expected = Rates("muon", muon=0.5, adamw=0.25, steps=4)
    assert all(note.rates == expected and note.total is None for note in steps)
    assert all(note.objective is weighted_nll for note in steps)


def test_no_conversation_is_repeated_in_an_epoch(own_files, monkeypatch):
    steps = record(monkeypatch, Run, "train_step", call=False)
    instruct(text="text.txt", data="data.jsonl", steps=4, tokens=512)
    user = checkpoint.load(Path("runs/demo", STAGE))[1].special["<|user|>"]
    rows = [trimmed(*row) for note in steps for row in rows_of(note.batch) if row[0][1] == user]
    assert len(rows) > 40
    first = rows[: len(formats.split(formats.instructions("data.jsonl"))[0])]
    assert len(set(first)) == len(first)


@pytest.mark.parametrize(
    "run, files, rates",
    [
        ("world", {}, s2_instruct.RATES),
        ("own_files", {"text": "text.txt", "data": "data.jsonl"}, s2_instruct.OWN_RATES),
    ],
)
def test_the_default_learning_rates_are_higher_for_your_own_conversations(
    request, monkeypatch, run, files, rates
):
    request.getfixturevalue(run)
    steps = record(monkeypatch, Run, "train_step", call=False)
    instruct(steps=1, **files)
    assert [note.rates for note in steps] == [Rates("muon", *rates, steps=1)]
    assert all(high > low for low, high in zip(s2_instruct.RATES, s2_instruct.OWN_RATES))


def test_your_own_conversations_are_also_joined_into_longer_chats(own_files, monkeypatch):
    steps = record(monkeypatch, Run, "train_step", call=False)
    instruct(text="text.txt", data="data.jsonl", steps=8, tokens=512, replay=0)
    tokenizer = checkpoint.load(Path("runs/demo", STAGE))[1]
    single = encoded(tokenizer, formats.split(formats.instructions("data.jsonl"))[0])
    user = tokenizer.special["<|user|>"]
    lengths = set()
    for ids, counts in (trimmed(*row) for note in steps for row in rows_of(note.batch)):
        starts = [*np.flatnonzero(np.array(ids) == user), len(ids)]
        parts = {(ids[:1] + ids[a:b], counts[a - 1 : b - 1]) for a, b in zip(starts, starts[1:])}
        assert parts <= single
        lengths.add(len(starts) - 1)
    assert lengths == {1, 2, 3}


@pytest.mark.parametrize("own", [True, False])
def test_stage_2_validates_on_held_out_conversations_only(own, request, monkeypatch):
    request.getfixturevalue("own_files" if own else "world")
    if own:
        training, held_out = formats.split(formats.instructions("data.jsonl"))
        options = {"text": "text.txt", "data": "data.jsonl", "tokens": 512}
    else:
        split = lambda name, count: [task.messages for task in World(0).instructions(name, count)]
        training, held_out, options = split("train", SIZES["tiny"].instructions), split("val", 300), {}
    steps, validations = record(monkeypatch, Run, "train_step"), record(monkeypatch, Run, "validate")
    instruct(steps=8, **options)
    tokenizer = checkpoint.load(Path("runs/demo", STAGE))[1]
    assert [note.step for note in validations] == [1, 3, 5, 7] == list(logged(STAGE, "validation_loss"))
    validated = {trimmed(*row) for note in validations for row in rows_of(note.batch)}
    trained = {trimmed(*row) for note in steps for row in rows_of(note.batch)}
    assert validated and validated <= encoded(tokenizer, held_out)
    assert trained & encoded(tokenizer, training) and not trained & validated
    batches = [[piece["ids"].tobytes() for piece in note.batch] for note in validations]
    assert batches == batches[:1] * 4
    samples = Path("runs/demo", STAGE, "samples.txt").read_text()
    prompts = [show_prompt(prompt_of(messages)) for messages in held_out]
    assert samples.count("--- step") == 4 and all(
        any(entry.startswith(f"{step}\n{prompt}\n") for prompt in prompts)
        for step, entry in zip((1, 3, 5, 7), samples.split("--- step ")[1:])
    )


def test_stage_2_starts_from_stage_1_and_learns(world):
    instruct(steps=12)
    assert read_stage(STAGE)["parent"]["sha256"] == checkpoint.digest("runs/demo/1-pretrain")
    losses = list(logged(STAGE, "loss").values())
    validation = list(logged(STAGE, "validation_loss").values())
    assert losses[-1] < losses[0] and validation[-1] < validation[0]
    assert np.abs(parameters(STAGE) - parameters("1-pretrain")).max() > 1e-3


def test_the_command_line_trains_on_your_own_file(own_files, capsys):
    stage("stage2", "--text", "text.txt", "--data", "data.jsonl", "--steps", 6, "--tokens", 512)
    validation = list(logged(STAGE, "validation_loss").values())
    assert len(validation) >= 3 and validation[-1] < validation[0]
    exams = json.loads(Path("runs/demo", STAGE, "exams.json").read_text())
    assert exams["bits_per_byte"]["value"] > 0 and "fact_cloze" not in exams


@pytest.mark.parametrize("epochs, fewest, most", [(30, 1, 900), (1, 50, 900), (30, 1, 7)])
def test_your_own_file_sets_the_default_number_of_steps_within_limits(
    own_files, monkeypatch, epochs, fewest, most
):
    set_recipe(monkeypatch, s2_instruct, epochs, fewest, instruct_steps=most)
    batches = record(monkeypatch, s2_instruct.ConversationBatches, "batch")
    steps = record(monkeypatch, Run, "train_step", call=False)
    instruct(text="text.txt", data="data.jsonl", tokens=512, replay=0.5)
    tokens = sum(len(ids) for ids, _ in batches[-1].self.rows)
    assert len(steps) == min(most, max(fewest, round(epochs * tokens / 256)))


def test_without_held_out_conversations_there_is_no_validation(own_files):
    lines = [{"instruction": "Say no.", "output": "no"}] * 3
    Path("same.json").write_text(json.dumps(lines))
    assert not formats.split(formats.instructions("same.json"))[1]
    instruct(text="text.txt", data="same.json", steps=2)
    assert not logged(STAGE, "validation_loss") and logged(STAGE, "loss")


def test_a_missing_parent_and_a_bad_file_are_reported(own_files, capsys):
    assert main(["stage2", *TINY, "--run", "nothing"]) == 1
    assert "make stage1 RUN=nothing" in capsys.readouterr().err
    with pytest.raises(TinyllmError, match="missing.json not found"):
        instruct(text="text.txt", data="missing.json")
    Path("bad.jsonl").write_text("{}\n")
    with pytest.raises(TinyllmError, match="line 1"):
        instruct(text="text.txt", data="bad.jsonl")


def test_conversations_that_are_too_long_are_left_out_and_counted(own_files, capsys, monkeypatch):
    long, short = ({"instruction": text, "output": "y"} for text in ("x " * 500, "z"))
    Path("both.jsonl").write_text(f"{json.dumps(long)}\n{json.dumps(short)}\n")
    steps = record(monkeypatch, Run, "train_step")
    instruct(text="text.txt", data="both.jsonl", steps=2, replay=0)
    assert "1 of 2 conversations do not fit into the context of 64" in capsys.readouterr().err
    assert max(piece["ids"].shape[1] for note in steps for piece in note.batch) <= 64
    Path("long.jsonl").write_text(json.dumps(long) + "\n")
    with pytest.raises(TinyllmError, match="no conversation fits"):
        instruct(text="text.txt", data="long.jsonl", run="long", origin="runs/demo/1-pretrain")


def test_an_interrupted_and_resumed_run_gives_the_same_bytes_as_an_uninterrupted_one(world, monkeypatch):
    instruct(run="uninterrupted", origin="runs/demo/1-pretrain", steps=4)

    def stop(note):
        if note.step == 1 and not note.self.start:
            note.self.signal = signal.SIGINT
        return {}

    record(monkeypatch, Run, "train_step", stop)
    with pytest.raises(KeyboardInterrupt):
        instruct(run="resumed", origin="runs/demo/1-pretrain", steps=4)
    instruct(run="resumed", origin="runs/demo/1-pretrain", steps=4, resume=True)
    assert weights(STAGE, "resumed") == weights(STAGE, "uninterrupted")
    assert logged(STAGE, "loss", "resumed") == logged(STAGE, "loss", "uninterrupted")
