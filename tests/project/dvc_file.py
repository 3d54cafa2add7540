"""dvc.yaml as the tests read it: what each stage declares, for each item that it is made for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
DOCUMENT: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
OWN = "tasks"
"""The stage of the user's own tasks, which the project has none of."""
STAGES: dict[str, dict[str, Any]] = {
    name: stage | stage.get("do", {}) for name, stage in DOCUMENT["stages"].items() if name != OWN
}  # what `foreach` repeats stands in `do`


def items(stage: str) -> Mapping[str, Mapping[str, str]]:
    """The items of a stage, and what dvc puts in for each; one empty name where it has none."""
    one = STAGES[stage]
    if "foreach" in one:
        return {
            name: {"key": name} | {f"item.{key}": value for key, value in values.items()}
            for name, values in one["foreach"].items()
        }
    return {name: {"item.item": name} for name in one.get("matrix", {}).get("item", [""])}


def fill(text: str, stage: str, profile: str, item: str) -> str:
    """A text of a stage as dvc reads it."""
    for name, value in ({"profile": profile} | dict(items(stage)[item])).items():
        text = text.replace(f"${{{name}}}", value)
    assert "${" not in text, text
    return text


def paths(stage: str, key: str, profile: str, item: str) -> set[str]:
    """The files and folders under a key of a stage."""
    entries = STAGES[stage].get(key, [])
    return {fill(next(iter(one)) if isinstance(one, dict) else one, stage, profile, item) for one in entries}
