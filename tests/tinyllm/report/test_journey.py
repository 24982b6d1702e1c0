"""journey: the gradients in panel 2 of the report page are those of the losses.

The tests compute these gradients again from the probabilities. A wrong gradient on the page would teach
something false.
"""

import re

import numpy as np
import pytest

from tinyllm.data.conversation import batch_of
from tinyllm.objectives import log_prob_of, log_softmax
from tinyllm.report import journey, panels
from tinyllm.report.record import Record


@pytest.fixture
def run(tiny):
    return Record("demo")


@pytest.fixture
def expected(run):
    """The length of the conversation with the rude reply, and {objective: dloss/dlogits (T, V)}."""
    policy, reference = run.policy_and_reference
    model, tokenizer = policy.checkpoint
    batch = batch_of(journey.two_replies(tokenizer, run.seed))
    log_probs, reference_log_probs = (
        log_softmax(stage.checkpoint[0].logits(batch["ids"])) for stage in (policy, reference)
    )
    weights, p = batch["weights"], np.exp(log_probs[1])
    minus_target = p - np.eye(p.shape[-1])[batch["targets"][1]]  # predicted minus observed
    change = log_prob_of(batch["targets"], log_probs) - log_prob_of(batch["targets"], reference_log_probs)
    reply, n = weights[1][:, None], weights[1].sum()
    ratio = np.exp(change[1])[:, None]
    chosen, rejected = (change * weights).sum(axis=1)
    length = int(np.flatnonzero(weights[1])[-1]) + 1
    return length, {
        "next": minus_target / length,
        "instruct": reply * minus_target / n,
        "reinforce": -reply * minus_target / n,
        "ppo": -reply * np.where(ratio < 0.8, 0, ratio) * minus_target / n,
        "dpo": -reply * 0.1 / (1 + np.exp(0.1 * (chosen - rejected))) * minus_target,
    }


def test_every_objective_turns_the_same_logits_into_its_own_gradient(run, expected):
    jobs = journey.jobs(*run.policy_and_reference, run.seed)
    length, gradients = expected
    for name, expected_gradient in gradients.items():
        gradient = journey.gradient_at_logits(*jobs[name])[:length]
        np.testing.assert_allclose(gradient, expected_gradient[:length], atol=1e-6, err_msg=name)
        assert np.abs(gradient).max() > 1e-4, name


def test_the_bars_of_panel_2_show_the_gradients_of_the_objectives(run, expected):
    """The test checks the direction and the length of every bar, and the number beside it."""
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
        numbers = np.array([float(number) for _, _, number in rows])
        largest = np.abs(numbers).max() or 1
        for kind, length, number in rows:
            assert kind == ("down" if float(number) > 0 else "up")
            assert float(length) == pytest.approx(abs(float(number)) / largest, abs=0.006)
        errors = np.abs(titles[title][:, :, None] - numbers).min(axis=1)  # (T, 6)
        matched.setdefault(i // 6, []).append((errors <= 0.006 * np.abs(numbers) + 1e-9).all(axis=1))
    for positions in matched.values():  # all five drawings in a row of the panel show the same position
        assert np.logical_and.reduce(positions).any()


def test_the_gradient_of_the_parameters_is_the_derivative_of_the_loss(run):
    """A finite difference in the direction of the gradient equals the gradient's norm."""
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
