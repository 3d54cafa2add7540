"""Translation from sentence pairs: a Transformer (Vaswani et al. 2017) or a recurrent network with attention.

Both are the same stage with another model in the configuration.
"""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from pipeline.config import Config, Fraction, TrainingConfig, load
from pipeline.data.batches import TranslationBatch
from pipeline.data.plan import TrainingPlan
from pipeline.data.prepared import read_pairs
from pipeline.data.records import SPLITS, Pair
from pipeline.data.translation import TranslationExamples, translation_examples
from pipeline.evaluation.bleu import bleu, chrf, paired_bootstrap
from pipeline.evaluation.gradient_flow import decoder_gradients
from pipeline.layout import Layout
from pipeline.models.recurrent import Recurrent, RecurrentConfig
from pipeline.models.seq2seq import Seq2Seq, TransformerConfig
from pipeline.objectives.likelihood import token_cross_entropy
from pipeline.objectives.terms import LossTerms
from pipeline.stages.base import StageModule
from pipeline.stages.launch import launch
from pipeline.stages.run import stage_run
from pipeline.stages.source_weights import attention_map
from pipeline.stages.training import fit
from pipeline.stages.translation import SearchConfig, Translation, Translator, save_translator
from pipeline.text.tokenizer import load_tokenizer

_log = logging.getLogger(__name__)

_GRADIENT_SENTENCES = 32
_GRADIENT_DISTANCE = 20


class TranslateConfig(Config):
    """The stage translate."""

    training: TrainingConfig
    """How it is trained."""
    model: Annotated[TransformerConfig | RecurrentConfig, Field(discriminator="kind")]
    """What is trained; its vocab_size is that of the tokenizer."""
    residual_init: PositiveFloat = 1.0
    """Factor of a Transformer's first weights that write into its residual stream.

    Below 1 a post-norm layer begins near the identity and learns from the first steps on (compare Zhang et al. 2019,
    section 3)."""
    label_smoothing: Fraction
    """Probability that the training spreads evenly over all tokens (Szegedy et al. 2016)."""
    search: SearchConfig
    """How the test set is translated, and what the model folder recommends."""
    num_samples: PositiveInt
    """Test sentences that are shown with their translations."""
    num_attention_maps: NonNegativeInt
    """How many of these are shown with the attention of the model to the source."""

    @model_validator(mode="after")
    def _has_attention(self) -> "TranslateConfig":
        if isinstance(self.model, RecurrentConfig) and self.model.attention == "none" and self.num_attention_maps:
            raise ValueError(f"a model with attention none has no attention maps, found {self.num_attention_maps}")
        if isinstance(self.model, RecurrentConfig) and self.residual_init != 1.0:
            raise ValueError(f"residual_init is for a Transformer, found {self.residual_init} for a recurrent model")
        return self


class TranslationTraining(StageModule[TranslationBatch]):
    """The next target token from the source and the target tokens before it."""

    model: Seq2Seq | Recurrent

    def __init__(self, model: Seq2Seq | Recurrent, training: TrainingConfig, *, label_smoothing: float) -> None:
        super().__init__(model, training)
        self.label_smoothing = label_smoothing
        self.num_targets = 0
        """Target tokens that this process has trained on: for its speed, not for any result."""

    def objective(self, batch: TranslationBatch) -> tuple[LossTerms, ...]:
        """Cross entropy of the target tokens, EOS included; smoothed in training alone."""
        hidden = self.model(batch.src, batch.src_mask, batch.tgt)
        logits, labels = self.model.logits(hidden[batch.is_target]), batch.labels[batch.is_target]
        if not self.model.training:
            return (token_cross_entropy(logits, labels),)
        self.num_targets += len(labels)
        return (token_cross_entropy(logits, labels, label_smoothing=self.label_smoothing),)


def build_model(config: TransformerConfig | RecurrentConfig, *, residual_init: float = 1.0) -> Seq2Seq | Recurrent:
    """The model with random weights."""
    match config:
        case TransformerConfig():
            model = Seq2Seq(config)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if name.endswith(("attention.output.weight", "feed_forward.output.weight")):
                        parameter.mul_(residual_init)
            return model
        case RecurrentConfig():
            return Recurrent(config)


