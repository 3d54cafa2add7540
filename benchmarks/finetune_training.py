"""Fine-tuning BERT on pairs of texts: our stage's step beside transformers' Trainer.

python -m benchmarks.finetune_training [--glue FOLDER] [--threads N] [--steps N] [--rounds N]

All train a classifier of 6 layers x 384 with 30,522 ids, random weights, on the same ids and labels, 32 pairs a step,
with dropout of 0.1, gradients clipped to norm 1 and fused AdamW, the Trainer's default too, in float32. Ours, as the
stage does, trains the vectors of those tokens that the pairs read, the Trainer all 30,522; it comes to the same. The
vocabulary that is learned from the pairs has 12,000 of them, about as many as they read of BERT's. The Trainer
runs twice: as it comes, with rows padded to 128, and at its best, padded to the longest of a batch with rows of similar
length together. Each runs in a process of its own, by turns; a round has one seed for all of them, another one than the
other rounds.

What is measured is the speed in real tokens a second, those of the rows that were trained without their padding, and
the operations that the first token of each row needs. The clock runs for as many optimizer steps as an epoch has,
behind 4 of warm-up. `--steps` is for a shorter look, in which the sides train texts of other lengths: at its best the
Trainer takes the longest texts of each 50 batches first (of each quarter of a smaller set), ours in random order.

Ours keeps the memory that it frees (pipeline/runtime.py), as a stage does; the others run as they come, but all flush
denormal numbers. FOLDER holds MRPC/train.tsv as GLUE has it; without it, pairs of sentences are generated.
"""

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
import yaml
from lightning.pytorch.utilities.types import STEP_OUTPUT

from benchmarks.shared.apart import apart
from benchmarks.shared.mrpc import training_pairs
from benchmarks.shared.options import parser, positive
from benchmarks.shared.peak import matrix_peak
from benchmarks.shared.sentences import generated_sentences
from benchmarks.shared.stage import scratch_repository
from pipeline.config import TrainingConfig
from pipeline.data.batches import MicroBatch, SequenceBatch
from pipeline.data.examples.classification import LabelledText, SequenceExamples, classification_examples
from pipeline.models.bert import Bert, BertConfig, Pooler
from pipeline.models.flops import encoder_flops
from pipeline.models.heads import SequenceClassifier
from pipeline.stages.finetune import FinetuneConfig, fit_read_rows
from pipeline.stages.finetune_texts import FineTuning
from pipeline.text.tokenizer_training import train_wordpiece
from pipeline.training.run import stage_run

VOCABULARY, LENGTH, ROWS, WARM_UP = 30_522, 128, 32, 4
CLASSES = ("not_equivalent", "equivalent")
SHAPE = BertConfig(
    vocab_size=VOCABULARY,
    d_model=384,
    num_layers=6,
    num_heads=12,
    d_ff=1536,
    max_length=512,
    dropout=0.1,
    attention_dropout=0.1,
)
Times = list[tuple[float, int]]
"""The seconds and the real tokens trained so far at the end of each optimizer step."""


def main(arguments: Sequence[str] | None = None) -> None:
    choices = parser("finetune_training", __doc__, "threads", "glue")
    choices.add_argument("--steps", type=positive, help="optimizer steps of each round; those of an epoch without it")
    choices.add_argument("--rounds", type=positive, default=3, help="rounds of each side; default %(default)s")
    options = choices.parse_args(arguments)
    os.environ |= {"OMP_NUM_THREADS": str(options.threads), "PIPELINE_TRACKING": "local", "PIPELINE_RUNTIME": "cpu"}
    torch.set_num_threads(options.threads)
    data = examples(options.glue)
    num_steps = options.steps or math.ceil(len(data.input_ids) / ROWS)
    sides: dict[str, Callable[[SequenceExamples, int, int], Times]] = {
        "ours": ours,
        "Trainer at its best": partial(trainer, dynamic=True),
        "Trainer as it comes": partial(trainer, dynamic=False),
    }
    found: dict[str, list[float]] = {name: [] for name in sides}
    for seed in range(1, options.rounds + 1):
        for name, train in sides.items():
            found[name].append(speed(apart(options.threads, train, data, num_steps, seed)))
    report(data, found, num_steps, options.threads)


def report(data: SequenceExamples, found: dict[str, list[float]], num_steps: int, threads: int) -> None:
    """Prints speeds, ratios, and useful operations a second, at the lengths of all pairs, beside the peak."""
    best, peak = median(found["ours"]), matrix_peak()
    lengths = data.sizes(0).lengths
    useful = 3.0 * sum(encoder_flops(SHAPE, lengths, reads_first=True).values()) / int(lengths.sum())
    print(f"{threads} thread(s), {num_steps} steps, median of {len(found['ours'])} (lowest to highest)")
    print(f"real tokens (no padding) a second; {len(lengths)} pairs of {lengths.mean():.0f} tokens on average")
    print(f"peak {peak / 1e9:.0f} GFLOP/s")
    for name, speeds in found.items():
        rate = median(speeds) * useful
        print(
            f"{name:>20} {median(speeds):7.0f} ({min(speeds):.0f} to {max(speeds):.0f}), "
            f"{rate / 1e9:5.1f} useful GFLOP/s, share {rate / peak:.2f}, ours x {best / median(speeds):.2f}"
        )


