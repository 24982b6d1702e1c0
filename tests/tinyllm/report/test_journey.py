"""journey: the five gradients that panel 2 draws, each computed here independently from the probabilities."""

import re

import numpy as np
import pytest

from tinyllm.data.conversation import pad, shift
from tinyllm.objectives import log_prob_of, log_softmax
from tinyllm.report import journey, panels
from tinyllm.report.record import Record


@pytest.fixture
def run(tiny):
    return Record("demo")


@pytest.fixture
def expected(run):
    """{objective: dloss/dlogits (T, V)} of the rude reply."""
    policy, reference = run.policy_and_reference
    model, tokenizer = policy.checkpoint
    batch = shift(*pad(journey.two_replies(tokenizer, run.seed)))
    now, before = (log_softmax(each.checkpoint[0].logits(batch["ids"])) for each in (policy, reference))
    weights, p = batch["weights"], np.exp(now[1])
    minus_target = p - np.eye(p.shape[-1])[batch["targets"][1]]  # predicted minus observed
    change = log_prob_of(batch["targets"], now) - log_prob_of(batch["targets"], before)
    reply, n = weights[1][:, None], weights[1].sum()
    ratio = np.exp(change[1])[:, None]
    better, worse = (change * weights).sum(axis=1)
    length = int(np.flatnonzero(weights[1])[-1]) + 1
    return length, {
        "next": minus_target / length,
        "instruct": reply * minus_target / n,
        "reinforce": -reply * minus_target / n,
        "ppo": -reply * np.where(ratio < 0.8, 0, ratio) * minus_target / n,
        "dpo": -reply * 0.1 / (1 + np.exp(0.1 * (better - worse))) * minus_target,
    }


def test_every_objective_turns_the_same_logits_into_its_own_gradient(run, expected):
    jobs = journey.jobs(*run.policy_and_reference, run.seed)
    length, gradients = expected
    for name, gradient in gradients.items():
        found = journey.gradient_at_logits(*jobs[name])[:length]
        np.testing.assert_allclose(found, gradient[:length], atol=1e-6, err_msg=name)
        assert np.abs(found).max() > 1e-4, name


def test_the_bars_of_panel_2_show_the_gradients_of_the_objectives(run, expected):
    """Every bar, in the prompt and in the reply: its number, direction and length."""
    html = "".join(panels.one_token(run))
    drawings = re.findall(r'<h4 class="" >(.*?)</h4>(.*?)</div>', html)
    _, tokenizer = run.finished[-1].checkpoint
    _, gradients = expected
    assert len(drawings) == 2 * 6
    titles = {journey.OBJECTIVES[name]: gradient for name, gradient in gradients.items()}
    matched = {}
    for i, (title, bars) in enumerate(drawings):
        rows = re.findall(r'<u class="(\w+)" style="--x:([\d.]+)"><b class="" >(.*?)</b>', bars)
        assert len(rows) == 6
        if title == "probability":
            continue
        shown = np.array([float(number) for _, _, number in rows])
        most = np.abs(shown).max() or 1
        for kind, length, number in rows:
            assert kind == ("down" if float(number) > 0 else "up")
            assert float(length) == pytest.approx(abs(float(number)) / most, abs=0.006)
        near = np.abs(titles[title][:, :, None] - shown).min(axis=1) <= 0.006 * np.abs(shown) + 1e-9  # (T, 6)
        matched.setdefault(i // 6, []).append(near.all(axis=1))
    for positions in matched.values():  # all five drawings of a row belong to one position
        assert np.logical_and.reduce(positions).any()


def test_gradients_are_those_of_the_loss(run):
    """The gradient's norm against a finite difference along the gradient."""
    jobs = journey.jobs(*run.policy_and_reference, run.seed)
    assert list(jobs) == list(journey.OBJECTIVES)
    for name, (model, function, piece, total) in jobs.items():
        _, gradient = journey.gradient_of_parameters(model, function, piece, total)
        flat = model.params.flat
        direction = gradient.flat / np.linalg.norm(gradient.flat)
        losses = []
        for step in (0.01, -0.01):
            flat += np.float32(step) * direction
            losses.append(journey.gradient_of_parameters(model, function, piece, total)[0])
            flat -= np.float32(step) * direction
        slope = (losses[0] - losses[1]) / 0.02
        assert slope == pytest.approx(np.linalg.norm(gradient.flat), rel=0.05), name
