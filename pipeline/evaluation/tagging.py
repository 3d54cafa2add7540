"""Entity-level scores of sequence tagging: an entity is right if its type, first and last token all are.

Legend: a sentence is a sequence of tags O, B-TYPE or I-TYPE (IOB2), one a word.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Entity(NamedTuple):
    """Words `start` to `stop` (exclusive) of a sentence."""

    kind: str
    start: int
    stop: int


@dataclass(frozen=True)
class EntityScore:
    """Precision, recall and their harmonic mean, over the entities of all sentences; 0 where there is none."""

    precision: float
    recall: float
    f1: float
    num_true: int
    num_predicted: int


def entities(tags: Sequence[str]) -> frozenset[Entity]:
    """The entities of one sentence as conlleval reads them (Tjong Kim Sang and De Meulder 2003).

    B begins an entity; so does I where it does not continue one of its type, which a tagger may predict.
    """
    found: set[Entity] = set()
    kind, start = "", 0
    for position, tag in enumerate([*tags, "O"]):
        prefix, _, tag_kind = tag.partition("-")
        if (prefix, tag_kind) != ("O", "") and (prefix not in ("B", "I") or not tag_kind):
            raise ValueError(f"a tag is O, B-TYPE or I-TYPE, found '{tag}' at word {position}")
        continues = prefix == "I" and tag_kind == kind
        if not continues:
            if kind:
                found.add(Entity(kind, start, position))
            kind, start = tag_kind, position
    return frozenset(found)


def entity_score(predicted: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> EntityScore:
    """Micro-averaged over all sentences."""
    num_right = num_predicted = num_true = 0
    for number, (predicted_tags, true_tags) in enumerate(zip(predicted, true, strict=True)):
        if len(predicted_tags) != len(true_tags):
            raise ValueError(f"sentence {number}: found {len(predicted_tags)} tags for {len(true_tags)} words")
        predicted_entities, true_entities = entities(predicted_tags), entities(true_tags)
        num_right += len(predicted_entities & true_entities)
        num_predicted += len(predicted_entities)
        num_true += len(true_entities)
    return EntityScore(
        precision=num_right / num_predicted if num_predicted else 0.0,
        recall=num_right / num_true if num_true else 0.0,
        f1=2 * num_right / (num_predicted + num_true) if num_predicted + num_true else 0.0,
        num_true=num_true,
        num_predicted=num_predicted,
    )
