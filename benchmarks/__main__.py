"""All benchmarks in turn, each a process of its own: both sides of a comparison in one run, ratios printed.

python -m benchmarks [--data FOLDER] [--model FOLDER] [--joeynmt PYTHON] [--glue FOLDER] [--threads N]

FOLDER has Multi30k as lower-cased Moses tokens: train.en, train.de, test_2016_flickr.LANGUAGE. What is left out is
named, and what would measure it. One that fails does not stop the others; the program then ends with an error.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence

from benchmarks.shared.options import Option, parser

OPTIONS: Mapping[str, tuple[Option, ...]] = {
    "dropout": ("threads",),
    "additive_scores": ("threads",),
    "vocabulary_loss": ("threads",),
    "products": ("threads",),
    "translate_profile": ("data", "threads"),
    "translate_training": ("data", "joeynmt", "threads"),
    "translate_decoding": ("data", "model", "threads"),
    "translate_cost": ("data", "threads"),
    "gradient_by_distance": ("data", "threads"),
    "translation_memory": (),
    "bert_pretraining": ("threads",),
    "finetune_training": ("threads", "glue"),
    "classify_texts": ("threads", "glue"),
    "bert_cost": ("threads", "glue"),
}
"""The benchmarks in their order, and which of the options here each takes."""


def commands(arguments: Sequence[str] | None = None) -> dict[str, list[str]]:
    """What is run for each benchmark, with what there is of the options that it takes."""
    options = vars(parser("__main__", __doc__, "data", "model", "joeynmt", "glue", "threads").parse_args(arguments))
    return {
        name: [
            sys.executable,
            "-m",
            f"benchmarks.{name}",
            *(word for key in taken if options[key] is not None for word in (f"--{key}", str(options[key]))),
        ]
        for name, taken in OPTIONS.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    made = commands(arguments)
    if "--data" not in made["translate_training"]:
        print("not measured: real sentences, no DATA=FOLDER (--data): they are generated", flush=True)
    failed = []
    for name, command in made.items():
        print(f"\n{name}", flush=True)
        if subprocess.run(command).returncode:
            failed.append(name)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
