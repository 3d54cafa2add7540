"""A run that never was: the files of every stage, with numbers that are easy to check."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifacts import write_json
from pipeline.report.rows import METHODS, NETWORKS

_SOURCES = ("speeches", "wiki")
_PAIRS = {"annotator_agreement": 0.9, "dropped": 0, "pairs": 900, "shortened": 1}


def _language_model(bits: float) -> dict[str, float]:
    return {"bits_per_byte": bits, "nats_per_token": 3.0, "perplexity": 20.0, "num_tokens": 1000}


def _by_source(bits: float) -> dict[str, Any]:
    return {**_language_model(bits), "by_source": {one: _language_model(bits) for one in _SOURCES}}


def _responses(perplexity: float) -> dict[str, Any]:
    score = {"nats_per_token": math.log(perplexity), "perplexity": perplexity, "num_tokens": 100}
    return {**score, "by_source": dict.fromkeys(_SOURCES, score)}


def _side(judge: float, distinct: float) -> dict[str, float]:
    return {"judge": judge, "reward": 2 * judge, "distinct_2": distinct, "length": 20.0, "ended": 0.9}


def _alignment(low: float, before: float, distinct: float) -> dict[str, Any]:
    return {
        "before": _side(0.1, before),
        "after": _side(0.3, distinct),
        "judge_change": {"mean": 0.2, "low": low, "high": 0.35},
        "kl": 4.5,
        "kl_standard_error": 0.4,
        "num_prompts": 64,
    }


def _vectors(spearman: float) -> dict[str, Any]:
    similarity = {"spearman": spearman, "num_covered": 200, "num_pairs": 353}
    analogies = {"accuracy": 0.1, "num_correct": 100, "num_covered": 1000, "num_questions": 19544}
    return {"wordsim353": similarity, "simlex999": similarity, "analogies": {"total": analogies}}


def _split(records: int) -> dict[str, Any]:
    return {"records": records, "words": 10 * records}


def _translation(beam: float) -> dict[str, Any]:
    bleu = {"beam": beam, "greedy": beam - 1, "copy": 3.0, "signature": "nrefs:1|tok:13a"}
    return {"bleu": bleu, "chrf": {**bleu, "beam": 2 * beam, "signature": "nrefs:1|chrf2"}}


def _direction(nats: float) -> dict[str, float]:
    return {"nats_per_token": nats, "perplexity": math.exp(nats), "unigram_entropy": 6.5}


def metrics() -> dict[str, dict[str, Any]]:
    """The metrics of every stage."""
    counts = {
        role: {"train": _split(900), "valid": _split(50), "test": _split(50), "dropped": {"too_short": 7}, "read": 1007}
        for role in ("text", "translation", "rated", "conversations")
    }
    overlap = {
        "text": {"num_ngrams": 100.0, "text": 0.0382, "tasks.films": 0.0123},
        "tasks.films.valid": {"num_ngrams": 50.0, "text": 0.01, "tasks.films": 0.0457},
    }
    accuracy = {"accuracy": 0.81, "f1": 0.8, "matthews": 0.6}
    correlation = {"pearson": 0.7, "spearman": 0.68}
    return {
        "fetch": {"speeches": {"bytes": 12_000_000, "files": 250}},
        "prepare": {"counts": counts, "overlap": overlap},
        "tokenize": {
            name: {"vocab_size": 4096, "bytes_per_token": 4.1, "unknown_rate": 0.0}
            for name in ("bpe", "wordpiece", "translation")
        },
        **{f"word_vectors/{item}": _vectors(0.4 + number / 100) for number, item in enumerate(METHODS)},
        "word_vectors/fasttext": {**_vectors(0.44), "composed": _vectors(0.5)},
        "pretrain_bert": {
            "mlm": {"nats": 4.2, "accuracy": 0.3},
            "nsp": {"nats": 0.6, "accuracy": 0.61},
            "baselines": {"unigram_entropy": 6.0, "nsp_majority": 0.5},
        },
        "finetune/polarity": {
            "score": accuracy,
            "baselines": {"majority": {**accuracy, "accuracy": 0.5}, "bag_of_words": {**accuracy, "accuracy": 0.83}},
        },
        "finetune/polarity-random": {"score": {**accuracy, "accuracy": 0.7}, "baselines": {}},
        **{
            f"finetune/polarity{end}": {
                "score": {**accuracy, "accuracy": 0.71 + number / 100},
                "baselines": {"majority": {**accuracy, "accuracy": 0.5}},
            }
            for number, end in enumerate(NETWORKS)
        },
        "finetune/rating": {"score": correlation, "baselines": {"bag_of_words": correlation}},
        "finetune/rating-random": {"score": {**correlation, "pearson": 0.5}, "baselines": {}},
        "pretrain_bilm": {
            "test": {
                "ahead": {**_direction(4.5), "accuracy": 0.2, "num_tokens": 1000},
                "back": {**_direction(4.3), "accuracy": 0.2, "num_tokens": 1000},
                "mean": _direction(4.4),
            }
        },
        "pretrain_gpt": {
            "test": {
                "model": _by_source(1.7),
                "kneser_ney": _by_source(1.8),
                "xz": {"bits_per_byte": 1.76, "by_source": {one: {"bits_per_byte": 1.76} for one in _SOURCES}},
            },
            "few_shot": {
                "next_sentence": {
                    f"{shots}_shot": {"accuracy": 0.3, "chance": 0.25, "standard_error": 0.02, "num_questions": 400}
                    for shots in (0, 4, 16)
                }
            },
        },
        "translate/transformer": _translation(21.0),
        "translate/gru": {**_translation(14.0), "gradient_by_distance": [0.5, 0.25, 0.125]},
        "sft": {
            "response": {"base": _responses(80.0), "sft": _responses(40.0)},
            "greedy": {
                "base": {"ended": 0.0, "length": 48.0, "num_requests": 100},
                "sft": {"ended": 0.97, "length": 12.0, "num_requests": 100},
            },
        },
        "reward": {
            "pairs": {"test": _PAIRS},
            "accuracy": 0.74,
            "baselines": {"longer": 0.5, "judge": 0.69, "bag_of_words": 0.82},
            "calibration": {
                "expected_error": 0.04,
                "bins": [
                    {"low": low, "high": low + 0.1, "count": 40, "confidence": low + 0.05, "accuracy": low + 0.02}
                    for low in (0.5, 0.6, 0.7, 0.8, 0.9)
                ],
            },
            "rewards": {"mean": 0.0, "std": 1.0},
        },
        "reference": {"pairs": {"train": _PAIRS}, "prefers_chosen": {"train": 0.5}},
        "dpo": _alignment(low=0.05, before=0.8, distinct=0.7),
        "ppo": _alignment(low=-0.02, before=0.9, distinct=0.35),
    }


def samples() -> dict[str, list[dict[str, Any]]]:
    """The samples of the stages that show some."""
    maps = {
        "src_tokens": ["▁Save", "▁changes", "<eos>"],
        "tgt_tokens": ["▁Änderungen", "▁speichern", "<eos>"],
        "weights": [[0.1, 0.8, 0.1], [0.7, 0.2, 0.1], [0.0, 0.1, 0.9]],
    }
    translated = {"source": "Save changes", "reference": "Änderungen speichern", "greedy": "Speichern"}
    answer = {"prompt": "Write a <b>review</b>.", "before": "It was a film.", "judge_before": 0.0}
    words = [
        {
            "word": word,
            "x": math.cos(place) * (1 + place / 40),
            "y": math.sin(place),
            "cluster": place % 8,
            "nearest": ["near", "by"],
        }
        for place, word in enumerate(f"word{number}" for number in range(60))
    ]
    return {
        "word_vectors/skipgram": words,
        "word_vectors/svd": words[5:],
        "translate/transformer": [{**translated, "beam": "Änderungen speichern", "attention": maps}],
        "translate/gru": [{**translated, "beam": "Ändern"}],
        "sft": [
            {
                "source": "chat",
                "prompt": "What is a cow?",
                "before": "cow cow",
                "after": "An animal.",
                "after_ended": True,
                "data": "A farm animal.",
            }
        ],
        "dpo": [{**answer, "after": "A good film.", "judge_after": 0.44}],
        "ppo": [{**answer, "after": "A great, great film.", "judge_after": 0.84}],
    }


def curves() -> dict[str, list[dict[str, float]]]:
    """Learning curves: a row for each of 50 updates, validated every tenth."""
    updates = range(1, 51)

    def rows(names: Sequence[str]) -> list[dict[str, float]]:
        return [
            {
                "update": update,
                **{f"train/{name}": 1.0 + 3.0 / update for name in names},
                **{f"valid/{name}": 1.1 + 3.0 / update for name in names if update % 10 == 0},
            }
            for update in updates
        ]

    language_models = ("pretrain_gpt", "translate/transformer", "translate/gru", "sft", "reward", "dpo")
    tasks = [
        *(f"finetune/polarity{end}" for end in ("", "-random", *NETWORKS)),
        *(f"finetune/rating{end}" for end in ("", "-random")),
    ]
    ppo = ("train/entropy/entropy", "train/policy/clip_fraction", "train/value")
    return {
        **{stage: rows(["loss", "total"]) for stage in language_models},
        **{stage: rows(["total"]) for stage in tasks},
        **{f"word_vectors/{item}": rows(["loss", "total"]) for item in METHODS if item != "svd"},
        "word_vectors/svd": [{"update": rank, "train/explained_share": rank / 60} for rank in updates],
        "pretrain_bert": rows(["mlm", "nsp", "total"]),
        "pretrain_bilm": rows(["ahead", "back", "total"]),
        "ppo": [
            {
                "update": update,
                **dict.fromkeys(ppo, 1.0 / update),
                **(
                    {"rollout/kl": update / 10, "rollout/reward": update / 90, "rollout/length": 20.0}
                    if update % 2
                    else {}
                ),
                **(
                    {"valid/kl": update / 9, "valid/reward": update / 80, "valid/length": 21.0}
                    if not update % 10
                    else {}
                ),
            }
            for update in updates
        ],
    }


def write_run(root: Path, *, profile: str = "cpu", stages: Mapping[str, Any] | None = None) -> None:
    """Writes all of it below `root`, or only what belongs to the metrics in `stages`."""
    chosen = metrics() if stages is None else stages
    folder = root / "metrics" / profile
    for stage, values in chosen.items():
        write_json(folder / f"{stage}.json", values)
        if stage in samples():
            write_json(folder / "samples" / f"{stage}.json", samples()[stage])
        if stage in curves():
            _write_curve(folder / "curves" / f"{stage}.csv", curves()[stage])
    card = {
        "package": "speeches",
        "version": "1.0",
        "kind": "package",
        "licence": "CC0-1.0",
        "counts": {"bytes": 12_000_000, "files": 250},
    }
    write_json(root / "data" / profile / "raw" / "card.json", {"speeches": card})


def _write_curve(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = ["update", *sorted({key for row in rows for key in row} - {"update"})]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
