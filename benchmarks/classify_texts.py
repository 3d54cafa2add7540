"""Classifying the lines of a file: `pipeline classify` beside transformers' pipeline with batching.

python -m benchmarks.classify_texts [--glue FOLDER] [--threads N] [--lines N] [--rounds N]

Both open one folder with a classifier of 6 layers x 384, random weights, and label the same lines, from text to label
and probability, in float32, each in a process of its own. transformers' pipeline takes them as they come, in batches of
several sizes, of which the best counts; ours groups them by length itself. What is measured is lines a second, without
the start of the process. Labels and probabilities have to be the same, so that a difference ends the program with an
error. FOLDER holds MRPC/train.tsv as GLUE has it, whose sentences are the lines; without it, lines are generated.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from benchmarks.finetune_training import SHAPE, classifier
from benchmarks.shared.apart import apart
from benchmarks.shared.mrpc import training_pairs
from benchmarks.shared.options import parser, positive
from benchmarks.shared.sentences import generated_sentences
from pipeline.artifacts import save_model
from pipeline.commands.classify import classify_lines, opened
from pipeline.models.huggingface.bert import sequence_classifier_to_huggingface
from pipeline.text.tokenizer_training import train_wordpiece

LABELS = ("no", "yes")
BATCHES = (1, 4, 8, 16, 32, 64)
WARM_UP = 64
"""Lines that are labelled before the clock starts."""


@dataclass(frozen=True)
class Labelled:
    """What one side wrote, and how long it took."""

    lines: list[str]
    seconds: float


def main(arguments: Sequence[str] | None = None) -> None:
    choices = parser("classify_texts", __doc__, "threads", "glue")
    choices.add_argument("--lines", type=positive, default=2000, help="lines of the file; default %(default)s")
    choices.add_argument("--rounds", type=positive, default=3, help="rounds of each side; default %(default)s")
    options = choices.parse_args(arguments)
    lines = texts(options.glue, options.lines)
    sides: dict[str, Callable[[Path, Sequence[str]], Labelled]] = {
        "ours": ours,
        **{f"batches of {size}": partial(transformers_pipeline, batch_size=size) for size in BATCHES},
    }
    found: dict[str, list[float]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save_classifier(folder, lines)
        for _ in range(options.rounds):
            expected: list[str] = []
            for name, label in sides.items():
                labelled = apart(options.threads, label, folder, lines)
                found[name].append(len(lines) / labelled.seconds)
                expected = expected or labelled.lines
                check_same(labelled.lines, expected)
    report(found, len(lines), options.threads)


def report(found: dict[str, list[float]], num_lines: int, threads: int) -> None:
    """Prints speeds and ratios."""
    best = median(found["ours"])
    rounds = len(found["ours"])
    print(f"{threads} thread(s), {num_lines} lines, lines a second, median of {rounds} (lowest to highest)")
    for name, speeds in found.items():
        ratio = best / median(speeds)
        print(f"{name:>14} {median(speeds):7.1f} ({min(speeds):.1f} to {max(speeds):.1f}), ours x {ratio:.2f}")
    peer = max(median(speeds) for name, speeds in found.items() if name != "ours")
    print(f"{'ratio':>14} {best / peer:7.2f} to the best of transformers")


def texts(glue: Path | None, count: int) -> list[str]:
    """The sentences of MRPC's training pairs, or generated ones."""
    if glue is None:
        return generated_sentences(count)
    rows = training_pairs(glue)
    found = list(islice((text for row in rows for text in (row.text, row.second or "")), count))
    if len(found) < count:
        raise SystemExit(f"error: {glue}: {len(found)} sentences, --lines asks for {count}")
    return found


def save_classifier(folder: Path, lines: Sequence[str]) -> None:
    """Random weights and a vocabulary learned from the lines, as the stage finetune hands them on."""
    tokenizer = train_wordpiece(lines, vocab_size=8192)
    model = classifier(SHAPE.model_copy(update={"vocab_size": tokenizer.vocab_size}))
    save_model(folder, *sequence_classifier_to_huggingface(model, pad_token_id=tokenizer.pad_id, labels=LABELS))
    tokenizer.save(folder)


def ours(folder: Path, lines: Sequence[str]) -> Labelled:
    """The stream of `pipeline classify`."""
    model = opened(folder, torch.device("cpu"))
    written: list[str] = []
    classify_lines(model, lines[:WARM_UP], pairs=False, name="lines", write=lambda some: None)
    started = perf_counter()
    classify_lines(model, lines, pairs=False, name="lines", write=written.extend)
    return Labelled(written, perf_counter() - started)


def transformers_pipeline(folder: Path, lines: Sequence[str], *, batch_size: int) -> Labelled:
    """Their pipeline over the same folder."""
    from transformers import pipeline

    label: Any = pipeline("text-classification", model=str(folder), tokenizer=str(folder), device="cpu")
    label(list(lines[:WARM_UP]), batch_size=batch_size, truncation=True)
    started = perf_counter()
    rows = label(list(lines), batch_size=batch_size, truncation=True)
    seconds = perf_counter() - started
    return Labelled([f"{row['label']}\t{row['score']:.4f}" for row in rows], seconds)


def check_same(found: Sequence[str], expected: Sequence[str]) -> None:
    """SystemExit unless both sides have the same labels, with the same probabilities to 0.001."""
    for number, (one, other) in enumerate(zip(found, expected, strict=True), start=1):
        (label, value), (other_label, other_value) = one.split("\t"), other.split("\t")
        if label != other_label or abs(float(value) - float(other_value)) > 1e-3:
            raise SystemExit(f"error: line {number}: {one!r} here, {other!r} by ours")


if __name__ == "__main__":
    main()
