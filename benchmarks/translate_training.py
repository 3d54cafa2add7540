"""Training a small Transformer: our stage beside MarianMTModel under transformers' Trainer, and beside JoeyNMT.

python -m benchmarks.translate_training [--data FOLDER] [--joeynmt PYTHON] [--threads N] [--steps N] [--rounds N]

All train the same shape on the same subword ids, with dropout, label smoothing, clipping and Adam, in float32, each in
a process of its own that flushes denormal numbers. All are measured in target tokens (padding not counted) a second
between two optimizer steps, with as many of them a step on average, and in their own way of grouping sentences by
length. The clock runs for as many steps as an epoch of ours has, behind 10 of warm-up. `--steps` is for a shorter look,
in which the sides train sentences of other lengths: the Trainer takes the longest of each 50 batches first (of each
quarter of a smaller set), ours in random order. FOLDER holds train.en and train.de, as Multi30k has them; without it,
sentences are generated. Ours keeps the memory that it frees (pipeline/runtime.py), as a stage does; the others run as
they come.

JoeyNMT does not group by length, so that padding fills much of its batches: its batch_size counts padding too, and is
chosen so that its steps have as many real target tokens as ours. Its dropout also acts on attention weights and inside
the feed-forward networks; beside it stands ours with the same dropout, which is measured for that alone. Its speed is
the median of every ten steps in its log. It needs an environment of its own:

    python3.11 -m venv joey && joey/bin/pip install torch==2.13.0 && joey/bin/pip install --no-deps joeynmt
    joey/bin/pip install numpy pyyaml sacrebleu sentencepiece subword-nmt sacremoses packaging datasets tensorboard \
        matplotlib seaborn pandas importlib_metadata
    python -m benchmarks.translate_training --data FOLDER --joeynmt joey/bin/python

The share of the machine's peak compares the operations of our matrix products, padding included, with a product of two
2048 x 2048 matrices.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
import yaml
from lightning.pytorch.utilities.types import STEP_OUTPUT

from benchmarks.shared.apart import apart
from benchmarks.shared.joeynmt import joeynmt
from benchmarks.shared.options import parser, positive
from benchmarks.shared.peak import matrix_peak
from benchmarks.shared.sentences import read_pairs
from benchmarks.shared.stage import scratch_repository
from benchmarks.shared.task import (
    CLIP,
    DROPOUT,
    LR,
    SHAPE,
    SMOOTHING,
    TOKENS_PER_STEP,
    WARM_UP,
    Task,
    model_config,
    prepare,
    training_config,
)
from pipeline.config import Epochs, TrainingConfig
from pipeline.data.batches import MicroBatch, TranslationBatch
from pipeline.data.plan import plan_epoch
from pipeline.models.flops import model_flops
from pipeline.models.seq2seq import Seq2Seq
from pipeline.stages.translate import TranslateConfig, TranslationTraining, padding_share
from pipeline.training.fit import fit
from pipeline.training.run import stage_run

AS_JOEYNMT = "ours, dropout as JoeyNMT"


def main(arguments: Sequence[str] | None = None) -> None:
    choices = parser("translate_training", __doc__, "data", "joeynmt", "threads")
    choices.add_argument("--steps", type=positive, help="optimizer steps of each round; those of an epoch without it")
    choices.add_argument("--rounds", type=positive, default=3, help="rounds of each side; default %(default)s")
    options = choices.parse_args(arguments)
    os.environ |= {"OMP_NUM_THREADS": str(options.threads), "PIPELINE_TRACKING": "local", "PIPELINE_RUNTIME": "cpu"}
    torch.set_num_threads(options.threads)
    if not options.joeynmt:
        print("not measured: JoeyNMT, no JOEYNMT=PYTHON (--joeynmt)")
    task = prepare(read_pairs(options.data))
    num_steps = options.steps or task.steps_per_epoch
    systems: dict[str, Callable[[], float]] = {
        "ours": partial(apart, options.threads, ours, task, num_steps),
        "transformers": partial(apart, options.threads, transformers_trainer, task, num_steps),
    }
    if options.joeynmt:
        systems[AS_JOEYNMT] = partial(apart, options.threads, ours, task, num_steps, inner_dropout=DROPOUT)
        systems["JoeyNMT"] = partial(joeynmt, task, num_steps, options.joeynmt, options.threads)
    found: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(options.rounds):
        for name, measured in systems.items():
            found[name].append(measured())
    report(task, found, num_steps, options.threads)


def report(task: Task, found: dict[str, list[float]], num_steps: int, threads: int) -> None:
    """Prints speeds, ratios and the share of the peak."""
    print(f"{threads} thread(s), {num_steps} steps of about {task.targets_per_step:.0f} target tokens")
    print(f"target tokens (no padding) a second, median of {len(found['ours'])} (lowest to highest)")
    for name, speeds in found.items():
        beside = AS_JOEYNMT if name == "JoeyNMT" else "ours"
        ratio = median(found[beside]) / median(speeds)
        print(f"{name:>24} {median(speeds):8.0f} ({min(speeds):.0f} to {max(speeds):.0f}), {beside} x {ratio:.2f}")
    training = training_config(Epochs(kind="epochs", num_epochs=1))
    steps = plan_epoch(task.examples.sizes(0), training.batching, seed=training.seed, epoch=0)
    shape = model_config(task.tokenizer.vocab_size)
    src, tgt = ([side.lengths[step.indices] for step in steps] for side in (task.examples.src, task.examples.tgt))
    padded = sum(
        model_flops(shape, np.full(len(one), one.max()), np.full(len(other), other.max()))
        for one, other in zip(src, tgt, strict=True)
    )
    per_target = padded / sum(int(one.sum()) for one in tgt)
    peak = matrix_peak()
    padding = padding_share(task.examples, training)
    print(f"padding of ours: {100 * padding:.1f}% of the source and target tokens of an epoch")
    share = median(found["ours"]) * per_target / peak
    print(f"operations a target token: {per_target / 1e6:.1f} M; peak {peak / 1e9:.0f} GFLOP/s; share {share:.2f}")


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


def ours(task: Task, num_steps: int, *, inner_dropout: float = 0.0) -> float:
    """The stage translate: its module, its loader, its Trainer with checkpoints and tracking."""
    steps = num_steps + WARM_UP
    shape = model_config(task.tokenizer.vocab_size, inner_dropout=inner_dropout)
    training: dict[str, Any] = {
        "seed": 1,
        "batching": {"kind": "tokens", "tokens_per_step": TOKENS_PER_STEP},
        "duration": {"kind": "steps", "num_steps": steps},
        "optimizer": {"lr": LR, "betas": [0.9, 0.98], "clip_norm": CLIP},
        "schedule": {"kind": "constant", "num_warmup_steps": 0},
        "validate_every": 10 * steps,
        "checkpoint_every": 10 * steps,
    }
    search = {"beam_size": 1, "normalisation": "length", "length_penalty": 1.0, "max_extra_tokens": 10}
    config = TranslateConfig.model_validate(
        {
            "training": training,
            "model": shape.model_dump(),
            "label_smoothing": SMOOTHING,
            "search": search,
            "num_samples": 1,
            "num_attention_maps": 0,
        }
    )
    with scratch_repository():
        path = Path("conf/bench/translate.yaml")
        path.parent.mkdir()
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
        module = Timed(Seq2Seq(shape), config.training)
        with stage_run("pipeline.stages.translate", path, config, seed=1, inputs=[]) as run:
            fit(run, module, train=task.examples, valid=task.few)
    return speed(module.times)


def transformers_trainer(task: Task, num_steps: int) -> float:
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
    from transformers.trainer_pt_utils import LengthGroupedSampler

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
    everything = np.arange(len(task.examples.src))
    rows = [
        {"input_ids": src.tolist(), "labels": tgt.tolist()}
        for src, tgt in zip(task.examples.src.take(everything), task.examples.tgt.take(everything), strict=True)
    ]
    pairs_per_step = max(1, round(len(rows) / task.steps_per_epoch))
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=task.tokenizer.backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    seen = 0

    class Counting(Seq2SeqTrainer):
        """Counts the target tokens where they are trained: the loader has fetched a batch ahead."""

        def training_step(self, model: Any, inputs: Any, *arguments: Any, **keywords: Any) -> torch.Tensor:
            nonlocal seen
            seen += int((inputs["labels"] != -100).sum())
            return super().training_step(model, inputs, *arguments, **keywords)

        def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedSampler:
            """The Trainer's own grouping, by the longer side; by itself it takes the sources' lengths from a list."""
            return LengthGroupedSampler(pairs_per_step, lengths=task.examples.sizes(0).lengths.tolist())

    times: list[tuple[float, int]] = []

    class Clock(TrainerCallback):
        """Notes the time."""

        def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
            times.append((perf_counter(), seen))

    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=pairs_per_step,
            remove_unused_columns=False,
            max_steps=num_steps + WARM_UP,
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
        collate = DataCollatorForSeq2Seq(tokenizer, model=model)
        dataset: Any = rows
        Counting(model=model, args=arguments, train_dataset=dataset, data_collator=collate, callbacks=[Clock()]).train()
    return speed(times)


if __name__ == "__main__":
    main()
