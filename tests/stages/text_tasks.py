"""Small tasks of texts: of the benchmark, and of a user's own files."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.records import Labelled
from tests.foundations.chain import Run
from tests.stages.grammar import WORDS
from tests.stages.test_finetune import CONFIG

MNLI_CLASSES = ("entailment", "neutral", "contradiction")
OWN_LENGTH, NUM_LONG = 6, 40
"""Tokens that are read of the user's texts, half of BERT's positions; texts of validation that are longer."""
SPLITS = {"train": 480, "valid": 60, "valid_mismatched": 30, "test": 40, "test_mismatched": 30, "diagnostic": 6}
PARAPHRASES = {"train": 40, "valid": 11, "test": 7}


def pairs(split: str, count: int) -> list[Labelled]:
    """Two words: both of one half of the vocabulary, of both halves, or both of the other half."""
    random = np.random.default_rng(len(split) + count)
    found = []
    for i in range(count):
        places = random.integers(0, 8, 2)
        label = "" if split.startswith("test") else MNLI_CLASSES[int((places >= 4).sum())]
        # Of the words of the mismatched genre training has not seen any.
        first, second = (WORDS[place + 8 * (split == "valid_mismatched")] for place in places)
        found.append(Labelled(f"{split}-{i}", first, second, label))
    return found


def similarities(count: int, *, seed: int) -> list[Labelled]:
    """Pairs of words whose score is the mean of their places in the list."""
    random = np.random.default_rng(seed)
    places = random.integers(0, 8, (count, 2))
    return [Labelled(str(i), WORDS[a], WORDS[b], f"{5 * (a + b) / 14:.3f}") for i, (a, b) in enumerate(places)]


def paraphrases(split: str, count: int) -> list[Labelled]:
    """Pairs that say the same where both words are one; the rows of test have numbers of their own."""
    random = np.random.default_rng(count)
    found = []
    for i, (a, b) in enumerate(random.integers(0, 3, (count, 2))):
        label = "equivalent" if a == b else "not_equivalent"
        found.append(Labelled(f"{split}-{2 * i + 1 if split == 'test' else i}", WORDS[a], WORDS[b], label))
    return found


def settings(**more: object) -> dict[str, Any]:
    training = CONFIG["training"] | {"duration": {"kind": "epochs", "num_epochs": 16}}
    training |= {"optimizer": {"lr": 0.005, "betas": [0.9, 0.98]}}
    return CONFIG | {"max_length": 12, "training": training} | more


def values(seed: int, count: int) -> list[tuple[str, float]]:
    """Three words, and the mean of their places in the list."""
    places = np.random.default_rng(seed).integers(0, 8, (count, 3))
    return [(" ".join(WORDS[place] for place in row), round(float(row.mean()), 2)) for row in places]


def write_values(root: Path) -> dict[str, object]:
    """A regression of the user's: a table to train on, JSON lines to be scored on."""
    lines = [f"{text}\t{value}" for text, value in values(0, 200)]
    (root / "own/values.tsv").write_text("\n".join(["says\tplace", *lines]) + "\n")
    for seed, split in enumerate(("valid", "test"), start=1):
        rows = [json.dumps({"says": text, "place": value}) + "\n" for text, value in values(seed, 30)]
        (root / f"own/values-{split}.jsonl").write_text("".join(rows))
    splits = {"train": "own/values.tsv"} | {split: f"own/values-{split}.jsonl" for split in ("valid", "test")}
    return {"kind": "files", "splits": splits, "text": "says", "label": "place", "target": "value"}


def few_texts(root: Path, name: str, texts: list[str], *, target: str) -> Run:
    """The stage, ready to learn four texts in two steps; it is scored on the first three."""
    (root / "own").mkdir(exist_ok=True)
    for split, count in {"train": 4, "valid": 3}.items():
        lines = [f"{text}\t{label}" for text, label in zip(texts[:count], (1, 0, 1, 1), strict=False)]
        (root / f"own/{name}-{split}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    splits = {split: f"own/{name}-{split}.tsv" for split in ("train", "valid")}
    task = {"kind": "files", "splits": splits, "text": "text", "label": "label", "target": target}
    config = settings(task=task, encoder="a-bert")
    config["training"] |= {
        "batching": {"kind": "examples", "examples_per_step": 2},
        "duration": {"kind": "steps", "num_steps": 2},
    }
    return Run(root, f"finetune/{name}").write_config(config)
