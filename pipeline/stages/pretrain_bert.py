"""BERT pretraining: masked words and next sentences (Devlin et al. 2019, section 3.1).

The two losses have denominators of their own: masked positions, and rows that are pairs of segments. Their sum is
minimised, and each is reported beside what knows no context.
"""

from pathlib import Path
from typing import Annotated, Literal, assert_never

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipeline.artifacts import publish, save_model
from pipeline.config import Config, Fraction, Probability, Steps, TrainingConfig, load
from pipeline.data.batches import MaskedBatch
from pipeline.data.examples.masking import MaskedExamples, vocabulary
from pipeline.data.plan import Phase, TrainingPlan
from pipeline.data.records import SPLITS
from pipeline.data.token_arrays import TokenArrays, read_token_arrays
from pipeline.evaluation.held_out import EvenlySpaced
from pipeline.evaluation.perplexity import unigram_entropy
from pipeline.layout import Layout
from pipeline.models.bert import BertConfig, BertForPretraining
from pipeline.models.flops import bert_flops
from pipeline.models.huggingface.bert import bert_to_huggingface
from pipeline.objectives.likelihood import class_cross_entropy, token_cross_entropy
from pipeline.objectives.terms import LossTerms
from pipeline.stages.pretrain_bert_starts import (
    CountedStart,
    PretrainedStart,
    RandomStart,
    open_pretrained,
    start_from_counts,
)
from pipeline.text.tokenizer import Tokenizer, load_tokenizer
from pipeline.training.base import StageModule
from pipeline.training.fit import batches_alone, fit
from pipeline.training.launch import launch
from pipeline.training.run import stage_run


class EncoderConfig(Config):
    """Shape of the encoder; the vocabulary comes from the tokenizer."""

    d_model: PositiveInt
    """Width of the residual stream."""
    num_layers: PositiveInt
    """Transformer layers."""
    num_heads: PositiveInt
    """Attention heads; must divide d_model."""
    d_ff: PositiveInt
    """Width of the feed-forward networks."""
    max_length: PositiveInt
    """Longest sequence in tokens: the number of learned positions."""
    dropout: Fraction
    """Dropout of the embeddings and of each residual update."""
    attention_dropout: Fraction
    """Dropout of the attention weights."""
    initial_std: PositiveFloat
    """Standard deviation of the first weights: 0.02 as published, at width 768; a narrow model learns from larger ones
    sooner, since what passes through a matrix shrinks with the root of the width."""


class MaskingConfig(Config):
    """How sentence pairs are drawn and masked."""

    mask_share: Probability
    """Share of the ordinary tokens that are predicted."""
    short_share: Probability
    """Share of the rows that aim at a random shorter length."""
    whole_words: bool
    """Whether the pieces of a word are masked together."""


class OneLength(Config):
    """All rows are as long as the model allows, but for those of `short_share`."""

    kind: Literal["one"]


class LengthPhases(Config):
    """Short rows first, since attention costs the square of the length, and long ones for the last positions."""

    kind: Literal["phases"]
    first_length: Annotated[int, Field(ge=5)]
    """Longest row of the first phase in tokens; published: 128. The second has rows of model.max_length."""
    first_share: Probability
    """Share of the optimizer steps that the first phase takes; published: 0.9."""


class PretrainBertConfig(Config):
    """The stage pretrain_bert."""

    training: TrainingConfig
    """How it is trained."""
    model: EncoderConfig
    """What is trained."""
    start: Annotated[RandomStart | CountedStart | PretrainedStart, Field(discriminator="kind")]
    """What it starts from."""
    masking: MaskingConfig
    """What it is trained on."""
    length: Annotated[OneLength | LengthPhases, Field(discriminator="kind")] = OneLength(kind="one")
    """How long the rows are over the training, with those of the validation documents, which never have positions that
    are yet to be trained; those of the test documents always fill the model."""
    num_valid_rows: PositiveInt
    """Rows of the validation documents, spread over them, that are scored during training."""

    @model_validator(mode="after")
    def _phases_fit_the_training(self) -> "PretrainBertConfig":
        if isinstance(self.length, LengthPhases):
            if self.length.first_length >= self.model.max_length:
                raise ValueError(
                    f"length.first_length: found {self.length.first_length}, it must be below model.max_length, "
                    f"{self.model.max_length}"
                )
            if not isinstance(self.training.duration, Steps):
                raise ValueError("length: phases are shares of the steps, so training.duration must be of kind steps")
        return self

    @property
    def phases(self) -> tuple[tuple[int, int], ...]:
        """(number of the first optimizer step, longest row in tokens) of each phase in turn."""
        longest, duration = self.model.max_length, self.training.duration
        if isinstance(self.length, LengthPhases) and isinstance(duration, Steps):
            return (0, self.length.first_length), (round(self.length.first_share * duration.num_steps), longest)
        return ((0, longest),)


