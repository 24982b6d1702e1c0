"""Every loss of every stage: (logits, ..., total) -> (loss, dlogits). The heart of the book.

A stage is a different gradient at the logits; everything below them is shared. `total` normalises the
whole batch and is given by the caller, so that the losses and gradients of parts of a batch (micro
batches, workers) simply add up, and so that weights may be negative or sum to 0. It may be 0 where
there is nothing to learn: then loss and gradient are 0, not nan.

Shapes:  B batch   T time   V vocabulary
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
