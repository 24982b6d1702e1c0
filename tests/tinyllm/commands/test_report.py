"""report: `walk` and `compare` print the numbers and replies of the models as they really are.

The tests compute every number and reply again. A wrong number or reply would teach the
reader something false.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from stage_runs import stage

from tinyllm import checkpoint, layers, transformer
from tinyllm.__main__ import main
from tinyllm.data.conversation import decode_reply, encode_prompt
from tinyllm.report import journey
from tinyllm.report.record import Record
from tinyllm.sampling import generate, printable


def greedy_reply(name, question, max_tokens):
    model, tokenizer = checkpoint.load(Path("runs/demo", name))
    prompt = encode_prompt(tokenizer, [{"role": "user", "content": question}])
    (ids,) = generate(model, [prompt], max_tokens, stop=tokenizer.special["<|end|>"])
    return decode_reply(tokenizer, ids)


def test_compare_asks_every_stage_the_same_question(tiny, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    stage("compare", "--prompt", "Where is Ada?", "--tokens", 12)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["0-random", "1-pretrain", "2-instruct"]
    for line in lines[1:]:
        name, reply = line[:14].strip(), line[14:]
        assert reply.split() == printable(greedy_reply(name, "Where is Ada?", 12)).split()


def test_compare_mentions_a_masked_model_but_asks_it_nothing(tiny, capsys):
    config = Path("runs/demo/1-pretrain/config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"is_causal": False}))
    stage("compare", "--tokens", 2)
    assert "1-pretrain    (a masked model, which cannot write)\n" in capsys.readouterr().out


def test_compare_and_walk_refuse_a_run_without_a_stage(empty_folder, capsys):
    for command in ("compare", "walk"):
        assert main([command, "--run", "nothing"]) == 1
        assert "make train RUN=nothing" in capsys.readouterr().err


@pytest.mark.parametrize("objective", journey.OBJECTIVES)
def test_walk_prints_the_loss_and_every_gradient_of_an_objective(tiny, capsys, objective):
    stage("walk", "--objective", objective)
    out = capsys.readouterr().out
    jobs = journey.jobs(*Record("demo").policy_and_reference, 0)
    model, function, piece, total = jobs[objective]
    loss, gradient = journey.gradient_of_parameters(model, function, piece, total)
    assert re.search(rf"^{function.__name__} +{re.escape(f'{loss:.4f}')} ", out, re.M)
    for name, g in gradient.items():
        assert f"gradient of {name:26}{g.shape} norm {np.linalg.norm(g):.4g}\n" in out
    assert printed_ids(out) == piece["ids"].reshape(-1).tolist()


def printed_ids(out):
    """The ids in the table of tokens: the first column after the token. A token may contain spaces."""
    header, *lines = out.partition("\ntoken ")[2].partition("\nembedding_forward")[0].splitlines()
    numbers = len(header.split())
    return [int(line.split()[-numbers]) for line in lines]


def test_walk_prints_the_calls_of_the_forward_pass_and_then_those_of_the_backward_pass(tiny, capsys):
    stage("walk")
    calls = re.findall(r"^(\w+ward) ", capsys.readouterr().out, re.M)
    attention = ["rmsnorm_forward", "linear_forward", "rope_forward", "attention_forward", "linear_forward"]
    mlp = ["rmsnorm_forward", "linear_forward", "swiglu_forward", "linear_forward"]
    forward = ["embedding_forward", *attention, *mlp, "rmsnorm_forward", "linear_forward"]  # one layer
    assert calls[: len(forward)] == forward
    backward = [name.replace("forward", "backward") for name in reversed(forward)]
    i = backward.index("rope_backward")
    assert calls[len(forward) :] == [
        *backward[:i],
        "rope_backward",
        *backward[i:],
    ]  # twice: for queries and for keys
    assert transformer.layers is layers  # walk has put back the module that it replaced


def test_an_unknown_objective_is_a_usage_error(tiny, capsys):
    assert main(["walk", "--objective", "guess"]) == 2
    assert "guess" in capsys.readouterr().err
