"""Which profile is current: the one switch of dvc.yaml, for everything that people start by hand."""

from pathlib import Path

from pipeline.config import Config, load
from pipeline.layout import Layout

PROFILE = Path("conf/profile.yaml")


def stage_configs(profile: str, stage: str) -> list[Path]:
    """The configuration of a stage: one file, or one for each item of its folder."""
    single = Path("conf", profile, f"{stage}.yaml")
    return [single] if single.is_file() else sorted(single.with_suffix("").glob("*.yaml"))


class ProfileConfig(Config):
    """conf/profile.yaml."""

    profile: str
    """A folder of conf: cpu, tiny, paper, or one of your own."""


def current_layout(profile: str = "") -> Layout:
    """The files of a profile, by default of the current one; ValueError names what is missing."""
    if not profile:
        if not PROFILE.is_file():
            raise ValueError(f"{PROFILE}: no such file; run this in the root of the repository")
        profile = load(PROFILE, ProfileConfig).profile
    config = Path("conf", profile, "report.yaml")
    if not config.parent.is_dir():
        known = sorted(path.parent.name for path in Path("conf").glob("*/report.yaml"))
        raise ValueError(f"profile {profile!r}: no folder {config.parent}; known are {', '.join(known)}")
    return Layout.of(config)
