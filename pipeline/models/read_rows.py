"""Token vectors of the tokens that a training reads: no other has a gradient or a state in the optimizer.

A fine-tuning reads a part of a vocabulary: 30,522 vectors of 384 numbers are half of a BERT of 6 layers, and a task of
short texts has a third of them. The gradient of the others is zero in every step, which costs as much memory and time
to fill, to clip and to step as one that is not. AdamW (Loshchilov and Hutter 2019) leaves them where they are but for
its weight decay, a factor of 1 - lr * decay a step, which says nothing of the texts: here they stay as they were.

Legend: V vocabulary, R tokens that are read, D width.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from pipeline.models.bert import Bert
from pipeline.models.bilstm import BiLSTM


class ReadRows(nn.Embedding):
    """The rows of an embedding at some token ids; that of any other token is refused, on the CPU with an IndexError."""

    place: Int[Tensor, "V"]
    """The row of each token here, -1 for one that is not."""

    def __init__(self, whole: nn.Embedding, token_ids: Int[np.ndarray, "R"]) -> None:
        rows = torch.from_numpy(token_ids)
        super().__init__(len(rows), whole.embedding_dim, _weight=whole.weight.detach()[rows])
        place = torch.full((whole.num_embeddings,), -1)
        place[rows] = torch.arange(len(rows))
        # Of integers, which no lower precision rounds.
        self.register_buffer("place", place)

    def forward(self, input_ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape D"]:
        """The vectors of tokens."""
        return functional.embedding(self.place[input_ids], self.weight)

    @torch.no_grad()
    def into(self, whole: nn.Embedding) -> nn.Embedding:
        """The embedding that these rows were taken from, with them as they are now, on their device."""
        whole = whole.to(self.weight.device)
        read = self.place >= 0
        whole.weight[read] = self.weight[self.place[read]].to(whole.weight.dtype)
        return whole


def narrow(encoder: nn.Module, token_ids: Int[np.ndarray, "R"]) -> nn.Embedding | None:
    """Leaves an encoder the vectors of these tokens, each named once; returns the embedding that it had.

    None, and nothing changed, for an encoder that is no BERT or LSTM: a GPT predicts all tokens by its vectors, and a
    language model that stays as it is trains none.
    """
    if not isinstance(encoder, Bert | BiLSTM):
        return None
    whole = encoder.token_embedding
    encoder.token_embedding = ReadRows(whole, token_ids)
    return whole


def widen(model: nn.Module, whole: nn.Embedding) -> None:
    """Gives the narrowed encoder in `model`, which may be a copy of the one that was narrowed, all vectors again."""
    for module in model.modules():
        if isinstance(module, Bert | BiLSTM) and isinstance(module.token_embedding, ReadRows):
            module.token_embedding = module.token_embedding.into(whole)
