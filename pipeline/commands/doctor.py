"""What would stop a run, found in under a minute: versions, configuration, devices, memory, disk, one batch a stage.

Each finding says what was looked at, what was found, and what to do about it.
"""

import os
import platform
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import torch

from pipeline.commands.doctor_batches import PROBES, run_batch
from pipeline.commands.doctor_disk import needed_bytes
from pipeline.config import Config, load
from pipeline.data.fetching.sources import FetchConfig
from pipeline.data.preparing.corpus import PrepareConfig
from pipeline.layout import LOCAL, Layout
from pipeline.machine import multiplies_bfloat16
from pipeline.profile import stage_configs
from pipeline.runtime import RuntimeConfig, current_runtime
from pipeline.stages.dpo import DPOConfig
from pipeline.stages.finetune import FinetuneConfig
from pipeline.stages.ppo import PPOConfig
from pipeline.stages.pretrain_bert import PretrainBertConfig
from pipeline.stages.pretrain_bilm import PretrainBiLMConfig
from pipeline.stages.pretrain_gpt import PretrainGPTConfig
from pipeline.stages.reference import ReferenceConfig
from pipeline.stages.report import ReportConfig
from pipeline.stages.reward import RewardConfig
from pipeline.stages.sft import SFTConfig
from pipeline.stages.tokenize import TokenizeConfig
from pipeline.stages.translate import TranslateConfig
from pipeline.stages.word_vectors import WordVectorsConfig
from pipeline.tracking.tracker import DEFAULT_URI

SCHEMAS: Mapping[str, type[Config]] = {
    "fetch": FetchConfig,
    "prepare": PrepareConfig,
    "tokenize": TokenizeConfig,
    "word_vectors": WordVectorsConfig,
    "pretrain_bert": PretrainBertConfig,
    "pretrain_gpt": PretrainGPTConfig,
    "pretrain_bilm": PretrainBiLMConfig,
    "finetune": FinetuneConfig,
    "translate": TranslateConfig,
    "sft": SFTConfig,
    "reward": RewardConfig,
    "reference": ReferenceConfig,
    "dpo": DPOConfig,
    "ppo": PPOConfig,
    "report": ReportConfig,
}
"""What the configuration of each stage must be."""

_MEMORY = 6_000_000_000
"""Bytes of memory that the default profile may take."""
_LOCK, _PACKAGE = Path("requirements.lock"), "nlp-pipeline"
_PORT = 5000


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    found: str
    remedy: str = ""
    """What to do; empty when all is well."""

    @property
    def is_fine(self) -> bool:
        """Whether nothing has to be done."""
        return not self.remedy


def examine(layout: Layout) -> Iterator[Finding]:
    """Every finding about this machine and the profile of `layout`, as it is made."""
    yield from versions(_LOCK)
    yield from configurations(layout)
    yield from folders(layout)
    yield disk(layout)
    yield tracking(os.environ)
    yield port()
    try:
        runtime = current_runtime()
    except ValueError as error:
        yield Finding("runtime", str(error), "name another with PIPELINE_RUNTIME, or change its file in conf/runtime")
        return
    yield from devices(runtime)
    yield from batches(runtime)


def versions(lock: Path) -> Iterator[Finding]:
    """Python, torch and the packages of the lock."""
    wanted = "3.11"
    found = platform.python_version()
    yield Finding("Python", found, "" if found.startswith(f"{wanted}.") else f"make install with a Python {wanted}")
    pinned = dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock.read_text(encoding="utf-8"), re.MULTILINE))
    for one in metadata.requires(_PACKAGE) or []:
        if match := re.fullmatch(r"torch==([\w.]+)", one):
            pinned["torch"] = match[1]
    wrong = []
    for name, version in sorted(pinned.items()):
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed = "not installed"
        # The builds of torch for CPUs and GPUs differ behind a plus sign alone.
        if installed.partition("+")[0] != version:
            wrong.append(f"{name} {installed}, locked {version}")
    shown = "; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
    yield Finding(
        "packages", shown or f"{len(pinned)} as locked", "rm -f .venv/.installed && make install" if wrong else ""
    )


def configurations(layout: Layout) -> Iterator[Finding]:
    """Every configuration file of the profile; the bad keys of one are named."""
    count = 0
    for stage, schema in SCHEMAS.items():
        paths = stage_configs(layout.profile, stage)
        if not paths:
            missing = f"conf/{layout.profile}: neither {stage}.yaml nor a file in {stage}/"
            yield Finding("configuration", missing, "write one, or choose another profile")
        for path in paths:
            try:
                load(path, schema)
                count += 1
            except ValueError as error:
                yield Finding("configuration", str(error), f"change {path}")
    yield Finding("configuration", f"{count} files of profile {layout.profile} are valid")


