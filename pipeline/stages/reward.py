"""A reward model from pairs of rated texts (Bradley and Terry 1952; Ouyang et al. 2022, eq. 1)."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor

from pipeline.config import ByTokens, Config, Fraction, TrainingConfig, load
from pipeline.data.batches import RewardBatch
from pipeline.data.examples.preferences import RewardExamples
from pipeline.data.plan import plan_epoch
from pipeline.data.prepared import read_rated
from pipeline.data.records import Rated
from pipeline.evaluation.bag_of_words import bag_of_words_values
from pipeline.evaluation.held_out import in_view
from pipeline.evaluation.preference import SentimentJudge, calibration, pair_accuracy
from pipeline.inference.handover import open_gpt, save_reward
from pipeline.layout import Layout
from pipeline.models.heads import RewardModel
from pipeline.objectives.preference import bradley_terry_loss
from pipeline.objectives.terms import LossTerms
from pipeline.stages.baselines import notes_on_words
from pipeline.stages.preference_pairs import PreferencePairsConfig, SplitPairs, pair_counts, read_split
from pipeline.training.base import StageModule
from pipeline.training.fit import fit
from pipeline.training.launch import launch
from pipeline.training.run import stage_run


class RewardConfig(Config):
    """The stage reward."""

    training: TrainingConfig
    """How it is trained."""
    dropout: Fraction
    """Dropout in the trunk."""
    pairs: PreferencePairsConfig
    """Which pairs."""
    num_calibration_bins: PositiveInt
    """Bins of predicted probability in the calibration curve."""


class RewardModelling(StageModule[RewardBatch]):
    """The chosen text is to score higher than the rejected one."""

    model: RewardModel

    def objective(self, batch: RewardBatch) -> tuple[LossTerms, ...]:
        """One loss with pairs as targets; each reward is read at the true last token."""
        chosen = self.model(batch.chosen_ids, batch.chosen_last)
        rejected = self.model(batch.rejected_ids, batch.rejected_last)
        return (bradley_terry_loss(chosen, rejected),)


@torch.no_grad()
def rewards_of_pairs(
    model: RewardModel, examples: RewardExamples, *, tokens_per_batch: int
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """Rewards of the chosen and of the rejected texts, in the order of the pairs."""
    device = next(model.parameters()).device
    rewards = np.zeros((2, len(examples.pairs)))
    batching = ByTokens(kind="tokens", tokens_per_step=tokens_per_batch)
    for step in in_view(plan_epoch(examples.sizes(0), batching, seed=0, epoch=0), name="rewards of test pairs"):
        batch = examples.collate(step.indices, 0).to(device)
        sides: tuple[Tensor, Tensor] = (
            model(batch.chosen_ids, batch.chosen_last),
            model(batch.rejected_ids, batch.rejected_last),
        )
        for side, values in enumerate(sides):
            rewards[side, step.indices] = values.double().cpu().numpy()
    return rewards[0], rewards[1]


def main(path: Path) -> None:
    """Trains, compares with what knows less, and hands over a reward model."""
    config = load(path, RewardConfig)
    layout = Layout.of(path)
    inputs = (layout.model("sft"), layout.data("prepared/rated"))
    with stage_run(__spec__.name, path, config, seed=config.training.seed, inputs=inputs) as run:
        opened = open_gpt(inputs[0], dropout=config.dropout)
        splits = {name: read_split(layout, name, config.pairs, opened.tokenizer) for name in ("train", "valid", "test")}
        train, valid, test = (RewardExamples(split.encoded, opened.tokenizer.pad_id) for split in splits.values())
        if not splits["test"].pairs:
            raise ValueError(
                f"{path}: pairs.max_length: found {config.pairs.max_length}, which is too short for each of the "
                f"{splits['test'].report.num_dropped} pairs of {inputs[1] / 'test.jsonl'}, so that none could be scored"
            )
        known = read_rated(layout.data("prepared/rated/train.jsonl"))
        module = RewardModelling(RewardModel(opened.model), config.training)
        fit(run, module, train=train, valid=valid)
        # Before the pairs are scored, so that a fault of that, which ends the stage, does not lose what was trained.
        save_reward(run.layout.output, module.model, opened.tokenizer)
        rewards = rewards_of_pairs(module.model, test, tokens_per_batch=8192)
        run.finish(
            {
                "pairs": pair_counts(splits),
                "accuracy": pair_accuracy(*rewards),
                "baselines": baseline_accuracies(known, splits["test"]),
                **notes_on_words([text.text for text in known]),
                "calibration": asdict(calibration(rewards[0] - rewards[1], num_bins=config.num_calibration_bins)),
                "rewards": {"mean": float(np.mean(rewards)), "std": float(np.std(rewards))},
            },
            history=module.history,
            samples=_samples(splits["test"], rewards),
        )


def baseline_accuracies(known: Sequence[Rated], test: SplitPairs) -> dict[str, float]:
    """Pair accuracy of the longer text, of the judge, and of a bag of words that learned from the `known` ratings."""
    sides = [pair.chosen for pair in test.pairs], [pair.rejected for pair in test.pairs]
    texts, means = [text.text for text in known], np.array([text.mean for text in known])
    words = bag_of_words_values(texts, means, [*sides[0], *sides[1]])
    lengths = [np.array([float(len(text.split())) for text in side]) for side in sides]
    judge = SentimentJudge()
    judged = [judge.scores(side) for side in sides]
    return {
        "longer": pair_accuracy(*lengths),
        "judge": pair_accuracy(*judged),
        "bag_of_words": pair_accuracy(words[: len(sides[0])], words[len(sides[0]) :]),
    }


def _samples(test: SplitPairs, rewards: tuple[np.ndarray, np.ndarray]) -> list[dict[str, object]]:
    return [
        {
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            "distance": pair.distance,
            "agreement": pair.agreement,
            "reward_chosen": float(rewards[0][i]),
            "reward_rejected": float(rewards[1][i]),
        }
        for i, pair in enumerate(test.pairs[:20])
    ]


if __name__ == "__main__":
    launch(main)
