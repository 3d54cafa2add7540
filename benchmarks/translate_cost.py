"""What training a small translation Transformer costs: against the number of pairs, and against their length.

python -m benchmarks.translate_cost [--data FOLDER] [--picture FILE.png] [--threads N]

The first curve is the time of one whole pass over 1,000 to 29,000 pairs, as far as there are so many, with the loss,
clipping and optimizer of the stage; it should grow as the pairs do. The second is the time of a target token when all
sentences have 8 to 96 tokens, which grows with attention. FOLDER holds train.en and
train.de, as Multi30k has them; without it, sentences are generated.
"""

from collections.abc import Sequence
from pathlib import Path
from time import process_time

import matplotlib
import numpy as np
import torch

from benchmarks.shared.options import parser
from benchmarks.shared.sentences import read_pairs
from benchmarks.shared.steps import stage_step, whole_steps
from benchmarks.shared.task import SHAPE, TOKENS_PER_STEP, prepare, training_config, training_module
from pipeline.config import Epochs
from pipeline.data.examples.translation import TokenRows, TranslationExamples
from pipeline.data.plan import TrainingPlan
from pipeline.runtime import keep_freed_memory

COUNTS = (1000, 2000, 4000, 8000, 16000, 29000)
LENGTHS = (8, 16, 32, 64, 96)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser("translate_cost", __doc__, "data", "picture", "threads").parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    task = prepare(read_pairs(options.data))
    vocab_size = task.tokenizer.vocab_size
    sizes = [count for count in COUNTS if count <= len(task.examples.src)]
    passes = [one_pass(chosen(task.examples, count), vocab_size) for count in sizes]
    print(f"{SHAPE}, {options.threads} thread(s); seconds of the processor, summed over threads")
    print(f"{'pairs':>8} {'s a pass':>9} {'ms a pair':>10}")
    for count, seconds in zip(sizes, passes, strict=True):
        print(f"{count:8} {seconds:9.1f} {1e3 * seconds / count:10.2f}")
    tokens = [one_token(length, vocab_size) for length in LENGTHS]
    print(f"{'length':>8} {'us a target token':>18}")
    for length, seconds in zip(LENGTHS, tokens, strict=True):
        print(f"{length:8} {1e6 * seconds:18.1f}")
    draw(options.picture, sizes, passes, tokens)
    print(options.picture)


def chosen(examples: TranslationExamples, count: int) -> TranslationExamples:
    """Some of the pairs, spread over all."""
    rows = np.linspace(0, len(examples.src) - 1, count).astype(np.int64)
    src, tgt = (
        TokenRows(side.array, side.rows[rows], side.max_length, side.eos_id) for side in (examples.src, examples.tgt)
    )
    return TranslationExamples(src, tgt, examples.pad_id, examples.bos_id)


def one_pass(examples: TranslationExamples, vocab_size: int) -> float:
    """Seconds of one pass: planning it, making its batches, and every optimizer step."""
    return train(examples, vocab_size)[0]


def one_token(length: int, vocab_size: int) -> float:
    """Seconds of a target token among sentences of one length."""
    random = np.random.default_rng(0)
    count = 8 * TOKENS_PER_STEP // length
    sides = [random.integers(2, vocab_size - 1, size=(count, length - 1)).tolist() for _ in range(2)]
    src, tgt = (TokenRows.of(side, max_length=length, eos_id=0) for side in sides)
    seconds, num_targets = train(TranslationExamples(src, tgt, vocab_size - 1, vocab_size - 1), vocab_size)
    return seconds / num_targets


def train(examples: TranslationExamples, vocab_size: int) -> tuple[float, int]:
    """Seconds of one pass after a step that warms up, and its target tokens."""
    config = training_config(Epochs(kind="epochs", num_epochs=1))
    take = stage_step(training_module(vocab_size, config))
    plan = TrainingPlan(examples, config.batching, config.duration, seed=config.seed)
    take(next(whole_steps(plan)))
    num_targets, started = 0, process_time()
    for micro in whole_steps(plan):
        take(micro)
        num_targets += micro.step_targets["loss"]
    return process_time() - started, num_targets


def draw(path: Path, sizes: Sequence[int], passes: Sequence[float], tokens: Sequence[float]) -> None:
    """Both curves as a picture."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    left.plot(sizes, passes, marker="o")
    left.set(xlabel="pairs", ylabel="seconds of the processor", title="One pass over the data", xlim=0, ylim=0)
    right.plot(LENGTHS, [1e6 * value for value in tokens], marker="o")
    right.set(xlabel="tokens of a sentence", ylabel="microseconds", title="One target token", xlim=0, ylim=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
