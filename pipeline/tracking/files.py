"""The files of a run folder, `.pipeline/stages/FAMILY/STAGE/tracking/TIME-KEY/`, shared by a stage and its helper.

Imports next to nothing: the helper shall start fast and stay small.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.layout import LOCAL

START = "start.json"
"""What the run is: stage, configuration, inputs, commit, address of the server."""
EVENTS = "events.jsonl"
"""One JSON object a line, each with its time in milliseconds."""
DONE = "done"
"""Exists when the stage ended well: the next run of the stage is another one."""
FAULT = "fault.txt"
"""Written by the helper while the server cannot be reached, or while its store of artifacts takes nothing."""
LOG = "helper.log"
SENT = "sent.json"
"""How far the helper is."""
EXPORT = "export"
"""The folder of a finished model until it is in the registry: the files themselves, under a second name."""
LOCK = "lock"
"""Held by the helper that sends this folder."""
PARENTS = LOCAL / "run.json"
"""The open MLflow parent of each family of stages."""


def read(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one when there is no such file."""
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return values


def write(path: Path, values: Mapping[str, Any]) -> None:
    """Replaces a JSON file as a whole; not forced to the disk, since losing it costs a few events sent twice."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)
