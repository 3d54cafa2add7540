"""What a training runs on: the hardware profile, seeds, threads, environment variables and the Lightning strategy.

The only importer of deepspeed. Nothing here changes what is learned: the gradient is the same for every runtime.
"""

import contextlib
import ctypes
import logging
import math
import os
import platform
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import CheckpointIO, DeepSpeedPrecision, Precision
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, Strategy
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from pipeline.checkpoints import Resume
from pipeline.config import Config, load
from pipeline.processes import allowed_threads, check_launcher, started_by
from pipeline.seeds import seed_everything

_log = logging.getLogger(__name__)
_TIMEOUT = timedelta(minutes=10)
"""A collective operation that waits longer for a rank ends the job."""
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _NEVER = -1, -2, -4, -1
"""Of glibc's malloc.h; -1 as a threshold: free(3) never gives memory back by itself (mallopt(3))."""


class RuntimeConfig(Config):
    """Hardware, kept apart from science: conf/runtime/NAME.yaml, chosen by PIPELINE_RUNTIME."""

    accelerator: Literal["cpu", "cuda"]
    """Kind of device."""
    strategy: Literal["single", "ddp", "deepspeed"]
    """How ranks share the work: alone, replicated, or with DeepSpeed ZeRO."""
    num_devices: PositiveInt
    """Ranks on each node."""
    num_nodes: PositiveInt
    """Nodes; the launcher of the cluster starts one process a rank on each."""
    accumulation: PositiveInt
    """Micro-batches into which a rank cuts its part of an optimizer step: more of them need less memory."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    """Precision of the matrix products; parameters and losses stay in float32, and so does the whole of DPO."""
    num_threads: PositiveInt
    """CPU threads of each rank; ranks times threads are kept within the cores."""
    prefetch: NonNegativeInt
    """Micro-batches prepared ahead in a thread; 0 prepares each when it is needed."""
    zero_stage: Literal[0, 1, 2, 3]
    """ZeRO stage of DeepSpeed (Rajbhandari et al. 2020): 1 optimizer states, 2 gradients, 3 parameters too."""
    offload: Literal["none", "optimizer", "all"]
    """What DeepSpeed moves to the memory of the host: nothing, the optimizer, the parameters too."""

    @property
    def world_size(self) -> int:
        """Ranks over all nodes."""
        return self.num_devices * self.num_nodes

    @property
    def kind(self) -> str:
        """How the training state is split: single, ddp, zero1, zero2 or zero3."""
        return f"zero{self.zero_stage}" if self.strategy == "deepspeed" else self.strategy

    def in_groups(self, groups_per_step: int) -> "RuntimeConfig":
        """The same hardware where each group of an optimizer step is cut on its own, into as many micro-batches."""
        return self.model_copy(update={"accumulation": self.accumulation * groups_per_step})


def resume_mode() -> Resume:
    """From what a training goes on, of PIPELINE_RESUME; from its own checkpoints alone without it."""
    value = os.environ.get("PIPELINE_RESUME", "exact")
    modes: tuple[Resume, ...] = ("exact", "weights", "any")
    for mode in modes:
        if value == mode:
            return mode
    raise ValueError(f"PIPELINE_RESUME={value}: allowed are exact (the default), weights and any")


def stop_seconds() -> float:
    """Seconds that a step may stand still once a training is asked to stop, of PIPELINE_STOP_SECONDS; 60 without it."""
    value = os.environ.get("PIPELINE_STOP_SECONDS", "60")
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ValueError(f"PIPELINE_STOP_SECONDS={value}: allowed is a number of seconds above 0")
    return seconds


def current_runtime(*, trains: bool = True) -> RuntimeConfig:
    """The runtime that PIPELINE_RUNTIME names; without it, `gpu` where CUDA is available and `cpu` elsewhere.

    Raises ValueError for a name without a file, and for a file whose settings contradict each other, the machine or the
    launcher that started this process; where nothing `trains`, one process is enough whatever the ranks.
    """
    name = os.environ.get("PIPELINE_RUNTIME") or ("gpu" if torch.cuda.is_available() else "cpu")
    path = Path("conf/runtime", f"{name}.yaml")
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
        raise ValueError(f"PIPELINE_RUNTIME={name}: no {path}; known are {known}")
    runtime = load(path, RuntimeConfig)
    if (runtime.strategy == "deepspeed") != (runtime.zero_stage > 0):
        raise ValueError(f"{path}: zero_stage {runtime.zero_stage} does not go with strategy {runtime.strategy}")
    if runtime.strategy == "single" and runtime.world_size > 1:
        raise ValueError(f"{path}: strategy single has one rank, found {runtime.world_size}")
    if runtime.strategy == "deepspeed" and runtime.precision == "16-mixed":
        # Lightning would turn the whole model into float16 under it.
        raise ValueError(
            f"{path}: precision 16-mixed does not go with strategy deepspeed; allowed are 32-true and bf16-mixed"
        )
    if runtime.accelerator == "cuda":
        _check_devices(runtime, path)
    if trains:
        check_launcher(path, num_devices=runtime.num_devices, num_nodes=runtime.num_nodes)
    return runtime


def _check_devices(runtime: RuntimeConfig, path: Path) -> None:
    found = torch.cuda.device_count()
    if not found:
        build = f"was built for CUDA {torch.version.cuda}" if torch.version.cuda else "is a build for CPUs alone"
        raise ValueError(
            f"{path}: accelerator cuda, and no CUDA device was found by torch {torch.__version__}, which {build}: set "
            "PIPELINE_RUNTIME=cpu, or see to the driver (nvidia-smi) and to a build of torch for CUDA"
        )
    if found < runtime.num_devices:
        raise ValueError(f"{path}: num_devices {runtime.num_devices}, this machine has {found}")


def prepare_process(runtime: RuntimeConfig, seed: int) -> None:
    """Threads, denormals and seeds of this process; call it before a model is built."""
    cores = os.cpu_count() or 1
    # A limit that the user sets holds: threads that wait for a busy core spin, and every step crawls.
    allowed = allowed_threads() or cores
    torch.set_num_threads(max(1, min(runtime.num_threads, allowed, cores // min(cores, runtime.num_devices))))
    # Without it saturated softmaxes fill with denormal floats, which are 5 to 30 times slower on CPU.
    torch.set_flush_denormal(True)
    torch.set_float32_matmul_precision("high")
    seed_everything(seed)


def keep_freed_memory() -> None:
    """Lets the C library keep what is freed for the next step, whose tensors are of the same sizes; glibc alone.

    As it comes, glibc gives every block above 32 MiB back to the kernel, such as the scores of a batch over its
    vocabulary or the gradient of an embedding, and gets it anew a step later, page by page and zeroed. The process then
    stays as large as it ever was.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    for setting, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, 64 << 20)):
        if not mallopt(setting, value):
            _log.warning("glibc refuses setting %d of mallopt: steps may spend time on fresh memory", setting)


