"""The models against loops over words, and on a text whose structure is known."""

from collections.abc import Callable
from typing import Literal, TypeVar

import numpy as np
import pytest
import torch
from gensim.models.fasttext import FastTextKeyedVectors
from torch import nn
from torch.testing import assert_close

from pipeline.config import ByExamples, Epochs, OptimizerConfig, ScheduleConfig, TrainingConfig
from pipeline.data.batches import Batch, Examples
from pipeline.data.examples.cooccurrence import cell_examples, count_cooccurrences
from pipeline.data.examples.word_numbers import encode_passages
from pipeline.data.examples.word_pairs import WindowExamples, keep_probabilities, negative_probabilities
from pipeline.data.plan import TrainingPlan
from pipeline.evaluation.word_similarity import WordVectors
from pipeline.inference.word_folder import Composer
from pipeline.models.count_vectors import positive_pmi, svd_vectors
from pipeline.models.word_vectors import ContinuousBagOfWords, GloVe, SkipGram, SubwordEmbedding, skip_gram
from pipeline.stages.word_training import CellTraining, WindowTraining
from pipeline.text.subwords import Subwords, pieces_of
from pipeline.text.words import Vocabulary, build_vocabulary
from pipeline.training.base import StageModule, build_optimizer

B = TypeVar("B", bound=Batch)

CENTRES = torch.tensor([[1, 2], [3, 0]])
CONTEXTS = torch.tensor([[0, 1, 2, 4], [2, 3, 0, 1]])
NEGATIVES = torch.tensor([[4, 4, 0], [1, 2, 3]])
IS_PAIR = torch.tensor([[[1, 0, 1, 0], [0, 0, 0, 0]], [[1, 0, 1, 1], [0, 1, 0, 1]]]).bool()


def _random(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)


def test_skip_gram_scores_are_dot_products_of_centre_and_context_vectors() -> None:
    model = skip_gram(5, d_model=3)
    _random(model)
    assert isinstance(model.inputs, nn.Embedding)
    positive, negative = model(CENTRES, CONTEXTS, NEGATIVES)
    for n, s in np.ndindex(2, 2):
        vector = model.inputs.weight[CENTRES[n, s]]
        for c in range(4):
            assert_close(positive[n, s, c], vector @ model.outputs.weight[CONTEXTS[n, c]])
        for k in range(3):
            assert_close(negative[n, s, k], vector @ model.outputs.weight[NEGATIVES[n, k]])


def test_bag_of_words_scores_are_dot_products_with_the_mean_of_the_context() -> None:
    model = ContinuousBagOfWords(5, d_model=3)
    _random(model)
    positive, negative = model(CENTRES, CONTEXTS, NEGATIVES, IS_PAIR)
    for n, s in np.ndindex(2, 2):
        around = CONTEXTS[n][IS_PAIR[n, s]]
        mean = model.inputs.weight[around].mean(0) if len(around) else torch.zeros(3)
        assert_close(positive[n, s, 0], mean @ model.outputs.weight[CENTRES[n, s]])
        for k in range(3):
            assert_close(negative[n, s, k], mean @ model.outputs.weight[NEGATIVES[n, k]])


def test_glove_scores_are_dot_products_with_both_biases() -> None:
    model = GloVe(5, d_model=3)
    _random(model)
    scores = model(torch.tensor([2, 4]), CONTEXTS)
    for n, p in np.ndindex(2, 4):
        i, j = (2, 4)[n], int(CONTEXTS[n, p])
        expected = model.words.weight[i] @ model.contexts.weight[j]
        assert_close(scores[n, p], expected + model.word_biases.weight[i, 0] + model.context_biases.weight[j, 0])
    assert_close(model.vectors(), model.words.weight + model.contexts.weight)


def _subword_embedding(words: tuple[str, ...], subwords: Subwords, *, d_model: int) -> SubwordEmbedding:
    pieces = pieces_of(words, subwords)
    rows, starts = torch.from_numpy(pieces.rows), torch.from_numpy(pieces.starts)
    return SubwordEmbedding(rows, starts, num_rows=subwords.num_rows, d_model=d_model)


def test_a_composed_vector_is_the_mean_of_the_word_and_its_ngrams_and_so_is_its_gradient() -> None:
    words = ("cat", "category", "a")
    subwords = Subwords(num_words=3, num_buckets=20, min_length=3, max_length=4)
    model = _subword_embedding(words, subwords, d_model=4)
    asked = torch.tensor([[1, 0], [1, 2]])
    weights = torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(1))
    composed = model(asked)
    torch.autograd.backward((composed * weights).sum())
    gradient = torch.zeros_like(model.table.weight)
    for place in np.ndindex(2, 2):
        number = int(asked[place])
        rows = [number, *subwords.bucket_rows(words[number])]
        assert_close(composed[place], model.table.weight[rows].mean(0))
        for row in rows:
            gradient[row] += weights[place] / len(rows)
    assert_close(model.table.weight.grad, gradient)


