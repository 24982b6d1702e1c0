"""The same conversation under every objective, so that only the difference between the stages shows.

A question with a polite and a rude reply goes through the model. Each objective turns the same logits into a
different gradient. Panel 2 of the report page draws these gradients; `make walk` prints the forward pass to
the logits and the backward pass from the logits.
"""

import numpy as np

from tinyllm.data.conversation import batch_of, encode_last_reply
from tinyllm.objectives import dpo, log_prob_of, log_softmax, plackett_luce, ppo_clip, weighted_nll
from tinyllm.preferences.reward_model import ranking_batch, with_score_head
from tinyllm.training import forward_and_loss
from tinyllm.transformer import Parameters, scatter
from tinyllm.world import World, instructions, oracle
from tinyllm.world.dice import Dice

ADVANTAGE = -1.0  # of the rude reply, as if its score were one standard deviation below the expected score
OBJECTIVES = {
    "next": "next token",
    "instruct": "masked prompt",
    "ranking": "ranking",
    "reinforce": "reward-weighted",
    "ppo": "clipped",
    "dpo": "DPO",
}


def two_replies(tokenizer, seed):
    """[(ids, mask)] of a question about the built-in world with a polite reply, and of the same question with
    a rude reply."""
    dice, world = Dice("journey"), World(seed)
    task = oracle.prompt(dice, world, "test", "facts")
    answer = instructions.without_style(task.reply)
    replies = [instructions.in_style(dice, answer, style) for style in ("polite", "rude")]
    messages = [[*task.prompt, {"role": "assistant", "content": reply}] for reply in replies]
    return [encode_last_reply(tokenizer, each) for each in messages]


def jobs(policy, reference, seed):
    """Two stages -> {objective: (model, function, piece, total)}, the arguments of training.forward_and_loss.

    An objective that takes one reply gets the rude reply, with ADVANTAGE if it weights replies; the other
    objectives get both replies. In ppo, `reference` stands in for the policy that sampled the reply; in dpo,
    it is the reference policy.
    """
    (model, tokenizer), (earlier, _) = policy.checkpoint, reference.checkpoint
    rows = two_replies(tokenizer, seed)
    both, rude = batch_of(rows), batch_of(rows[1:])
    before = lambda batch: log_prob_of(batch["targets"], log_softmax(earlier.logits(batch["ids"])))
    reply, tokens = rude["weights"], rude["weights"].sum()
    pair = {name: array[None] for name, array in both.items()}  # (1, 2, T)
    pair["reference_log_probs"] = (before(both) * both["weights"]).sum(axis=1)[None]
    rollout = rude | {"old_log_probs": before(rude), "advantages": ADVANTAGE * reply}
    return {
        "next": (model, weighted_nll, rude | {"weights": np.ones_like(reply)}, reply.size),
        "instruct": (model, weighted_nll, rude, tokens),
        "ranking": (with_score_head(model, seed), plackett_luce, ranking_batch([(rows, [1, 2])]), 1),
        "reinforce": (model, weighted_nll, rude | {"weights": ADVANTAGE * reply}, tokens),
        "ppo": (model, clipped, rollout, tokens),
        "dpo": (model, dpo, pair, 1),
    }


def clipped(logits, weights, **arguments):
    """ppo_clip, ignoring the weights: forward_and_loss has already used them to choose the positions."""
    return ppo_clip(logits, **arguments)


def gradient_at_logits(model, function, piece, total):
    """-> dloss/dlogits (T, V) at every position of the rude reply's sequence."""
    _, dlogits, _ = forward_and_loss(model, function, piece, total)
    return dlogits[0, 1] if piece["ids"].ndim == 3 else scatter(dlogits, piece["weights"][0] != 0)


def gradient_of_parameters(model, function, piece, total):
    """-> the loss, and its gradient (Parameters)."""
    loss, dout, cache = forward_and_loss(model, function, piece, total)
    gradient = Parameters(model.config)
    model.backward(dout, cache, gradient)
    return loss, gradient
