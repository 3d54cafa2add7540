"""Training a small Transformer: our stage beside MarianMTModel under transformers' Trainer, and beside JoeyNMT.

python benchmarks/translate_training.py [FOLDER] [--joeynmt PYTHON] [--threads N] [--steps N] [--rounds N]

All train the same shape on the same subword ids, with dropout, label smoothing, clipping and Adam, in float32 and with
about as many target tokens a step; all are measured in target tokens (padding not counted) a second between two
optimizer steps, each in its own way of grouping sentences by length. FOLDER holds train.en and train.de, as Multi30k
has them; without it, sentences are generated. JoeyNMT needs an environment of its own:

    python3.11 -m venv joey && joey/bin/pip install torch==2.13.0 && joey/bin/pip install --no-deps joeynmt
    joey/bin/pip install numpy pyyaml sacrebleu sentencepiece subword-nmt sacremoses packaging datasets tensorboard \
        matplotlib seaborn pandas importlib_metadata
    python benchmarks/translate_training.py FOLDER --joeynmt joey/bin/python

The share of the machine's peak compares the operations of our matrix products, padding included, with a product of two
2048 x 2048 matrices.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
import yaml
from lightning.pytorch.utilities.types import STEP_OUTPUT

from pipeline.config import ByTokens, TrainingConfig
from pipeline.data.batches import TranslationBatch
from pipeline.data.loaders import MicroBatch
from pipeline.data.plan import padding_share, plan_epoch
from pipeline.data.records import Pair
from pipeline.data.translation import TranslationExamples, translation_examples
from pipeline.models.flops import model_flops
from pipeline.models.seq2seq import Seq2Seq, TransformerConfig
from pipeline.stages.run import stage_run
from pipeline.stages.training import fit
from pipeline.stages.translate import TranslateConfig, TranslationTraining
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.training import train_translation_bpe

TOKENS_PER_STEP = 2800
"""Padded tokens of the longer side: about 2,600 target tokens, the step of the prototype in most papers' range."""
WARM_UP = 10
"""Optimizer steps before the clock starts."""
LR, DROPOUT, SMOOTHING, CLIP = 1e-3, 0.3, 0.1, 1.0
SHAPE = {"d_model": 128, "num_layers": 4, "num_heads": 4, "d_ff": 256}


@dataclass(frozen=True)
class Task:
    """What all of them train on."""

    examples: TranslationExamples
    tokenizer: Tokenizer
    num_steps: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--joeynmt", type=Path, help="Python of the environment that has JoeyNMT")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each, taken in turn")
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": str(options.threads), "PIPELINE_TRACKING": "local", "PIPELINE_RUNTIME": "cpu"}
    torch.set_num_threads(options.threads)
    task = prepare(read_pairs(options.folder), options.steps + WARM_UP)
    systems = {"ours": ours, "transformers": transformers_trainer}
    found: dict[str, list[float]] = {name: [] for name in systems}
    if options.joeynmt:
        found["JoeyNMT"] = []
    for _ in range(options.rounds):
        for name, train in systems.items():
            found[name].append(train(task))
        if options.joeynmt:
            found["JoeyNMT"].append(joeynmt(task, options.joeynmt.absolute(), options.threads))
    report(task, found, options.threads)


def report(task: Task, found: dict[str, list[float]], threads: int) -> None:
    """Prints speeds, ratios and the share of the peak."""
    best = median(found["ours"])
    print(f"{threads} thread(s), target tokens a second, median of {len(found['ours'])} (lowest to highest)")
    for name, speeds in found.items():
        ratio = best / median(speeds)
        print(f"{name:>13} {median(speeds):8.0f} ({min(speeds):.0f} to {max(speeds):.0f}), ours x {ratio:.2f}")
    batching = ByTokens(kind="tokens", tokens_per_step=TOKENS_PER_STEP)
    sizes = task.examples.sizes(0)
    steps = plan_epoch(sizes, batching, seed=1, epoch=0)
    shape = model_config(task.tokenizer.vocab_size)
    src, tgt = (
        [np.array([len(side[i]) for i in step.indices]) for step in steps]
        for side in (task.examples.src, task.examples.tgt)
    )
    padded = sum(
        model_flops(shape, np.full(len(one), one.max()), np.full(len(other), other.max()))
        for one, other in zip(src, tgt, strict=True)
    )
    per_target = padded / sum(int(one.sum()) for one in tgt)
    peak = matrix_peak()
    print(f"padding of ours: {100 * padding_share(steps, sizes):.1f}% of the tokens")
    share = best * per_target / peak
    print(f"operations a target token: {per_target / 1e6:.1f} M; peak {peak / 1e9:.0f} GFLOP/s; share {share:.2f}")


