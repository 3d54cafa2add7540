"""The grid of a fine-tuning that the README queues: what dvc makes of its command, without training anything."""

import re
import shlex
import shutil
from itertools import product
from pathlib import Path

from dvc.utils.hydra import apply_overrides, get_hydra_sweeps

from pipeline.config import ByExamples, load
from pipeline.stages.finetune import FinetuneConfig
from tests.project.dvc_file import paths

ROOT = Path(__file__).parents[2]


def queued() -> tuple[str, list[str]]:
    """The file that the command changes, and how."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = re.findall(r"^ *(dvc exp run --queue .*finetune.*)$", readme, re.MULTILINE)
    words = shlex.split(line)
    assert words[:4] == ["dvc", "exp", "run", "--queue"] and set(words[4::2]) == {"-S"}
    files, changes = zip(*(word.split(":", 1) for word in words[5::2]), strict=True)
    (file,) = set(files)
    return file, list(changes)


def test_the_grid_of_the_readme_is_every_learning_rate_with_every_batch_size(tmp_path: Path) -> None:
    file, changes = queued()
    # The file is tracked by the one training that it configures, so no other one is run again.
    assert file in paths("finetune", "params", "cpu", "polarity")
    before = load(ROOT / file, FinetuneConfig).model_dump()
    sweeps = list(get_hydra_sweeps({file: changes}))
    found = []
    for sweep in sweeps:
        shutil.copy(ROOT / file, tmp_path / "polarity.yaml")
        apply_overrides(tmp_path / "polarity.yaml", sweep[file])
        config = load(tmp_path / "polarity.yaml", FinetuneConfig)
        assert isinstance(config.training.batching, ByExamples)
        found.append((config.training.optimizer.lr, config.training.batching.examples_per_step))
        after = config.model_dump()
        after["training"]["optimizer"]["lr"] = before["training"]["optimizer"]["lr"]
        after["training"]["batching"] = before["training"]["batching"]
        assert after == before
    assert sorted(found) == sorted(product((2e-4, 5e-4), (16, 32)))
    # What the chain trains with is one of them, so that the others are compared with it under the same code.
    settings = before["training"]
    assert (settings["optimizer"]["lr"], settings["batching"]["examples_per_step"]) in found
