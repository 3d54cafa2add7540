"""Configuration: one YAML file a stage, read by OmegaConf and validated by a closed, frozen model.

`load` is the only reader of configuration files. Settings that several stages share are at the end.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from difflib import SequenceMatcher
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from yaml import YAMLError

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]

_ANY = "*"
"""Stands for a number in a list, and for a name that the user chooses."""
_ALIKE = 0.5
"""Likeness of two names from which on one is offered for the other."""


class Config(BaseModel):
    """Base of every configuration: immutable, closed to unknown keys, documented field by field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


C = TypeVar("C", bound=Config)


def load(path: Path, schema: type[C]) -> C:
    """Reads one YAML file into `schema`; true is no number, and a number between quotes is text.

    Raises ValueError that names the file, each bad key, what was found and what is allowed.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such configuration file")
    try:
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected keys and values, found {type(values).__name__}")
    try:
        # Of JSON a strict model still takes lists as tuples, texts as paths and whole numbers as floats.
        return schema.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(problem, values, schema)}" for problem in error.errors())
        raise ValueError(f"{path}: {error.error_count()} bad key(s)\n{problems}") from error


def first_problem(error: ValidationError, names: Mapping[str, str] | None = None) -> str:
    """The first fault of values that come from no YAML file, in one line; `names` are other names of their keys."""
    problem = error.errors()[0]
    key = ".".join((names or {}).get(str(part), str(part)) for part in problem["loc"])
    return f"{key + ': ' if key else ''}{problem['msg']}, found {problem['input']!r}"


def _explain(problem: Any, values: Any, schema: type[Config]) -> str:
    """One line for one pydantic problem: the key, what was found, what is allowed."""
    place = _place(problem["loc"], values)
    key = ".".join(place)
    match problem["type"]:
        case "extra_forbidden":
            return f"{key}: unknown key{_hint(place, schema)}"
        case "missing":
            return f"{key}: missing key"
        case _:
            return f"{key}: {problem['msg']}, found {_shown(problem['input'])}"


def _place(location: tuple[str | int, ...], values: Any) -> tuple[str, ...]:
    """Where in the file a problem is: pydantic's location without the names of the variants that it went through."""
    place: list[str] = []
    for depth, part in enumerate(location):
        match values:
            case Mapping() if part in values or (depth == len(location) - 1 and part != values.get("kind")):
                values = values.get(part)
            case list() if isinstance(part, int):
                values = values[part]
            case _:
                continue
        place.append(str(part))
    return tuple(place)


def _hint(place: tuple[str, ...], schema: type[Config]) -> str:
    """The known key whose name, and then whose place, is most like that of an unknown one."""
    known = {
        tuple(own if part == _ANY else part for part, own in zip(path, (*place, *path[len(place) :]), strict=False))
        for path in _keys(schema)
    }
    if place in known:
        return " of this kind"
    name, key = place[-1], ".".join(place)
    likeness = {
        path: (SequenceMatcher(None, name, path[-1]).ratio(), SequenceMatcher(None, key, ".".join(path)).ratio())
        for path in known
    }
    near = max(sorted(known), key=lambda path: likeness[path])
    return f"; did you mean '{'.'.join(near)}'?" if likeness[near][0] >= _ALIKE else ""


def _keys(annotation: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key in a configuration tree with those around it, members of unions included."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield (*prefix, name)
            yield from _keys(field.annotation, (*prefix, name))
        return
    is_container = isinstance(get_origin(annotation), type) and issubclass(get_origin(annotation), Collection)
    for argument in get_args(annotation):
        yield from _keys(argument, (*prefix, _ANY) if is_container else prefix)


def _shown(value: Any) -> str:
    """A value as it stands in the file; of a text that reads like a number, how to write the number."""
    match value:
        case bool():
            return str(value).lower()
        case str() if _is_number(value):
            return f"{value!r}, text; write {value}"
        case _:
            return repr(value)


def _is_number(text: str) -> bool:
    try:
        return isfinite(float(text))
    except ValueError:
        return False


class ByExamples(Config):
    """An optimizer step holds a fixed number of examples."""

    kind: Literal["examples"]
    examples_per_step: PositiveInt
    """Examples in one optimizer step, over all ranks and micro-batches."""

    @property
    def groups_per_step(self) -> int:
        """One: a step is sorted by length as a whole."""
        return 1


class ByTokens(Config):
    """An optimizer step holds examples up to a number of tokens, padding included, in groups of similar length."""

    kind: Literal["tokens"]
    tokens_per_step: PositiveInt
    """Largest num_examples x longest_example of one optimizer step, over all ranks, micro-batches and groups."""
    groups_per_step: PositiveInt = 1
    """Groups that a step consists of, each a micro-batch of its own. Examples of one length are alike, and the
    gradient of one group points where most groups' do not: a step of several randomly chosen ones has less noise."""


class Steps(Config):
    """Training ends after a number of optimizer steps."""

    kind: Literal["steps"]
    num_steps: PositiveInt
    """Optimizer steps."""


class Epochs(Config):
    """Training ends after a number of passes over the data."""

    kind: Literal["epochs"]
    num_epochs: PositiveInt
    """Passes over the training data."""


class OptimizerConfig(Config):
    """How the parameters move, and gradient clipping by global norm."""

    kind: Literal["adamw", "adagrad"] = "adamw"
    """AdamW (Loshchilov and Hutter 2019), or AdaGrad (Duchi et al. 2011) for tables of which a step sees few rows."""
    lr: PositiveFloat
    """Peak learning rate."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay of the first and second moment."""
    eps: PositiveFloat = 1e-8
    """Added to the square root of the second moment, or of the sum of squares."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay of the matrices; biases, norms and vectors are not decayed."""
    clip_norm: NonNegativeFloat = 1.0
    """Largest global gradient norm; 0 switches clipping off."""

    @model_validator(mode="after")
    def _adagrad_has_its_own_settings(self) -> "OptimizerConfig":
        foreign = sorted({"betas", "weight_decay"} & self.model_fields_set)
        if self.kind == "adagrad" and foreign:
            raise ValueError(f"adagrad has no {' and no '.join(foreign)}")
        return self


class ScheduleConfig(Config):
    """Learning rate over the optimizer steps: a linear warm-up, then a decay."""

    kind: Literal["constant", "linear", "cosine", "inverse_sqrt"]
    """Shape after the warm-up; inverse_sqrt is lr * sqrt(warmup / step) (Vaswani et al. 2017, eq. 3)."""
    num_warmup_steps: NonNegativeInt = 0
    """Steps over which the rate rises linearly from 0 to the peak."""
    final_fraction: Probability = 0.0
    """Fraction of the peak that linear and cosine reach when the last step is done."""


class TrainingConfig(Config):
    """What a training stage needs beside its model and its data."""

    seed: NonNegativeInt
    """Seed of the initialisation, the order, masks and dropout."""
    batching: Annotated[ByExamples | ByTokens, Field(discriminator="kind")]
    """How examples become optimizer steps."""
    duration: Annotated[Steps | Epochs, Field(discriminator="kind")]
    """When training ends."""
    optimizer: OptimizerConfig
    """The optimizer."""
    schedule: ScheduleConfig
    """The learning rate over time."""
    validate_every: PositiveInt
    """Optimizer steps between two passes over the validation data; the last step always validates."""
    checkpoint_every: PositiveInt
    """Optimizer steps between two resume checkpoints."""