def matrix_peak() -> float:
    """Operations a second of a large float32 product, the best of ten."""
    one, other = torch.randn(2048, 2048), torch.randn(2048, 2048)
    times = []
    for _ in range(10):
        started = perf_counter()
        one @ other
        times.append(perf_counter() - started)
    return 2 * 2048**3 / min(times)


def read_pairs(folder: Path | None) -> list[tuple[str, str]]:
    """Sentence pairs of a folder, or generated ones of similar lengths."""
    if folder:
        sides = [(folder / f"train.{language}").read_text(encoding="utf-8").splitlines() for language in ("en", "de")]
        return list(zip(*sides, strict=True))
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("abcdefghijklmnoprstuvw"), size=random.integers(2, 9))) for _ in range(8000)]
    weights = 1.0 / np.arange(1, len(words) + 1)
    lines = [
        " ".join(random.choice(words, size=max(4, int(random.normal(12, 4))), p=weights / weights.sum()))
        for _ in range(8000)
    ]
    return [(line, " ".join(reversed(line.split()))) for line in lines]


def prepare(pairs: Sequence[tuple[str, str]], num_steps: int) -> Task:
    """The pairs as subword ids of one vocabulary."""
    tokenizer = train_translation_bpe([text for pair in pairs for text in pair], vocab_size=8000)
    rows = [Pair(id=str(i), src=src, tgt=tgt, source="", group="") for i, (src, tgt) in enumerate(pairs)]
    examples, _ = translation_examples(rows, tokenizer, max_length=100, too_long="drop")
    return Task(examples, tokenizer, num_steps)


def model_config(vocab_size: int) -> TransformerConfig:
    """The shape of all three."""
    return TransformerConfig(
        kind="transformer",
        vocab_size=vocab_size,
        d_model=SHAPE["d_model"],
        num_encoder_layers=SHAPE["num_layers"],
        num_decoder_layers=SHAPE["num_layers"],
        num_heads=SHAPE["num_heads"],
        d_ff=SHAPE["d_ff"],
        max_length=128,
        dropout=DROPOUT,
    )


class Timed(TranslationTraining):
    """Our training with the time and the target tokens so far at the end of each optimizer step."""

    def __init__(self, model: Seq2Seq, training: TrainingConfig) -> None:
        super().__init__(model, training, label_smoothing=SMOOTHING)
        self.times: list[tuple[float, int]] = []

    def on_train_batch_end(self, outputs: STEP_OUTPUT, batch: MicroBatch[TranslationBatch], batch_idx: int) -> None:
        """Notes the time."""
        self.times.append((perf_counter(), self.num_targets))


def speed(times: Sequence[tuple[float, int]]) -> float:
    """Target tokens a second after the warm-up."""
    (begin, first), (end, last) = times[WARM_UP - 1], times[-1]
    return (last - first) / (end - begin)


