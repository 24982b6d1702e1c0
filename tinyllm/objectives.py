"""Every loss of every stage: (logits, ..., total) -> (loss, dlogits). The heart of the book.

A stage is a different gradient at the logits; everything below them is shared. `total` normalises the
whole batch and is given by the caller, so that the losses and gradients of parts of a batch (micro
batches, workers) simply add up, and so that weights may be negative or sum to 0. It may be 0 where
there is nothing to learn: then loss and gradient are 0, not nan.

Shapes:  B batch   T time   V vocabulary   P prompts   K completions of each
"""

import numpy as np


def log_softmax(logits):
    """log p over the last axis: logits - log(sum(exp(logits))), shifted so that nothing overflows."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def weighted_nll(logits, targets, weights, total):
    """-sum(weights * log p(target)) / total, and its gradient with respect to the logits.

    logits (B, T, V); targets and weights (B, T); total a number -> loss (float), dlogits (B, T, V).
    Stages differ in the weights:  1 everywhere to pre-train, 1 on what was hidden for a masked model,
    1 on the answer and 0 on the question to instruct, the advantage on the reply to reinforce.

    -log p(y) = log(sum(exp(z))) - z_y  ->  d/dz = softmax(z) - onehot(y): what we said minus what was so.
    """
    p = logits.reshape(-1, logits.shape[-1])
    rows, y, w = np.arange(len(p)), targets.reshape(-1), weights.reshape(-1)
    p = p - p.max(axis=1, keepdims=True)
    said = p[rows, y]
    np.exp(p, out=p)
    z = p.sum(axis=1)
    share = w / total if total else np.zeros(w.shape)
    loss = float(np.dot(share, np.log(z) - said))
    share = share.astype(p.dtype)
    p *= (share / z)[:, None]
    p[rows, y] -= share
    return loss, p.reshape(logits.shape)


def hide_tokens(ids, ordinary, mask_id, rng, rate=0.15):
    """Inputs, targets and weights for a masked language model.   Devlin et al. 2018 (BERT).

    In every row of ids (B, T), `rate` of the tokens below `ordinary` (special tokens are never chosen),
    at least one where there is any, drawn without replacement: 80 % of them are replaced by mask_id,
    10 % by a random ordinary token, 10 % stay. Weights are 1 on the chosen positions only.
    """
    eligible = ids < ordinary
    count = eligible.sum(axis=1, keepdims=True)
    wanted = np.where(count > 0, np.maximum(1, np.rint(rate * count)), 0)            # (B, 1)
    order = np.where(eligible, rng.random(ids.shape), 2).argsort(axis=1).argsort(axis=1)
    chosen = order < wanted
    fate = rng.random(ids.shape)
    inputs = np.where(chosen & (fate < 0.8), mask_id, ids)
    inputs = np.where(chosen & (fate >= 0.9), rng.integers(0, ordinary, ids.shape), inputs)
    return inputs, ids, chosen.astype(np.float32)


# ---- preferences -----------------------------------------------------------------------------------

def plackett_luce(scores, last, ranks, total):
    """How surprising rankings are, if who has the higher score is likelier to be put before the others.

    scores (P, K, T) of K completions of P prompts, read at the position last (P, K) of each; ranks (P, K):
    1 the best, equal ranks for ties, 0 for a place that is not taken -> loss, dscores (P, K, T).

    -sum_i [ r_i - log sum_{j = i or worse than i} exp(r_j) ] / total    Plackett 1975; K = 2: Bradley & Terry
    1952. Whoever is tied with i does not compete with it. d/dr = softmax over those who compete - onehot(i).
    """
    r = np.take_along_axis(scores, last[..., None], axis=-1)[..., 0]                 # (P, K)
    there = ranks > 0
    worse = ranks[:, :, None] < ranks[:, None, :]
    competes = (worse | np.eye(ranks.shape[1], dtype=bool)) & there[:, :, None]      # (P, K, K): j with i
    among = np.where(competes, r[:, None, :], -np.inf)
    among[~there] = 0                                                                # no row of only -inf
    logp = log_softmax(among)
    p = np.where(competes, np.exp(logp), 0)
    own = np.einsum("pii->pi", logp)
    loss = -float(own[there].sum() / total) if total else 0.0
    dr = (p.sum(axis=1) - there) / total if total else np.zeros_like(r)
    dscores = np.zeros_like(scores)
    np.put_along_axis(dscores, last[..., None], dr[..., None].astype(scores.dtype), axis=-1)
    return loss, dscores


def preference(logits, targets, reference, beta, weights, total):
    """DPO: what was chosen becomes likelier than what was rejected, measured from where both began.

    logits (P, 2, T, V), targets and weights (P, 2, T): chosen first, weights 1 on the reply; reference
    (P, 2): log p of both replies under the frozen model -> loss, dlogits.   Rafailov et al. 2023.

    -log sigmoid(beta d) / total with d = (log p - reference) of the chosen - that of the rejected. So each
    chosen token gets the gradient of the next token, weighted by beta sigmoid(-beta d); each rejected one
    the same with the other sign.
    """
    logp = np.take_along_axis(log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    gain = (logp * weights).sum(axis=-1) - reference                                 # (P, 2)
    d = beta * (gain[:, 0] - gain[:, 1])
    push = beta * np.exp(-np.logaddexp(0, d))                          # beta sigmoid(-beta d)
    loss = float(np.logaddexp(0, -d).sum() / total) if total else 0.0
    signed = (push[:, None] * np.array([1.0, -1.0]))[..., None] * weights
    _, dlogits = weighted_nll(logits, targets, signed.astype(logits.dtype), total)
    return loss, dlogits


# ---- reinforcement -----------------------------------------------------------------------------------

def divergence(logits, reference, weights, total):
    """How far the model has gone: sum(weights * KL(p || q)) / total, exact at every position.

    logits and reference (B, T, V), weights (B, T): p and q are their softmax -> loss, dlogits.
    KL = sum_v p (log p - log q)  ->  d/dz = p * (log p - log q - KL).
    """
    logp, logq = log_softmax(logits), log_softmax(reference)
    p, ratio = np.exp(logp), logp - logq
    kl = (p * ratio).sum(axis=-1)
    share = (weights / total if total else np.zeros(weights.shape)).astype(logits.dtype)
    return float((share * kl).sum()), share[..., None] * p * (ratio - kl[..., None])


def clipped(logits, targets, old, advantages, total, clip=0.2):
    """PPO: -sum(min(ratio * A, clip(ratio, 1 - clip, 1 + clip) * A)) / total.   Schulman et al. 2017.

    logits (B, T, V); targets, old (log p of the targets when they were sampled) and advantages A (B, T);
    ratio = p / p_old. Where clipping has made it smaller there is no gradient; elsewhere it is that of the
    next token, weighted with ratio * A: at ratio 1, REINFORCE.
    """
    logp = np.take_along_axis(log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    ratio = np.exp(logp - old)
    free, held = ratio * advantages, np.clip(ratio, 1 - clip, 1 + clip) * advantages
    loss = -float(np.minimum(free, held).sum() / total) if total else 0.0
    weights = np.where(free <= held, free, 0).astype(logits.dtype)
    return loss, weighted_nll(logits, targets, weights, total)[1]


def on_a_leash(logits, targets, old, reference, beta, advantages, weights, total):
    """Clipped policy gradient, and beta times the divergence from the reference: what stage 3 descends.
    Of what later divergence is due to this token, the advantage has to tell (advantages.later)."""
    loss, dlogits = clipped(logits, targets, old, advantages * weights, total)
    away, daway = divergence(logits, reference, beta * weights, total)
    return loss + away, dlogits + daway
