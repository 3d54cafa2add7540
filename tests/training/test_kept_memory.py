"""Freed memory is kept in a training, and in nothing before it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.config import load
from pipeline.layout import Layout
from pipeline.runtime import RuntimeConfig
from pipeline.tracking.tracker import Tracker
from pipeline.training import fit as training
from pipeline.training.interrupt import Interrupt
from pipeline.training.run import StageRun
from tests.training.conftest import TOY
from tests.training.harness import ROOT
from tests.training.toy_stage import Toy, ToyConfig


class Reached(Exception):
    """The training would begin."""


@pytest.mark.parametrize(("accelerator", "expected"), [("cpu", ["kept", "fit"]), ("cuda", ["fit"])])
def test_freed_memory_is_kept_from_the_training_on_where_the_tensors_are_the_c_librarys(
    accelerator: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[str] = []

    def fit(*_: Any, **__: Any) -> None:
        did.append("fit")
        raise Reached

    monkeypatch.setattr(training, "build_trainer", lambda *_, **__: SimpleNamespace(fit=fit))
    monkeypatch.setattr(training, "keep_freed_memory", lambda: did.append("kept"))
    runtime = load(ROOT / "conf/runtime/cpu.yaml", RuntimeConfig).model_copy(update={"accelerator": accelerator})
    run = StageRun(Layout.of(Path("conf/tiny/toy.yaml")), "key", runtime, Interrupt(), Tracker())
    with pytest.raises(Reached):
        training.train_module(run, Toy(ToyConfig.model_validate(TOY)), [], None, [])
    assert did == expected
