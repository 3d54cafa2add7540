"""A trained tagger at work: texts, or sentences cut into words, in; entities with their probabilities out."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.data.examples.tagging import untagged_examples
from pipeline.evaluation.tagging import entities
from pipeline.inference.tagging import best_tags, predict
from pipeline.models.heads import TokenClassifier
from pipeline.text.split_words import word_spans
from pipeline.text.tags import OUTSIDE, Entity, parse_tag
from pipeline.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class TaggedWords:
    """What a tagger says of a sentence."""

    entities: tuple[Entity, ...]
    """In order; the tags are read as conlleval reads them."""
    probabilities: tuple[float, ...]
    """Of each entity: the product over its words of the probability of the tag, each chosen without the others."""


@dataclass(frozen=True)
class FoundEntity:
    """An entity in a text, or a word with its label."""

    kind: str
    start: int
    """First character."""
    stop: int
    """Behind the last character."""
    text: str
    probability: float

    def as_row(self) -> dict[str, str | int | float]:
        """The same for programs; `start` and `end` count characters as a slice does."""
        return {
            "type": self.kind,
            "text": self.text,
            "start": self.start,
            "end": self.stop,
            "probability": self.probability,
        }


class Tagger:
    """A BERT that finds entities, or says one label of each word, as its part of speech."""

    def __init__(self, model: TokenClassifier, tokenizer: Tokenizer, *, labels: Sequence[str], max_length: int) -> None:
        """A row that the model reads has up to `max_length` tokens.

        ValueError where some labels are tags of entities and another is not.
        """
        self.is_plain = not any(map(_is_entity_tag, labels))
        if not self.is_plain:
            for label in labels:
                parse_tag(label)
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.labels = tuple(labels)
        self.max_length = max_length

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[TaggedWords]:
        """The entities of sentences that are cut into words; of plain labels each word is one, of its label.

        Every word is looked at: a sentence longer than a row is read in parts.
        """
        data = untagged_examples(sentences, self.tokenizer, max_length=self.max_length)
        results = []
        for rows in predict(self.model, data, is_shown=False):
            tags = best_tags(rows, self.labels)
            words = [Entity(label, place, place + 1) for place, label in enumerate(tags)]
            found = words if self.is_plain else sorted(entities(tags), key=lambda one: one.start)
            best = rows.max(-1)
            probabilities = tuple(float(best[one.start : one.stop].prod()) for one in found)
            results.append(TaggedWords(tuple(found), probabilities))
        return results

    def find(self, texts: Sequence[str], *, tokenised: bool = False) -> list[tuple[FoundEntity, ...]]:
        """The entities of each text, which is cut into words as `word_spans` does."""
        spans = [word_spans(text, tokenised=tokenised) for text in texts]
        sentences = [[text[start:stop] for start, stop in words] for text, words in zip(texts, spans, strict=True)]
        results = []
        for text, words, tagged in zip(texts, spans, self.tag(sentences), strict=True):
            found = []
            for entity, probability in zip(tagged.entities, tagged.probabilities, strict=True):
                start, stop = words[entity.start].start, words[entity.stop - 1].stop
                found.append(FoundEntity(entity.kind, start, stop, text[start:stop], probability))
            results.append(tuple(found))
        return results


def _is_entity_tag(label: str) -> bool:
    """Whether a label marks the words of an entity; O alone does not say so."""
    try:
        return parse_tag(label) != OUTSIDE
    except ValueError:
        return False
