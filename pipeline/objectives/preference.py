"""Learning from pairs of answers, of which one was chosen: direct preference optimization and reward models.

Legend: P pairs. Log-probabilities of a response are sums over its tokens, not means.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pipeline.objectives.terms import LossTerms


@dataclass(frozen=True)
class PairLogProbs:
    """log p(response | prompt) of both answers under one model."""

    chosen: Float[Tensor, "P"]
    rejected: Float[Tensor, "P"]

    @property
    def margin(self) -> Float[Tensor, "P"]:
        """By how much the model prefers the chosen answer, in nats."""
        return self.chosen - self.rejected


def dpo_loss(policy: PairLogProbs, reference: PairLogProbs, *, beta: float, label_smoothing: float = 0.0) -> LossTerms:
    """Direct preference optimization (Rafailov et al. 2023, eq. 7), conservative if smoothed (Mitchell 2023).

    With h the margin by which the policy prefers the chosen answer more than the reference does, a pair costs
    `-(1 - label_smoothing) * log sigmoid(beta * h) - label_smoothing * log sigmoid(-beta * h)`, where `label_smoothing`
    is the probability that the two labels were swapped.
    """
    logits = beta * (policy.margin - reference.margin)  # (P,)
    losses = -F.logsigmoid(logits)
    if label_smoothing > 0.0:
        losses = (1.0 - label_smoothing) * losses - label_smoothing * F.logsigmoid(-logits)
    return LossTerms(
        loss_sum=losses.sum(),
        num_targets=logits.numel(),
        report=_implicit_rewards(policy, reference, beta=beta),
    )


def ipo_loss(policy: PairLogProbs, reference: PairLogProbs, *, beta: float) -> LossTerms:
    """Identity preference optimization (Azar et al. 2023, eq. 17; their tau is `beta`).

    A pair costs `(h - 1 / (2 * beta))^2` with h as in `dpo_loss`: the margin is drawn to a finite value.
    """
    margin = policy.margin - reference.margin  # (P,)
    return LossTerms(
        loss_sum=(margin - 1.0 / (2.0 * beta)).square().sum(),
        num_targets=margin.numel(),
        report=_implicit_rewards(policy, reference, beta=beta),
    )


def bradley_terry_loss(chosen_reward: Float[Tensor, "P"], rejected_reward: Float[Tensor, "P"]) -> LossTerms:
    """Reward model of pairwise choices (Bradley and Terry 1952; Ouyang et al. 2022, eq. 1).

    A pair costs `-log sigmoid(r_chosen - r_rejected)`; only differences of rewards are determined.
    """
    margin = chosen_reward.float() - rejected_reward.float()  # (P,)
    return LossTerms(
        loss_sum=-F.logsigmoid(margin).sum(),
        num_targets=margin.numel(),
        report={"accuracy": (margin > 0).sum(), "margin": margin.detach().sum()},
    )


def _implicit_rewards(policy: PairLogProbs, reference: PairLogProbs, *, beta: float) -> dict[str, Tensor]:
    """Sums of `beta * log(policy / reference)` (Rafailov et al. 2023, section 5.1) and of their comparison."""
    chosen = beta * (policy.chosen - reference.chosen).detach()
    rejected = beta * (policy.rejected - reference.rejected).detach()
    return {
        "reward_accuracy": (chosen > rejected).sum(),
        "reward_margin": (chosen - rejected).sum(),
        "chosen_reward": chosen.sum(),
        "rejected_reward": rejected.sum(),
    }
