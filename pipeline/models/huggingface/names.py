"""Carries parameters from one naming to another and back, and names every tensor that does not fit.

A `Name` says how one parameter of ours is stored in theirs: under another name, transposed, or cut along its first
dimension into several. Tied parameters appear once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Exported = tuple[dict[str, Any], dict[str, Tensor]]
"""What config.json and model.safetensors hold."""


@dataclass(frozen=True)
class Name:
    """One parameter in both namings."""

    ours: str
    theirs: tuple[str, ...]
    """Several names: the parts of ours along its first dimension, in order."""
    is_transposed: bool = False
    """Theirs is (input, output), as in the Conv1D of GPT-2; ours is (output, input)."""


def linear(ours: str, *theirs: str, is_transposed: bool = False) -> list[Name]:
    """Weight and bias of a linear map or a layer norm."""
    return [
        Name(f"{ours}.weight", tuple(f"{name}.weight" for name in theirs), is_transposed),
        Name(f"{ours}.bias", tuple(f"{name}.bias" for name in theirs)),
    ]


def embedding(ours: str, theirs: str) -> Name:
    """A weight without a bias."""
    return Name(f"{ours}.weight", (f"{theirs}.weight",))


def rename(model: nn.Module, names: Iterable[Name]) -> dict[str, Tensor]:
    """The parameters of `model` under their names, each a tensor of its own memory."""
    parameters = dict(model.named_parameters())
    renamed: dict[str, Tensor] = {}
    for name in names:
        tensor = parameters.pop(name.ours).detach()
        for theirs, part in zip(name.theirs, tensor.chunk(len(name.theirs)), strict=True):
            renamed[theirs] = (part.T if name.is_transposed else part).clone(memory_format=torch.contiguous_format)
    assert not parameters, f"parameters without a name: {sorted(parameters)}"
    return renamed


@torch.no_grad()
def fill(model: nn.Module, names: Sequence[Name], state: Mapping[str, Tensor]) -> None:
    """Copies `state` into the parameters of `model`.

    Raises ValueError that names every missing, unexpected and mis-shaped tensor.
    """
    parameters = dict(model.named_parameters())
    problems = [f"unexpected {key}" for key in sorted(state.keys() - {key for name in names for key in name.theirs})]
    for name in names:
        part = parameters[name.ours].chunk(len(name.theirs))[0]
        expected = tuple(part.T.shape if name.is_transposed else part.shape)
        for key in name.theirs:
            if key not in state:
                problems.append(f"missing {key} {expected}")
            elif tuple(state[key].shape) != expected:
                problems.append(f"{key}: found {tuple(state[key].shape)}, expected {expected}")
    if problems:
        raise ValueError("the weights do not fit the configuration: " + "; ".join(problems))
    for name in names:
        parts = [state[key].T if name.is_transposed else state[key] for key in name.theirs]
        parameters[name.ours].copy_(torch.cat(parts) if len(parts) > 1 else parts[0])


def without_copies(state: Mapping[str, Tensor], copies: Mapping[str, str]) -> dict[str, Tensor]:
    """Drops tensors that repeat another, `copies[copy] = original`; an original that is missing is taken from its copy.

    Raises ValueError if a copy differs from its original: the weights are not tied, ours are.
    """
    unique = dict(state)
    for copy, original in copies.items():
        if copy not in unique:
            continue
        tensor = unique.pop(copy)
        if original not in unique:
            unique[original] = tensor
        elif not torch.equal(unique[original], tensor):
            raise ValueError(f"{copy} differs from {original}, but this model has them tied")
    return unique


def setting(config: Mapping[str, Any], key: str) -> Any:
    """One value of a config.json; ValueError if it is missing."""
    if key not in config:
        raise ValueError(f"config.json: missing key {key}")
    return config[key]


def require(config: Mapping[str, Any], allowed: Mapping[str, Any]) -> None:
    """Refuses a config.json that asks for what our model does not do; an absent key is taken as the allowed value."""
    for key, value in allowed.items():
        if key in config and config[key] != value:
            raise ValueError(f"config.json: {key} is {config[key]!r}, only {value!r} is supported")
