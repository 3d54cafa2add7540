"""What the translation models share: the vocabulary convention, tied embeddings, the projection.

Legend: D model size, V vocabulary.
The convention is Marian's: <eos> is 0; <pad> is the last id, V - 1, and also what the decoder starts from. The pad
row is zero and stays zero, and <pad> is outside the softmax: its score is minus infinity, so no model generates it.
"""

from collections.abc import Callable
from typing import Literal, TypeVar, overload

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Result = TypeVar("Result")

TiedEmbeddings = Literal["all", "decoder", "none"]
"""Which matrices are one: source, target and output | target and output | none."""


def pad_id(vocab_size: int) -> int:
    """The id of <pad>, which is also what the decoder starts from."""
    return vocab_size - 1


class TokenProjection(nn.Module):
    """Scores of all tokens; that of <pad>, whose row of the weight, shared or not, is never used, is minus infinity."""

    def __init__(self, vocab_size: int, d_model: int) -> None:
        super().__init__()
        self.weight: Tensor = nn.Parameter(torch.zeros(vocab_size, d_model))
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    @overload
    def forward(self, hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]: ...
    @overload
    def forward(self, hidden: Float[Tensor, "*N D"], apply: Callable[[Tensor, Tensor, Tensor], Result]) -> Result: ...
    def forward(
        self, hidden: Float[Tensor, "*N D"], apply: Callable[[Tensor, Tensor, Tensor], Result] | None = None
    ) -> Float[Tensor, "*N V"] | Result:
        """The scores, or `apply(hidden, weight, bias)` with the rows of ids 0 to V - 2, <pad> left out.

        Such a function may make a sum of the scores without holding them all. It is called in here because ZeRO-3 has
        the matrices together only while their module runs.
        """
        if apply is not None:
            return apply(hidden, self.weight[:-1], self.bias[:-1])
        # V is mostly round and V - 1 odd: a product whose rows have an odd length takes twice as long.
        bias = F.pad(self.bias[:-1], (0, 1), value=-torch.inf)
        return F.linear(hidden, self.weight, bias)


class TranslationEmbeddings(nn.Module):
    """Source embedding, target embedding and output projection, tied as asked."""

    def __init__(self, vocab_size: int, d_model: int, tied: TiedEmbeddings) -> None:
        super().__init__()
        pad = pad_id(vocab_size)
        self.target = nn.Embedding(vocab_size, d_model, padding_idx=pad)
        self.source = self.target if tied == "all" else nn.Embedding(vocab_size, d_model, padding_idx=pad)
        self.output = TokenProjection(vocab_size, d_model)
        for embedding in (self.source, self.target):
            nn.init.normal_(embedding.weight, std=d_model**-0.5)
            nn.init.zeros_(embedding.weight[pad])
        if tied == "none":
            nn.init.normal_(self.output.weight, std=d_model**-0.5)
            nn.init.zeros_(self.output.weight[pad])
        else:
            self.output.weight = self.target.weight
