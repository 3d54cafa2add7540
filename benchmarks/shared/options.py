"""The options that benchmarks share: each takes those that mean something to it, under one name and one explanation."""

import argparse
from pathlib import Path
from typing import Literal

Option = Literal["data", "model", "joeynmt", "glue", "picture", "threads"]
PICTURES = Path("runs/benchmarks")


def parser(name: str, documentation: str | None, *shared: Option) -> argparse.ArgumentParser:
    """The parser of `python -m benchmarks.NAME`, whose help is the documentation of the module."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}".removesuffix(".__main__"),
        description=documentation,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if "data" in shared:
        made.add_argument(
            "--data", type=folder, help="folder with train.en, train.de and test_2016_flickr.en; generated without it"
        )
    if "model" in shared:
        made.add_argument("--model", type=folder, help="folder of a trained Transformer; random weights without it")
    if "joeynmt" in shared:
        made.add_argument("--joeynmt", type=program, help="Python of the environment that has JoeyNMT")
    if "glue" in shared:
        made.add_argument("--glue", type=folder, help="folder with MRPC/train.tsv of GLUE; generated without it")
    if "picture" in shared:
        made.add_argument(
            "--picture", type=Path, default=PICTURES / f"{name}.png", help="the picture to write; default %(default)s"
        )
    if "threads" in shared:
        made.add_argument("--threads", type=positive, default=1, help="threads of each side; default %(default)s")
    return made


def folder(text: str) -> Path:
    """A folder that exists."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"no folder {text!r}")
    return Path(text)


def program(text: str) -> Path:
    """A program that exists, by its absolute path: links of a virtual environment stay what they are."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"no file {text!r}")
    return Path(text).absolute()


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text!r}")
    return int(text)
