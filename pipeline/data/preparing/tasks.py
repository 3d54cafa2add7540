"""Tasks to fine-tune on: a source of each kind becomes prepared/tasks/NAME, one JSON line an example.

What belongs to the task as a whole is in task.json there. A split may be missing, and the labels of a test set too,
where others keep them; rows are those of the files, in their order, and none is left out without being counted.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, assert_never

from pydantic import Field, model_validator

from pipeline.artifacts import write_json
from pipeline.config import Config
from pipeline.data.preparing.conll import ConllSource, prepare_conll
from pipeline.data.preparing.glue import GlueName, read_glue
from pipeline.data.preparing.squad import SquadSource, prepare_squad
from pipeline.data.records import write_records

TASK = "task.json"


class GlueSource(Config):
    """A task of the GLUE benchmark: the folder of its official files, or the splits of the hub's data set."""

    kind: Literal["glue"]
    source: str
    """Folder below raw/; it may hold other tasks too, each in a folder of its name."""
    name: GlueName
    """The task, by the name of its official folder."""
    diagnostic: str = ""
    """Folder below raw/ of the diagnostic set, which MNLI answers too, where it is a source of its own: diagnostic.tsv,
    diagnostic-full.tsv with its labels, or the split test of the hub's `ax`. Empty where it is below `source`, or is
    left out."""

    @model_validator(mode="after")
    def _has_the_diagnostic_set(self) -> "GlueSource":
        if self.diagnostic and self.name != "MNLI":
            raise ValueError(f"diagnostic: the diagnostic set is answered by MNLI alone, found {self.name}")
        return self


AnyTask = GlueSource | ConllSource | SquadSource
TaskSource = Annotated[AnyTask, Field(discriminator="kind")]
TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


def prepare_tasks(sources: Mapping[TaskName, AnyTask], raw: Path, out: Path) -> dict[str, Any]:
    """Writes every task below `out`; returns the counts of each. ValueError names file and line of a fault."""
    return {name: _prepare(source, raw, out / name) for name, source in sources.items()}


def _prepare(source: AnyTask, raw: Path, out: Path) -> dict[str, Any]:
    folder = _fetched(raw, source.source)
    match source:
        case GlueSource():
            apart = _fetched(raw, source.diagnostic) if source.diagnostic else None
            found = read_glue(folder, source.name, diagnostic=apart)
            counts: dict[str, Any] = {}
            for split, part in found.items():
                counts[split] = {"records": write_records(out / f"{split}.jsonl", part.examples)}
                if part.num_broken:
                    counts[split]["dropped"] = {"other_number_of_columns": part.num_broken}
            write_json(out / TASK, {"kind": "glue", "name": source.name})
            return counts
        case SquadSource():
            counts, described = prepare_squad(source, raw, out)
            write_json(out / TASK, described)
            return counts
        case ConllSource():
            types, counts = prepare_conll(source, folder, out)
            write_json(out / TASK, {"kind": "tagging", "types": types})
            return counts
        case _:
            assert_never(source)


def _fetched(raw: Path, source: str) -> Path:
    """The folder of a source; ValueError when it is not there."""
    folder = raw / source
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such source; fetch.yaml has to name it")
    return folder
