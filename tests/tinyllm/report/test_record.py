"""record: the files of a run, and the command that makes a stage again."""

import json
import shlex
from pathlib import Path

import pytest
from stage_runs import stage
from test_makefile import dry_run

from tinyllm.__main__ import COMMANDS, parser
from tinyllm.errors import TinyllmError
from tinyllm.report.record import Record
from tinyllm.sampling import answer


def test_losses_of_rl_steps_and_an_unfinished_line_are_left_out(tiny):
    lines = [{"step": 0, "loss": 2.0}, {"step": 1, "loss": 0.1}, {"step": 1, "score": 0.5}]
    lines += [{"step": 2, "loss": 0.2}, {"step": 2, "reward": 0.5}, {"step": 3, "loss": 1.5}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    Path("runs/demo/2-instruct/metrics.jsonl").write_text(text + '{"step": 4, "lo')
    made = Record("demo").stages["2-instruct"]
    assert made.series("loss") == [(0, 2.0), (3, 1.5)]
    assert made.series("score") == [(1, 0.5)] and made.series("reward") == [(2, 0.5)]
    Path("runs/demo/2-instruct/metrics.jsonl").write_text("\0\0\n" + text)  # as a power cut may leave it
    with pytest.raises(TinyllmError, match="metrics.jsonl cannot be read as lines of JSON"):
        Record("demo").stages["2-instruct"].series("loss")


def test_the_recorded_command_of_a_stage_gives_its_settings_again(tiny):
    stage("stage0", "--untied", "--run", "it's")
    for each in Record("demo").finished + Record("it's").finished:
        ((_, _, _, *words),) = dry_run(*shlex.split(each.notes["command"])[1:])
        options = vars(parser().parse_args(words))
        settings = COMMANDS[options.pop("command")][0](**options)
        made = {key: getattr(settings, key) for key in each.notes["settings"]}
        assert made == each.notes["settings"] and settings.workers == each.notes["workers"]
        assert settings.run == each.run


def test_the_reference_is_the_stage_before_the_policy(tiny):
    run = Record("demo")
    assert [stage.name for stage in run.policy_and_reference] == ["2-instruct", "1-pretrain"]
    del run.finished[1:]
    assert [stage.name for stage in run.policy_and_reference] == ["0-random", "0-random"]


def test_replies_are_the_likeliest_except_those_of_stage_0(tiny):
    conversation = [{"role": "user", "content": "Where is Ada?"}]
    for each in Record("demo").finished:
        most = 20 if each.name == "0-random" else 60
        likeliest, sampled = (
            answer(each.pool, each.checkpoint[1], [conversation], most, seed)[0][0] for seed in (None, [0])
        )
        assert each.replies([conversation]) == [sampled if each.name == "0-random" else likeliest]
        assert likeliest != sampled