def folders(layout: Layout) -> Iterator[Finding]:
    """Whether the stages can write where they write."""
    wanted = (layout.data(""), layout.model(""), layout.metrics.parent, layout.reports, LOCAL, Path(".dvc"), Path())
    refused = []
    for folder in (*wanted, Path(tempfile.gettempdir())):
        existing = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
        try:
            with tempfile.TemporaryFile(dir=existing) as file:
                file.write(b"written")
        except OSError as error:
            refused.append(f"{existing} ({error.strerror})")
    yield Finding(
        "folders", "; ".join(refused) or "writable", "make them writable, or work elsewhere" if refused else ""
    )


def disk(layout: Layout) -> Finding:
    """Room for the checkpoints and models of the profile."""
    free = shutil.disk_usage(".").free
    try:
        needed = needed_bytes(layout)
    except ValueError as error:
        return Finding(
            "disk", f"{free / 1e9:.1f} GB free; what is needed cannot be told: {error}", "repair the configuration"
        )
    found = f"{free / 1e9:.1f} GB free, about {needed / 1e9:.1f} GB for data, models, their cache and checkpoints"
    return Finding("disk", found, "make room, or work on another disk" if free < needed else "")


def tracking(environment: Mapping[str, str]) -> Finding:
    """Where runs are tracked, and whether a server answers."""
    uri = environment.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    if environment.get("PIPELINE_TRACKING") == "local":
        return Finding("tracking", "local files alone, as PIPELINE_TRACKING says")
    address = urlsplit(uri)
    if address.scheme not in ("http", "https"):
        return Finding("tracking", uri.partition("://")[0] + " database")
    port = address.port or {"http": 80, "https": 443}[address.scheme]
    try:
        socket.create_connection((address.hostname or "", port), timeout=3).close()
    except OSError as error:
        remedy = "start the server, or unset MLFLOW_TRACKING_URI; runs train without it and are sent when it is back"
        return Finding("tracking", f"{address.hostname}:{port} does not answer: {error.strerror or error}", remedy)
    return Finding("tracking", f"{address.hostname}:{port} answers")


def port() -> Finding:
    """Whether `make ui` finds its port free; no run needs it."""
    with socket.socket() as probe:
        taken = probe.connect_ex(("127.0.0.1", _PORT)) == 0
    return Finding(
        "port", f"{_PORT} is in use: `make ui` runs already, or needs it" if taken else f"{_PORT} is free for `make ui`"
    )


def devices(runtime: RuntimeConfig) -> Iterator[Finding]:
    """What the runtime asks for, and what there is."""
    memory = psutil.virtual_memory()
    if runtime.accelerator == "cuda":
        names = ", ".join(sorted({torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}))
        found = f"{torch.cuda.device_count()} GPU(s): {names}"
    else:
        found = f"{os.cpu_count()} core(s){', with products in bfloat16' if multiplies_bfloat16() else ''}"
    yield Finding("devices", f"{found}; runtime {runtime.kind}, {runtime.world_size} rank(s), {runtime.precision}")
    if runtime.accelerator == "cpu" and runtime.precision == "bf16-mixed" and not multiplies_bfloat16():
        yield Finding("precision", "this processor has no products in bfloat16", "choose a runtime with 32-true")
    if runtime.strategy == "deepspeed" and not _is_installed("deepspeed"):
        yield Finding("DeepSpeed", "not installed; it runs on Linux alone", "choose a runtime without it")
    free = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"
    yield Finding("memory", free, "" if memory.available >= _MEMORY else f"free {_MEMORY / 1e9:.0f} GB before a run")


def batches(runtime: RuntimeConfig) -> Iterator[Finding]:
    """One batch of generated data through each stage that trains."""
    for stage, probe in PROBES.items():
        begin = time.monotonic()
        try:
            run_batch(probe, runtime)
        except (RuntimeError, ValueError) as error:
            yield Finding(
                f"one batch, {stage}",
                str(error).splitlines()[0],
                "install torch anew for this device: rm -rf .venv && make install",
            )
        else:
            yield Finding(f"one batch, {stage}", f"{time.monotonic() - begin:.2f} s")


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
