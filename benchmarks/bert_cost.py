"""What BERT costs: memory of a pretraining step against length and rows, and time of fine-tuning against the data.

python -m benchmarks.bert_cost [--glue FOLDER] [--picture FILE.png] [--threads N]

Memory is what a process holds at most while it takes three optimizer steps at 4 layers x 256, above what it held with
the model built: AdamW's state, gradients and what the backward pass needs. Ours stands beside the plain
loop around transformers' BertForPreTraining of bert_pretraining, each in a process of its own. Time is that of the
processor for one pass of fine-tuning 6 layers x 384 over 250 pairs and more, which should grow as they do. FOLDER holds
MRPC/train.tsv as GLUE has it; without it, pairs are generated.
"""

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import process_time

import matplotlib
import numpy as np
import psutil
import torch
from torch import nn

from benchmarks.bert_pretraining import SIDES, SIZES, Size, micro_batches, training_module
from benchmarks.finetune_training import ROWS, SHAPE, classifier, examples, first_of
from benchmarks.shared.apart import apart
from benchmarks.shared.options import parser
from pipeline.config import ByExamples, OptimizerConfig
from pipeline.data.examples.classification import SequenceExamples
from pipeline.data.plan import plan_epoch
from pipeline.objectives.likelihood import class_cross_entropy
from pipeline.runtime import keep_freed_memory
from pipeline.training.base import build_optimizer

LENGTHS, NUM_ROWS = (64, 128, 256, 512), (8, 16, 32)
COUNTS = (250, 500, 1000, 2000, 3600)
NUM_STEPS, CLIP = 3, 1.0
Peaks = Mapping[tuple[str, int, int], int]
"""Bytes by side, rows and length."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser("bert_cost", __doc__, "picture", "threads", "glue").parse_args(arguments)
    data = examples(options.glue)
    peaks = {
        (side, num_rows, length): apart(options.threads, memory, side, num_rows, length)
        for num_rows in NUM_ROWS
        for length in LENGTHS
        for side in SIDES
    }
    print(f"{'rows':>5} {'length':>7} " + " ".join(f"{side:>13}" for side in SIDES) + "   MiB of a pretraining step")
    for num_rows in NUM_ROWS:
        for length in LENGTHS:
            row = (f"{peaks[side, num_rows, length] / 2**20:13.0f}" for side in SIDES)
            print(f"{num_rows:5} {length:7} {' '.join(row)}")
    counts = [count for count in COUNTS if count <= len(data.input_ids)]
    passes = [apart(options.threads, one_pass, data, count) for count in counts]
    print(f"{'pairs':>6} {'s a pass':>9} {'ms a pair':>10}   of the processor, summed over {options.threads} thread(s)")
    for count, seconds in zip(counts, passes, strict=True):
        print(f"{count:6} {seconds:9.1f} {1e3 * seconds / count:10.2f}")
    draw(options.picture, peaks, counts, passes)
    print(options.picture)


def memory(side: str, num_rows: int, length: int) -> int:
    """Bytes that a process holds at most in a few steps, above those before the first."""
    chosen = Size(SIZES["mini"].model, num_rows)
    batches = micro_batches(chosen, NUM_STEPS, length=length)
    take = SIDES[side](training_module(chosen))
    gc.collect()
    # The peak is that from here on.
    Path("/proc/self/clear_refs").write_text("5")
    before = psutil.Process().memory_info().rss
    for micro in batches:
        take(micro)
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return peak * 1024 - int(before)


def one_pass(data: SequenceExamples, count: int) -> float:
    """Seconds of the processor for one pass over some of the pairs, after one step that warms up."""
    keep_freed_memory()
    model = classifier(SHAPE).train()
    optimizer = build_optimizer(model, OptimizerConfig(lr=2e-5, clip_norm=CLIP), fused=True)
    batching = ByExamples(kind="examples", examples_per_step=ROWS)
    some = first_of(data, count)
    steps = plan_epoch(some.sizes(0), batching, seed=1, epoch=0)

    def update(indices: np.ndarray) -> None:
        batch = some.collate(indices, 0)
        terms = class_cross_entropy(model(batch.input_ids, batch.token_type_ids, batch.attention_mask), batch.labels)
        torch.autograd.backward(terms.loss_sum / terms.num_targets)
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()

    update(steps[0].indices)
    started = process_time()
    for step in steps:
        update(step.indices)
    return process_time() - started


def draw(path: Path, peaks: Peaks, counts: Sequence[int], passes: Sequence[float]) -> None:
    """Memory of both sides by length, a line for each number of rows, and the time of a pass."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for side, style in zip(SIDES, ("-", "--"), strict=True):
        for number, num_rows in enumerate(NUM_ROWS):
            mebibytes = [peaks[side, num_rows, length] / 2**20 for length in LENGTHS]
            left.plot(LENGTHS, mebibytes, style, color=f"C{number}", marker="o", label=f"{side}, {num_rows} rows")
    left.set(xlabel="tokens of a row", ylabel="MiB", title="Memory of a pretraining step", xlim=0, ylim=0)
    left.legend(fontsize="small")
    right.plot(counts, passes, marker="o")
    right.set(xlabel="pairs", ylabel="seconds of the processor", title="One pass of fine-tuning", xlim=0, ylim=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
