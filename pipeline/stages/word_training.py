"""Makes word vectors: the wiring of the methods that are trained by gradients, and the counting of the others.

V words, D dimensions.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse

from pipeline.config import TrainingConfig
from pipeline.data.examples.cooccurrence import CellBatch, cell_examples, count_cooccurrences, hold_out
from pipeline.data.examples.word_numbers import Passages, encode_passages
from pipeline.data.examples.word_pairs import WindowBatch, WindowExamples, keep_probabilities, negative_probabilities
from pipeline.data.prepared import stream_documents
from pipeline.inference.word_folder import Composer
from pipeline.models.count_vectors import log_counts, positive_pmi, svd_vectors
from pipeline.models.word_vectors import ContinuousBagOfWords, GloVe, SkipGram, SubwordEmbedding, skip_gram
from pipeline.objectives.terms import LossTerms
from pipeline.objectives.word_vectors import glove_loss, negative_sampling_loss
from pipeline.progress import progress
from pipeline.stages.word_methods import (
    AnyMethod,
    CbowConfig,
    FastTextConfig,
    GloveConfig,
    LogCountsConfig,
    PositivePmiConfig,
    SkipGramConfig,
    SvdConfig,
)
from pipeline.text.subwords import Subwords, pieces_of
from pipeline.text.words import Vocabulary, build_vocabulary, passages_of
from pipeline.training.base import StageModule
from pipeline.training.fit import fit
from pipeline.training.run import StageRun


@dataclass(frozen=True)
class Text:
    """The text in word numbers; held-out text is for validation losses alone."""

    vocabulary: Vocabulary
    train: Passages
    valid: Passages


@dataclass(frozen=True)
class Trained:
    """What a method has made of the text."""

    matrix: Float[np.ndarray, "V D"]
    numbers: Mapping[str, Any]
    """About the training, for the metrics."""
    history: Sequence[Mapping[str, float]]
    """The learning curve: a row for each optimizer step, or for each dimension of a decomposition."""
    composer: Composer | None = None


def read_training_text(folder: Path, *, min_count: int) -> Text:
    """The training and validation documents, in the vocabulary of the training documents.

    The training text is read twice, since as words it would be many times as large as in numbers.
    """
    vocabulary = build_vocabulary(_passages(folder, "train"), min_count=min_count)
    train, valid = (encode_passages(_passages(folder, split), vocabulary) for split in ("train", "valid"))
    return Text(vocabulary, train, valid)


def _passages(folder: Path, split: str) -> Iterator[list[str]]:
    documents = stream_documents(folder / f"{split}.jsonl")
    return passages_of(document.text for document in progress(documents, name=f"words: {split}", unit="documents"))


class WindowTraining(StageModule[WindowBatch]):
    """Words and the words around them, against negative samples."""

    model: SkipGram | ContinuousBagOfWords

    def __init__(self, model: SkipGram | ContinuousBagOfWords, training: TrainingConfig, *, num_negatives: int) -> None:
        super().__init__(model, training)
        self.num_negatives = num_negatives

    def objective(self, batch: WindowBatch) -> tuple[LossTerms, ...]:
        """Skip-gram counts pairs; CBOW counts centres that have a context."""
        match self.model:
            case SkipGram():
                is_pair = batch.is_pair
                positive, negative = self.model(batch.centres, batch.contexts, batch.negatives)
            case ContinuousBagOfWords():
                is_pair = batch.is_pair.any(-1, keepdim=True)
                positive, negative = self.model(batch.centres, batch.contexts, batch.negatives, batch.is_pair)
            case _:
                assert_never(self.model)
        return (negative_sampling_loss(positive, negative, is_pair=is_pair, num_negatives=self.num_negatives),)


class CellTraining(StageModule[CellBatch]):
    """Logarithms of co-occurrence counts."""

    model: GloVe

    def __init__(self, model: GloVe, training: TrainingConfig, *, x_max: float, alpha: float) -> None:
        super().__init__(model, training)
        self.x_max = x_max
        self.alpha = alpha

    def objective(self, batch: CellBatch) -> tuple[LossTerms, ...]:
        """Weighted squared error of each cell."""
        scores = self.model(batch.rows, batch.columns)
        return (glove_loss(scores, batch.counts, is_cell=batch.is_cell, x_max=self.x_max, alpha=self.alpha),)


def make_vectors(run: StageRun, method: AnyMethod, text: Text) -> Trained:
    """Makes the vectors by the configured method."""
    num_words = len(text.vocabulary)
    match method:
        case SvdConfig():
            return _decompose(method, text)
        case GloveConfig():
            return _train_on_cells(run, method, text)
        case CbowConfig():
            return _train_on_windows(run, method, text, ContinuousBagOfWords(num_words, d_model=method.d_model))
        case SkipGramConfig():
            return _train_on_windows(run, method, text, skip_gram(num_words, d_model=method.d_model))
        case FastTextConfig():
            subwords = Subwords(num_words, method.num_buckets, method.min_ngram, method.max_ngram)
            pieces = pieces_of(text.vocabulary.words, subwords)
            rows, starts = torch.from_numpy(pieces.rows), torch.from_numpy(pieces.starts)
            inputs = SubwordEmbedding(rows, starts, num_rows=subwords.num_rows, d_model=method.d_model)
            return _train_on_windows(run, method, text, SkipGram(inputs, d_model=method.d_model), subwords=subwords)
        case _:
            assert_never(method)


def _decompose(method: SvdConfig, text: Text) -> Trained:
    """Counts and their truncated singular value decomposition."""
    counts = count_cooccurrences(
        text.train, num_words=len(text.vocabulary), window=method.window, weighting=method.weighting
    )
    match method.matrix:
        case PositivePmiConfig(smoothing=smoothing, num_negatives=num_negatives):
            matrix = positive_pmi(counts, smoothing=smoothing, shift=math.log(num_negatives))
        case LogCountsConfig():
            matrix = log_counts(counts)
    vectors = svd_vectors(matrix, d_model=method.d_model, power=method.power, seed=method.seed)
    shares = explained_shares(matrix, vectors)
    history = [{"update": i, "train/explained_share": share} for i, share in enumerate(shares.tolist(), start=1)]
    numbers = {"num_counted_cells": int(counts.nnz), "num_cells": int(matrix.nnz), "explained_share": float(shares[-1])}
    return Trained(vectors, numbers, history)


def explained_shares(matrix: sparse.csr_matrix, vectors: Float[np.ndarray, "V D"]) -> Float[np.ndarray, " D"]:
    """The share of the squared sum of the matrix that its projection on the first d columns of the vectors keeps.

    The columns are orthogonal, as those of U S^power are; d is 1, 2, ..., D. One minus the share is the relative
    squared error of the approximation of rank d.
    """
    directions = vectors / np.maximum(np.linalg.norm(vectors, axis=0), np.finfo(np.float32).tiny)
    kept = np.square(matrix.T @ directions).sum(axis=0)
    return np.asarray(np.cumsum(kept) / np.square(matrix.data).sum())


def _train_on_cells(run: StageRun, method: GloveConfig, text: Text) -> Trained:
    """GloVe; a share of the cells is held out."""
    counts = count_cooccurrences(text.train, num_words=len(text.vocabulary), window=method.window, weighting="harmonic")
    kept, held_out = hold_out(counts, share=method.held_out_share, seed=method.training.seed)
    train, valid = (cell_examples(cells, cells_per_example=method.cells_per_example) for cells in (kept, held_out))
    model = GloVe(len(text.vocabulary), d_model=method.d_model)
    module = CellTraining(model, method.training, x_max=method.x_max, alpha=method.alpha)
    fit(run, module, train=train, valid=valid)
    return Trained(_matrix(module.model), {"num_cells": int(counts.nnz), **_numbers(module)}, module.history)


def _train_on_windows(
    run: StageRun,
    method: CbowConfig | SkipGramConfig | FastTextConfig,
    text: Text,
    model: SkipGram | ContinuousBagOfWords,
    *,
    subwords: Subwords | None = None,
) -> Trained:
    """Prediction of words from the words around them, or the other way round."""
    counts = text.vocabulary.counts
    train, valid = (
        WindowExamples(
            passages,
            keep_probabilities(counts, threshold=method.subsampling),
            negative_probabilities(counts, power=method.negative_power),
            window=method.window,
            block_size=method.block_size,
            num_shared=method.num_shared_negatives,
            counted="centres" if isinstance(method, CbowConfig) else "pairs",
            seed=method.training.seed,
        )
        for passages in (text.train, text.valid)
    )
    module = WindowTraining(model, method.training, num_negatives=method.num_negatives)
    fit(run, module, train=train, valid=valid)
    composer = None
    # `fit` may have put a copy in the place of the model.
    inputs = module.model.inputs
    if subwords and isinstance(inputs, SubwordEmbedding):
        composer = Composer(subwords, inputs.table.weight.detach().cpu())
    return Trained(_matrix(module.model), _numbers(module), module.history, composer)


@torch.no_grad()
def _matrix(model: SkipGram | ContinuousBagOfWords | GloVe) -> Float[np.ndarray, "V D"]:
    return np.asarray(model.vectors().cpu().numpy())


def _numbers(module: WindowTraining | CellTraining) -> dict[str, Any]:
    return {
        "num_steps": module.num_steps,
        "num_parameters": sum(parameter.numel() for parameter in module.model.parameters()),
        "valid_loss": module.history[-1]["valid/loss"],
    }
