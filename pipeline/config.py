"""Configuration: one YAML file a stage, read by OmegaConf and validated by a closed, frozen model.

`load` is the only reader of configuration files. Settings that several stages share are at the end.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

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


class Config(BaseModel):
    """Base of every configuration: immutable, closed to unknown keys, documented field by field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


C = TypeVar("C", bound=Config)


def load(path: Path, schema: type[C]) -> C:
    """Reads one YAML file into `schema`.

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
        return schema.model_validate(values)
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(problem, schema)}" for problem in error.errors())
        raise ValueError(f"{path}: {error.error_count()} bad key(s)\n{problems}") from error


def _explain(problem: Any, schema: type[Config]) -> str:
    """One line for one pydantic problem: the key, what was found, what is allowed."""
    key = ".".join(str(part) for part in problem["loc"])
    match problem["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(str(problem["loc"][-1]), sorted(_keys(schema)), n=1, cutoff=0.5)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            return f"{key}: unknown key{hint}"
        case "missing":
            return f"{key}: missing key"
        case _:
            return f"{key}: {problem['msg']}, found {problem['input']!r}"


def _keys(annotation: Any) -> set[str]:
    """Every field name in a configuration tree, nested and union members included."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields
        nested = (_keys(field.annotation) for field in fields.values())
        return set(fields).union(*nested)
    return set().union(*(_keys(argument) for argument in getattr(annotation, "__args__", ())))


class ByExamples(Config):
    """An optimizer step holds a fixed number of examples."""

    kind: Literal["examples"]
    examples_per_step: PositiveInt
    """Examples in one optimizer step, over all ranks and micro-batches."""


class ByTokens(Config):
    """An optimizer step holds examples of similar length up to a number of tokens, padding included."""

    kind: Literal["tokens"]
    tokens_per_step: PositiveInt
    """Largest num_examples x longest_example of one optimizer step, over all ranks and micro-batches."""


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
