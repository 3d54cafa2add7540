"""The doctor finds what would stop a run, says what to do, and says nothing is wrong only when nothing is."""

import errno
import shutil
import socket
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from pipeline.cli import main
from pipeline.commands import doctor
from pipeline.commands.doctor_batches import PROBES, Probe, run_batch
from pipeline.commands.doctor_disk import parameters
from pipeline.config import load
from pipeline.layout import Layout
from pipeline.machine import multiplies_bfloat16
from pipeline.objectives.terms import LossTerms
from pipeline.runtime import RuntimeConfig
from tests.cli.conftest import ROOT

TINY = Layout.of(Path("conf/tiny/report.yaml"))


@pytest.fixture
def runtime() -> RuntimeConfig:
    return load(ROOT / "conf/runtime/cpu.yaml", RuntimeConfig)


@pytest.mark.parametrize("stage", sorted(PROBES))
@pytest.mark.parametrize("name", ["cpu", "cpu_bf16"])
def test_one_batch_goes_through_every_stage(stage: str, name: str) -> None:
    run_batch(PROBES[stage], load(ROOT / f"conf/runtime/{name}.yaml", RuntimeConfig))


@pytest.mark.parametrize(("name", "expected"), [("cpu", torch.float32), ("cpu_bf16", torch.bfloat16)])
def test_the_batch_is_computed_in_the_precision_of_the_runtime(name: str, expected: torch.dtype) -> None:
    found: list[torch.dtype] = []

    def probe() -> Probe:
        layer = nn.Linear(4, 4)

        def objective() -> tuple[LossTerms, ...]:
            scores = layer(torch.randn(3, 4))
            found.append(scores.dtype)
            return (LossTerms(loss_sum=scores.float().square().sum(), num_targets=3),)

        return layer, objective

    run_batch(probe, load(ROOT / f"conf/runtime/{name}.yaml", RuntimeConfig))
    assert found == [expected]


def test_every_stage_that_trains_has_its_batch() -> None:
    trains = {stage for stage, schema in doctor.SCHEMAS.items() if "training" in schema.model_fields}
    assert {stage.partition("/")[0] for stage in PROBES} == trains | {"word_vectors"}


def test_a_loss_that_is_no_number_is_a_problem_with_its_stage_named(
    runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Probe:
        model, objective = PROBES["sft"]()
        with torch.no_grad():
            next(model.parameters()).fill_(float("nan"))
        return model, objective

    monkeypatch.setattr(doctor, "PROBES", {"sft": broken})
    (finding,) = doctor.batches(runtime)
    assert (finding.what, finding.is_fine) == ("one batch, sft", False)
    assert finding.found.startswith("the loss is nan")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor : 0\nflags : fpu avx512f avx512_bf16\n", True),
        ("processor : 0\nflags : fpu amx_bf16\n", True),
        ("processor : 0\nFeatures : fp asimd bf16\n", True),
        ("processor : 0\nflags : fpu avx512f avx512_vnni\nbugs : bf16\n", False),
        ("", False),
    ],
)
def test_whether_a_processor_multiplies_bfloat16_is_in_its_flags(tmp_path: Path, text: str, expected: bool) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert multiplies_bfloat16(tmp_path / "cpuinfo") is expected
    assert not multiplies_bfloat16(tmp_path / "nothing")


def test_a_runtime_in_bfloat16_on_a_processor_without_it_is_a_problem(
    runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounded = runtime.model_copy(update={"precision": "bf16-mixed"})
    for has, expected in ((True, []), (False, ["choose a runtime with 32-true"])):
        monkeypatch.setattr("pipeline.commands.doctor.multiplies_bfloat16", lambda has=has: has)
        assert [one.remedy for one in doctor.devices(rounded) if one.what == "precision"] == expected
        # A GPU is not asked of the processor.
        for fine in (runtime, rounded.model_copy(update={"accelerator": "cuda"})):
            assert not [one for one in doctor.devices(fine) if one.what == "precision"]


def test_a_package_that_is_not_as_locked_is_named(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"numpy=={metadata.version('numpy')} \\\n    --hash=sha256:0\npydantic==0.0.1 \\\nno-such==1 \\\n")
    python, packages = doctor.versions(lock)
    assert python.is_fine
    assert packages.found == (f"no-such not installed, locked 1; pydantic {metadata.version('pydantic')}, locked 0.0.1")
    assert packages.remedy


def test_the_bad_key_of_a_configuration_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "conf/tiny", tmp_path / "conf/tiny")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "conf/tiny/reward.yaml"
    path.write_text(path.read_text().replace("dropout:", "dropuot:"))
    (tmp_path / "conf/tiny/sft.yaml").unlink()
    problems = [finding for finding in doctor.configurations(TINY) if not finding.is_fine]
    assert ["neither sft.yaml nor" in problems[0].found, "did you mean 'dropout'?" in problems[1].found] == [True, True]


