"""Translation from sentence pairs: a Transformer (Vaswani et al. 2017) or a recurrent network with attention.

Both are the same stage with another model in the configuration.
"""

import copy
import logging
import math
import time
from dataclasses import asdict
from functools import partial
from itertools import count, product
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Int
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from pipeline.config import Config, Fraction, TrainingConfig, load
from pipeline.data.batches import TranslationBatch
from pipeline.data.examples.translation import TranslationExamples, TranslationReport, choose_examples
from pipeline.data.pair_arrays import read_pair_arrays
from pipeline.data.plan import TrainingPlan
from pipeline.data.prepared import read_pairs
from pipeline.evaluation.gradient_flow import decoder_gradients
from pipeline.inference.translator import SearchConfig, Translator
from pipeline.inference.translator_folder import save_translator
from pipeline.layout import Layout
from pipeline.models.flops import model_flops
from pipeline.models.recurrent import Recurrent, RecurrentConfig
from pipeline.models.seq2seq import Seq2Seq, TransformerConfig
from pipeline.objectives.consistency import consistent_cross_entropy
from pipeline.objectives.likelihood import projected_cross_entropy
from pipeline.objectives.terms import LossTerms
from pipeline.stages.translation_scores import MosesBleuConfig, evaluate, refuse_empty_references
from pipeline.stages.validation_bleu import ValidationBleu
from pipeline.text.forms import load_form
from pipeline.text.tokenizer import load_tokenizer
from pipeline.training.base import StageModule
from pipeline.training.fit import fit
from pipeline.training.launch import launch
from pipeline.training.run import stage_run
from pipeline.training.selection import Selection, SelectionConfig

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
    consistency: NonNegativeFloat = 0.0
    """Weight of the divergence between two passes of a step with different dropout (R-Drop, Liang et al. 2021; half of
    their alpha), for little data; 0 makes one pass, anything else costs two."""
    selection: SelectionConfig = SelectionConfig()
    """Which weights become the model, and whether the training may end early."""
    search: SearchConfig
    """How the test set is translated, and what the model folder recommends."""
    moses_bleu: MosesBleuConfig | None = None
    """A further score of plain text, for comparison with older papers; none where it is left out."""
    reads_test: bool = True
    """Whether the test set is translated; false while hyper-parameters are chosen, which the validation set decides."""
    num_samples: PositiveInt
    """Test sentences that are shown with their translations."""
    num_attention_maps: NonNegativeInt
    """How many of these are shown with the attention of the model to the source."""

    @property
    def num_passes(self) -> int:
        """How often a step runs through the model."""
        return 2 if self.consistency else 1

    @model_validator(mode="after")
    def _has_attention(self) -> "TranslateConfig":
        if isinstance(self.model, RecurrentConfig) and self.model.attention == "none" and self.num_attention_maps:
            raise ValueError(f"a model with attention none has no attention maps, found {self.num_attention_maps}")
        if isinstance(self.model, RecurrentConfig) and self.residual_init != 1.0:
            raise ValueError(f"residual_init is for a Transformer, found {self.residual_init} for a recurrent model")
        rates = [rate for key, rate in self.model.model_dump().items() if key.endswith("dropout")]
        if self.consistency and not any(any(rate.values()) if isinstance(rate, dict) else rate for rate in rates):
            raise ValueError(f"consistency: {self.consistency} compares passes that differ by dropout, and all are 0")
        return self


class TranslationTraining(StageModule[TranslationBatch]):
    """The next target token from the source and the target tokens before it."""

    model: Seq2Seq | Recurrent

    def __init__(
        self,
        model: Seq2Seq | Recurrent,
        training: TrainingConfig,
        *,
        label_smoothing: float,
        consistency: float = 0.0,
    ) -> None:
        super().__init__(model, training)
        self.label_smoothing = label_smoothing
        self.consistency = consistency
        self.num_targets = 0
        """Target tokens that this process has trained on: for its speed, not for any result."""

    def objective(self, batch: TranslationBatch) -> tuple[LossTerms, ...]:
        """Cross entropy of the target tokens, EOS included; smoothed, and of two passes, in training alone."""
        labels = batch.labels[batch.is_target]
        is_training = self.model.training
        self.num_targets += len(labels) if is_training else 0
        smoothing = self.label_smoothing if is_training else 0.0
        if is_training and self.consistency:
            return self._twice(batch, labels)
        hidden = self.model(batch.src, batch.src_mask, batch.tgt)
        loss = partial(projected_cross_entropy, labels=labels, label_smoothing=smoothing)
        loss_sum, nll, num_correct = self.model.embeddings.output(hidden[batch.is_target], loss)
        report = {"nll": nll, "accuracy": num_correct}
        return (LossTerms(loss_sum=loss_sum, num_targets=len(labels), report=report),)

    def _twice(self, batch: TranslationBatch, labels: Int[Tensor, "N"]) -> tuple[LossTerms, ...]:
        """The batch in two passes side by side, each with a dropout of its own."""
        src, src_mask, tgt = (tensor.repeat(2, 1) for tensor in (batch.src, batch.src_mask, batch.tgt))
        first, second = (hidden[batch.is_target] for hidden in self.model(src, src_mask, tgt).chunk(2))
        loss = partial(
            consistent_cross_entropy,
            second=second,
            labels=labels,
            label_smoothing=self.label_smoothing,
            consistency=self.consistency,
        )
        loss_sum, nll, num_correct, divergence = self.model.embeddings.output(first, loss)
        report = {"nll": nll, "accuracy": num_correct, "divergence": divergence}
        return (LossTerms(loss_sum=loss_sum, num_targets=len(labels), report=report),)


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