class BertPretraining(StageModule[MaskedBatch]):
    """Two losses with denominators of their own: masked positions and sentence pairs."""

    model: BertForPretraining

    def objective(self, batch: MaskedBatch) -> tuple[LossTerms, ...]:
        """Only masked positions are projected on the vocabulary; the last layer computes them and [CLS] alone."""
        masked, pairs = batch.is_masked, batch.is_pair
        read = masked.clone()
        read[:, 0] = True
        hidden = self.model(batch.input_ids, batch.token_type_ids, batch.attention_mask, read)
        words = token_cross_entropy(self.model.mlm_logits(hidden[masked]), batch.labels[masked], name="mlm")
        sentences = class_cross_entropy(
            self.model.nsp_logits(hidden[pairs]), batch.next_sentence_labels[pairs], name="nsp"
        )
        return words, sentences


def main(path: Path) -> None:
    """Trains on the training documents, scores the held-out ones with the masks of epoch 0, and hands over a BERT."""
    config = load(path, PretrainBertConfig)
    layout = Layout.of(path)
    start = (Path(config.start.folder),) if isinstance(config.start, PretrainedStart) else ()
    inputs = (layout.data("tokens/wordpiece"), layout.data("tokens/text-wordpiece"), *start)
    with stage_run(__spec__.name, path, config, seed=config.training.seed, inputs=inputs) as run:
        tokenizer = load_tokenizer(inputs[0])
        tokens = {split: read_token_arrays(inputs[1] / split, tokenizer_hash=tokenizer.hash) for split in SPLITS}
        train, *later = in_phases(tokens["train"], tokenizer, config)
        valid, *later_valid = (
            Phase(phase.begin, EvenlySpaced(phase.examples, config.num_valid_rows))
            for phase in in_phases(tokens["valid"], tokenizer, config)
        )
        test = masked_examples(tokens["test"], tokenizer, config)
        shape = BertConfig(vocab_size=tokenizer.vocab_size, **config.model.model_dump())
        model = build_model(shape, config, tokens["train"], tokenizer)
        module = BertPretraining(model, config.training)
        fit(run, module, train=train.examples, later=later, valid=valid.examples, later_valid=later_valid)
        training = config.training
        plan = TrainingPlan(train.examples, training.batching, training.duration, training.seed, tuple(later))
        scores = module.validate(batches_alone(run, test, config.training.batching))
        with publish(run.layout.output) as folder:
            save_model(folder, *bert_to_huggingface(module.model, pad_token_id=tokenizer.pad_id))
            tokenizer.save(folder)
        is_random = test.next_sentence_labels(epoch=0)
        run.finish(
            {
                "mlm": {"nats": scores["mlm"], "accuracy": scores["mlm/accuracy"]},
                "nsp": {"nats": scores["nsp"], "accuracy": scores["nsp/accuracy"], "num_pairs": len(is_random)},
                "baselines": {
                    "unigram_entropy": unigram_entropy(tokens["test"].gather(np.arange(tokens["test"].num_tokens))),
                    "nsp_majority": float(max(is_random.mean(), 1.0 - is_random.mean())),
                },
                "training": {"flops": training_flops(module.model.config, plan)},
            },
            history=module.history,
        )


def training_flops(shape: BertConfig, plan: TrainingPlan[MaskedBatch]) -> float:
    """Operations of the matrix products of a training, padding and validations left out."""
    total, known, lengths = 0.0, -1, np.zeros(0)
    for update, (epoch, step) in enumerate(plan.steps(0)):
        if epoch != known:
            known, lengths = epoch, plan.examples_at(update).sizes(epoch).lengths
        total += 3 * sum(bert_flops(shape, lengths[step.indices], step.targets["mlm"]).values())
    return total


def build_model(
    shape: BertConfig, config: PretrainBertConfig, tokens: TokenArrays, tokenizer: Tokenizer
) -> BertForPretraining:
    """The model at the beginning; ValueError names a folder to start from that does not fit."""
    match config.start:
        case RandomStart():
            return BertForPretraining(shape)
        case CountedStart():
            model = BertForPretraining(shape)
            start_from_counts(model, tokens, config.start, seed=config.training.seed)
            return model
        case PretrainedStart():
            return open_pretrained(Path(config.start.folder), shape, tokenizer)
        case _:
            assert_never(config.start)


def in_phases(tokens: TokenArrays, tokenizer: Tokenizer, config: PretrainBertConfig) -> list[Phase[MaskedBatch]]:
    """The rows of one split in each phase of the training."""
    return [
        Phase(begin, masked_examples(tokens, tokenizer, config, max_length=length)) for begin, length in config.phases
    ]


def masked_examples(
    tokens: TokenArrays, tokenizer: Tokenizer, config: PretrainBertConfig, *, max_length: int | None = None
) -> MaskedExamples:
    """The rows of one split, as long as the model allows or as `max_length`."""
    return MaskedExamples(
        tokens,
        vocabulary(tokenizer),
        max_length=max_length or config.model.max_length,
        mask_share=config.masking.mask_share,
        short_share=config.masking.short_share,
        whole_words=config.masking.whole_words,
        seed=config.training.seed,
    )


if __name__ == "__main__":
    launch(main)
