"""experiments: `algorithms` compares the algorithms of stage 3, and `hacking` shows reward hacking.

The comparison would mean nothing if the algorithms were trained with different rankings, reward models or
numbers of steps.
"""

import re
import shutil
from pathlib import Path

import pytest
from stage_runs import TINY, logged, read_stage, record, shorten_rollouts, stage

from tinyllm.__main__ import main
from tinyllm.commands import experiments
from tinyllm.commands.experiments import COLUMNS, DRAWS
from tinyllm.evaluation import exams
from tinyllm.preferences import behaviour
from tinyllm.stages import s3_prefer
from tinyllm.stages.s3_prefer import ALGORITHMS, PreferSettings
from tinyllm.stages.sizes import SIZES


@pytest.fixture
def short_rollouts(tiny, monkeypatch):
    """The run `tiny`, whose rollouts are cut short."""
    shorten_rollouts(monkeypatch)


def rows(text):
    """The cells of a Markdown table, without its header."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[2:]]


def fake_exams(monkeypatch):
    """Give every exam a fixed result."""
    results = {key: {"value": 0.5} for key in COLUMNS} | {"fact_questions": {"value": 0.25}}
    monkeypatch.setattr(exams, "measure", lambda *_: dict(results))


def no_validation(monkeypatch):
    """Make training keep the last parameters instead of looking for the best ones."""
    monkeypatch.setattr(s3_prefer, "keep_best", lambda *_: None)


def test_the_algorithms_command_trains_every_algorithm_three_times_with_one_reward_model(
    short_rollouts, monkeypatch, capsys
):
    fake_exams(monkeypatch)
    no_validation(monkeypatch)
    mains = record(monkeypatch, s3_prefer, "main")
    models = record(monkeypatch, s3_prefer.reward_model, "train")
    stage("algorithms", "--steps", 1)
    trained = [(call.settings.algorithm, call.settings.draw, call.stage) for call in mains]
    draws = [(name, draw) for name in ALGORITHMS for draw in range(DRAWS)]
    assert trained == [(name, draw, f"algorithms/{name}-{draw}") for name, draw in draws]
    assert {call.settings.steps for call in mains} == {1}
    reward = read_stage("3-prefer/reward")
    with_reward_model = [name for name in ALGORITHMS if ALGORITHMS[name].pairs is None]
    assert reward["finished"] and len(models) == DRAWS * len(with_reward_model)
    assert not any(Path("runs/demo/algorithms").rglob("reward"))
    assert not Path("runs/demo/3-prefer/stage.json").exists()
    out = capsys.readouterr().out
    assert [row[0] for row in rows(out)] == list(ALGORITHMS)
    assert {len(row) for row in rows(out)} == {1 + len(COLUMNS)} and f"{DRAWS} runs of each" in out
    for row in rows(out):
        cells = dict(zip(COLUMNS, row[1:]))
        assert cells["polite"] == "0.5 (0.5 to 0.5)" and cells["fact_questions"] == "0.25 (0.25 to 0.25)"


def test_a_repeated_comparison_trains_and_examines_only_what_is_missing(short_rollouts, monkeypatch):
    fake_exams(monkeypatch)
    no_validation(monkeypatch)
    stage("algorithms", "--steps", 1)
    steps = record(monkeypatch, s3_prefer.Run, "train_step")
    examinations = record(monkeypatch, exams, "measure")
    shutil.rmtree("runs/demo/algorithms/ppo-0")
    stage("algorithms", "--steps", 1)
    assert {call.self.stage for call in steps} == {"algorithms/ppo-0"} and len(examinations) == 1


def test_a_cell_of_the_table_shows_the_mean_and_the_range():
    assert experiments.mean_and_range([1.0, 2.0, 6.0]) == "3 (1 to 6)"


def test_the_exams_of_an_algorithm_fill_every_column_of_the_table(short_rollouts, monkeypatch, capsys):
    no_validation(monkeypatch)
    monkeypatch.setattr(s3_prefer, "ALGORITHMS", {"dpo": ALGORITHMS["dpo"]})
    stage("algorithms", "--steps", 1)
    (row,) = rows(capsys.readouterr().out)
    numbers = dict(zip(COLUMNS, (re.fullmatch(r"(.+) \((.+) to (.+)\)", cell).groups() for cell in row[1:])))
    assert all(float(low) <= float(mean) <= float(high) for mean, low, high in numbers.values())
    assert float(numbers["kl_nats_per_reply"][2]) > 0


def test_the_hacking_command_uses_no_kl_penalty_and_prints_the_score_beside_the_real_quality(
    short_rollouts, monkeypatch, capsys
):
    monkeypatch.setattr(behaviour, "greedy_replies", lambda *_: None)
    quality = {kind: [0.5] for kind in s3_prefer.oracle.KINDS} | {"answerable": [0.125], "polite": [0.9]}
    monkeypatch.setattr(behaviour, "outcomes", lambda _: quality)
    stage("hacking", "--steps", 12, "--rate", 0.001)
    settings = read_stage("hacking")["settings"]
    assert settings["kl"] == 0 and settings["rate"] == 0.001 and settings["steps"] == 12
    *lines, last = capsys.readouterr().out.splitlines()
    pattern = r"step (\d+): score of the reward model (-?\d+\.\d\d), correct replies (.*)"
    printed = [re.fullmatch(pattern, line).groups() for line in lines]
    assert [step for step, _, _ in printed] == ["1", "2", "4", "6", "8", "10", "12"]
    scores = logged("hacking", "score")
    for step, score, correct in printed:
        assert score == f"{scores[int(step) - 1]:.2f}" and correct == f"{(4 * 0.5 + 0.125) / 5:.1%}"
    assert last.endswith(str(Path("runs/demo/report.html"))) and Path("runs/demo/report.html").exists()


def test_the_hacking_command_uses_three_times_the_steps_and_four_times_the_learning_rate_of_stage_3(
    short_rollouts, monkeypatch
):
    calls = record(monkeypatch, s3_prefer, "main", call=False)
    with pytest.raises(KeyError):  # nothing was trained
        experiments.hacking(PreferSettings(size="tiny"))
    (call,) = calls
    assert call.settings.steps == 3 * SIZES["tiny"].prefer_steps and call.stage == "hacking"
    assert call.settings.rate == 4 * PreferSettings.rate


@pytest.mark.parametrize("command", ["hacking", "algorithms"])
def test_an_experiment_whose_replies_the_oracle_cannot_judge_is_refused_before_training(
    tiny, capsys, command
):
    Path("r.jsonl").write_text("")
    for options in (["--rankings", "r.jsonl"], ["--from", "runs/demo/1-pretrain"]):
        assert main([command, *TINY, *options]) == 2
        assert "judged by the oracle" in capsys.readouterr().err
    assert not Path("runs/demo/3-prefer").exists()