def global_rank(runtime: RuntimeConfig) -> int:
    """Rank of this process, known before any process group exists, from the launcher that Lightning will recognise."""
    if runtime.strategy == "single":
        return 0
    launcher = _launcher()
    if launcher:
        return launcher.global_rank()
    alone = LightningEnvironment()
    return alone.node_rank() * runtime.num_devices + alone.local_rank()


def _launcher() -> TorchElasticEnvironment | SLURMEnvironment | None:
    """What started the ranks, if not Lightning."""
    match started_by():
        case "torchrun":
            return TorchElasticEnvironment()
        case "slurm":
            # Requeued by Lightning at a SIGUSR1, a job would go on from a checkpoint that nobody verified.
            return SLURMEnvironment(auto_requeue=False)
        case None:
            return None


def gradient_scale(runtime: RuntimeConfig) -> float:
    """Factor of the loss that turns every division by ranks and micro-batches back into a plain sum.

    Ranks are averaged by DDP and by DeepSpeed; micro-batches are divided once by Lightning, and under DeepSpeed
    once more by its engine.
    """
    divisions = 2 if runtime.strategy == "deepspeed" else 1
    return float(runtime.world_size * runtime.accumulation**divisions)


def build_trainer(runtime: RuntimeConfig, *, clip_norm: float, callbacks: list[Callback], folder: Path) -> Trainer:
    """A Trainer for one flat pass over a loader that ends by itself; validation and checkpoints are callbacks."""
    precision, launcher = _precision(runtime), _launcher()
    return Trainer(
        accelerator=runtime.accelerator,
        devices=runtime.num_devices,
        num_nodes=runtime.num_nodes,
        strategy=_strategy(runtime),
        precision=None if precision else runtime.precision,
        max_epochs=1,
        accumulate_grad_batches=runtime.accumulation,
        gradient_clip_val=clip_norm or None,
        gradient_clip_algorithm="norm",
        callbacks=callbacks,
        plugins=[PlainCheckpoints(), *precision, *([launcher] if launcher else [])],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )


