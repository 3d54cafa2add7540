"""BLEU that decides on the weights: the same however many ranks find it, each of which translates its part."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pipeline.data.records import Pair
from pipeline.inference.translator import Translation, Translator
from pipeline.stages.validation_bleu import ValidationBleu
from tests.foundations.chain import with_dropout
from tests.stages.test_translate import pairs, settings, translator, workspace
from tests.training.harness import snapshot

CPU = torch.device("cpu")


@pytest.fixture
def translated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts were given to be translated, call by call; the letters of each translation become its words."""
    alone, counts = Translator.translate, list[int]()

    def translate(self: Translator, texts: Sequence[str], **options: Any) -> list[Translation]:
        counts.append(len(texts))
        return [replace(one, text=" ".join(one.text)) for one in alone(self, texts, **options)]

    monkeypatch.setattr(Translator, "translate", translate)
    return counts


@pytest.mark.parametrize(("num_pairs", "world_size"), [(7, 2), (8, 4), (2, 3)])
def test_each_rank_translates_its_part_and_the_score_is_that_of_all_in_their_order(
    monkeypatch: pytest.MonkeyPatch, translated: list[int], num_pairs: int, world_size: int
) -> None:
    """The ranks run one after the other, rank 0 last: it is given what the others gave."""
    one, given = translator("transformer"), dict[int, list[str]]()
    valid = with_own_targets(one, num_pairs)
    translated.clear()

    def score_of(rank: int) -> float:
        def gather(parts: list[list[str]], mine: list[str]) -> None:
            given[rank] = mine
            parts[:] = [given.get(other, [""] * num_pairs) for other in range(world_size)]

        monkeypatch.setattr(dist, "get_rank", lambda: rank)
        monkeypatch.setattr(dist, "all_gather_object", gather)
        return ValidationBleu(one, valid)(one.model.state_dict(), CPU)

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: world_size)
    monkeypatch.setattr(dist, "broadcast", lambda score, src: None)
    assert [score_of(rank) for rank in reversed(range(world_size))][-1] == pytest.approx(100.0)
    assert sum(translated) == num_pairs and max(translated) - min(translated) <= 1


def test_the_score_is_that_of_the_given_weights(translated: list[int]) -> None:
    one = translator("transformer")
    score = ValidationBleu(one, with_own_targets(one, 6))
    right = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}
    assert score({name: torch.zeros_like(tensor) for name, tensor in right.items()}, CPU) < 50.0
    assert score(right, CPU) == pytest.approx(100.0)


def with_own_targets(one: Translator, num_pairs: int) -> list[Pair]:
    """Pairs whose targets are what it finds: any two of them at each other's place would cost points."""
    valid = pairs(range(num_pairs))
    found = [translation.text for translation in one.translate([pair.src for pair in valid])]
    assert len(set(found)) == num_pairs
    return [replace(pair, tgt=text) for pair, text in zip(valid, found, strict=True)]


def curve(folder: Path, code: Path, runtime: str) -> list[dict[str, float]]:
    """That of a training which finds BLEU four times."""
    config = with_dropout(settings("transformer"), 0.0)
    config["training"] |= {
        "duration": {"kind": "steps", "num_steps": 60},
        "optimizer": {"lr": 0.01},
        "validate_every": 15,
    }
    made = workspace(folder / runtime, code, "transformer", config)
    made.run(runtime)
    return made.curve()


def test_two_ranks_find_the_scores_of_one(tmp_path: Path) -> None:
    code = snapshot(tmp_path / "code")
    alone, shared = (curve(tmp_path, code, runtime) for runtime in ("cpu", "ddp_cpu"))
    scores, found = ([row["valid/bleu"] for row in rows if "valid/bleu" in row] for rows in (alone, shared))
    assert len(scores) == 4 and scores[-1] > 0.0, "without a translation that is right they show nothing"
    assert found == pytest.approx(scores, abs=1e-6)
    assert [row.keys() for row in shared] == [row.keys() for row in alone]
    losses, others = ([row["train/total"] for row in rows] for rows in (alone, shared))
    assert others == pytest.approx(losses, rel=1e-2)
