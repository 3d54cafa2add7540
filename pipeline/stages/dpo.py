"""Direct preference optimization of the fine-tuned model on pairs of rated texts (Rafailov et al. 2023).

The reference's log-probabilities are data, computed once by the stage `reference`.
"""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveFloat

from pipeline.artifacts import load_tensors, read_json
from pipeline.config import Config, TrainingConfig, load
from pipeline.data.batches import PreferenceBatch
from pipeline.data.examples.preferences import PreferenceExamples, preference_examples
from pipeline.inference.handover import open_gpt, save_gpt
from pipeline.inference.scoring import pair_log_probs
from pipeline.layout import Layout
from pipeline.models.gpt import GPT
from pipeline.objectives.preference import PairLogProbs, dpo_loss, ipo_loss
from pipeline.objectives.terms import LossTerms
from pipeline.stages.alignment import AlignmentConfig, alignment_inputs, evaluate_alignment, read_judged
from pipeline.stages.preference_pairs import HASHES, PreferencePairsConfig, SplitPairs, pair_counts, read_split
from pipeline.text.tokenizer import Tokenizer
from pipeline.training.base import StageModule
from pipeline.training.fit import fit
from pipeline.training.launch import launch
from pipeline.training.run import stage_run


class SigmoidConfig(Config):
    """DPO, conservative where labels may be wrong."""

    kind: Literal["sigmoid"]
    beta: PositiveFloat
    """Strength of the pull towards the reference."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)]
    """Probability that chosen and rejected were swapped (conservative DPO); 0 for plain DPO. From one half on labels
    would say nothing, or the opposite."""


class IdentityConfig(Config):
    """IPO (Azar et al. 2023)."""

    kind: Literal["identity"]
    beta: PositiveFloat
    """Their tau: the margin is drawn to 1 / (2 beta)."""


class DPOConfig(Config):
    """The stage dpo."""

    training: TrainingConfig
    """How it is trained."""
    loss: Annotated[SigmoidConfig | IdentityConfig, Field(discriminator="kind")]
    """Which loss of preference pairs."""
    pairs: PreferencePairsConfig
    """Which pairs; those of the stage reference, or they are refused."""
    alignment: AlignmentConfig
    """How the answers are judged afterwards."""


class DirectPreferenceOptimization(StageModule[PreferenceBatch]):
    """The policy learns to prefer the chosen answer more than the reference does."""

    model: GPT

    def __init__(self, model: GPT, training: TrainingConfig, loss: SigmoidConfig | IdentityConfig) -> None:
        super().__init__(model, training)
        self.loss = loss

    def objective(self, batch: PreferenceBatch) -> tuple[LossTerms, ...]:
        """One loss with pairs as targets."""
        policy = pair_log_probs(self.model, batch)
        reference = PairLogProbs(batch.reference_chosen, batch.reference_rejected)
        match self.loss:
            case SigmoidConfig():
                smoothing = self.loss.label_smoothing
                return (dpo_loss(policy, reference, beta=self.loss.beta, label_smoothing=smoothing),)
            case IdentityConfig():
                return (ipo_loss(policy, reference, beta=self.loss.beta),)


def with_reference(folder: Path, split: str, pairs: SplitPairs, tokenizer: Tokenizer) -> PreferenceExamples:
    """The pairs of a split with what the stage reference found for them; ValueError when it looked at others."""
    tensors, hashes = load_tensors(folder / f"{split}.safetensors"), read_json(folder / HASHES)
    if hashes.get(split) != pairs.hash:
        raise ValueError(
            f"{folder}: its log-probabilities of the split {split} are of other pairs, {len(tensors['chosen'])} of "
            f"them, than the {len(pairs.encoded)} of this stage: `pairs` has to be the same in the configurations of "
            "reference and dpo; then run the stage reference again"
        )
    return preference_examples(pairs.encoded, tokenizer).with_reference(
        np.asarray(tensors["chosen"]), np.asarray(tensors["rejected"])
    )


def main(path: Path) -> None:
    """Trains, judges the answers beside those of the model it started from, and hands over a GPT."""
    config = load(path, DPOConfig)
    layout = Layout.of(path)
    folder, reference = layout.model("sft"), layout.model("reference")
    inputs = (folder, reference, layout.data("prepared/rated"), *alignment_inputs(layout))
    with stage_run(__spec__.name, path, config, seed=config.training.seed, inputs=inputs) as run:
        opened = open_gpt(folder)
        splits = {split: read_split(layout, split, config.pairs, opened.tokenizer) for split in ("train", "valid")}
        train, valid = (with_reference(reference, name, splits[name], opened.tokenizer) for name in splits)
        requests = read_judged(layout, config.alignment, opened)
        module = DirectPreferenceOptimization(opened.model, config.training, config.loss)
        fit(run, module, train=train, valid=valid)
        # Before the answers are judged, so that a fault of that, which ends the stage, does not lose what was trained.
        save_gpt(run.layout.output, module.model, opened.tokenizer)
        judged = evaluate_alignment(layout, config.alignment, requests, tuned=module.model, start=open_gpt(folder))
        run.finish({"pairs": pair_counts(splits), **judged.metrics}, history=module.history, samples=judged.samples)


if __name__ == "__main__":
    launch(main)
