"""Which model folder a command opens, and how one that is missing is made."""

from pathlib import Path

from yaml import safe_load

from pipeline.config import load
from pipeline.profile import PROFILE, ProfileConfig, current_layout

_GRAPH = Path("dvc.yaml")


def folder_of(given: Path | None, profile: str, stage: str) -> Path:
    """The folder that was given, or else that of a stage of a profile, by default the current one.

    ValueError for a folder that is not there says what makes it.
    """
    folder = given or current_layout(profile).model(stage)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; {_remedy(folder)}")
    return folder


def _remedy(folder: Path) -> str:
    match folder.parts:
        case ("models", profile, stage, *items) if len(items) < 2:
            config = Path("conf", profile, stage, *items).with_suffix(".yaml")
            if not config.is_file():
                return (
                    f"no configuration {config} makes it: write one for your own data, as README.md says, or name a "
                    "folder with --model"
                )
            if not _is_target(stage, *items):
                return f"make it with: python -m pipeline.stages.{stage} {config}"
            is_current = PROFILE.is_file() and load(PROFILE, ProfileConfig).profile == profile
            other = "" if is_current else f", with `profile: {profile}` in {PROFILE}"
            return f"make it with: dvc repro {'@'.join([stage, *items])}{other}"
    return "name a model folder with --model"


def _is_target(stage: str, item: str = "") -> bool:
    """Whether the graph has a stage, or an item of it."""
    found = safe_load(_GRAPH.read_text(encoding="utf-8"))["stages"].get(stage) if _GRAPH.is_file() else None
    if found is None or not item:
        return found is not None
    return item in (found.get("foreach") or found.get("matrix", {}).get("item", ()))
