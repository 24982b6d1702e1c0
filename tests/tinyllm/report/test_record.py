"""record: it reads the files of a run for the report page, even while a stage is still writing them.

What could go wrong: the page shows numbers that mean nothing, or a command that makes a different stage.
"""

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
from tinyllm.world.task import Task


def test_losses_of_rl_steps_and_an_unfinished_line_are_left_out(tiny):
    lines = [{"step": 0, "loss": 2.0}, {"step": 1, "loss": 0.1}, {"step": 1, "score": 0.5}]
    lines += [{"step": 2, "loss": 0.2}, {"step": 2, "reward": 0.5}, {"step": 3, "loss": 1.5}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    Path("runs/demo/2-instruct/metrics.jsonl").write_text(text + '{"step": 4, "lo')
    instruct = Record("demo").stages["2-instruct"]
    assert instruct.series("loss") == [(0, 2.0), (3, 1.5)]
    assert instruct.series("score") == [(1, 0.5)] and instruct.series("reward") == [(2, 0.5)]
    # A power cut may leave zero bytes in the file.
    Path("runs/demo/2-instruct/metrics.jsonl").write_text("\0\0\n" + text)
    with pytest.raises(TinyllmError, match="metrics.jsonl cannot be read as lines of JSON"):
        Record("demo").stages["2-instruct"].series("loss")


def test_the_recorded_command_of_a_stage_has_the_settings_of_the_stage(tiny):
    stage("stage0", "--untied", "--run", "it's")
    for finished in Record("demo").finished + Record("it's").finished:
        notes = finished.notes
        ((_, _, _, *arguments),) = dry_run(*shlex.split(notes["command"])[1:])
        options = vars(parser().parse_args(arguments))
        settings = COMMANDS[options.pop("command")][0](**options)
        assert {key: getattr(settings, key) for key in notes["settings"]} == notes["settings"]
        assert settings.workers == notes["workers"] and settings.run == finished.run


def test_the_reference_is_the_stage_before_the_policy(tiny):
    run = Record("demo")
    assert [stage.name for stage in run.policy_and_reference] == ["2-instruct", "1-pretrain"]
    del run.finished[1:]
    assert [stage.name for stage in run.policy_and_reference] == ["0-random", "0-random"]


def test_the_policy_is_stage_3_even_if_the_run_has_no_stage_0(five_stages):
    run = Record("demo")
    del run.finished[0]
    assert [stage.name for stage in run.policy_and_reference] == ["3-prefer", "2-instruct"]


def test_replies_are_greedy_except_those_of_stage_0_which_are_sampled(tiny):
    task = Task("facts", "Where is Ada?", "", "", "")
    for finished in Record("demo").finished:
        tokenizer, limit = finished.checkpoint[1], 20 if finished.name == "0-random" else 60
        greedy, sampled = (
            answer(finished.pool, tokenizer, [task.prompt], limit, seed)[0][0] for seed in (None, [0])
        )
        assert finished.replies([task]) == [sampled if finished.name == "0-random" else greedy]
        assert greedy != sampled
