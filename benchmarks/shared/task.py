"""What the systems train on when their speed is compared: one shape, one vocabulary, one size of a step."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.data.records import Pair
from pipeline.data.translation import TranslationExamples, translation_examples
from pipeline.models.seq2seq import TransformerConfig
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.training import train_translation_bpe

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
    num_steps: int


def prepare(pairs: Sequence[tuple[str, str]], num_steps: int) -> Task:
    """The pairs as subword ids of one vocabulary."""
    tokenizer = train_translation_bpe([text for pair in pairs for text in pair], vocab_size=8000)
    rows = [Pair(id=str(i), src=src, tgt=tgt, source="", group="") for i, (src, tgt) in enumerate(pairs)]
    examples, _ = translation_examples(rows, tokenizer, max_length=100, too_long="drop")
    few, _ = translation_examples(rows[:64], tokenizer, max_length=100, too_long="drop")
    return Task(examples, few, tokenizer, num_steps)


def model_config(vocab_size: int) -> TransformerConfig:
    """The shape of all three."""
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
    )
