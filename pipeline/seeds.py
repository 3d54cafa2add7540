"""The random number generators of a process: seeded at its start, kept in checkpoints and put back."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """The state of every random number generator of this process, as tensors and plain values.

    Of the CUDA devices that it sees, that of its own alone: the others belong to other ranks, or to nobody.
    """
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    assert name == "MT19937"
    return {
        "python": random.getstate(),
        "numpy_keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "numpy_rest": (int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Puts every generator back into a state of `random_state`; ValueError where it has none for our CUDA device."""
    random.setstate(state["python"])
    np.random.set_state(("MT19937", state["numpy_keys"].numpy().astype(np.uint32), *state["numpy_rest"]))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        cuda = _cuda_state(state["cuda"])
        if cuda is not None:
            torch.cuda.set_rng_state(cuda)


def _cuda_state(saved: Tensor | list[Tensor] | None) -> Tensor | None:
    """The state for the current CUDA device; None from a process without CUDA.

    Older checkpoints hold a list, with a state for each device that was visible: the only one is that of the process,
    whatever its number is now; of several it is the one of the same number.
    """
    if not isinstance(saved, list):
        return saved
    if len(saved) < 2:
        return saved[0] if saved else None
    device = torch.cuda.current_device()
    if device >= len(saved):
        raise ValueError(
            f"the checkpoint has the random numbers of {len(saved)} CUDA devices, and this process is on device "
            f"{device}, counted from 0: make as many visible as when it was written (CUDA_VISIBLE_DEVICES)"
        )
    return saved[device]
