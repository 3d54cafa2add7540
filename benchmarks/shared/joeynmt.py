"""JoeyNMT's training, run by the Python of its own environment."""

import os
import re
import subprocess
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml

from benchmarks.shared.task import CLIP, DROPOUT, LR, SHAPE, SMOOTHING, TOKENS_PER_STEP, WARM_UP, Task


def joeynmt(task: Task, python: Path, threads: int) -> float:
    """JoeyNMT on the same subwords as words, with batches by tokens; its own log gives tokens a second."""
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
            "embeddings": {"embedding_dim": SHAPE["d_model"], "scale": True, "dropout": 0.0},
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
                "batch_size": TOKENS_PER_STEP,
                "batch_type": "token",
                "normalization": "tokens",
                "optimizer": "adam",
                "scheduling": "decaying",  # one is needed: constant for so many epochs
                "decaying_step_size": 1000,
                "adam_betas": [0.9, 0.98],
                "learning_rate": LR,
                "label_smoothing": SMOOTHING,
                "clip_grad_norm": CLIP,
                "updates": task.num_steps + 1,
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
            [str(python), "-m", "joeynmt", "train", str(folder / "config.yaml"), "--skip-test"],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            cwd=folder,
            capture_output=True,
            text=True,
        )
        logged = [float(found) for found in re.findall(r"Tokens per Sec:\s*([\d.]+)", done.stdout + done.stderr)]
        if len(logged) < 2:
            raise SystemExit(f"JoeyNMT: {(done.stdout + done.stderr)[-2000:]}")
        return median(logged[WARM_UP // every :])
