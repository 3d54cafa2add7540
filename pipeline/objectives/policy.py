"""Proximal policy optimization of responses: rewards of tokens, advantages, clipped losses, KL penalty.

Legend: B rows, T length in tokens, N counted positions gathered into one flat axis, V vocabulary. The action at t is
the token that the output at t predicts; `is_response` is True where that token belongs to the response, its EOS
included, and nothing outside it enters any result. Every log-probability is of the distribution that was sampled from:
logits divided by the temperature.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pipeline.objectives.terms import LossTerms


@dataclass(frozen=True)
class Advantages:
    """What the policy and the value head learn from; 0 outside the response."""

    advantages: Float[Tensor, "B T"]
    returns: Float[Tensor, "B T"]
    """Advantages plus values: the goal of the value head."""


def kl_k1(log_probs: Float[Tensor, "*N"], reference_log_probs: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Unbiased estimate of KL(policy || reference) from a token that the policy sampled (Schulman 2020, k1)."""
    return log_probs - reference_log_probs


def kl_k3(log_probs: Float[Tensor, "*N"], reference_log_probs: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """The same with less variance, never negative: `exp(-k1) - 1 + k1` (Schulman 2020, k3)."""
    log_ratio = reference_log_probs - log_probs
    return torch.expm1(log_ratio) - log_ratio


def token_rewards(
    scores: Float[Tensor, "B"],
    log_probs: Float[Tensor, "B T"],
    reference_log_probs: Float[Tensor, "B T"],
    is_response: Bool[Tensor, "B T"],
    has_ended: Bool[Tensor, "B"],
    *,
    kl_coef: float,
    cut_off_penalty: float,
) -> Float[Tensor, "B T"]:
    """Reward of each action: a KL penalty at every token, the score at the last one (Ouyang et al. 2022, eq. 2).

    A response that was cut off before its EOS loses `cut_off_penalty` of its score.
    """
    positions = torch.arange(is_response.shape[1], device=is_response.device)
    last = torch.where(is_response, positions, -1).amax(1, keepdim=True)  # (B, 1), -1 without a response
    scores = scores - cut_off_penalty * (~has_ended)
    rewards = -kl_coef * kl_k1(log_probs, reference_log_probs) * is_response
    return rewards + torch.where(positions == last, scores[:, None], 0.0)


def generalized_advantages(
    rewards: Float[Tensor, "B T"],
    values: Float[Tensor, "B T"],
    is_response: Bool[Tensor, "B T"],
    *,
    gamma: float,
    lam: float,
) -> Advantages:
    """Generalized advantage estimation (Schulman et al. 2016, eq. 11 and 16) over the response tokens.

    `A_t = delta_t + gamma * lam * A_next`, `delta_t = r_t + gamma * V_next - V_t`; next is the next response token and
    both are 0 after the last: the episode ends there, cut off or not.
    """
    advantages = torch.zeros_like(rewards)
    next_value = rewards.new_zeros(len(rewards))
    next_advantage = rewards.new_zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        counted = is_response[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = torch.where(counted, delta + gamma * lam * next_advantage, next_advantage)
        next_value = torch.where(counted, values[:, t], next_value)
        advantages[:, t] = next_advantage
    advantages = advantages * is_response
    return Advantages(advantages=advantages, returns=advantages + values * is_response)


def masked_moments(values: Float[Tensor, "*shape"], counted: Bool[Tensor, "*shape"]) -> Float[Tensor, "3"]:
    """Count, sum and sum of squares of the counted values in double precision: parts may be added, over ranks too."""
    values = values[counted].double()
    count = torch.tensor(values.numel(), dtype=torch.float64, device=values.device)
    return torch.stack([count, values.sum(), values.square().sum()])


def whiten(
    values: Float[Tensor, "*shape"], counted: Bool[Tensor, "*shape"], moments: Float[Tensor, "3"]
) -> Float[Tensor, "*shape"]:
    """The counted values shifted and scaled to mean 0 and variance 1, 0 elsewhere.

    `moments` are the `masked_moments` of the whole rollout, so that the result does not depend on how it is cut.
    """
    count = moments[0].clamp(min=1.0)
    mean = moments[1] / count
    variance = (moments[2] / count - mean.square()).clamp(min=0.0)
    whitened = (values - mean) * torch.rsqrt(variance + 1e-8)
    return torch.where(counted, whitened, 0.0).to(values.dtype)


def ppo_policy_loss(
    log_probs: Float[Tensor, "N"],
    old_log_probs: Float[Tensor, "N"],
    advantages: Float[Tensor, "N"],
    *,
    clip_range: float,
    name: str = "policy",
) -> LossTerms:
    """Clipped surrogate (Schulman et al. 2017, eq. 7): `-min(ratio * A, clip(ratio, 1 - c, 1 + c) * A)`.

    Reports `clip_fraction` (tokens whose clipped term is the smaller one), `ratio` and `approx_kl`, the k3 estimate of
    KL(old policy || policy).
    """
    ratio = torch.exp(log_probs - old_log_probs)
    surrogate = ratio * advantages
    clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range) * advantages
    return LossTerms(
        loss_sum=-torch.minimum(surrogate, clipped).sum(),
        num_targets=ratio.numel(),
        name=name,
        report={
            "clip_fraction": (clipped < surrogate).sum(),
            "ratio": ratio.detach().sum(),
            "approx_kl": kl_k3(old_log_probs, log_probs.detach()).sum(),
        },
    )


def ppo_value_loss(
    values: Float[Tensor, "N"],
    old_values: Float[Tensor, "N"],
    returns: Float[Tensor, "N"],
    *,
    clip_range: float,
    weight: float,
    name: str = "value",
) -> LossTerms:
    """Half the squared error, the larger of two: of the value and of the value kept within `clip_range` of the old one.

    The form of OpenAI's PPO2 (Huang et al. 2022, detail 9). Reports `value_clip_fraction` and `value_error`, squared.
    """
    clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
    error = (values - returns).square()
    clipped_error = (clipped - returns).square()
    return LossTerms(
        loss_sum=0.5 * torch.maximum(error, clipped_error).sum(),
        num_targets=values.numel(),
        name=name,
        weight=weight,
        report={"value_clip_fraction": (clipped_error > error).sum(), "value_error": error.detach().sum()},
    )


def token_entropy(logits: Float[Tensor, "N V"]) -> Float[Tensor, "N"]:
    """Entropy of every next-token distribution in nats; a class with logit minus infinity has none."""
    log_probs = logits.float().log_softmax(-1)
    return -(log_probs.exp() * log_probs.masked_fill(log_probs.isneginf(), 0.0)).sum(-1)


def entropy_bonus(logits: Float[Tensor, "N V"], *, weight: float, name: str = "entropy") -> LossTerms:
    """Minus the entropy (Schulman et al. 2017, eq. 9): a positive weight keeps the policy spread. Reports `entropy`."""
    entropy = token_entropy(logits)
    return LossTerms(
        loss_sum=-entropy.sum(),
        num_targets=entropy.numel(),
        name=name,
        weight=weight,
        report={"entropy": entropy.detach().sum()},
    )


@dataclass(frozen=True)
class FixedKL:
    """A KL coefficient that stays what it is."""

    coef: float

    def step(self, observed_kl: float, num_episodes: int) -> "FixedKL":
        """The controller of the next iteration."""
        return self


@dataclass(frozen=True)
class AdaptiveKL:
    """A KL coefficient that follows the observed KL by proportional control (Ziegler et al. 2019, section 2.2)."""

    coef: float
    target: float
    """Wanted KL of a response in nats: summed over its tokens."""
    horizon: int
    """Number of episodes over which a full error changes the coefficient by about a fifth."""

    def step(self, observed_kl: float, num_episodes: int) -> "AdaptiveKL":
        """The next controller: `coef * (1 + clip(kl / target - 1, -0.2, 0.2) * num_episodes / horizon)`."""
        error = min(max(observed_kl / self.target - 1.0, -0.2), 0.2)
        return replace(self, coef=self.coef * (1.0 + error * num_episodes / self.horizon))


KLController = FixedKL | AdaptiveKL
