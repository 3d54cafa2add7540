"""The stage translate ends early, and its model is the mean of the weights that it chose."""

from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.artifacts import read_json
from pipeline.inference.translator_folder import open_translator
from tests.stages.test_translate import settings, workspace
from tests.training.harness import Outcome, Workspace, snapshot

END = 6
"""The optimizer step at which it ends, of 20."""


@dataclass(frozen=True)
class Ended:
    """A training that ended early, was kept from handing over, and was run again."""

    workspace: Workspace
    checkpoints: list[str]
    """Those behind the first run."""
    kept: dict[str, dict[str, Tensor]]
    """The weights that the first run kept, by the names of their files."""
    last: dict[str, Tensor]
    """The weights with which it ended."""
    again: Outcome
    """The second run, in which a further step would have been the death of it."""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """With so small a rate every translation stays as it is: BLEU is best at the first validation, the loss is not."""
    config = settings("transformer") | {
        "selection": {"choose": "best", "num_averaged": 2, "metric": "bleu", "patience": 2}
    }
    config["training"] |= {
        # In groups: rank 0 validates the chosen weights alone, in as many micro-batches as a step has.
        "batching": config["training"]["batching"] | {"groups_per_step": 2},
        "duration": {"kind": "steps", "num_steps": 20},
        "optimizer": {"lr": 1e-5},
        "schedule": {"kind": "constant"},
        "validate_every": 2,
        "checkpoint_every": 100,
    }
    code = snapshot(tmp_path_factory.mktemp("code"))
    made = workspace(tmp_path_factory.mktemp("translate") / "workspace", code, "transformer", config)
    (made.root / "models").touch()  # no folder, so that the model cannot be written into it
    made.run("cpu", expect=(2,))
    kept = {file.name: load_file(file) for file in sorted(made.local.glob("checkpoints/*/weights/*"))}
    checkpoints = made.checkpoints()
    state = torch.load(checkpoints[-1] / "state.ckpt", weights_only=True)["state_dict"]
    (made.root / "models").unlink()
    return Ended(
        workspace=made,
        checkpoints=[path.name for path in checkpoints],
        kept=kept,
        last={name.removeprefix("model."): tensor for name, tensor in state.items()},
        again=made.run("cpu", kill_at=END, expect=(0,)),
    )


def test_a_training_ends_when_bleu_rises_no_more_and_does_no_further_step_when_it_is_run_again(ended: Ended) -> None:
    assert ended.checkpoints == [f"step-{END:08d}"]
    assert "continuing from" in ended.again.log
    curve = ended.workspace.curve()
    assert [row["update"] for row in curve] == list(range(1, END + 1))
    validations = [row for row in curve if "valid/bleu" in row]
    assert [row["update"] for row in validations] == [2, 4, 6]
    assert len({row["valid/bleu"] for row in validations}) == 1
    losses = [row["valid/total"] for row in validations]
    assert losses == sorted(set(losses), reverse=True), "by the loss it would have gone on"
    training = read_json(ended.workspace.root / "metrics/tiny/translate/transformer.json")["training"]
    assert (training["num_steps"], training["num_averaged"]) == (END, 2)


def test_the_model_is_the_mean_of_the_chosen_weights_bit_by_bit_and_not_the_last(ended: Ended) -> None:
    assert list(ended.kept) == ["update-00000002.safetensors", "update-00000004.safetensors"]
    first, second = ended.kept.values()
    parameters = dict(open_translator(ended.workspace.output).model.named_parameters())
    assert parameters.keys() <= first.keys()
    for name, parameter in parameters.items():
        assert torch.equal(parameter, ((first[name].double() + second[name].double()) / 2).float()), name
        if parameter.ndim == 2:
            assert not torch.equal(parameter, ended.last[name]), name
