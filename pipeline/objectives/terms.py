"""What an objective returns: a sum, its own denominator, and what to report with it.

The division happens in one place, over the whole optimizer step: all ranks, all micro-batches.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class LossTerms:
    """One loss, summed over the targets of a micro-batch.

    The optimizer step minimises `weight * (sum of loss_sum) / (sum of num_targets)` over its micro-batches.
    """

    loss_sum: Float[Tensor, ""]
    """Sum over the counted targets; differentiable, and connected to the parameters even when the count is zero."""
    num_targets: int
    """Number of counted targets in this micro-batch: tokens, pairs, examples."""
    name: str = "loss"
    """Key of this term among the step's target counts and in the reports."""
    weight: float = 1.0
    """Factor of this term in the total loss."""
    report: Mapping[str, Tensor] = field(default_factory=dict)
    """Further detached sums with the same denominator, by the name under which they are reported."""