def test_parameters_are_counted_without_making_the_models(inside: Path) -> None:
    from pipeline.models.gpt import GPT, GPTConfig
    from pipeline.stages.pretrain_gpt import PretrainGPTConfig

    berts, gpts, bilms, translators = parameters(TINY)
    decoder = load(inside / "conf/tiny/pretrain_gpt.yaml", PretrainGPTConfig).model
    real = GPT(GPTConfig(vocab_size=400, **decoder.model_dump()))
    assert gpts == [sum(parameter.numel() for parameter in real.parameters())]
    assert len(berts) == len(bilms) == 1 and len(translators) == 2


class Usage(NamedTuple):
    free: int


@pytest.mark.parametrize(
    ("berts", "needed"),
    [
        # The largest checkpoint is that of PPO: 3 copies of 4 bytes for 12,100 parameters, then 3 * 3 * 4 * 1,400.
        (1_000, 2_000_000_000 + 145_200 + 50_400),
        # Or that of a BERT that is larger than two GPTs: the same for 19,100 parameters and for 2,000.
        (2_000, 2_000_000_000 + 229_200 + 72_000),
    ],
)
def test_a_disk_without_room_for_the_checkpoints_is_a_problem(
    berts: int, needed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = ([berts], [700], [300], [200, 100])
    monkeypatch.setattr("pipeline.commands.doctor_disk.parameters", lambda _: counted)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free=needed))
    assert doctor.disk(TINY).is_fine
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free=needed - 1))
    assert not doctor.disk(TINY).is_fine


def test_a_folder_that_refuses_a_file_is_a_problem_and_is_named(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [(one.is_fine, one.found) for one in doctor.folders(TINY)] == [(True, "writable")]
    written = tempfile.TemporaryFile

    def refusing(dir: Path) -> Any:
        if dir == Path("models/tiny"):
            raise PermissionError(errno.EACCES, "Permission denied", str(dir))
        return written(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", refusing)
    (finding,) = doctor.folders(TINY)
    assert not finding.is_fine
    assert finding.found == "models/tiny (Permission denied)"


def test_a_server_that_does_not_answer_is_a_problem_and_one_that_listens_is_not() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        refused = doctor.tracking({"MLFLOW_TRACKING_URI": address})
        server.listen()
        answered = doctor.tracking({"MLFLOW_TRACKING_URI": address})
    assert (refused.is_fine, answered.is_fine) == (False, True)
    assert doctor.tracking({}).found == "sqlite database"
    assert doctor.tracking({"MLFLOW_TRACKING_URI": address, "PIPELINE_TRACKING": "local"}).is_fine


def test_an_unknown_runtime_ends_the_examination_with_exit_code_1(
    inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIPELINE_RUNTIME", "gpuu")
    shutil.copy(ROOT / "requirements.lock", inside)
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "PROBLEM  runtime: PIPELINE_RUNTIME=gpuu: no conf/runtime/gpuu.yaml; known are" in text
    assert "1 problem(s)" in text


def test_the_whole_examination_takes_less_than_a_minute_and_finds_nothing_here(
    inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIPELINE_RUNTIME", "cpu")
    monkeypatch.setattr(doctor, "_MEMORY", 0)
    shutil.copy(ROOT / "requirements.lock", inside)
    begin = time.monotonic()
    assert main(["doctor"]) == 0, capsys.readouterr().out
    assert time.monotonic() - begin < 60
    assert "Everything is ready" in capsys.readouterr().out
