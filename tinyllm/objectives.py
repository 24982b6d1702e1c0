"""The heart of this project: every loss of every stage, (logits, ..., total) -> (loss, dlogits).

The loss of the reward model takes scores in place of logits, and that of PPO's critic takes values.

Stages differ in the gradient at the logits; the rest of the backward pass is the same for all. If each loss
took the mean over its own rows, the sum over workers and micro-batches would be wrong. So the caller passes
`total`, the normaliser of the whole batch. A separate total also allows weights that are negative or sum to
0. If there is nothing to learn, total is 0. The functions then divide by infinity instead, so the loss
and its gradient are 0.

Shapes:  B batch   T time   V vocabulary   P prompts   K completions of each prompt
"""

import numpy as np


def log_softmax(logits):
    """log p over the last axis: logits - log(sum(exp(logits))), shifted so that nothing overflows."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def log_prob_of(targets, log_probs):
    """The entries of log_probs (..., V) at the targets (...) -> (...)."""
    return np.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]


def weighted_nll(logits, targets, weights, total):
    """-sum(weights * log p(target)) / total, and its gradient with respect to the logits.

    logits (..., V); targets and weights (...); total a number -> loss (float), dlogits (..., V).
    Stages differ in the weights:  1 everywhere for pre-training, 1 on hidden tokens for a masked model, 1 on
    the answer and 0 on the question for instruction fine-tuning, the advantage on the reply for REINFORCE.

    -log p(y) = log(sum(exp(z))) - z_y  ->  d/dz = softmax(z) - onehot(y): predicted minus observed.

    With advantages as weights, the value of the loss says little. If all tokens are equally likely and the
    weights sum to 0, the loss is 0, yet its gradient makes replies with a positive advantage likelier and the
    others less likely. Watch the reward instead.
    """
    p = logits.reshape(-1, logits.shape[-1])
    rows, y, w = np.arange(len(p)), targets.reshape(-1), weights.reshape(-1)
    p = p - p.max(axis=1, keepdims=True)
    z_y = p[rows, y]
    np.exp(p, out=p)
    sum_exp = p.sum(axis=1)
    share = w / (total or np.inf)
    loss = float(np.dot(share, np.log(sum_exp) - z_y))
    share = share.astype(p.dtype)
    p *= (share / sum_exp)[:, None]
    p[rows, y] -= share
    return loss, p.reshape(logits.shape)


# ---- preferences


def plackett_luce(scores, last, ranks, total):
    """Negative log-likelihood of rankings: a higher score makes a better rank likelier.

    scores (P, K, T) of K completions of each of P prompts; last (P, K) is the position at which each score is
    read; ranks (P, K): 1 is the best, equal ranks are ties, and 0 marks an unused slot of a prompt that has
    fewer than K completions -> loss, dscores (P, K, T).

    -sum_i [ r_i - log sum_{j = i or ranked below i} exp(r_j) ] / total    Plackett 1975. For K = 2 it is
    -log sigmoid(r_chosen - r_rejected), Bradley & Terry 1952. Tied completions do not compete.
    d/dr = sum_i [ softmax(r over those j) - onehot(i) ] / total.
    """
    r = np.take_along_axis(scores, last[..., None], axis=-1)[..., 0]  # (P, K)
    below = ranks[:, :, None] < ranks[:, None, :]
    # (P, K, K): whether j competes with i. An unused slot competes only with itself: its loss is 0.
    competes = below & (ranks > 0)[:, :, None] | np.eye(ranks.shape[1], dtype=bool)
    log_probs = log_softmax(np.where(competes, r[:, None, :], -np.inf))
    loss = -float(np.diagonal(log_probs, axis1=1, axis2=2).sum() / (total or np.inf))
    dr = (np.exp(log_probs).sum(axis=1) - 1) / (total or np.inf)
    dscores = np.zeros_like(scores)
    np.put_along_axis(dscores, last[..., None], dr[..., None].astype(scores.dtype), axis=-1)
    return loss, dscores


def dpo(logits, targets, reference_log_probs, weights, total, beta=0.1):
    """Direct preference optimisation: make the chosen reply likelier than the rejected one, both relative to
    the reference model.   Rafailov et al. 2023.

    logits (P, 2, T, V), targets and weights (P, 2, T): the chosen reply comes first; the weights are 1
    on the replies and 0 elsewhere; reference_log_probs (P, 2): log p of both replies under the reference
    -> loss, dlogits.

    -log sigmoid(margin) / total with margin = beta * (gain of the chosen reply - gain of the rejected reply),
    gain = log p - log p under the reference. So dlogits is that of weighted_nll, with the weights of
    the chosen reply multiplied by beta sigmoid(-margin), and the weights of the rejected reply multiplied by
    -beta sigmoid(-margin).
    """
    log_probs = log_prob_of(targets, log_softmax(logits))
    gain = (log_probs * weights).sum(axis=-1) - reference_log_probs  # (P, 2)
    margin = beta * (gain[:, 0] - gain[:, 1])
    push = beta * np.exp(-np.logaddexp(0, margin))  # beta sigmoid(-margin)
    loss = float(np.logaddexp(0, -margin).sum() / (total or np.inf))
    signed = (push[:, None] * np.array([1.0, -1.0]))[..., None] * weights
    _, dlogits = weighted_nll(logits, targets, signed.astype(logits.dtype), total)
    return loss, dlogits


# ---- reinforcement learning


def squared_error(values, targets, total):
    """sum((values - targets)^2) / (2 total), for PPO's critic -> loss, dvalues. All arrays (N,).

    d/dvalue = (value - target) / total.
    """
    error = values - targets
    dvalues = error / (total or np.inf)
    return float((error * dvalues).sum() / 2), dvalues


def kl_divergence(logits, reference_logits, weights, total):
    """How far the policy is from the reference: sum(weights * KL(p || q)) / total, exact over all V tokens.

    logits and reference_logits (B, T, V), with softmaxes p and q; weights (B, T) -> loss, dlogits.
    KL = sum_v p (log p - log q)  ->  d/dz = p * (log p - log q - KL).
    """
    log_p, log_q = log_softmax(logits), log_softmax(reference_logits)
    p, log_ratio = np.exp(log_p), log_p - log_q
    kl = (p * log_ratio).sum(axis=-1)
    share = (weights / (total or np.inf)).astype(logits.dtype)
    return float((share * kl).sum()), share[..., None] * p * (log_ratio - kl[..., None])


def ppo_clip(logits, targets, old_log_probs, advantages, total, clip=0.2):
    """PPO: -sum(min(ratio * A, clip(ratio, 1 - clip, 1 + clip) * A)) / total.   Schulman et al. 2017.

    logits (B, T, V); targets, old_log_probs (log p of the targets when they were sampled) and advantages A
    (B, T); ratio = p / p_old. Where the clipped term is the smaller one, the gradient is 0. Elsewhere the
    gradient is that of weighted_nll with weights ratio * A; at ratio 1 this is REINFORCE.
    """
    log_probs = log_prob_of(targets, log_softmax(logits))
    ratio = np.exp(log_probs - old_log_probs)
    free, clipped = ratio * advantages, np.clip(ratio, 1 - clip, 1 + clip) * advantages
    loss = -float(np.minimum(free, clipped).sum() / (total or np.inf))
    weights = np.where(free <= clipped, free, 0).astype(logits.dtype)
    return loss, weighted_nll(logits, targets, weights, total)[1]


def policy_gradient_with_kl(
    logits, targets, old_log_probs, reference_logits, advantages, weights, total, kl=0.2
):
    """The loss of stage 3 (except DPO): the clipped policy gradient plus `kl` times the KL to the reference.

    The second term contributes the gradient of each position's own KL. A token's effect on the KL of later
    positions is part of its advantage (preferences/advantages.py), except with GRPO.
    """
    loss, dlogits = ppo_clip(logits, targets, old_log_probs, advantages * weights, total)
    penalty, dpenalty = kl_divergence(logits, reference_logits, kl * weights, total)
    return loss + penalty, dlogits + dpenalty
