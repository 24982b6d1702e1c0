"""rank: a ranking is saved as soon as a person has typed it, and the next session continues from there.

An interruption, a typing error or a damaged file must never cost a person any work.
"""

import io
import json
import os
import re
import subprocess
import sys
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from strategies import random_model

from tinyllm import checkpoint
from tinyllm.__main__ import main
from tinyllm.errors import TinyllmError, UsageError
from tinyllm.preferences import rank, rankings
from tinyllm.sampling import printable
from tinyllm.stages.s2_instruct import InstructSettings
from tinyllm.tokenizer import train
from tinyllm.training import Run
from tinyllm.transformer import Config
from tinyllm.world import World, oracle
from tinyllm.world.dice import Dice

ROOT = Path(__file__).parents[3]
BYTES = train("", 256)
PATH = "runs/demo/rankings.jsonl"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of stage 2, with a random model, in a run in the current folder."""
    monkeypatch.chdir(tmp_path)
    model = random_model(
        Config(len(BYTES), context=256, layers=1, width=8, heads=2), np.random.default_rng(0), np.float32, 0.1
    )
    with Run(InstructSettings(workers=1), "2-instruct", model, BYTES, steps=0) as run:
        pass
    return run.folder


def run_session(monkeypatch, *lines, **options):
    """Run a session in which a person types these lines and then ends the input."""
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    options = {"stage": "2", "count": 4, "group": 3, "annotator": "Ada", "workers": 1} | options
    rank.main(rank.RankSettings(**options))


def entries():
    with open(PATH, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def ranks():
    return [(entry["number"], entry["ranks"]) for entry in entries()]


def test_a_person_ranks_and_continues_where_the_last_session_ended(folder, monkeypatch, capsys):
    run_session(monkeypatch, "2 1 3", "1 2", "3=1 2", "q")
    shown = capsys.readouterr()
    assert "[1 of 4] " in shown.out and "name each of 1 2 3 once" in shown.out
    assert "4 of 4 prompts left to rank" in shown.err and f"2 rankings in {PATH}" in shown.out
    assert ranks() == [(0, [2, 1, 3]), (1, [1, 2, 1])]
    first = entries()[0]
    tasks = oracle.prompts(Dice("to be ranked in world 0"), World(0), "train", 4)
    assert [entry["prompt"] for entry in entries()] == [task.prompt for task in tasks[:2]]
    assert first["annotator"] == "Ada" and first["model"] == checkpoint.digest(folder)

    run_session(monkeypatch, "1 2 3", "u", "s", "3 2 1")
    shown = capsys.readouterr()
    assert ranks() == [(0, [2, 1, 3]), (1, [1, 2, 1]), (3, [3, 2, 1])]
    assert "2 of 4 prompts left to rank" in shown.err and "[3 of 4]" in shown.out and entries()[0] == first

    run_session(monkeypatch, "1=2=3")  # ranks the prompt that was skipped
    assert ranks()[3] == (2, [1, 1, 1])
    run_session(monkeypatch)
    shown = capsys.readouterr()
    assert "0 of 4 prompts left to rank (for more, raise --count)" in shown.err
    assert f"4 rankings in {PATH}" in shown.out
    assert [ranking.ranks for ranking in rankings.read(PATH)] == [[2, 1, 3], [1, 2, 1], [3, 2, 1]]
    run_session(monkeypatch, "1 2 3", count=5)
    assert ranks()[4] == (4, [1, 2, 3])


def test_undo_takes_back_the_last_answer_and_asks_again(folder, monkeypatch, capsys):
    run_session(monkeypatch, "1 2 3", "2 1 3", "u", "u", "3 2 1", "q")
    assert ranks() == [(0, [3, 2, 1])]
    progress = [line.split("]")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert progress == ["[1 of 4", "[2 of 4", "[3 of 4", "[2 of 4", "[1 of 4", "[2 of 4"]


def test_undo_before_the_first_answer_asks_again(folder, monkeypatch, capsys):
    run_session(monkeypatch, "u", "u", "3 2 1", "q")
    assert ranks() == [(0, [3, 2, 1])]
    assert capsys.readouterr().out.count("[1 of 4]") == 3


def test_undo_passes_over_a_prompt_that_was_skipped_for_having_only_one_reply(folder, monkeypatch):
    monkeypatch.setattr(
        rank, "completions", lambda *arguments: ["Yes.", "No."][: 1 if arguments[-1] == 1 else 2]
    )
    run_session(monkeypatch, "1 2", "u", "2 1", "q")
    assert ranks() == [(0, [2, 1])]


def test_undo_shows_the_same_completions_again(folder, monkeypatch, capsys):
    run_session(monkeypatch, "1 2 3", "u", "1 2 3", "q")
    first, again = re.findall(r"\[1 of 4\].*?best to worst", capsys.readouterr().out, re.S)
    assert first == again


def test_an_order_that_makes_no_sense_gets_an_explanation_and_can_be_typed_again(folder, monkeypatch, capsys):
    run_session(monkeypatch, "", "1 2", "1 2 3 4", "1 1 2", "best", "1 2 x", "S")
    shown = capsys.readouterr().out
    assert shown.count("name each of 1 2 3 once") == 6
    assert "[2 of 4]" in shown  # typing S skips the prompt, as s does
    assert not entries()


def test_the_end_of_the_input_ends_the_session_as_the_command_q_does(folder, monkeypatch, capsys):
    run_session(monkeypatch, "1 2 3")
    shown = capsys.readouterr().out
    assert ranks() == [(0, [1, 2, 3])]
    assert "[2 of 4]" in shown and "[3 of 4]" not in shown
    run_session(monkeypatch)
    assert ranks() == [(0, [1, 2, 3])]


def test_every_answer_is_saved_before_the_next_question(folder, monkeypatch):
    class Person(io.StringIO):
        def readline(self):
            if self.tell():
                assert ranks() == [(0, [1, 2, 3])]
                raise KeyboardInterrupt
            return super().readline()

    monkeypatch.setattr("sys.stdin", Person("1 2 3\n"))
    with pytest.raises(KeyboardInterrupt):
        rank.main(rank.RankSettings(stage="2", count=4, group=3, workers=1))
    assert ranks() == [(0, [1, 2, 3])]


def set_replies(monkeypatch, *texts):
    """Make the model write these texts in turn."""
    written = cycle(texts)
    answer = lambda pool, words, prompts, *_: [(next(written), True) for _ in prompts]
    monkeypatch.setattr(rank, "answer", answer)


def test_two_people_cannot_rank_the_same_run_at_once(folder, monkeypatch):
    words = ["rank", "--workers", "1", "--group", "2"]
    command, streams = [sys.executable, "-m", "tinyllm", *words], {"stdin": -1, "stdout": -1, "text": True}
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, **streams) as other:
        while not other.stdout.readline().startswith("[1 of"):
            pass
        with pytest.raises(TinyllmError, match=f"process {other.pid} is working in runs.demo at this moment"):
            run_session(monkeypatch, "2 1 3")
        other.communicate("1 2\nq\n")
    assert len(entries()) == 1


def test_all_completions_differ_even_if_fewer_than_requested_remain(folder, monkeypatch):
    set_replies(monkeypatch, "Yes.", "No.")
    run_session(monkeypatch, "2 1", "q", group=4)
    (entry,) = entries()
    assert sorted(entry["completions"]) == ["No.", "Yes."] and entry["ranks"] == [2, 1]
    set_replies(monkeypatch, *"aaaaaaabcdef")  # 12 replies are sampled: three times the value of --group
    run_session(monkeypatch, "1 2 3 4", "q", group=4)
    assert sorted(entries()[1]["completions"]) == [*"abcd"]


def test_a_prompt_that_always_gets_the_same_reply_is_skipped(folder, monkeypatch, capsys):
    set_replies(monkeypatch, "I do not know.")
    run_session(monkeypatch)
    shown = capsys.readouterr().out
    assert (
        shown.count("the model always gives the same reply: skipped") == 4
        and f"no rankings in {PATH}" in shown
    )


def test_the_order_on_the_screen_is_the_order_in_the_file(folder, monkeypatch, capsys):
    run_session(monkeypatch, "3 1 2", "q")
    (entry,), shown = entries(), capsys.readouterr().out
    for i, text in enumerate(entry["completions"], 1):
        indented = printable(text).replace("\n", "\n     ")
        assert f"\n  {i}  {indented}\n" in shown
    assert entry["ranks"] == [2, 3, 1]


def test_completions_may_contain_any_line_separator(tmp_path):
    path = tmp_path / "rankings.jsonl"
    ranking = rankings.Ranking([{"role": "user", "content": "?"}], ["a\x85b", "c\u2028d"], [1, 2])
    written = {number: {"number": number, **rankings.entry(ranking, "Ada", "", 0)} for number in (0, 1)}
    rankings.save(path, written.values())
    assert rank.load_entries(path) == written
    assert rankings.read(path) == [ranking] * 2


def test_completions_are_shuffled():
    """The reply that was sampled first is often the likeliest one. Its position must not give it away."""
    assert len({str(shuffled(number)) for number in range(20)}) > 3


def shuffled(number):
    with pytest.MonkeyPatch.context() as patch:
        set_replies(patch, "a", "b", "c")
        (task,) = oracle.prompts(Dice("one"), World(0), "train", 1)
        return rank.completions(None, BYTES, task.prompt, rank.RankSettings(group=3), number)


def test_a_foreign_or_damaged_file_is_reported_and_left_unchanged(folder, monkeypatch):
    for content in ("{}\n", "[1]\n", "{not json\n", '"text"\n'):
        with open(PATH, "w", encoding="utf-8") as file:
            file.write(content)
        with pytest.raises(TinyllmError, match="move the file out of the way"):
            run_session(monkeypatch, "1 2 3")
        with open(PATH, encoding="utf-8") as file:
            assert file.read() == content


def test_mistakes_on_the_command_line_are_reported(folder, monkeypatch, capsys):
    assert main(["rank", "--run", "nothing"]) == 1 and "no finished stage" in capsys.readouterr().err
    for group in (1, 10):
        with pytest.raises(UsageError, match="--group must be from 2 to 9"):
            run_session(monkeypatch, group=group)
    assert main(["rank", "--group", "1"]) == 2
    monkeypatch.setattr("sys.stdin", io.StringIO("2 1\n"))
    assert main(["rank", "--stage", "2-instruct", "--count", "1", "--group", "2", "--annotator", "Bill"]) == 0
    assert entries()[0]["annotator"] == "Bill"


def test_the_file_states_that_a_person_ranked_the_completions_and_how_they_were_sampled(folder, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("1 2 3 4\n"))
    rank.main(rank.RankSettings(seed=0, count=1, workers=1))
    (entry,) = entries()
    assert entry["annotator"] == "person"
    assert entry["sampling"] == {"temperature": 1.0, "max_tokens": rank.REPLY_TOKENS, "seed": 0}
