"""What decoding asks of a model: no more than to read one token at a time.

Legend: N rows, M selected rows, T prompt length, V scores.
"""

from typing import Protocol, TypeVar, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

Own = TypeVar("Own", bound="State")


@runtime_checkable
class State(Protocol):
    """What a model remembers of the tokens so far, one row a hypothesis; a value, never changed in place."""

    def select(self: Own, rows: Int[Tensor, "M"]) -> Own:
        """The state of the given rows, which may repeat, drop and re-order."""


S = TypeVar("S", bound=State)


@runtime_checkable
class StepModel(Protocol[S]):
    """A model that appends one token to each row."""

    def step(self, tokens: Int[Tensor, "N"], state: S) -> tuple[Float[Tensor, "N V"], S]:
        """Scores of the token after `tokens`, which the caller may write into, and the state that includes them."""


@runtime_checkable
class PromptModel(StepModel[S], Protocol[S]):
    """A language model that continues prompts."""

    def start(
        self, input_ids: Int[Tensor, "N T"], segment_ids: Int[Tensor, "N T"], position_ids: Int[Tensor, "N T"]
    ) -> tuple[Float[Tensor, "N V"], S]:
        """Reads left-padded prompts (segment -1 is padding); scores of the token after each."""
