"""A published number whose stages are never really run, for tests of how numbers are reproduced."""

from collections.abc import Callable
from pathlib import Path

import yaml

from pipeline.artifacts import write_json
from pipeline.layout import Layout
from pipeline.numbers.table import BEGIN, END

ROOT = Path(__file__).parents[2]
NUMBER = {"source": "A paper", "metric": "BLEU", "key": "bleu.beam", "reported": 30.0, "reach": 31.0}


def write_yaml(path: Path, values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values, sort_keys=False))


def write_toy_repository(root: Path) -> None:
    """A repository with one number of two seeds."""
    (root / "pipeline").symlink_to(ROOT / "pipeline")
    write_yaml(root / "conf/numbers/toy/number.yaml", NUMBER)
    for stage in ("tokenize", "fetch", "translate/seed-2", "translate/seed-1"):
        write_yaml(root / f"conf/numbers/toy/{stage}.yaml", {"a": 1})
    (root / "README.md").write_text(f"before\n{BEGIN}\n{END}\nafter\n")


class Stages:
    """Stands in for the stages: notes what ran, and writes the metrics that they would."""

    def __init__(self, *scores: float) -> None:
        self.ran: list[str] = []
        self.scores = list(scores)
        self.codes: dict[str, int] = {}

    def __call__(self, path: Path, keep: Callable[[float], None]) -> int:
        stage = Layout.of(path).stage
        self.ran.append(stage)
        keep(100.0)
        if stage in self.codes:
            return self.codes[stage]
        values = {}
        if stage.startswith(("translate", "ensemble")):
            score = {"beam": self.scores.pop(0), "signature": "nrefs:1"}
            values = {"bleu": score, "training": {"flops": 1e12}}
        write_json(Layout.of(path).metrics, values)
        return 0
