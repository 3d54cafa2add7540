"""The graph of dvc.yaml on the profile tiny, for tests that put every training stage through the same.

A stage is named with its matrix item, as in `translate/gru`. Its configuration is that of conf/tiny with fewer steps;
a variant of it, as in `translate/gru-killed`, is a configuration beside it whose outputs stand apart.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.layout import Layout
from tests.project.dvc_file import STAGES, items, paths
from tests.training.harness import ROOT, Workspace, change_yaml

UNTRAINED = {"fetch", "prepare", "tokenize", "word_vectors/svd", "reference", "report"}
"""What has no optimizer steps."""
NUM_STEPS = 8


ALL = [f"{stage}/{item}".rstrip("/") for stage in STAGES for item in items(stage)]


def settings(name: str) -> dict[str, Any]:
    """The configuration of a stage in the profile tiny; empty where there is none."""
    path = ROOT / f"conf/tiny/{name}.yaml"
    return yaml.safe_load(path.read_text()) or {} if path.is_file() else {}


def training_of(config: dict[str, Any]) -> dict[str, Any] | None:
    """The part of a configuration that says how its stage is trained; None where nothing is."""
    found: dict[str, Any] | None = config.get("method", config).get("training")
    return found


TRAINED = [name for name in ALL if training_of(settings(name))]


def needed(name: str) -> list[str]:
    """The stages whose outputs a stage reads."""
    stage, _, item = name.partition("/")
    read = paths(stage, "deps", "tiny", item)
    found = []
    for other in ALL:
        above, _, its_item = other.partition("/")
        outs = paths(above, "outs", "tiny", its_item)
        if other != "report" and any(dep == out or dep.startswith(f"{out}/") for dep in read for out in outs):
            found.append(other)
    return found


def short(config: dict[str, Any]) -> dict[str, Any]:
    """A few steps with a checkpoint after every third; dropout on, so that randomness has to be resumed too."""
    training = training_of(config)
    if training is None:
        return config
    training |= {"validate_every": 4, "checkpoint_every": 3}
    if "rollout" in config:
        # Four steps an iteration: every checkpoint is inside one.
        training |= {"batching": {"kind": "examples", "examples_per_step": 4}, "duration": EPOCHS}
        config["rollout"] |= {"num_iterations": 3, "prompts_per_iteration": 8}
    else:
        training["duration"] = {"kind": "steps", "num_steps": NUM_STEPS}
    return with_dropout(config, 0.1)


EPOCHS = {"kind": "epochs", "num_epochs": 2}


def with_dropout(config: dict[str, Any], probability: float) -> dict[str, Any]:
    """The configuration with every kind of dropout that it names set to `probability`."""
    return {
        key: probability
        if key.endswith("dropout")
        else with_dropout(value, probability)
        if isinstance(value, dict)
        else value
        for key, value in config.items()
    }


class Run(Workspace):
    """One stage in the workspace of the chain."""

    def __init__(self, root: Path, name: str, variant: str = "") -> None:
        self.root = root
        self.module = f"pipeline.stages.{name.partition('/')[0]}"
        self.config = f"conf/tiny/{name}{variant}.yaml"

    def write_config(self, values: Mapping[str, Any]) -> "Run":
        """Writes the configuration of a variant."""
        (self.root / self.config).write_text(yaml.safe_dump(dict(values)))
        return self

    def handed_over(self) -> dict[str, bytes]:
        """Every file of the output folder."""
        files = sorted(path for path in self.output.rglob("*") if path.is_file())
        return {path.relative_to(self.output).as_posix(): path.read_bytes() for path in files}

    def reported(self) -> dict[str, bytes]:
        """Metrics, samples and predictions of the stage, where it leaves them."""
        layout = Layout.of(Path(self.config))
        predictions = self.root / layout.predictions
        named = {"metrics": self.root / layout.metrics, "samples": self.root / layout.samples}
        named |= {path.relative_to(predictions).as_posix(): path for path in predictions.rglob("*")}
        return {name: path.read_bytes() for name, path in named.items() if path.is_file()}


class Chain:
    """The stages in one workspace; each runs once, when it is first asked for."""

    def __init__(self, root: Path, code: Path) -> None:
        self.root = root
        Workspace(root, code, module="", config="conf/tiny/")
        shutil.copytree(ROOT / "conf/tiny", root / "conf/tiny")
        shutil.copy(root / "conf/runtime/zero2_cpu.yaml", root / "conf/runtime/zero2_accumulate.yaml")
        change_yaml(root / "conf/runtime/zero2_accumulate.yaml", {"accumulation": 2})
        self._done: set[str] = set()
        for name in ALL:
            if settings(name):
                Run(root, name).write_config(short(settings(name)))

    def whole(self, name: str) -> Run:
        """A stage that ran without interruption, behind all that it needs."""
        run = Run(self.root, name)
        if name not in self._done:
            self.prepare(name)
            run.run("cpu")
            self._done.add(name)
        return run

    def prepare(self, name: str) -> None:
        """Runs what a stage needs."""
        for above in needed(name):
            self.whole(above)

    def variant(self, name: str, variant: str, config: Mapping[str, Any]) -> Run:
        """A stage that is ready to run with a configuration and outputs of its own."""
        self.prepare(name)
        return Run(self.root, name, f"-{variant}").write_config(config)
