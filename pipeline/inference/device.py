"""The device on which a trained model answers people and servers; trainings have conf/runtime for that."""

import re

import torch

CPU = torch.device("cpu")
_NAMES = re.compile(r"cpu|cuda(:\d+)?")


def chosen_device(name: str) -> torch.device:
    """The device of a name: of `auto` CUDA where it is found, else the CPU.

    ValueError for another name than auto, cpu, cuda and cuda:NUMBER, and for a CUDA device that is not there.
    """
    if name == "auto":
        return torch.device("cuda") if torch.cuda.is_available() else CPU
    if not _NAMES.fullmatch(name):
        raise ValueError(f"--device: found {name!r}, allowed are auto, cpu, cuda and cuda:NUMBER")
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(
                f"--device {name}: PyTorch {torch.__version__} finds no CUDA device here; cpu always works"
            )
        if (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"--device {name}: found {torch.cuda.device_count()} CUDA device(s), counted from 0")
    return device
