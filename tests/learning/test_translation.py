"""Small translation models learn to copy and to reverse, through the real objective, plan, schedule and beam search."""

import random
from typing import Any

import pytest
import torch

from pipeline.config import ByTokens, OptimizerConfig, ScheduleConfig, Steps, TrainingConfig
from pipeline.data.examples.translation import TranslationExamples, translation_examples
from pipeline.data.plan import TrainingPlan
from pipeline.data.records import Pair
from pipeline.evaluation.bleu import tokenised_bleu
from pipeline.inference.translator import SearchConfig, Translator
from pipeline.models.recurrent import RecurrentConfig
from pipeline.models.seq2seq import TransformerConfig
from pipeline.stages.translate import TranslationTraining, build_model
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.tokenizer_training import train_translation_bpe
from pipeline.training.base import build_optimizer
from pipeline.training.schedule import learning_rate_factor

WORDS = "abcdefghijklmnop"
LONGEST = 9
SEARCH = SearchConfig(beam_size=4, normalisation="length", length_penalty=1.0, max_extra_tokens=5)

TRANSFORMER: dict[str, Any] = {
    "kind": "transformer",
    "d_model": 48,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "d_ff": 96,
    "max_length": 16,
    "dropout": 0.0,
}
GRU: dict[str, Any] = {
    "kind": "recurrent",
    "cell": "gru",
    "d_embedding": 48,
    "d_hidden": 64,
    "max_length": 16,
    "dropout": 0.0,
}


def pairs(task: str, count: int, *, seed: int) -> list[Pair]:
    """Random words, and the same words forwards or backwards."""
    generator = random.Random(seed)
    rows = [generator.choices(WORDS, k=generator.randint(2, LONGEST)) for _ in range(count)]
    return [
        Pair(id=str(i), src=" ".join(row), tgt=" ".join(row if task == "copy" else row[::-1]), source="", group="")
        for i, row in enumerate(rows)
    ]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """One token a word."""
    return train_translation_bpe([pair.src for pair in pairs("copy", 50, seed=0)], vocab_size=3 + 1 + 2 * len(WORDS))


def trained(
    shape: dict[str, Any], examples: TranslationExamples, tokenizer: Tokenizer, *, num_steps: int, lr: float
) -> Translator:
    """A model after `num_steps` optimizer steps."""
    training = TrainingConfig(
        seed=1,
        batching=ByTokens(kind="tokens", tokens_per_step=600),
        duration=Steps(kind="steps", num_steps=num_steps),
        optimizer=OptimizerConfig(lr=lr, betas=(0.9, 0.98)),
        schedule=ScheduleConfig(kind="cosine", num_warmup_steps=num_steps // 10),
        validate_every=num_steps,
        checkpoint_every=num_steps,
    )
    torch.manual_seed(training.seed)
    schema = TransformerConfig if shape["kind"] == "transformer" else RecurrentConfig
    config = schema.model_validate(shape | {"vocab_size": tokenizer.vocab_size})
    module = TranslationTraining(build_model(config), training, label_smoothing=0.1)
    optimizer = build_optimizer(module.model, training.optimizer, fused=True)
    plan = TrainingPlan(examples, training.batching, training.duration, seed=training.seed)
    for update, (epoch, step) in enumerate(plan.steps(0)):
        factor = learning_rate_factor(training.schedule, step=update, num_steps=num_steps)
        for group in optimizer.param_groups:
            group["lr"] = lr * factor
        (terms,) = module.objective(examples.collate(step.indices, epoch))
        (terms.loss_sum / terms.num_targets).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(module.model.parameters(), training.optimizer.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
    return Translator(module.model.eval(), tokenizer, SEARCH)


@pytest.mark.parametrize(
    ("shape", "task", "num_steps", "lr"),
    [
        (TRANSFORMER, "copy", 300, 5e-3),
        (TRANSFORMER, "reverse", 500, 5e-3),
        (GRU, "copy", 300, 1e-2),
        (GRU, "reverse", 300, 1e-2),
        (GRU | {"attention": "local_p", "window": 2}, "copy", 300, 1e-2),
    ],
    ids=["transformer-copy", "transformer-reverse", "gru-copy", "gru-reverse", "local-copy"],
)
def test_a_small_model_learns_to_copy_and_to_reverse(
    shape: dict[str, Any], task: str, num_steps: int, lr: float, tokenizer: Tokenizer
) -> None:
    examples, _ = translation_examples(pairs(task, 4000, seed=1), tokenizer, max_length=16, too_long="drop")
    translator = trained(shape, examples, tokenizer, num_steps=num_steps, lr=lr)
    test = pairs(task, 100, seed=2)
    found = translator.translate([pair.src for pair in test])
    score = tokenised_bleu([one.text for one in found], [pair.tgt for pair in test]).value
    assert score > 90
