"""PPO's critic: a value head that predicts the remaining return from the policy's hidden states.

The baseline of REINFORCE is one number for a whole batch. A critic gives each position its own baseline:
after a good first word the expected return rises, and only the excess over the expected return counts as an
advantage (Schulman et al. 2015, 2017). The head is linear, value = states @ w + b, and is trained with
AdamW on the squared error against the returns. No gradient flows from the head into the policy.
"""

import numpy as np

from tinyllm.objectives import squared_error
from tinyllm.optimizer import adamw
from tinyllm.preferences.advantages import gae, returns, standardise

RATE, UPDATES = 0.02, 20  # learning rate of the head, and its number of updates in each RL step


def critic_advantages(state, step, states, scores, penalties, mask):
    """states (B, T, C), scores (B,), penalties and mask (B, T) -> standardised advantages (B, T).

    The reward of a token is minus the penalty at the next position, plus the score if the token is the last.
    The head is kept in `state`. Advantages are computed with the head as earlier steps left it; then the
    head learns from the batch of this RL step. `step` is the number of the RL step, counted from 0.
    """
    rewards = np.zeros(penalties.shape)
    rewards[:, :-1] -= penalties[:, 1:]
    last = mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
    rewards[np.arange(len(mask)), last] += scores
    x = np.concatenate([states, np.ones_like(states[..., :1])], axis=-1)  # a constant channel for the bias
    head = state.setdefault("value_head", np.zeros((3, x.shape[-1]), np.float32))  # w and its two moments
    advantages = standardise(gae(rewards, (x @ head[0]) * mask), mask)
    learn_values(head, step, x[mask > 0], returns(rewards)[mask > 0])
    return advantages


def learn_values(head, step, x, targets):
    """Update the head UPDATES times, in place, with AdamW on the squared error. x (N, C + 1), targets (N,).

    values = x w  ->  dw = x^T dvalues.
    """
    w, *moments = head
    for updates in range(step * UPDATES, (step + 1) * UPDATES):
        _, dvalues = squared_error(x @ w, targets, len(x))
        adamw(w, (x.T @ dvalues).astype(w.dtype), *moments, updates, RATE, decay=0.0)
