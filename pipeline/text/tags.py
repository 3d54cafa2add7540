"""Entities as tags, one a word, in the schemes in which corpora write them.

O is outside. Each scheme marks the words of an entity of a TYPE in its own way:

    iob1   I-TYPE; B-TYPE only where the entity stands directly behind another of its type (Ramshaw and Marcus 1995)
    iob2   B-TYPE at the first word, I-TYPE at the others (Tjong Kim Sang and Veenstra 1999)
    bioes  B, I ... E at the last word, S for an entity of one word; also called IOBES
    bilou  the same with L for E and U for S; also called BILUO (Ratinov and Roth 2009)

Files that mix schemes have a reading too, that of conlleval: see `lenient_entities`.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

Scheme = Literal["iob1", "iob2", "bioes", "bilou"]
Reading = Literal["iob1", "iob2", "bioes", "bilou", "lenient"]
"""How tags are read: strictly, in a scheme, or as conlleval does."""

_MARKS: dict[Scheme, str] = {"iob1": "BI", "iob2": "BI", "bioes": "BIES", "bilou": "BILU"}
_AS_BIOES = {"L": "E", "U": "S"}
_AS_BILOU = {"E": "L", "S": "U"}


class Entity(NamedTuple):
    """Words `start` to `stop` (exclusive) of a sentence."""

    kind: str
    start: int
    stop: int


class Tag(NamedTuple):
    """A tag taken apart."""

    mark: str
    """O, or B, I, E, S as BIOES has them."""
    kind: str
    """The type of the entity, which may hold hyphens; empty for O."""


class TagFault(ValueError):
    """A tag that its scheme does not allow."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position
        """The word that has the tag; the number of words where the sentence ends too early."""


OUTSIDE = Tag("O", "")


def parse_tag(tag: str, marks: str = "BIESLU") -> Tag:
    """A tag as mark and type; ValueError for one that is neither O nor one of `marks`, a hyphen and a type."""
    mark, _, kind = tag.partition("-")
    if tag == "O":
        return OUTSIDE
    if len(mark) != 1 or mark not in marks or not kind:
        raise ValueError(f"a tag is O or one of {', '.join(f'{one}-TYPE' for one in marks)}, found {tag!r}")
    return Tag(_AS_BIOES.get(mark, mark), kind)


def read_tags(tags: Sequence[str], scheme: Scheme) -> tuple[Entity, ...]:
    """The entities of a sentence, in order; TagFault says which tag is not allowed where it stands, and why."""
    found: list[Entity] = []
    before, start = OUTSIDE, 0
    for position, text in enumerate([*tags, "O"]):
        try:
            tag = parse_tag(text, _MARKS[scheme])
        except ValueError as error:
            raise TagFault(str(error), position) from error
        is_behind = before.kind == tag.kind and before.mark in "BI"  # an entity of this type, which may go on
        fault = _fault(tag, scheme, before, is_behind=is_behind)
        if fault:
            shown = repr(text) if position < len(tags) else "the end of the sentence"
            raise TagFault(f"{fault}, found {shown} behind {tags[position - 1] if position else 'nothing'!r}", position)
        begins = tag.mark in "BS" or (scheme == "iob1" and not is_behind)
        if before != OUTSIDE and (begins or tag == OUTSIDE):
            found.append(Entity(before.kind, start, position))
        if begins:
            start = position
        before = tag
    return tuple(found)


def _fault(tag: Tag, scheme: Scheme, before: Tag, *, is_behind: bool) -> str:
    """What a scheme says against a tag behind another; empty for nothing."""
    match scheme:
        case "iob1":
            if tag.mark == "B" and not is_behind:
                return (
                    f"in iob1, B-{tag.kind} stands directly behind an entity of its type only (iob2 has more of them)"
                )
        case "iob2":
            if tag.mark == "I" and not is_behind:
                return f"in iob2, I-{tag.kind} goes on with an entity of its type (iob1 has it at the beginning too)"
        case "bioes" | "bilou":
            last = "E" if scheme == "bioes" else "L"
            if tag.mark in "IE" and not is_behind:
                return f"in {scheme}, I-TYPE and {last}-TYPE go on with an entity of their type"
            if before.mark in "BI" and tag.mark not in "IE":
                return f"in {scheme}, an entity of more than one word ends with {last}-TYPE"
    return ""


def lenient_entities(tags: Sequence[str]) -> tuple[Entity, ...]:
    """The entities of a sentence in any scheme, or a mixture, as conlleval reads them, in order.

    B and S begin an entity, E and S end one; so does any tag where it does not continue one of its type (Tjong Kim Sang
    and De Meulder 2003). TagFault for what is no tag.
    """
    found: list[Entity] = []
    before, start = OUTSIDE, 0
    for position, text in enumerate([*tags, "O"]):
        try:
            tag = parse_tag(text)
        except ValueError as error:
            raise TagFault(str(error), position) from error
        if not (before.mark in "BI" and tag.mark in "IE" and tag.kind == before.kind):
            if before != OUTSIDE:
                found.append(Entity(before.kind, start, position))
            start = position
        before = tag
    return tuple(found)


def iob2_tags(types: Iterable[str]) -> tuple[str, ...]:
    """All tags of some types of entities: O, then B and I of each type in alphabetical order."""
    return "O", *(f"{mark}-{kind}" for kind in sorted(types) for mark in "BI")


def marked(words: Sequence[str], entities: Iterable[Entity]) -> str:
    """The words of a sentence with brackets around its entities: `[PER Mary Shelley] in [LOC London] .`"""
    shown = list(words)
    for entity in entities:
        shown[entity.start] = f"[{entity.kind} {shown[entity.start]}"
        shown[entity.stop - 1] += "]"
    return " ".join(shown)


def write_tags(entities: Iterable[Entity], num_words: int, scheme: Scheme) -> list[str]:
    """The tags of a sentence; ValueError for entities that overlap or lie outside of it."""
    tags = ["O"] * num_words
    behind = Entity("", 0, 0)
    for entity in sorted(entities, key=lambda one: one.start):
        kind, start, stop = entity
        if not behind.stop <= start < stop <= num_words:
            raise ValueError(f"entities lie behind each other in a sentence of {num_words} words, found {entity}")
        marks = ["I"] * (stop - start)
        if scheme != "iob1" or (behind.kind, behind.stop) == (kind, start):
            marks[0] = "B"
        if scheme in ("bioes", "bilou"):
            marks[-1] = "E" if len(marks) > 1 else "S"
        if scheme == "bilou":
            marks = [_AS_BILOU.get(mark, mark) for mark in marks]
        tags[start:stop] = [f"{mark}-{kind}" for mark in marks]
        behind = entity
    return tags
