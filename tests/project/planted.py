"""Configurations with dead fields, for the test that has to find them: never loaded by anything else."""

import json
from dataclasses import dataclass
from typing import Literal

from pydantic import model_validator

from pipeline.config import Config


class Inner(Config):
    """Its size is dead; that of `Outer` and of `Other` is read."""

    size: int
    """Dead."""
    checked: int
    """Dead: only a validator looks at it."""
    rate: float
    """Read through an attribute of a dataclass."""

    @model_validator(mode="after")
    def _is_positive(self) -> "Inner":
        if self.checked < 0:
            raise ValueError("negative")
        return self


class Other(Config):
    """Another variant."""

    kind: Literal["other"]
    size: int
    """Read where the variant is known."""


class Part(Config):
    """Only written to a file."""

    dumped: int
    """Dead: a dump that feeds no model is no use of it."""


class Shape(Config):
    """Handed over whole."""

    width: int
    """Read by the constructor of `Built`."""


class Built(Config):
    """Made of a shape."""

    width: int
    """Read."""


class Outer(Config):
    """The whole."""

    size: int
    """Read."""
    inner: Inner
    """Read."""
    parts: tuple[Part, ...]
    """Read."""
    choice: Other | Inner
    """Read."""
    shape: Shape
    """Read."""


@dataclass(frozen=True)
class Worker:
    """Holds a configuration."""

    config: Inner

    def run(self) -> float:
        """Reads one field."""
        return self.config.rate


def use(config: Outer) -> float:
    """Reads what is read."""
    built = Built(**config.shape.model_dump())
    text = json.dumps([part.model_dump() for part in config.parts])
    match config.choice:
        case Other(size=size):
            return size + built.width + len(text)
        case Inner():
            return config.size + Worker(config.inner).run()
