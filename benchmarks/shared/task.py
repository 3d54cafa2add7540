"""What the systems train on when their speed is compared: one shape, one vocabulary, one size of a step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pipeline.config import ByTokens, Epochs, OptimizerConfig, ScheduleConfig, Steps, TrainingConfig
from pipeline.data.examples.translation import TranslationExamples, translation_examples
from pipeline.data.plan import plan_epoch
from pipeline.data.records import Pair
from pipeline.models.seq2seq import Seq2Seq, TransformerConfig
from pipeline.stages.translate import TranslationTraining
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.tokenizer_training import train_translation_bpe

TOKENS_PER_STEP = 2800
"""Padded tokens of the longer side: about 2,600 target tokens, the step of the prototype in most papers' range."""
WARM_UP = 10
"""Optimizer steps before the clock starts."""
LR, DROPOUT, SMOOTHING, CLIP = 1e-3, 0.3, 0.1, 1.0
SHAPE = {"d_model": 128, "num_layers": 4, "num_heads": 4, "d_ff": 256}


@dataclass(frozen=True)
class Task:
    """What all of them train on."""

    examples: TranslationExamples
    few: TranslationExamples
    """What stands for validation data."""
    tokenizer: Tokenizer

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of ours in an epoch."""
        batching = ByTokens(kind="tokens", tokens_per_step=TOKENS_PER_STEP)
        return len(plan_epoch(self.examples.sizes(0), batching, seed=1, epoch=0))

    @property
    def targets_per_step(self) -> float:
        """Target tokens of a step of ours on average, padding not counted."""
        return int(self.examples.tgt.lengths.sum()) / self.steps_per_epoch


def prepare(pairs: Sequence[tuple[str, str]]) -> Task:
    """The pairs as subword ids of one vocabulary."""
    tokenizer = train_translation_bpe([text for pair in pairs for text in pair], vocab_size=8000)
    rows = [Pair(id=str(i), src=src, tgt=tgt, source="", group="") for i, (src, tgt) in enumerate(pairs)]
    examples, _ = translation_examples(rows, tokenizer, max_length=100, too_long="drop")
    few, _ = translation_examples(rows[:64], tokenizer, max_length=100, too_long="drop")
    return Task(examples, few, tokenizer)


def model_config(vocab_size: int, *, inner_dropout: float = 0.0) -> TransformerConfig:
    """The shape of all three; dropout of attention weights and inside the feed-forward networks where it is said."""
    return TransformerConfig(
        kind="transformer",
        vocab_size=vocab_size,
        d_model=SHAPE["d_model"],
        num_encoder_layers=SHAPE["num_layers"],
        num_decoder_layers=SHAPE["num_layers"],
        num_heads=SHAPE["num_heads"],
        d_ff=SHAPE["d_ff"],
        max_length=128,
        dropout=DROPOUT,
        attention_dropout=inner_dropout,
        activation_dropout=inner_dropout,
    )


def training_config(duration: Steps | Epochs) -> TrainingConfig:
    """How all three train."""
    return TrainingConfig(
        seed=1,
        batching=ByTokens(kind="tokens", tokens_per_step=TOKENS_PER_STEP),
        duration=duration,
        optimizer=OptimizerConfig(lr=LR, betas=(0.9, 0.98), clip_norm=CLIP),
        schedule=ScheduleConfig(kind="constant"),
        validate_every=1,
        checkpoint_every=1,
    )


def training_module(vocab_size: int, training: TrainingConfig) -> TranslationTraining:
    """The module of our stage with random weights."""
    torch.manual_seed(training.seed)
    return TranslationTraining(Seq2Seq(model_config(vocab_size)), training, label_smoothing=SMOOTHING)
