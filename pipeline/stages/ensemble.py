"""ensemble: translates the test set with several trained models that decide on each token together.

No stage of the graph: a published number lists it in its folder, behind the trainings that make its models.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt

from pipeline.artifacts import read_json
from pipeline.config import Config, load
from pipeline.data.prepared import read_pairs
from pipeline.inference.translator import SearchConfig
from pipeline.inference.translator_folder import open_ensemble
from pipeline.stages.translation_scores import MosesBleuConfig, evaluate, refuse_empty_references
from pipeline.text.forms import load_form
from pipeline.training.launch import launch
from pipeline.training.run import stage_run


class EnsembleConfig(Config):
    """The stage ensemble."""

    models: tuple[Path, ...] = Field(min_length=2)
    """The folders of the models, which share one tokenizer."""
    metrics: tuple[Path, ...]
    """What their trainings measured, in the same order: what they cost is the cost of the ensemble."""
    pairs: Path
    """The folder of the prepared pairs."""
    search: SearchConfig
    """How the test set is translated."""
    moses_bleu: MosesBleuConfig | None = None
    """A further score of plain text, for comparison with older papers; none where it is left out."""
    num_samples: PositiveInt
    """Test sentences that are shown with their translations."""


def main(path: Path) -> None:
    """Translates the validation and the test set, and writes the scores."""
    config = load(path, EnsembleConfig)
    inputs = (*config.models, *config.metrics, config.pairs)
    with stage_run(__spec__.name, path, config, seed=0, inputs=inputs) as run:
        translator = replace(open_ensemble(config.models), search=config.search)
        for model in (translator.model, *translator.others):
            model.to(run.device)
        form = load_form(config.pairs)
        if form != translator.form:
            raise ValueError(f"{config.pairs}: text in the form {form}, the models have {translator.form}")
        valid, test = (read_pairs(config.pairs / f"{split}.jsonl") for split in ("valid", "test"))
        refuse_empty_references(test, config.pairs / "test.jsonl")
        evaluation = evaluate(
            translator,
            valid=valid,
            test=test,
            moses=config.moses_bleu,
            num_samples=config.num_samples,
            num_attention_maps=0,
        )
        cost = _cost([read_json(file) for file in config.metrics])
        run.finish({**evaluation.metrics, "training": cost}, samples=evaluation.samples)


def _cost(trainings: list[Mapping[str, Any]]) -> dict[str, float]:
    """Operations and parameters of all members."""
    keys = ("flops", "num_parameters")
    return {key: sum(training["training"][key] for training in trainings) for key in keys}


if __name__ == "__main__":
    launch(main)
