"""Stage 3 at the doors users use: rankings from a file, a person at the terminal, every algorithm."""

import io
import json
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest

from tinyllm import checkpoint, rank, rollouts, verdicts
from tinyllm.__main__ import main
from tinyllm.conversation import prompt, read
from tinyllm.parallel import Team
from tinyllm.sampling import generate
from tinyllm.stages import s3_prefer, s4_reason
from tinyllm.tokenizer import train
from tinyllm.training import Run
from tinyllm.transformer import Config
from tinyllm.world import World, manners
from tinyllm.world.dice import Dice

TINY = ["--vocab", "300", "--layers", "1", "--width", "16", "--heads", "2", "--context", "256"]
BYTES = train("", 256)
WORLD = ["--size", "nano", "--workers", "1", "--from", "runs/demo/0-random"]


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A random model; one that has learned to say one thing as often as the other; people who like one."""
    path = tmp_path_factory.mktemp("preferences")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr("tinyllm.exams.run", lambda *_: {})
        assert main(["stage0", *WORLD[:4], *TINY]) == 0
        with (path / "both.jsonl").open("w") as both, (path / "liked.jsonl").open("w") as liked:
            for i in range(40):
                both.write(json.dumps({"instruction": f"{i}?", "output": "aa" if i % 2 else "zq"}) + "\n")
                liked.write(json.dumps({"prompt": f"{i}?", "chosen": "aa", "rejected": "zq"}) + "\n")
        more = ["--data", "both.jsonl", "--steps", "100", "--replay", "0", "--tokens", "512"]
        assert main(["stage2", *WORLD, *more]) == 0
    return path


@pytest.fixture
def here(once, tmp_path, monkeypatch):
    shutil.copytree(once, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tinyllm.exams.run", lambda *_: {})
    monkeypatch.setattr(s3_prefer, "PROMPTS", 8)
    return tmp_path


def few(monkeypatch):
    """A built-in annotator with little to do."""
    monkeypatch.setitem(s3_prefer.BUDGETS, "nano", {"rankings": 12, "steps": 4})
    monkeypatch.setitem(s3_prefer.reward.BUDGETS, "nano", 3)
    monkeypatch.setattr(s3_prefer, "PROMPTS", 4)
    monkeypatch.setattr(s3_prefer, "ROOM", 8)
    monkeypatch.setattr(s3_prefer.reward.accuracy, "__defaults__", ("test", 3))
    monkeypatch.setattr(s3_prefer.verdicts.worst, "__defaults__", (2,))


def metrics(here, stage, run="demo"):
    lines = (here / "runs" / run / stage / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("algorithm", ["reinforce", "rloo", "ppo", "grpo"])
def test_every_algorithm_learns_what_was_preferred(algorithm, here, monkeypatch):
    monkeypatch.setattr(s3_prefer, "ROOM", 6)
    more = ["--rankings", "liked.jsonl", "--algorithm", algorithm, "--steps", "25", "--rate", "0.01"]
    assert main(["stage3", *WORLD[:4], *more, "--kl", "0.01"]) == 0
    seen = [line for line in metrics(here, "3-prefer") if "score" in line]
    score = [line["score"] for line in seen]
    assert len(score) == 25 and np.mean(score[-5:]) > np.mean(score[:5]) + 0.2
    assert 0 <= seen[0]["kl_nats_per_reply"] < 1e-4 < seen[-1]["kl_nats_per_reply"]
    said = (here / "runs/demo/3-prefer/samples.txt").read_text()
    assert "[score" in said
    model, _ = checkpoint.load(here / "runs/demo/3-prefer/reward")
    assert model.config.head == "score"


def test_dpo_learns_from_the_rankings_alone(here):
    more = ["--rankings", "liked.jsonl", "--algorithm", "dpo", "--steps", "20", "--rate", "0.01"]
    assert main(["stage3", *WORLD[:4], *more]) == 0
    loss = [line["loss"] for line in metrics(here, "3-prefer")]
    assert loss[0] == pytest.approx(np.log(2), abs=1e-4) and loss[-1] < 0.5
    assert not (here / "runs/demo/3-prefer/reward").exists()


def test_the_leash_holds(here, monkeypatch):
    monkeypatch.setattr(s3_prefer, "ROOM", 6)
    gone = []
    for run, kl in (("loose", "0"), ("tied", "4")):
        more = ["--rankings", "liked.jsonl", "--steps", "25", "--rate", "0.01", "--kl", kl, "--run", run]
        assert main(["stage3", *WORLD[:4], "--from", "runs/demo/2-instruct", *more]) == 0
        gone.append(metrics(here, "3-prefer", run)[-1]["kl_nats_per_reply"])
    assert gone[1] < gone[0] / 2


def test_without_a_person_the_annotator_ranks_and_a_person_comes_first(here, monkeypatch, capsys):
    few(monkeypatch)
    assert main(["stage3", *WORLD]) == 0
    made = [json.loads(line) for line in (here / "runs/demo/3-prefer/rankings.jsonl").open()]
    assert len(made) == 12 and all(len(line["completions"]) == len(line["ranks"]) == 5 for line in made)
    assert {"annotator", "time", "sampling", "model", "prompt"} <= made[0].keys()
    assert "the judge prefers the better reply in" in capsys.readouterr().out
    assert (here / "runs/demo/3-prefer/SHA256SUMS").exists()
    (here / "runs/mine").mkdir()
    line = {"prompt": "?", "completions": ["x", "y"], "ranks": [1, 2]}
    (here / "runs/mine/rankings.jsonl").write_text(json.dumps(line) + "\n")
    assert main(["stage3", *WORLD, "--run", "mine"]) == 0
    assert not (here / "runs/mine/3-prefer/rankings.jsonl").exists()
    assert "runs/mine/rankings.jsonl" in capsys.readouterr().err


def test_a_bad_file_or_a_missing_parent_says_what_to_do(here, capsys):
    (here / "bad.jsonl").write_text("{}\n")
    assert main(["stage3", *WORLD, "--rankings", "bad.jsonl"]) == 1
    assert "line 1" in capsys.readouterr().err
    (here / "empty.jsonl").write_text("")
    assert main(["stage3", *WORLD, "--rankings", "empty.jsonl"]) == 1
    assert "empty" in capsys.readouterr().err
    assert main(["stage3", "--run", "nothing"]) == 1
    assert "make stage2" in capsys.readouterr().err
    assert main(["stage3", "--text", "own.txt"]) == 2 and "--rankings" in capsys.readouterr().err
    assert main(["rank", "--run", "nothing"]) == 1 and "no stage" in capsys.readouterr().err


def test_beside_its_own_replies_a_prompt_has_one_to_another_of_its_sort(here, monkeypatch):
    """Each reply is its number here, so that what it was said to is known."""
    monkeypatch.setitem(s3_prefer.BUDGETS, "nano", {"rankings": 60})
    numbers = lambda team, tokenizer, prompts, *_: SimpleNamespace(written=[*range(len(prompts))])
    monkeypatch.setattr(s3_prefer.rollouts, "collect", numbers)
    monkeypatch.setattr(s3_prefer, "read", lambda tokenizer, number: str(number))
    cfg = s3_prefer.Prefer(size="nano", workers=1)
    s3_prefer.simulate(cfg, cfg.folder("0-random"), here / "ranked.jsonl")
    tasks = manners.prompts(Dice("rankings of world 0"), World(0), "train", 60)
    sort = [manners.subject(task)[0] for task in tasks]
    ranked = [json.loads(line)["completions"] for line in (here / "ranked.jsonl").open()]
    own, others = [replies[:4] for replies in ranked], [int(replies[4]) // 4 for replies in ranked]
    assert sum(own, []) == [str(i) for i in range(240)]
    assert [sort[other] for other in others] == sort and others != [*range(60)] and set(sort) > {"person"}


@pytest.mark.parametrize("algorithm", ["reinforce", "ppo"])
def test_interrupted_and_resumed_ends_in_the_bytes_of_uninterrupted(algorithm, here, monkeypatch):
    """Interrupted while the judge learns, and while the policy does."""
    few(monkeypatch)
    least = lambda team, *_: (float(team.replica.model.params.flat[0]), {}, 0.0)
    monkeypatch.setattr(verdicts, "worst", least)
    more = ["stage3", *WORLD, "--algorithm", algorithm]
    assert main([*more, "--run", "whole"]) == 0
    train, stopped = Run.train, []

    def train_and_stop(run, step, *rest, **options):
        loss = train(run, step, *rest, **options)
        if (run.stage, step) not in stopped and step == 1:
            stopped.append((run.stage, step))
            run.signal = signal.SIGINT
        return loss

    monkeypatch.setattr(Run, "train", train_and_stop)
    status = [main([*more, "--run", "cut", "--resume"]) for _ in range(3)]
    assert status == [130, 130, 0] and [stage for stage, _ in stopped] == ["3-prefer/reward", "3-prefer"]
    model = lambda run, stage: (here / "runs" / run / stage / "model.safetensors").read_bytes()
    for stage in ("3-prefer", "3-prefer/reward"):
        assert model("whole", stage) == model("cut", stage)


def test_what_remains_is_where_the_worst_kind_did_best(here, monkeypatch):
    """The third is one prompt of forty below the best: it may be as good, and is later. The last is not."""
    few(monkeypatch)
    seen, figures = [], iter([0.2, 0.7, 0.68, 0.66])

    def worst(team, *_):
        seen.append(team.replica.model.params.flat.copy())
        return next(figures), {"harm": 0.5}, 0.5

    monkeypatch.setattr(verdicts, "worst", worst)
    assert main(["stage3", *WORLD]) == 0
    model, _ = checkpoint.load(here / "runs/demo/3-prefer")
    assert len(seen) == 4 and np.array_equal(model.params.flat, seen[2])
    assert [line["worst"] for line in metrics(here, "3-prefer") if "worst" in line] == [0.2, 0.7, 0.68, 0.66]


def test_probabilities_of_rollouts_are_those_they_were_drawn_with():
    """So the first ratio of an update is 1, whatever else is in the batch."""
    config = Config(len(BYTES), context=64, layers=2, width=16, heads=2)
    prompts = [BYTES.encode(text) for text in ("a", "what?", "once more, please", "b" * 30)]
    with Team(config, 1) as team, Team(config, 1) as other:
        rng = np.random.default_rng(3)
        for each in (team, other):
            each.replica.model.params.flat[:] = rng.standard_normal(config.size()) * 0.1
        got = rollouts.collect(team, BYTES, prompts, 20, [1, 2])
        draws = generate(team.replica.model, prompts, 20, np.random.default_rng([1, 2, 0]),
                         stop=[BYTES.special["<|end|>"]])  # fmt: skip
        assert [tokens for tokens, _ in draws] == got.written
        theirs, logp, away, states = rollouts.against(team, other, got.ids, got.targets)
        again = rollouts.likelihood(team, got.ids, got.targets)
        assert np.abs(np.exp(again - logp) - 1).max() < 1e-4
        for (_, said), row, mask, tokens, end in zip(draws, logp, got.mask, got.written, got.ended):
            assert np.abs(np.exp(row[mask > 0] - said) - 1).max() < 1e-4
            assert mask.sum() == len(tokens) and end == (tokens[-1] == BYTES.special["<|end|>"])
        assert (away > 0).all() and states.shape == (*got.ids.shape, 16)
        assert np.abs(rollouts.against(team, team, got.ids, got.targets)[2]).max() < 1e-6


def test_stage_4_starts_from_stage_3_and_keeps_its_own_answers(here, monkeypatch):
    shutil.copytree("runs/demo/2-instruct", "runs/demo/3-prefer")
    cfg = s4_reason.Reason(size="nano", workers=1)
    parent = s4_reason.origin(cfg)
    assert parent.name == "3-prefer"
    model, tokenizer = checkpoint.load(parent)
    kept = {}
    for name, is_right in (("all", lambda *_: True), ("some", lambda task, _: task.key.startswith("errand"))):
        monkeypatch.setattr(s4_reason, "right", is_right)          # what is wrong is not repeated
        kept[name] = s4_reason.own_replies(cfg, World(0), parent, 40)
    own = kept["some"]
    assert 0 < len(own) < len(kept["all"]) and all(messages in kept["all"] for messages in own)
    for *asked, reply in own[:3]:
        wanted, _ = generate(model, [prompt(tokenizer, asked)], verdicts.ROOM, temperature=0,
                             stop=[tokenizer.special["<|end|>"]])[0]  # fmt: skip
        assert reply["content"] == read(tokenizer, wanted)
    monkeypatch.setattr(s4_reason, "own_replies", lambda *_: own)
    found, _ = s4_reason.lesson_material(cfg, World(0), 10, parent)
    assert len(found) == 20 and found[10:] == [own[i % len(own)] for i in range(10)]
    monkeypatch.setattr(s4_reason, "own_replies", lambda *_: [])   # none was right
    found, _ = s4_reason.lesson_material(cfg, World(0), 10, parent)
    assert found[10:] == [task.messages for task in World(0).instructions("train", 10)]


def test_the_exhibits_train_and_tell(here, monkeypatch, capsys):
    """make compare and make hacking, from the command line to their tables."""
    few(monkeypatch)
    monkeypatch.setattr(verdicts, "DUELS", 2)
    monkeypatch.setattr(verdicts, "EACH", 2)
    assert main(["compare", *WORLD, "--times", "2", "--steps", "2"]) == 0
    shown = capsys.readouterr().out
    rows = [line.split(" | ") for line in shown.splitlines() if line.startswith("| ")]
    assert [row[0].strip("| ") for row in rows[2:]] == ["reinforce", "rloo", "ppo", "grpo", "dpo"]
    assert len({len(row) for row in rows}) == 1 and "2 runs of each" in shown
    assert (here / "runs/demo/compare/table.md").read_text() in shown
    assert main(["hacking", *WORLD, "--steps", "12"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][2:]
    assert [row.split(" | ")[0] for row in rows] == [f"| {step}" for step in (1, 2, 4, 6, 8, 10, 12)]
    assert json.loads((here / "runs/demo/hacking/stage.json").read_text())["settings"]["kl"] == 0


def sitting(monkeypatch, *lines):
    """What a person types, line by line."""
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    return main(["rank", "--stage", "0", "--count", "4", "--group", "3", "--annotator", "Ada"])


def test_a_person_ranks_and_goes_on_where_the_sitting_ended(here, monkeypatch, capsys):
    monkeypatch.setattr(verdicts, "ROOM", 6)
    path = here / "runs/demo/rankings.jsonl"
    read = lambda: [json.loads(line) for line in path.open()]
    assert sitting(monkeypatch, "2 1 3", "1 2", "3=1 2", "q") == 0
    said = capsys.readouterr().out
    assert "[1 of 4] user:" in said and "name each of 1 2 3 once" in said
    assert [(line["number"], line["ranks"]) for line in read()] == [(0, [2, 1, 3]), (1, [1, 2, 1])]
    assert read()[0]["annotator"] == "Ada" and len(read()[0]["model"]) == 64
    first = read()[0]["completions"]
    assert sitting(monkeypatch, "1 2 3", "u", "s", "3 2 1") == 0
    assert [(line["number"], line["ranks"]) for line in read()] == [
        (0, [2, 1, 3]), (1, [1, 2, 1]), (3, [3, 2, 1])]  # fmt: skip
    assert "[3 of 4]" in capsys.readouterr().out and read()[0]["completions"] == first
    assert sitting(monkeypatch, "1=2=3") == 0                          # the one that was skipped
    assert sitting(monkeypatch) == 0 and "all 4 already" in capsys.readouterr().out
    assert [ranking.ranks for ranking in s3_prefer.rankings.read(path)] == [[2, 1, 3], [1, 2, 1], [3, 2, 1]]


def test_the_end_of_input_saves_and_a_foreign_file_is_left_alone(here, monkeypatch, capsys):
    monkeypatch.setattr(verdicts, "ROOM", 6)
    assert sitting(monkeypatch) == 0 and rank.already(here / "runs/demo/rankings.jsonl") == set()
    (here / "runs/demo/rankings.jsonl").write_text("{}\n")
    assert sitting(monkeypatch, "1 2 3") == 1 and "move it away" in capsys.readouterr().err
    assert main(["rank", "--group", "1"]) == 2
