"""JoeyNMT's training (version 2.3), run by the Python of its own environment."""

import os
import re
import subprocess
import tempfile
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml

from benchmarks.shared.task import CLIP, DROPOUT, LR, SHAPE, SMOOTHING, WARM_UP, Task
from pipeline.data.examples.translation import TranslationExamples

LAUNCHER = "import runpy, torch; torch.set_flush_denormal(True); runpy.run_module('joeynmt', run_name='__main__')"
"""What `python -m joeynmt` does, in a process that flushes denormal numbers as those of the others do."""


def num_batches(lengths: Sequence[int], batch_size: int) -> int:
    """Batches that the rule of JoeyNMT's `TokenBatchSampler` makes of sentences in their order.

    A batch ends with the sentence that brings its count times its longest side, EOS included, to `batch_size` or above.
    """
    found = longest = count = 0
    for length in lengths:
        longest, count = max(longest, length), count + 1
        if longest * count >= batch_size:
            found, longest, count = found + 1, 0, 0
    return found + (count > 0)


def mean_targets(examples: TranslationExamples, batch_size: int) -> float:
    """Target tokens, padding not counted, of a step of JoeyNMT on average: sentences come in random order."""
    sizes = examples.sizes(0)
    lengths = np.random.default_rng(1).permutation(sizes.lengths).tolist()
    return float(sizes.num_targets["loss"].sum()) / num_batches(lengths, batch_size)


def batch_size_for(examples: TranslationExamples, targets: float) -> int:
    """The least `batch_size` with which a step of JoeyNMT has that many target tokens on average."""
    lengths = examples.sizes(0).lengths
    everything = len(lengths) * int(lengths.max())
    return bisect_left(range(everything), targets, key=lambda size: mean_targets(examples, size))


def joeynmt(task: Task, num_steps: int, python: Path, threads: int) -> float:
    """Target tokens a second of JoeyNMT on the same subwords as words: the median of every ten steps in its log."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for suffix, side in (("src", task.examples.src), ("trg", task.examples.tgt)):
            lines = [" ".join(f"t{i}" for i in ids[:-1]) for ids in side.take(np.arange(len(side)))]
            (folder / f"train.{suffix}").write_text("\n".join(lines) + "\n")
            (folder / f"dev.{suffix}").write_text("\n".join(lines[:8]) + "\n")
        vocabulary = [f"t{i}" for i in range(task.tokenizer.vocab_size - 4)]
        (folder / "vocab.txt").write_text("\n".join(["<unk>", "<pad>", "<s>", "</s>", *vocabulary]) + "\n")
        text: dict[str, Any] = {
            "level": "word",
            "max_length": 128,
            "voc_file": str(folder / "vocab.txt"),
            "lowercase": False,
        }
        layers = {
            "type": "transformer",
            "num_layers": SHAPE["num_layers"],
            "num_heads": SHAPE["num_heads"],
            "embeddings": {"embedding_dim": SHAPE["d_model"], "scale": True, "dropout": DROPOUT},
            "hidden_size": SHAPE["d_model"],
            "ff_size": SHAPE["d_ff"],
            "dropout": DROPOUT,
            "layer_norm": "post",
        }
        every = 10
        config = {
            "name": "speed",
            "joeynmt_version": "2.3.0",
            "model_dir": str(folder / "model"),
            "use_cuda": False,
            "random_seed": 1,
            "data": {
                "train": str(folder / "train"),
                "dev": str(folder / "dev"),
                "dataset_type": "plain",
                "src": {"lang": "src", **text},
                "trg": {"lang": "trg", **text},
            },
            "testing": {"beam_size": 1, "eval_metrics": ["bleu"], "batch_size": 8, "max_output_length": 4},
            "training": {
                "batch_size": batch_size_for(task.examples, task.targets_per_step),
                "batch_type": "token",
                "normalization": "tokens",
                "optimizer": "adam",
                "scheduling": "exponential",  # one is needed: of factor 1, constant
                "decrease_factor": 1.0,
                "adam_betas": [0.9, 0.98],
                "learning_rate": LR,
                "label_smoothing": SMOOTHING,
                "clip_grad_norm": CLIP,
                "updates": WARM_UP + max(num_steps, every) + 1,
                "epochs": 1000,
                "logging_freq": every,
                "validation_freq": 1000 * every,
                "shuffle": True,
            },
            "model": {
                "initializer": "xavier_uniform",
                "embed_initializer": "xavier_uniform",
                "tied_embeddings": True,
                "tied_softmax": True,
                "encoder": layers,
                "decoder": layers,
            },
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        done = subprocess.run(
            [str(python), "-c", LAUNCHER, "train", str(folder / "config.yaml"), "--skip-test"],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            cwd=folder,
            capture_output=True,
            text=True,
        )
        logged = [float(found) for found in re.findall(r"Tokens per Sec:\s*([\d.]+)", done.stdout + done.stderr)]
        if len(logged) < 2:
            raise SystemExit(f"JoeyNMT: {(done.stdout + done.stderr)[-2000:]}")
        return median(logged[WARM_UP // every :])
