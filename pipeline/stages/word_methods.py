"""The five ways to make word vectors: their settings."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from pipeline.config import Config, Fraction, Probability, TrainingConfig


class PositivePmiConfig(Config):
    """Positive pointwise mutual information."""

    kind: Literal["ppmi"]
    smoothing: Probability
    """Power of the context counts (Levy et al. 2015: 0.75); 1 is none."""
    num_negatives: PositiveInt
    """Subtracts log(num_negatives), as skip-gram with so many negatives does; 1 subtracts nothing."""


class LogCountsConfig(Config):
    """log(1 + count)."""

    kind: Literal["log_counts"]


class SvdConfig(Config):
    """Counts of words that stand near each other, and a truncated singular value decomposition."""

    kind: Literal["svd"]
    d_model: PositiveInt
    """Dimensions."""
    window: PositiveInt
    """Largest distance of a context word on either side."""
    weighting: Literal["flat", "linear", "harmonic"]
    """How much a context word counts by its distance."""
    matrix: Annotated[PositivePmiConfig | LogCountsConfig, Field(discriminator="kind")]
    """What is decomposed."""
    power: NonNegativeFloat
    """Power of the singular values (Levy et al. 2015, section 3.3): 1 is the plain SVD, 0 leaves them out."""
    seed: NonNegativeInt
    """Seed of the random projection."""


class WindowConfig(Config):
    """What the methods have in common that predict words from words around them, with negative sampling."""

    d_model: PositiveInt
    """Dimensions."""
    window: PositiveInt
    """Largest distance of a context word on either side; each centre draws its own from 1 to this."""
    subsampling: NonNegativeFloat
    """Relative frequency above which occurrences are left out at random; 0 keeps all."""
    num_negatives: PositiveInt
    """Weight of the negative samples of a pair: how many word2vec would draw."""
    negative_power: NonNegativeFloat
    """Power of the frequencies from which negatives are drawn."""
    block_size: PositiveInt
    """Centre words of an example."""
    num_shared_negatives: PositiveInt
    """Negative samples that the pairs of a block share."""
    training: TrainingConfig
    """How it is trained."""


class CbowConfig(WindowConfig):
    """Continuous bag of words."""

    kind: Literal["cbow"]


class SkipGramConfig(WindowConfig):
    """Skip-gram."""

    kind: Literal["skipgram"]


class FastTextConfig(WindowConfig):
    """Skip-gram whose input vectors are composed of character n-grams."""

    kind: Literal["fasttext"]
    num_buckets: PositiveInt
    """Vectors that all n-grams share by their hash."""
    min_ngram: PositiveInt
    """Shortest n-gram, word boundaries included."""
    max_ngram: PositiveInt
    """Longest n-gram."""

    @model_validator(mode="after")
    def _has_lengths(self) -> "FastTextConfig":
        if self.min_ngram > self.max_ngram:
            raise ValueError(f"min_ngram {self.min_ngram} is above max_ngram {self.max_ngram}")
        return self


class GloveConfig(Config):
    """Least squares on the logarithm of co-occurrence counts."""

    kind: Literal["glove"]
    d_model: PositiveInt
    """Dimensions."""
    window: PositiveInt
    """Largest distance of a context word on either side; it counts 1 / distance."""
    x_max: PositiveFloat
    """Count from which all cells weigh the same."""
    alpha: PositiveFloat
    """Power of smaller counts in the weight."""
    cells_per_example: PositiveInt
    """Cells of one row that are an example."""
    held_out_share: Fraction
    """Share of the cells that are not trained on, for validation."""
    training: TrainingConfig
    """How it is trained."""


AnyMethod = SvdConfig | CbowConfig | SkipGramConfig | FastTextConfig | GloveConfig
Method = Annotated[AnyMethod, Field(discriminator="kind")]


def seed_of(method: AnyMethod) -> int:
    """The seed of everything random."""
    return method.seed if isinstance(method, SvdConfig) else method.training.seed