def examples(glue: Path | None) -> SequenceExamples:
    """The training pairs of MRPC, or generated ones of like lengths, as ids of a vocabulary learned from them."""
    if glue:
        rows = training_pairs(glue)
        pairs = [(row.text, row.second or "", row.label) for row in rows]
    else:
        lines = generated_sentences(8000)
        pairs = [
            (" ".join(lines[i : i + 2]), " ".join(lines[i + 1 : i + 3]), CLASSES[i % 2])
            for i in range(0, len(lines) - 3, 2)
        ]
    tokenizer = train_wordpiece([text for pair in pairs for text in pair[:2]], vocab_size=12_000)
    texts = [LabelledText(text, second, label, where="") for text, second, label in pairs]
    return classification_examples(texts, tokenizer, classes=CLASSES, max_length=LENGTH)


def first_of(data: SequenceExamples, count: int) -> SequenceExamples:
    """So many of the examples."""
    ids, types, labels = data.input_ids[:count], data.token_type_ids[:count], data.labels[:count]
    return SequenceExamples(ids, types, labels, data.pad_id, data.is_shortened[:count])


def classifier(shape: BertConfig, seed: int = 1) -> SequenceClassifier:
    """A classifier of two classes with random weights, the same ones for a seed."""
    torch.manual_seed(seed)
    return SequenceClassifier(Bert(shape), Pooler(shape.d_model), num_labels=len(CLASSES), dropout=0.1)


def speed(times: Times) -> float:
    """Tokens a second after the warm-up."""
    (begin, first), (end, last) = times[WARM_UP - 1], times[-1]
    return (last - first) / (end - begin)


class Timed(FineTuning):
    """Our training with the time and the tokens so far at the end of each optimizer step."""

    def __init__(self, model: SequenceClassifier, training: TrainingConfig) -> None:
        super().__init__(model, training)
        self.times: Times = []

    def on_train_batch_end(self, outputs: STEP_OUTPUT, batch: MicroBatch[SequenceBatch], batch_idx: int) -> None:
        """Notes the time."""
        before = self.times[-1][1] if self.times else 0
        self.times.append((perf_counter(), before + int(batch.batch.attention_mask.sum())))


def ours(data: SequenceExamples, num_steps: int, seed: int) -> Times:
    """The stage finetune: its module, its loader, its Trainer with checkpoints and tracking."""
    steps = num_steps + WARM_UP
    training: dict[str, Any] = {
        "seed": seed,
        "batching": {"kind": "examples", "examples_per_step": ROWS},
        "duration": {"kind": "steps", "num_steps": steps},
        "optimizer": {"lr": 2e-5, "betas": [0.9, 0.999], "clip_norm": 1.0},
        "schedule": {"kind": "linear", "num_warmup_steps": 0},
        "validate_every": 10 * steps,
        "checkpoint_every": 10 * steps,
    }
    task = {"kind": "glue", "name": "MRPC"}
    config = FinetuneConfig.model_validate(
        {"training": training, "task": task, "start": "random", "max_length": LENGTH, "dropout": 0.1}
    )
    few = first_of(data, ROWS)
    module = Timed(classifier(SHAPE, seed), config.training)
    with scratch_repository():
        path = Path("conf/bench/finetune.yaml")
        path.parent.mkdir()
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
        with stage_run("pipeline.stages.finetune", path, config, seed=seed, inputs=[]) as run:
            fit_read_rows(run, module, module.model.encoder, train=data, valid=few)
    return module.times


def trainer(data: SequenceExamples, num_steps: int, seed: int, *, dynamic: bool) -> Times:
    """BertForSequenceClassification under the Trainer, as it comes or at its best."""
    from transformers import BertConfig as TheirConfig
    from transformers import BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

    torch.manual_seed(seed)
    model = BertForSequenceClassification(
        TheirConfig(
            vocab_size=VOCABULARY,
            hidden_size=SHAPE.d_model,
            num_hidden_layers=SHAPE.num_layers,
            num_attention_heads=SHAPE.num_heads,
            intermediate_size=SHAPE.d_ff,
        )
    )  # of two classes, its default
    rows = [
        {"input_ids": ids.tolist(), "token_type_ids": types.tolist(), "labels": int(label), "length": len(ids)}
        for ids, types, label in zip(data.input_ids, data.token_type_ids, data.labels, strict=True)
    ]
    times: Times = []
    seen = 0

    class Counting(Trainer):
        """Counts the tokens where they are trained: the loader has fetched a batch ahead."""

        def training_step(self, model: Any, inputs: Any, *arguments: Any, **keywords: Any) -> torch.Tensor:
            nonlocal seen
            seen += int(inputs["attention_mask"].sum())
            return super().training_step(model, inputs, *arguments, **keywords)

    class Clock(TrainerCallback):
        """Notes the time."""

        def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
            times.append((perf_counter(), seen))

    def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in features) if dynamic else LENGTH
        batch = {
            key: torch.tensor([row[key] + [0] * (width - len(row[key])) for row in features])
            for key in ("input_ids", "token_type_ids")
        }
        mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in features])
        return {**batch, "attention_mask": mask, "labels": torch.tensor([row["labels"] for row in features])}

    with tempfile.TemporaryDirectory() as scratch:
        settings = TrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=ROWS,
            train_sampling_strategy="group_by_length" if dynamic else "random",
            length_column_name="length",
            remove_unused_columns=False,
            max_steps=num_steps + WARM_UP,
            learning_rate=2e-5,
            max_grad_norm=1.0,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            seed=seed,
        )
        dataset: Any = rows
        Counting(model=model, args=settings, train_dataset=dataset, data_collator=collate, callbacks=[Clock()]).train()
    return times


if __name__ == "__main__":
    main()
