"""Writes and reads model folders the way `transformers` does."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.models.huggingface.names import Exported
from pipeline.models.translation import TokenProjection
from pipeline.objectives.likelihood import class_cross_entropy, squared_error
from pipeline.objectives.terms import LossTerms


def open_theirs(folder: Path, theirs: Any, exported: Exported) -> Any:
    """The model that `transformers` opens from what we export; every tensor must be used and none be missing."""
    config, state = exported
    (folder / "config.json").write_text(json.dumps(config))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    model, report = theirs.from_pretrained(folder, output_loading_info=True)
    problems = {kind: names for kind, names in report.items() if names}
    assert not problems, problems
    return model.eval()


def save_theirs(folder: Path, model: PreTrainedModel) -> Exported:
    """What `transformers` writes, read back as (config, state)."""
    model.save_pretrained(folder)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config, load_file(folder / "model.safetensors")


@torch.no_grad()
def spread(model: nn.Module, keep_zero: int | None = None) -> None:
    """Moves every parameter away from its initial value, so that no bias is zero and no norm is one.

    Fixed parameters, the sinusoids of Marian, stay. `keep_zero` is a row of the embeddings that stays as it is.
    """
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            noise = 0.2 * torch.randn_like(parameter)
            if (
                keep_zero is not None
                and isinstance(module, nn.Embedding | nn.Linear | TokenProjection)
                and len(noise) > keep_zero
            ):
                noise[keep_zero] = 0.0
            if parameter.requires_grad:
                parameter.add_(noise)


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    """Equal to 1e-4, and not trivially so."""
    assert theirs.std() > 1e-2
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def text_terms(scores: Tensor, targets: Tensor) -> LossTerms:
    """Our loss of classes, or of real values."""
    if targets.is_floating_point():
        return squared_error(scores.squeeze(-1), targets)
    return class_cross_entropy(scores, targets)


def mean_loss(terms: LossTerms) -> Tensor:
    """What `transformers` calls the loss."""
    return terms.loss_sum / terms.num_targets
