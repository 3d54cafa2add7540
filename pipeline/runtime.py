"""What a training runs on: the hardware profile, seeds, threads, environment variables and the Lightning strategy.

The only home of environment variables and seeds, and the only importer of deepspeed. Nothing here changes what is
learned: the gradient is the same for every runtime.
"""

import os
import random
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, Strategy
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from pipeline.config import Config, load

_TIMEOUT = timedelta(minutes=10)
"""A collective operation that waits longer for a rank ends the job."""


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
    """Precision of the matrix products; parameters and losses stay in float32."""
    num_threads: PositiveInt
    """CPU threads of each rank."""
    prefetch: NonNegativeInt
    """Micro-batches prepared ahead in a thread; 0 prepares each when it is needed."""
    zero_stage: Literal[0, 1, 2, 3] = Field()
    """ZeRO stage of DeepSpeed (Rajbhandari et al. 2020): 1 optimizer states, 2 gradients, 3 parameters too."""
    offload: Literal["none", "optimizer", "all"]
    """What DeepSpeed moves to the memory of the host: nothing, the optimizer, the parameters too."""

    @property
    def world_size(self) -> int:
        """Ranks over all nodes."""
        return self.num_devices * self.num_nodes


def current_runtime() -> RuntimeConfig:
    """The runtime that PIPELINE_RUNTIME names; without it, `gpu` where CUDA is available and `cpu` elsewhere.

    Raises ValueError for a name without a file, and for more threads than the machine has cores.
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
    if runtime.accelerator == "cuda" and torch.cuda.device_count() < runtime.num_devices:
        raise ValueError(f"{path}: num_devices {runtime.num_devices}, this machine has {torch.cuda.device_count()}")
    return runtime


def prepare_process(runtime: RuntimeConfig, seed: int) -> None:
    """Threads, denormals and seeds of this process; call it before a model is built."""
    cores = os.cpu_count() or 1
    torch.set_num_threads(max(1, min(runtime.num_threads, cores // min(cores, runtime.num_devices))))
    # Without it saturated softmaxes fill with denormal floats, which are 5 to 30 times slower on CPU.
    torch.set_flush_denormal(True)
    torch.set_float32_matmul_precision("high")
    seed_everything(seed)


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def global_rank() -> int:
    """Rank of this process, known before any process group exists."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


def gradient_scale(runtime: RuntimeConfig) -> float:
    """Factor of the loss that turns every division by ranks and micro-batches back into a plain sum.

    Ranks are averaged by DDP and by DeepSpeed; micro-batches are divided once by Lightning, and under DeepSpeed
    once more by its engine.
    """
    divisions = 2 if runtime.strategy == "deepspeed" else 1
    return float(runtime.world_size * runtime.accumulation**divisions)


def build_trainer(runtime: RuntimeConfig, *, clip_norm: float, callbacks: list[Callback], folder: Path) -> Trainer:
    """A Trainer for one flat pass over a loader that ends by itself; validation and checkpoints are callbacks."""
    return Trainer(
        accelerator=runtime.accelerator,
        devices=runtime.num_devices,
        num_nodes=runtime.num_nodes,
        strategy=_strategy(runtime),
        precision=runtime.precision,
        max_epochs=1,
        accumulate_grad_batches=runtime.accumulation,
        gradient_clip_val=clip_norm or None,
        gradient_clip_algorithm="norm",
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )


def full_state(runtime: RuntimeConfig, model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers of a trained module on the CPU, gathered from the ranks where ZeRO-3 split them.

    A collective operation: every rank calls it. Tied parameters appear under each of their names.
    """
    if runtime.zero_stage < 3:
        return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    import deepspeed

    state = {name: buffer.detach().cpu().clone() for name, buffer in model.named_buffers()}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        with deepspeed.zero.GatheredParameters([parameter]):
            state[name] = parameter.detach().cpu().clone()
    return state


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
    kind = CpuDeepSpeedStrategy if on_cpu else DeepSpeedStrategy
    strategy: Strategy = kind(
        stage=runtime.zero_stage,
        offload_optimizer=runtime.offload != "none",
        offload_parameters=runtime.offload == "all",
        overlap_comm=not on_cpu,
        # A bucket is allocated at once; a model on CPU is small.
        allgather_bucket_size=5_000_000 if on_cpu else 200_000_000,
        reduce_bucket_size=5_000_000 if on_cpu else 200_000_000,
        timeout=_TIMEOUT,
    )
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


def random_state() -> dict[str, Any]:
    """The state of every random number generator of this process, as tensors and plain values."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    assert name == "MT19937"
    return {
        "python": random.getstate(),
        "numpy_keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "numpy_rest": (int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Puts every generator back into a state of `random_state`."""
    random.setstate(state["python"])
    np.random.set_state(("MT19937", state["numpy_keys"].numpy().astype(np.uint32), *state["numpy_rest"]))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
