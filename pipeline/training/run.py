"""The frame of a stage: its folders, lock, signals, tracking, costs, and the files that say how it went."""

import csv
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from pipeline.artifacts import CONFIG, publish, write_json, write_text
from pipeline.checkpoints import CheckpointFolder
from pipeline.config import Config, TrainingConfig
from pipeline.layout import Layout
from pipeline.locks import locked
from pipeline.provenance import run_key
from pipeline.runtime import RuntimeConfig, current_runtime, global_rank, prepare_process, stop_seconds
from pipeline.text.tokenizer import TOKENIZER, load_tokenizer
from pipeline.tracking.tracker import Tracker
from pipeline.training.frame import check_inputs, end_all_but_first, flat, tracked
from pipeline.training.history import OTHER_KEY
from pipeline.training.interrupt import Interrupt

_log = logging.getLogger(__name__)

# Lightning reports devices, tips and defaults that we set ourselves, once for each trainer and rank.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated")
# Our hook for clipping leaves DeepSpeed alone; a training resumed after its last step has no batches by intention.
warnings.filterwarnings("ignore", message="Since DeepSpeed handles gradient clipping internally")
warnings.filterwarnings("ignore", message="Total length of `(Training|Combined)Loader` across ranks is zero")
warnings.filterwarnings("ignore", message="When saving the DeepSpeed Stage 3 checkpoint")


@dataclass(frozen=True)
class StageRun:
    """What a running stage has at hand."""

    layout: Layout
    key: str
    """Hash of configuration, code and inputs: checkpoints of another key are resumed only where a user asks for it."""
    runtime: RuntimeConfig
    interrupt: Interrupt
    tracker: Tracker

    @property
    def device(self) -> torch.device:
        """Where rank 0 evaluates."""
        return torch.device("cuda" if self.runtime.accelerator == "cuda" else "cpu")

    def finish(
        self,
        metrics: Mapping[str, Any],
        *,
        history: Sequence[Mapping[str, float]] = (),
        samples: Sequence[Mapping[str, Any]] = (),
        predictions: Mapping[str, str] | None = None,
    ) -> None:
        """Writes metrics, learning curve, samples and files of predictions by their names: the last act of a stage.

        The metrics name the optimizer steps at which a training went on from a checkpoint of another key.
        The stage's output is complete by now; if it is a model, it goes into the registry.
        """
        if history:
            write_text(self.layout.curve, curve_csv(history))
        if samples:
            write_json(self.layout.samples, list(samples))
            self.tracker.text("samples.json", json.dumps(list(samples), indent=2, ensure_ascii=False) + "\n")
        if predictions:
            with publish(self.layout.predictions) as folder:
                for name, text in predictions.items():
                    write_text(folder / name, text)
                    self.tracker.text(f"predictions/{name}", text)
        taken_over = [int(row["update"]) for row in history if OTHER_KEY in row]
        write_json(self.layout.metrics, {**metrics, **({OTHER_KEY: taken_over} if taken_over else {})})
        self.tracker.metrics(flat(metrics), len(history))
        if (self.layout.output / TOKENIZER).is_file():
            self.tracker.params({"tokenizer": {"hash": load_tokenizer(self.layout.output).hash}})
        if (self.layout.output / CONFIG).is_file():
            self.tracker.register(self.layout.output, self.layout.model_name)


@contextmanager
def stage_run(module: str, path: Path, config: Config, *, seed: int, inputs: Sequence[Path]) -> Iterator[StageRun]:
    """Runs the body of the stage in `module` (its import name) on the configuration read from `path`.

    `inputs` are the files and folders that the stage reads; a missing one is a ValueError that names it. Once the body
    has ended well and everything about it is written, the checkpoints are dropped. A stage whose configuration has no
    training is run by the first process alone, whatever the ranks of the runtime.
    """
    layout, trains = Layout.of(path), _trains(config)
    if not trains:
        end_all_but_first(layout)
    check_inputs(inputs)
    runtime = current_runtime(trains=trains)
    prepare_process(runtime, seed)
    key = run_key(module, path, inputs)
    interrupt = Interrupt(stop_seconds=stop_seconds())
    interrupt.install()
    interrupt.watch_parent()
    is_main = not trains or global_rank(runtime) == 0
    checkpoints = CheckpointFolder(layout.local, key)
    with locked(layout.local) if is_main else nullcontext():
        if is_main:
            checkpoints.tidy()
        with tracked(layout, config, inputs=inputs, key=key, is_main=is_main) as tracker:
            yield StageRun(layout, key, runtime, interrupt, tracker)
        if is_main:
            checkpoints.clear()


def _trains(config: BaseModel) -> bool:
    """Whether there are settings of a training in a configuration, or in one that it holds."""
    parts = [value for _, value in config if isinstance(value, BaseModel)]
    return any(isinstance(part, TrainingConfig) or _trains(part) for part in parts)


def curve_csv(history: Sequence[Mapping[str, float]]) -> str:
    """One row for each optimizer step; a cell is empty where a value was not measured. Floats keep every digit."""
    columns = ["update", *sorted({key for row in history for key in row} - {"update"})]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: repr(value) if key != "update" else int(value) for key, value in row.items()} for row in history
    )
    return text.getvalue()