def test_composed_vectors_are_those_of_gensim() -> None:
    words = ("where", "there", "na\u00efve")
    subwords = Subwords(num_words=3, num_buckets=40, min_length=3, max_length=6)
    model = _subword_embedding(words, subwords, d_model=4)
    theirs = FastTextKeyedVectors(4, min_n=3, max_n=6, bucket=40)
    table = model.table.weight.detach().numpy()
    theirs.add_vectors(words, np.zeros((3, 4), dtype=np.float32))
    theirs.vectors_vocab, theirs.vectors_ngrams = table[:3].copy(), table[3:].copy()
    theirs.recalc_char_ngram_buckets()
    theirs.adjust_vectors()
    assert_close(model(torch.arange(3)).detach().numpy(), theirs.vectors)
    composer = Composer(subwords, model.table.weight.detach())
    assert_close(composer.vector("whence"), theirs.get_vector("whence"))
    with pytest.raises(ValueError, match="'' has no n-grams of 3 to 6 characters"):
        composer.vector("")


# A planted text: every sentence stays within one topic, so words of a topic are each other's nearest.

TOPICS = (("cow", "barn", "plough", "field", "horse"), ("boat", "harbour", "sailor", "net", "island"))
TRAINING = TrainingConfig(
    seed=1,
    batching=ByExamples(kind="examples", examples_per_step=32),
    duration=Epochs(kind="epochs", num_epochs=1),
    optimizer=OptimizerConfig(kind="adagrad", lr=0.2, eps=1e-10),
    schedule=ScheduleConfig(kind="linear"),
    validate_every=1000,
    checkpoint_every=1000,
)


def _planted() -> tuple[list[list[str]], Vocabulary]:
    random = np.random.default_rng(0)
    text = [[str(word) for word in random.choice([*TOPICS[i % 2], "the", "a"], size=9)] for i in range(600)]
    return text, build_vocabulary(text, min_count=1)


def _windows(counted: Literal["pairs", "centres"]) -> WindowExamples:
    text, vocabulary = _planted()
    counts = vocabulary.counts
    return WindowExamples(
        encode_passages(text, vocabulary),
        keep_probabilities(counts, threshold=0.2),
        negative_probabilities(counts, power=0.75),
        window=3,
        block_size=16,
        num_shared=12,
        counted=counted,
        seed=1,
    )


def _trained(module: StageModule[B], examples: Examples[B], *, num_epochs: int) -> np.ndarray:
    """Trains by the plan, without the frame."""
    plan = TrainingPlan(examples, TRAINING.batching, Epochs(kind="epochs", num_epochs=num_epochs), seed=1)
    optimizer = build_optimizer(module.model, TRAINING.optimizer, fused=True)
    for epoch, step in plan.steps(0):
        (terms,) = module.objective(plan.examples.collate(step.indices, epoch))
        assert terms.num_targets == step.targets["loss"]
        optimizer.zero_grad()
        torch.autograd.backward(terms.loss_sum / terms.num_targets)
        optimizer.step()
    model = module.model
    assert isinstance(model, SkipGram | ContinuousBagOfWords | GloVe)
    return np.asarray(model.vectors().detach().numpy())


def _skip_gram() -> np.ndarray:
    return _trained(
        WindowTraining(skip_gram(12, d_model=8), TRAINING, num_negatives=5), _windows("pairs"), num_epochs=4
    )


def _cbow() -> np.ndarray:
    model = ContinuousBagOfWords(12, d_model=8)
    return _trained(WindowTraining(model, TRAINING, num_negatives=5), _windows("centres"), num_epochs=4)


def _fasttext() -> np.ndarray:
    _, vocabulary = _planted()
    inputs = _subword_embedding(vocabulary.words, Subwords(12, 200, 3, 4), d_model=8)
    return _trained(
        WindowTraining(SkipGram(inputs, d_model=8), TRAINING, num_negatives=5), _windows("pairs"), num_epochs=4
    )


def _glove() -> np.ndarray:
    text, vocabulary = _planted()
    counts = count_cooccurrences(encode_passages(text, vocabulary), num_words=12, window=3, weighting="harmonic")
    module = CellTraining(GloVe(12, d_model=4), TRAINING, x_max=100.0, alpha=0.75)
    return _trained(module, cell_examples(counts, cells_per_example=4), num_epochs=80)


def _svd() -> np.ndarray:
    text, vocabulary = _planted()
    counts = count_cooccurrences(encode_passages(text, vocabulary), num_words=12, window=3, weighting="linear")
    return svd_vectors(positive_pmi(counts, smoothing=1.0, shift=0.0), d_model=4, power=0.5, seed=0)


@pytest.mark.parametrize("make", [_skip_gram, _cbow, _fasttext, _glove, _svd])
def test_words_of_a_planted_topic_are_nearest_to_each_other(make: Callable[[], np.ndarray]) -> None:
    torch.manual_seed(0)
    vectors = WordVectors(_planted()[1].words, make())
    for topic in TOPICS:
        for word in topic:
            nearest = [other for other, _ in vectors.nearest(word, num_neighbours=4)]
            assert len(set(nearest) & set(topic)) >= 3, (word, nearest)
