"""How much better than expected was a reply? Scores become advantages: the weights of a policy gradient.

REINFORCE (Williams 1992) makes each token of a reply likelier in proportion to its advantage: the return
minus a baseline. A baseline that does not depend on the token leaves the expected gradient unchanged, and a
good one greatly reduces the variance: without a baseline, scores of 7 and 8 would make both replies likelier.

Advantages add up to about 0. So the loss of stage 3, apart from the KL penalty, is about 0 too, however good
the policy is: before the first update on a batch of replies, the loss is minus the mean advantage. The
gradient of the loss is not 0: it makes replies above the baseline likelier and those below it less likely.

The advantage of a token is its return minus the baseline. The return is the score minus the divergences at
all LATER positions, each times `kl`. The divergence at a position compares two distributions that depend only
on earlier tokens, so the token chosen there does not affect it. The gradient of the divergence itself comes
from objectives.kl_divergence. With GRPO the return is the score alone, and the penalty is only in the loss.

An example with score 2, kl 0.5, baseline 1 and three tokens:

    divergence        0.4    1.0    0.2     KL(policy || reference) at each position
    later             1.2    0.2    0.0
    2 - 0.5 * later   1.4    1.9    2.0     returns
    advantage         0.4    0.9    1.0     smallest for the first token: a large divergence follows it

Shapes:  P prompts   G replies to each   B = P G replies   T time
"""

import numpy as np


def mean_of_others(returns):
    """`returns` (P, G), G > 1 -> for each reply, the mean return of the other replies to its prompt.   RLOO,
    Ahmadian et al. 2024. Leaving out a reply's own score makes the baseline independent of that reply."""
    return (returns.sum(axis=1, keepdims=True) - returns) / (returns.shape[1] - 1)


def group_mean(returns):
    """`returns` (P, G) -> the mean return of all replies to each prompt (P, 1).

    With this baseline, each advantage is (G - 1) / G times its value with mean_of_others."""
    return returns.mean(axis=1, keepdims=True)


def group_advantages(scores, eps=1e-4):
    """scores (P, G) -> (scores - mean) / standard deviation, within each group.   GRPO, Shao et al. 2024."""
    return (scores - group_mean(scores)) / (scores.std(axis=1, keepdims=True) + eps)


def with_baseline(baseline, scores, penalties):
    """scores (P, G), penalties (B, T) -> advantages (B, T), as in the example at the top.

    A penalty is `kl` times the divergence at a position. `baseline` is a function of the returns of whole
    replies (P, G), which are the scores minus all penalties. The simplest baseline is np.mean, one number for
    the batch.
    """
    whole = scores - penalties.sum(axis=1).reshape(scores.shape)
    return (scores - baseline(whole)).reshape(-1, 1) - returns_after(penalties)


def returns(rewards):
    """rewards (B, T) -> the reward-to-go: the sum of the rewards at each position and after it."""
    return rewards[:, ::-1].cumsum(axis=1)[:, ::-1]


def returns_after(rewards):
    """rewards (B, T) -> the sum of the rewards after each position."""
    return returns(rewards) - rewards


def gae(rewards, values, lam=0.95):
    """Generalised advantage estimation: rewards and values (B, T) -> advantages (B, T), undiscounted.
    V and A after the last position are 0.   Schulman et al. 2015.

        delta_t = r_t + V_{t+1} - V_t     how much better one step was than expected
        A_t = delta_t + lam A_{t+1}

    lam = 1 gives the return minus V_t, which is unbiased but noisy; lam = 0 gives delta_t, which is less
    noisy but biased if the values are wrong.
    """
    next_values = np.concatenate([values[:, 1:], np.zeros_like(values[:, :1])], axis=1)
    advantages, ahead = rewards + next_values - values, 0
    for t in reversed(range(advantages.shape[1])):
        ahead = advantages[:, t] = advantages[:, t] + lam * ahead
    return advantages


def standardise(advantages, mask):
    """advantages and mask (B, T) -> advantages with mean 0 and standard deviation 1 inside the mask."""
    inside = advantages[mask > 0]
    return (advantages - inside.mean()) / (inside.std() + 1e-8)
