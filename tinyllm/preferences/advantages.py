"""How much better than expected was it? From rewards to the weights of a policy gradient.

REINFORCE (Williams 1992) makes each token of a reply likelier by its advantage, and any baseline that does
not depend on the token leaves the expected gradient as it is. The methods differ in the baseline alone.

Shapes:  P prompts   G replies of each   B = P G replies   T time
"""

import numpy as np


def against_batch(scores):
    """scores (P, G) - their mean: REINFORCE with the plainest baseline."""
    return scores - scores.mean()


def against_group(scores):
    """scores (P, G) - the mean of the replies to the same prompt."""
    return scores - scores.mean(axis=1, keepdims=True)


def leave_one_out(scores):
    """scores (P, G) - the mean of the other replies to the same prompt.   RLOO, Ahmadian et al. 2024.

    The same as against_group, times G / (G - 1): without one's own score the baseline is unbiased."""
    others = max(1, scores.shape[1] - 1)
    return (scores * (scores.shape[1]) - scores.sum(axis=1, keepdims=True)) / others


def standardised(scores, eps=1e-4):
    """against_group, divided by the deviation of the group.   GRPO, Shao et al. 2024."""
    return against_group(scores) / (scores.std(axis=1, keepdims=True) + eps)


def to_go(rewards):
    """rewards (B, T) -> what is still to come from each position on, itself included."""
    return rewards[:, ::-1].cumsum(axis=1)[:, ::-1]


def later(rewards):
    """rewards (B, T) -> what comes after each position."""
    return to_go(rewards) - rewards


def generalised(rewards, values, lam=0.95):
    """rewards and values (B, T) -> advantages (B, T), with nothing to come after the last position.   GAE,
    Schulman et al. 2015, without discount.

    delta_t = r_t + V_{t+1} - V_t is how much better one step was than expected; A_t = delta_t + lam A_{t+1}.
    lam = 1 sums up all that came, minus V_t; lam = 0 trusts the values at once.
    """
    following = np.concatenate([values[:, 1:], np.zeros_like(values[:, :1])], axis=1)
    found, ahead = rewards + following - values, 0
    for t in reversed(range(found.shape[1])):
        ahead = found[:, t] = found[:, t] + lam * ahead
    return found