def training_module(config: TranslateConfig) -> TranslationTraining:
    """What is trained, with random weights."""
    return TranslationTraining(
        build_model(config.model, residual_init=config.residual_init),
        config.training,
        label_smoothing=config.label_smoothing,
        consistency=config.consistency,
    )


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
        encoded = {
            split: read_pair_arrays(tokenizer_folder / "pairs" / split, tokenizer_hash=tokenizer.hash)
            for split in ("train", "valid")
        }
        train, report = choose_examples(
            encoded["train"], tokenizer, max_length=config.model.max_length, too_long="drop"
        )
        valid, report_of_valid = choose_examples(
            encoded["valid"], tokenizer, max_length=config.model.max_length, too_long="cut"
        )
        longest = config.model.max_length - 1
        warn_of_long(report, "training", "the pairs are left out", num_read=len(encoded["train"].src), longest=longest)
        warn_of_long(report_of_valid, "validation", "their ends are cut off", num_read=len(valid.src), longest=longest)
        valid_pairs = read_pairs(pairs_folder / "valid.jsonl")
        test_pairs = read_pairs(pairs_folder / "test.jsonl") if config.reads_test else None
        refuse_empty_references(test_pairs or [], pairs_folder / "test.jsonl")
        module = training_module(config)
        form = load_form(pairs_folder)
        bleu_of_weights = None
        if config.selection.metric == "bleu":
            scorer = Translator(copy.deepcopy(module.model).eval(), tokenizer, config.search.greedy, form)
            bleu_of_weights = ValidationBleu(scorer, valid_pairs)
        selection = Selection(config.selection, bleu_of_weights)
        started = time.monotonic()
        validation = fit(run, module, train=train, valid=valid, selection=selection)
        speeds = {"training_with_validations": module.num_targets / (time.monotonic() - started)}

        translator = Translator(module.model, tokenizer, config.search, form)
        evaluation = evaluate(
            translator,
            valid=valid_pairs,
            test=test_pairs,
            moses=config.moses_bleu,
            num_samples=config.num_samples,
            num_attention_maps=config.num_attention_maps,
        )
        speeds["search"] = evaluation.tokens_per_second
        _log.info("target tokens in a second: %s", {name: round(speed) for name, speed in speeds.items()})
        run.tracker.metrics({f"tokens_per_second/{name}": speed for name, speed in speeds.items()}, module.num_steps)

        save_translator(run.layout.output, translator)
        loss = {"nll": validation["loss"], "perplexity": math.exp(validation["loss"])}
        run.finish(
            {
                **evaluation.metrics,
                "valid": loss | evaluation.metrics["valid"] | asdict(report_of_valid),
                "training": {
                    **asdict(report),
                    "num_parameters": sum(parameter.numel() for parameter in module.model.parameters()),
                    "num_steps": module.num_steps,
                    "num_averaged": len(selection.chosen(module.history)),
                    "padding_share": padding_share(train, config.training),
                    "flops": config.num_passes
                    * training_flops(config.model, train, config.training, num_steps=module.num_steps),
                },
                **gradients(module.model, valid),
            },
            history=module.history,
            samples=evaluation.samples,
        )


def warn_of_long(report: TranslationReport, split: str, outcome: str, *, num_read: int, longest: int) -> None:
    """Says how many sides of the pairs of a split have more than the `longest` tokens, and what becomes of them."""
    if report.num_src_too_long or report.num_tgt_too_long:
        _log.warning(
            "%d sources and %d targets of %d %s pairs have more than the %d tokens that the model reads: %s",
            report.num_src_too_long,
            report.num_tgt_too_long,
            num_read,
            split,
            longest,
            outcome,
        )


def training_flops(
    model: TransformerConfig | RecurrentConfig,
    examples: TranslationExamples,
    training: TrainingConfig,
    *,
    num_steps: int,
) -> float:
    """Operations of the matrix products of a training, padding and validations left out."""
    plan = TrainingPlan(examples, training.batching, training.duration, seed=training.seed)
    sizes = (examples.src.lengths, examples.tgt.lengths)
    whole = model_flops(model, *sizes)
    total, done = 0.0, 0
    for epoch in count():
        steps = plan.epoch(epoch)
        if done + len(steps) > num_steps:
            some = [step.indices for step in steps[: num_steps - done]]
            return total + sum(model_flops(model, *(side[indices] for side in sizes)) for indices in some)
        total, done = total + whole, done + len(steps)
    raise AssertionError("a training ends")


def padding_share(examples: TranslationExamples, training: TrainingConfig) -> float:
    """Share of padding among the source and target tokens of the first epoch, were each group computed at once."""
    plan = TrainingPlan(examples, training.batching, training.duration, seed=training.seed)
    real = padded = 0
    for step in plan.epoch(0):
        for group, side in product(step.groups, (examples.src, examples.tgt)):
            lengths = side.lengths[group]
            real += int(lengths.sum())
            padded += len(lengths) * int(lengths.max())
    return 1.0 - real / padded


def gradients(model: Seq2Seq | Recurrent, valid: TranslationExamples) -> dict[str, list[float]]:
    """How far the gradient of a token's loss reaches back through a recurrent decoder, on the first sentences."""
    if isinstance(model, Seq2Seq):
        return {}
    batch = valid.collate(np.arange(min(_GRADIENT_SENTENCES, len(valid.src))), 0).to(next(model.parameters()).device)
    return {"gradient_by_distance": decoder_gradients(model, batch, longest=_GRADIENT_DISTANCE)}


if __name__ == "__main__":
    launch(main)