def ours(task: Task) -> float:
    """The stage translate: its module, its loader, its Trainer with checkpoints and tracking."""
    home = Path.cwd()
    training: dict[str, Any] = {
        "seed": 1,
        "batching": {"kind": "tokens", "tokens_per_step": TOKENS_PER_STEP},
        "duration": {"kind": "steps", "num_steps": task.num_steps},
        "optimizer": {"lr": LR, "betas": [0.9, 0.98], "clip_norm": CLIP},
        "schedule": {"kind": "constant", "num_warmup_steps": 0},
        "validate_every": 10 * task.num_steps,
        "checkpoint_every": 10 * task.num_steps,
    }
    search = {"beam_size": 1, "normalisation": "length", "length_penalty": 1.0, "max_extra_tokens": 10}
    config = TranslateConfig.model_validate(
        {
            "training": training,
            "model": model_config(task.tokenizer.vocab_size).model_dump(),
            "label_smoothing": SMOOTHING,
            "search": search,
            "num_samples": 1,
            "num_attention_maps": 0,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pipeline").symlink_to(home / "pipeline")
        (Path(folder) / "conf").mkdir()
        (Path(folder) / "conf/runtime").symlink_to(home / "conf/runtime")
        os.chdir(folder)
        try:
            path = Path("conf/bench/translate.yaml")
            path.parent.mkdir()
            path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
            module = Timed(Seq2Seq(model_config(task.tokenizer.vocab_size)), config.training)
            with stage_run("pipeline.stages.translate", path, config, seed=1, inputs=[]) as run:
                few = TranslationExamples(
                    task.examples.src[:64], task.examples.tgt[:64], task.examples.pad_id, task.examples.bos_id
                )
                fit(run, module, train=task.examples, valid=few)
        finally:
            os.chdir(home)
    return speed(module.times)


def transformers_trainer(task: Task) -> float:
    """MarianMTModel under Trainer, batches grouped by length, as many target tokens a step as ours on average."""
    from transformers import (
        DataCollatorForSeq2Seq,
        MarianConfig,
        MarianMTModel,
        PreTrainedTokenizerFast,
        Seq2SeqTrainer,
        Seq2SeqTrainingArguments,
        TrainerCallback,
    )

    pad, eos = task.tokenizer.pad_id, task.tokenizer.eos_id
    config = MarianConfig(
        vocab_size=task.tokenizer.vocab_size,
        d_model=SHAPE["d_model"],
        encoder_layers=SHAPE["num_layers"],
        decoder_layers=SHAPE["num_layers"],
        encoder_attention_heads=SHAPE["num_heads"],
        decoder_attention_heads=SHAPE["num_heads"],
        encoder_ffn_dim=SHAPE["d_ff"],
        decoder_ffn_dim=SHAPE["d_ff"],
        activation_function="relu",
        dropout=DROPOUT,
        attention_dropout=0.0,
        activation_dropout=0.0,
        max_position_embeddings=128,
        scale_embedding=True,
        pad_token_id=pad,
        eos_token_id=eos,
        decoder_start_token_id=pad,
        forced_eos_token_id=None,
    )
    model = MarianMTModel(config)
    rows = [
        {"input_ids": src.tolist(), "labels": tgt.tolist(), "length": max(len(src), len(tgt))}
        for src, tgt in zip(task.examples.src, task.examples.tgt, strict=True)
    ]
    tokens = sum(len(tgt) for tgt in task.examples.tgt) / len(rows)
    ours_per_step = sum(len(tgt) for tgt in task.examples.tgt) / len(
        plan_epoch(task.examples.sizes(0), ByTokens(kind="tokens", tokens_per_step=TOKENS_PER_STEP), seed=1, epoch=0)
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=task.tokenizer.backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    collate = DataCollatorForSeq2Seq(tokenizer, model=model)
    seen = 0

    def counted(features: list[dict[str, Any]]) -> Any:
        nonlocal seen
        seen += sum(len(feature["labels"]) for feature in features)
        return collate([{key: row[key] for key in ("input_ids", "labels")} for row in features])

    times: list[tuple[float, int]] = []

    class Clock(TrainerCallback):
        """Notes the time; the Trainer has fetched one batch ahead, which the difference of two counts levels out."""

        def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
            times.append((perf_counter(), seen))

    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=max(1, round(ours_per_step / tokens)),
            train_sampling_strategy="group_by_length",
            length_column_name="length",
            remove_unused_columns=False,
            max_steps=task.num_steps,
            learning_rate=LR,
            adam_beta2=0.98,
            max_grad_norm=CLIP,
            label_smoothing_factor=SMOOTHING,
            optim="adamw_torch_fused",
            lr_scheduler_type="constant",
            save_strategy="no",
            logging_steps=10_000,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            seed=1,
        )
        trainer = Seq2SeqTrainer(
            model=model, args=arguments, train_dataset=rows, data_collator=counted, callbacks=[Clock()]
        )
        trainer.train()
    return speed(times)


def joeynmt(task: Task, python: Path, threads: int) -> float:
    """JoeyNMT on the same subwords as words, with batches by tokens; its own log gives tokens a second."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for suffix, side in (("src", task.examples.src), ("trg", task.examples.tgt)):
            lines = [" ".join(f"t{i}" for i in ids[:-1]) for ids in side]
            (folder / f"train.{suffix}").write_text("\n".join(lines) + "\n")
            (folder / f"dev.{suffix}").write_text("\n".join(lines[:8]) + "\n")
        vocabulary = [f"t{i}" for i in range(task.tokenizer.vocab_size - 4)]
        (folder / "vocab.txt").write_text("\n".join(["<unk>", "<pad>", "<s>", "</s>", *vocabulary]) + "\n")
        side = {"level": "word", "max_length": 128, "voc_file": str(folder / "vocab.txt"), "lowercase": False}
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
                "src": {"lang": "src", **side},
                "trg": {"lang": "trg", **side},
            },
            "testing": {"beam_size": 1, "eval_metrics": ["bleu"], "batch_size": 8, "max_output_length": 4},
            "training": {
                "batch_size": TOKENS_PER_STEP,
                "batch_type": "token",
                "normalization": "tokens",
                "optimizer": "adam",
                "scheduling": "plateau",
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


if __name__ == "__main__":
    sys.exit(main())
