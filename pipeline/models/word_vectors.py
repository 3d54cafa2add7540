"""Word vectors that are trained by gradients: two tables of vectors, and dot products between them.

N blocks, S centre words of a block, C its context words, K negatives that it shares, P cells of one row of the
co-occurrence matrix, D dimensions, V words, M pieces of all words, borders = V + 1.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


def _table(num_rows: int, d_model: int) -> nn.Embedding:
    """Vectors that begin small and uniform, as in word2vec and GloVe."""
    table = nn.Embedding(num_rows, d_model)
    nn.init.uniform_(table.weight, -0.5 / d_model, 0.5 / d_model)
    return table


def _zero_table(num_rows: int, d_model: int) -> nn.Embedding:
    table = nn.Embedding(num_rows, d_model)
    nn.init.zeros_(table.weight)
    return table


class SubwordEmbedding(nn.Module):
    """The vector of a word is the mean of its own and those of its character n-grams: fastText's code, where
    Bojanowski et al. (2017, section 3.2) write a sum.

    Word i has the rows `pieces[starts[i] : starts[i + 1]]` of the table.
    """

    pieces: Tensor
    starts: Tensor

    def __init__(
        self, pieces: Int[Tensor, "M"], starts: Int[Tensor, "borders"], *, num_rows: int, d_model: int
    ) -> None:
        super().__init__()
        self.register_buffer("pieces", pieces, persistent=False)
        self.register_buffer("starts", starts, persistent=False)
        self.table = nn.EmbeddingBag(num_rows, d_model, mode="mean")
        nn.init.uniform_(self.table.weight, -0.5 / d_model, 0.5 / d_model)

    @property
    def num_embeddings(self) -> int:
        """Number of words."""
        return len(self.starts) - 1

    def forward(self, words: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape D"]:
        """The vectors of words; each distinct word is composed once."""
        distinct, place = torch.unique(words, return_inverse=True)
        lengths = self.starts[distinct + 1] - self.starts[distinct]
        offsets = lengths.cumsum(0) - lengths
        first = torch.repeat_interleave(self.starts[distinct] - offsets, lengths)
        rows = self.pieces[first + torch.arange(len(first), device=first.device)]
        composed: Tensor = self.table(rows, offsets)
        return nn.functional.embedding(place, composed)


class SkipGram(nn.Module):
    """The vector of a word scores the words around it (Mikolov et al. 2013a, section 3.2)."""

    def __init__(self, inputs: nn.Embedding | SubwordEmbedding, *, d_model: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.outputs = _zero_table(inputs.num_embeddings, d_model)

    def forward(
        self, centres: Int[Tensor, "N S"], contexts: Int[Tensor, "N C"], negatives: Int[Tensor, "N K"]
    ) -> tuple[Float[Tensor, "N S C"], Float[Tensor, "N S K"]]:
        """Scores of all context words of a block and of its negatives, for each centre."""
        vectors = self.inputs(centres)
        others = self.outputs(torch.cat((contexts, negatives), dim=1))
        around, drawn = others.split((contexts.shape[1], negatives.shape[1]), dim=1)
        return vectors @ around.transpose(1, 2), vectors @ drawn.transpose(1, 2)

    def vectors(self) -> Float[Tensor, "V D"]:
        """The vectors of all words."""
        everything = torch.arange(self.inputs.num_embeddings, device=self.outputs.weight.device)
        vectors: Tensor = self.inputs(everything)
        return vectors


class ContinuousBagOfWords(nn.Module):
    """The mean of the words around it scores a word (Mikolov et al. 2013a, section 3.1).

    The gradient of the mean reaches each context word divided by their number, which word2vec's code forgets: with it,
    CBOW is as good as skip-gram (İrsoy et al. 2021).
    """

    def __init__(self, num_words: int, *, d_model: int) -> None:
        super().__init__()
        self.inputs = _table(num_words, d_model)
        self.outputs = _zero_table(num_words, d_model)

    def forward(
        self,
        centres: Int[Tensor, "N S"],
        contexts: Int[Tensor, "N C"],
        negatives: Int[Tensor, "N K"],
        is_pair: Bool[Tensor, "N S C"],
    ) -> tuple[Float[Tensor, "N S 1"], Float[Tensor, "N S K"]]:
        """Scores of each centre and of the block's negatives, for the context of each centre."""
        around: Tensor = self.inputs(contexts)
        weights = is_pair / is_pair.sum(-1, keepdim=True).clamp(min=1)
        context = weights.to(around.dtype) @ around  # (N, S, D)
        positive = (context * self.outputs(centres)).sum(-1, keepdim=True)
        return positive, context @ self.outputs(negatives).transpose(1, 2)

    def vectors(self) -> Float[Tensor, "V D"]:
        """The vectors of all words."""
        return self.inputs.weight


class GloVe(nn.Module):
    """Two vectors and two biases for each word, whose dot product is to be the logarithm of a count
    (Pennington et al. 2014, eq. 7)."""

    def __init__(self, num_words: int, *, d_model: int) -> None:
        super().__init__()
        self.words = _table(num_words, d_model)
        self.contexts = _table(num_words, d_model)
        self.word_biases = _zero_table(num_words, 1)
        self.context_biases = _zero_table(num_words, 1)

    def forward(self, rows: Int[Tensor, "N"], columns: Int[Tensor, "N P"]) -> Float[Tensor, "N P"]:
        """Predicted logarithms of the counts of some cells."""
        products = (self.words(rows)[:, None] * self.contexts(columns)).sum(-1)
        predicted: Tensor = products + self.word_biases(rows) + self.context_biases(columns).squeeze(-1)
        return predicted

    def vectors(self) -> Float[Tensor, "V D"]:
        """The sum of both vectors of each word (Pennington et al. 2014, section 4.2)."""
        return self.words.weight + self.contexts.weight


def skip_gram(num_words: int, *, d_model: int) -> SkipGram:
    """Skip-gram with one vector for each word."""
    return SkipGram(_table(num_words, d_model), d_model=d_model)