def main(path: Path) -> None:
    """Trains, translates the test set, and hands over a folder of Marian's layout, or of our own."""
    config = load(path, TranslateConfig)
    layout = Layout.of(path)
    pairs_folder, tokenizer_folder = inputs = layout.data("prepared/translation"), layout.data("tokens/translation")
    with stage_run(__spec__.name, path, config, seed=config.training.seed, inputs=inputs) as run:
        tokenizer = load_tokenizer(tokenizer_folder)
        if config.model.vocab_size != tokenizer.vocab_size:
            raise ValueError(
                f"{path}: model.vocab_size is {config.model.vocab_size}, but the tokenizer in {tokenizer_folder} has "
                f"{tokenizer.vocab_size} ids"
            )
        pairs = {split: read_pairs(pairs_folder / f"{split}.jsonl") for split in SPLITS}
        length = config.model.max_length
        train, report = translation_examples(pairs["train"], tokenizer, max_length=length, too_long="drop")
        valid, _ = translation_examples(pairs["valid"], tokenizer, max_length=length, too_long="cut")
        module = TranslationTraining(
            build_model(config.model, residual_init=config.residual_init),
            config.training,
            label_smoothing=config.label_smoothing,
        )
        started = time.monotonic()
        fit(run, module, train=train, valid=valid)
        speeds = {"train": module.num_targets / (time.monotonic() - started)}

        translator = Translator(module.model, tokenizer, config.search)
        started = time.monotonic()
        found = translator.translate([pair.src for pair in pairs["test"]], too_long="cut")
        speeds["beam"] = sum(len(one.tokens) + 1 for one in found) / (time.monotonic() - started)
        greedy = replace(translator, search=config.search.model_copy(update={"beam_size": 1}))
        greedily = greedy.translate([pair.src for pair in pairs["test"]], too_long="cut")
        _log.info("target tokens in a second: %s", {name: round(speed) for name, speed in speeds.items()})
        run.tracker.metrics({f"tokens_per_second/{name}": speed for name, speed in speeds.items()}, module.num_steps)

        save_translator(run.layout.output, translator)
        nll = module.history[-1]["valid/loss"]
        run.finish(
            {
                **scores(pairs["test"], found, greedily),
                "valid": {"nll": nll, "perplexity": math.exp(nll)},
                "training": {
                    **asdict(report),
                    "num_parameters": sum(parameter.numel() for parameter in module.model.parameters()),
                    "num_steps": module.num_steps,
                    "padding_share": padding_share(train, config.training),
                },
                **gradients(module.model, valid),
            },
            history=module.history,
            samples=samples(pairs["test"], found, greedily, translator, config),
        )


def scores(test: Sequence[Pair], found: Sequence[Translation], greedily: Sequence[Translation]) -> dict[str, Any]:
    """Corpus scores of the search, of greedy search, and of leaving the source as it is, with their signatures."""
    references = [pair.tgt for pair in test]
    systems = {
        "beam": [one.text for one in found],
        "greedy": [one.text for one in greedily],
        "copy": [pair.src for pair in test],
    }
    result: dict[str, Any] = {}
    for name, score in (("bleu", bleu), ("chrf", chrf)):
        by_system = {system: score(texts, references) for system, texts in systems.items()}
        result[name] = {system: one.value for system, one in by_system.items()}
        result[name]["signature"] = by_system["beam"].signature
    result["beam_over_greedy"] = asdict(paired_bootstrap(systems["beam"], systems["greedy"], references, seed=0))
    return result


def padding_share(examples: TranslationExamples, training: TrainingConfig) -> float:
    """Share of padding among the source and target tokens of the first epoch, were each step computed at once."""
    plan = TrainingPlan(examples, training.batching, training.duration, seed=training.seed)
    real = padded = 0
    for step in plan.epoch(0):
        for side in (examples.src, examples.tgt):
            lengths = [len(side[i]) for i in step.indices]
            real += sum(lengths)
            padded += len(lengths) * max(lengths)
    return 1.0 - real / padded


def gradients(model: Seq2Seq | Recurrent, valid: TranslationExamples) -> dict[str, list[float]]:
    """How far the gradient of a token's loss reaches back through a recurrent decoder, on the first sentences."""
    if isinstance(model, Seq2Seq):
        return {}
    batch = valid.collate(np.arange(min(_GRADIENT_SENTENCES, len(valid.src))), 0).to(next(model.parameters()).device)
    return {"gradient_by_distance": decoder_gradients(model, batch, longest=_GRADIENT_DISTANCE)}


def samples(
    test: Sequence[Pair],
    found: Sequence[Translation],
    greedily: Sequence[Translation],
    translator: Translator,
    config: TranslateConfig,
) -> list[dict[str, Any]]:
    """Test sentences spread over the test set with their translations, the first of them with an attention map."""
    step = max(1, len(test) // config.num_samples)
    rows: list[dict[str, Any]] = []
    for i in range(0, len(test), step)[: config.num_samples]:
        row: dict[str, Any] = {
            "source": test[i].src,
            "reference": test[i].tgt,
            "beam": found[i].text,
            "greedy": greedily[i].text,
        }
        if len(rows) < config.num_attention_maps:
            attention = attention_map(translator, test[i].src, found[i])
            row["attention"] = {
                "src_tokens": list(attention.src_tokens),
                "tgt_tokens": list(attention.tgt_tokens),
                "weights": [[round(weight, 4) for weight in weights] for weights in attention.weights.tolist()],
            }
        rows.append(row)
    return rows


if __name__ == "__main__":
    launch(main)
