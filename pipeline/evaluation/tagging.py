"""Entity-level scores of sequence tagging: an entity is right if its type, first and last word all are.

Which tags make an entity is read in one of two ways, which differ only in tags that no correct file has but a tagger
may predict:

- `entities`, as conlleval does, the script of the CoNLL shared tasks (which knows no S), and as seqeval does without
  `mode`. Nothing is wrong: what continues no entity begins one. This is the number that papers report.
- `strict_entities`, as seqeval does with `mode="strict"` and a scheme. What its scheme does not allow is no entity, so
  this score is never above what the same tags would get if they were put right.

Legend: a sentence is a sequence of tags, one a word, in a scheme of pipeline/text/tags.py.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.text.tags import Entity, Tag, TagFault, lenient_entities, parse_tag


@dataclass(frozen=True)
class EntityScore:
    """Precision, recall and their harmonic mean, over the entities of all sentences; 0 where there is none."""

    precision: float
    recall: float
    f1: float
    num_true: int
    num_predicted: int


@dataclass(frozen=True)
class TaggingScore:
    """All that conlleval says of a tagged text."""

    total: EntityScore
    """Micro-averaged over all entities."""
    by_type: Mapping[str, EntityScore]
    """That of the entities of each type, in the order of their names."""
    accuracy: float
    """Share of the words whose tag is right, O among them; 0 for no words."""


def entities(tags: Sequence[str]) -> frozenset[Entity]:
    """The `lenient_entities` of one sentence; ValueError names the word of what is no tag."""
    try:
        return frozenset(lenient_entities(tags))
    except TagFault as error:
        raise ValueError(f"{error} at word {error.position}") from error


def strict_entities(tags: Sequence[str], scheme: Literal["iob2", "bioes", "bilou"]) -> frozenset[Entity]:
    """The entities of one sentence as seqeval's strict mode reads them.

    An entity begins with B, or is one word with S (U); in BIOES (BILOU) it also ends with E (L). All other tags are
    passed over, and an entity that an unfitting tag interrupts is none.
    """
    found: set[Entity] = set()
    kind, start = "", 0  # of the entity that has begun, if any
    for position, tag in enumerate(_parsed(tags)):
        if kind and tag.kind == kind and tag.mark in "IE":
            if tag.mark == "E":
                found.add(Entity(kind, start, position + 1))
                kind = ""
            continue
        if kind and scheme == "iob2":
            found.add(Entity(kind, start, position))
        kind, start = (tag.kind if tag.mark == "B" else ""), position
        if tag.mark == "S":
            found.add(Entity(tag.kind, position, position + 1))
    return frozenset(found)


def tagging_score(
    predicted: Sequence[Sequence[str]],
    true: Sequence[Sequence[str]],
    *,
    read: Callable[[Sequence[str]], frozenset[Entity]] = entities,
) -> TaggingScore:
    """The scores of all sentences together, whose entities `read` finds; ValueError for sentences of other lengths."""
    right: Counter[str] = Counter()
    found: Counter[str] = Counter()
    wanted: Counter[str] = Counter()
    num_words = num_right_words = 0
    for number, (predicted_tags, true_tags) in enumerate(zip(predicted, true, strict=True)):
        if len(predicted_tags) != len(true_tags):
            raise ValueError(f"sentence {number}: found {len(predicted_tags)} tags for {len(true_tags)} words")
        predicted_entities, true_entities = read(predicted_tags), read(true_tags)
        right.update(entity.kind for entity in predicted_entities & true_entities)
        found.update(entity.kind for entity in predicted_entities)
        wanted.update(entity.kind for entity in true_entities)
        num_words += len(true_tags)
        num_right_words += sum(one == other for one, other in zip(predicted_tags, true_tags, strict=True))
    return TaggingScore(
        total=_score(right.total(), found.total(), wanted.total()),
        by_type={kind: _score(right[kind], found[kind], wanted[kind]) for kind in sorted(found | wanted)},
        accuracy=num_right_words / num_words if num_words else 0.0,
    )


def _parsed(tags: Sequence[str]) -> Iterable[Tag]:
    """The tags taken apart, and an O behind the last; ValueError names the word of what is no tag."""
    for position, tag in enumerate([*tags, "O"]):
        try:
            yield parse_tag(tag)
        except ValueError as error:
            raise ValueError(f"{error} at word {position}") from error


def _score(num_right: int, num_predicted: int, num_true: int) -> EntityScore:
    return EntityScore(
        precision=num_right / num_predicted if num_predicted else 0.0,
        recall=num_right / num_true if num_true else 0.0,
        f1=2 * num_right / (num_predicted + num_true) if num_predicted + num_true else 0.0,
        num_true=num_true,
        num_predicted=num_predicted,
    )