class PlainCheckpoints(CheckpointIO):
    """Writes a checkpoint where it belongs: Lightning's own way takes its size in memory and once more in /tmp."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """One file; the folder around it makes it atomic."""
        with Path(path).open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Tensors and plain values only."""
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes the file."""
        Path(path).unlink()


def saved_weights(path: Path) -> dict[str, Tensor]:
    """The parameters of a trained module's `model`, from what `trainer.save_checkpoint` wrote under any strategy."""
    if path.is_dir():
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        with contextlib.redirect_stdout(sys.stderr):
            state = get_fp32_state_dict_from_zero_checkpoint(str(path))
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    return {name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")}


def clip_gradients(trainer: Trainer, module: nn.Module, *, clip_norm: float) -> float:
    """Scales the gradients to a global norm of at most `clip_norm` (0: any), and returns the norm that they had.

    Under DeepSpeed, which clips and measures inside its own step, nothing is done and the norm is not a number.
    """
    if isinstance(trainer.strategy, DeepSpeedStrategy):
        return math.nan
    return float(nn.utils.clip_grad_norm_(module.parameters(), clip_norm or math.inf))


def gradient_norm(trainer: Trainer, *, clipped: float) -> float:
    """Global norm of the gradients of the optimizer step just done, before clipping; infinite where it overflowed.

    `clipped` is what `clip_gradients` returned.
    """
    if isinstance(trainer.strategy, DeepSpeedStrategy):
        return float(trainer.strategy.deepspeed_engine.get_global_grad_norm())
    return clipped


def full_state(runtime: RuntimeConfig, model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers of a trained module on the CPU, gathered from the ranks where ZeRO split them.

    A collective operation: every rank calls it, before Lightning takes the strategy down. Tied parameters appear under
    each of their names.
    """
    state = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    if runtime.strategy == "deepspeed":
        import deepspeed

        for name, parameter in model.named_parameters(remove_duplicate=False):
            if parameter.requires_grad:
                # In lower precision the module holds rounded copies; what was trained is the optimizer's float32.
                state[name] = deepspeed.utils.safe_get_full_fp32_param(parameter).detach().cpu().clone()
            elif runtime.zero_stage == 3:
                with deepspeed.zero.GatheredParameters([parameter]):
                    state[name] = parameter.detach().cpu().clone()
    return state


class AutocastUnderDeepSpeed(DeepSpeedPrecision):
    """Lower precision in the matrix products alone, as without DeepSpeed; Lightning would round the parameters too."""

    def __init__(self, accelerator: str) -> None:
        super().__init__("32-true")
        self._accelerator = accelerator

    def forward_context(self) -> torch.autocast:
        """In training DeepSpeed's own setting takes over, which is the same; here it reaches validation."""
        return torch.autocast(self._accelerator, dtype=torch.bfloat16)


def _precision(runtime: RuntimeConfig) -> list[Precision]:
    """A precision of our own; nothing where Lightning's does what its name says."""
    if runtime.strategy == "deepspeed" and runtime.precision == "bf16-mixed":
        return [AutocastUnderDeepSpeed(runtime.accelerator)]
    return []


def _strategy(runtime: RuntimeConfig) -> Strategy | str:
    match runtime.strategy:
        case "single":
            return "auto"
        case "ddp":
            backend = "gloo" if runtime.accelerator == "cpu" else "nccl"
            return DDPStrategy(process_group_backend=backend, timeout=_TIMEOUT, gradient_as_bucket_view=True)
        case "deepspeed":
            return _deepspeed_strategy(runtime)


def _deepspeed_strategy(runtime: RuntimeConfig) -> Strategy:
    on_cpu = runtime.accelerator == "cpu"
    if on_cpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
        # DeepSpeed asks for a compiled function that is never called; without this its compiler is loaded for seconds.
        os.environ["TORCHDYNAMO_DISABLE"] = "1"
    kind = CpuDeepSpeedStrategy if on_cpu else DeepSpeedStrategy
    strategy = kind(
        stage=runtime.zero_stage,
        offload_optimizer=runtime.offload != "none",
        offload_parameters=runtime.offload == "all",
        overlap_comm=not on_cpu,
        # A bucket is allocated at once; a model on CPU is small.
        allgather_bucket_size=5_000_000 if on_cpu else 200_000_000,
        reduce_bucket_size=5_000_000 if on_cpu else 200_000_000,
        timeout=_TIMEOUT,
    )
    assert isinstance(strategy.config, dict)
    # Our AdamW steps on the host as well; DeepSpeed's own would be compiled at the first start.
    strategy.config["zero_force_ds_cpu_optimizer"] = False
    if _precision(runtime):
        # Without a list, gradients of linear layers would be summed over the ranks in lower precision.
        autocast = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
        strategy.config["torch_autocast"] = autocast
    return strategy


class CpuDeepSpeedStrategy(DeepSpeedStrategy):
    """DeepSpeed on CPU ranks over gloo: Lightning's own strategy refuses every device but CUDA."""

    def setup_environment(self) -> None:
        """Starts the process group without the check for CUDA."""
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        """Sets the ranks and starts DeepSpeed's process group without looking for device numbers."""
        import deepspeed

        # DeepSpeed would compile a shared-memory operator for a minute at the first start; gloo serves as well.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    def _get_process_group_backend(self) -> str:
        return "gloo"

    @property
    def root_device(self) -> torch.device:
        """The CPU, with the index that DeepSpeed reads."""
        return torch.device("cpu", 0)
