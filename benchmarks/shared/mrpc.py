"""The training pairs of MRPC, of which several benchmarks take the texts."""

from pathlib import Path

from pipeline.data.preparing.glue import read_glue
from pipeline.data.records import Labelled


def training_pairs(glue: Path) -> tuple[Labelled, ...]:
    """The pairs of MRPC/train.tsv in a folder; SystemExit says in a line what is wrong with it."""
    try:
        return read_glue(glue / "MRPC", "MRPC", required=("train",))["train"].examples
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
