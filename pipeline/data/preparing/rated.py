"""Short texts that several people rated from -4 to 4: read with every rating, deduplicated, split by document.

Texts that share eight words in a row, or differ in digits alone, go to the same split: no held-out text is a variant
of a training text.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, assert_never

from pydantic import Field, NonNegativeFloat, PositiveInt

from pipeline.config import Config
from pipeline.data.cleaning import clean_line, key_of, order_of, words_of
from pipeline.data.preparing.wording import wording_of
from pipeline.data.records import SPLITS, Rated, read_lines
from pipeline.progress import progress

LOWEST, HIGHEST = -4, 4
NEAR_DUPLICATE_WORDS = 8


class TwoFileRatings(Config):
    """A file of ID, mean, text and a file of ID, mean, deviation, [ratings], as in Hutto and Gilbert (2014)."""

    kind: Literal["two_files"]
    source: str
    """Folder below raw/."""
    texts: str
    """Pattern of the file of texts."""
    ratings: str
    """Pattern of the file of ratings."""
    domain: str
    """What the texts are."""


class RatingsTable(Config):
    """A tab-separated file: text, comma-separated ratings, domain."""

    kind: Literal["table"]
    source: str
    """Folder below raw/."""
    file: str
    """The file, below the source's folder."""


AnyRatings = Annotated[TwoFileRatings | RatingsTable, Field(discriminator="kind")]


class RatedConfig(Config):
    """Rated texts and how they are split."""

    sources: tuple[AnyRatings, ...] = ()
    """Sources of rated texts; none leaves them out."""
    valid_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the groups that go to valid."""
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the groups that go to test."""
    min_words: PositiveInt = 3
    """Fewest words of a text."""
    mean_tolerance: NonNegativeFloat = 0.01
    """Largest difference between a stated mean and the mean of the ratings; texts beyond it are dropped."""


@dataclass
class RatedSplits:
    """The rated texts of each split, and why others were dropped."""

    splits: dict[str, list[Rated]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    dropped: Counter[str] = field(default_factory=Counter)
    num_read: int = 0


def prepare_rated(config: RatedConfig, raw: Path) -> RatedSplits:
    """Reads, deduplicates and splits all sources of `config`."""
    result = RatedSplits()
    seen: set[str] = set()
    kept: list[Rated] = []
    for source in config.sources:
        found = progress(read_rated(source, raw), name=f"rated: {source.source}", unit="texts")
        for record, stated_mean in found:
            result.num_read += 1
            wording = wording_of(record.text)
            if len(record.text.split()) < config.min_words:
                result.dropped["too_short"] += 1
            elif abs(record.mean - stated_mean) > config.mean_tolerance:
                result.dropped["mean_differs_from_ratings"] += 1
            elif wording in seen:
                result.dropped["duplicate"] += 1
            else:
                seen.add(wording)
                kept.append(record)
    kept = _join_near_duplicates(kept)
    sizes = Counter(record.group for record in kept)
    split_of: dict[str, str] = {}
    totals: Counter[str] = Counter()
    wanted = {"test": config.test_share * len(kept), "valid": config.valid_share * len(kept)}
    for group in sorted(sizes, key=order_of):
        split = next((name for name in ("test", "valid") if totals[name] + sizes[group] <= wanted[name]), "train")
        split_of[group] = split
        totals[split] += sizes[group]
    for record in kept:
        result.splits[split_of[record.group]].append(record)
    return result


def read_rated(source: TwoFileRatings | RatingsTable, raw: Path) -> Iterator[tuple[Rated, float]]:
    """The rated texts of a source, each with the mean that its file states. ValueError names file and line."""
    folder = raw / source.source
    match source:
        case TwoFileRatings():
            yield from _two_files(_one(folder, source.texts), _one(folder, source.ratings), source)
        case RatingsTable():
            path = _one(folder, source.file)
            for number, line in read_lines(path):
                where = f"{path}:{number}"
                fields = line.split("\t")
                if len(fields) != 3 or not all(part.strip() for part in fields):
                    raise ValueError(f"{where}: expected text, ratings and domain between tabs, found {line[:60]!r}")
                ratings = _ratings(fields[1].split(","), where)
                mean = round(sum(ratings) / len(ratings), 6)
                name = f"{source.source}-{number}"
                yield Rated(name, clean_line(fields[0]), mean, ratings, fields[2].strip(), name), mean
        case _:
            assert_never(source)


def _two_files(texts: Path, ratings: Path, source: TwoFileRatings) -> Iterator[tuple[Rated, float]]:
    """Texts joined with their ratings by ID, each with the mean that the file of texts gives."""
    raters: dict[str, tuple[int, ...]] = {}
    num_lines = 0
    for num_lines, line in read_lines(ratings):
        fields = line.split("\t")
        if len(fields) != 4:
            raise ValueError(f"{ratings}:{num_lines}: expected ID, mean, deviation and ratings, found {line[:60]!r}")
        raters[fields[0]] = _ratings(re.sub(r"[\[\]\s]", "", fields[3]).split(","), f"{ratings}:{num_lines}")
    rows = list(read_lines(texts))
    if len(rows) != num_lines:
        raise ValueError(f"parallel files differ in length: {texts} has {len(rows)} lines, {ratings} has {num_lines}")
    for number, line in rows:
        fields = line.split("\t")
        if len(fields) != 3 or fields[0] not in raters:
            raise ValueError(f"{texts}:{number}: expected a rated ID, mean and text, found {line[:60]!r}")
        scores = raters[fields[0]]
        name = f"{source.domain}-{fields[0]}"
        # "review_sentence": sentences of a review stay together; a lone number is a text of its own.
        review = fields[0].rpartition("_")[0]
        document = f"{source.domain}-{review}" if review else ""
        text = clean_line(fields[2].replace("''", '"'))
        record = Rated(
            name, text, round(sum(scores) / len(scores), 6), scores, source.domain, document or name, document
        )
        yield record, _number(fields[1], f"{texts}:{number}")


def _number(text: str, where: str) -> float:
    """A mean rating within the scale."""
    try:
        value = float(text)
    except ValueError as error:
        raise ValueError(f"{where}: the mean is a number, found {text[:60]!r}") from error
    if not LOWEST <= value <= HIGHEST:
        raise ValueError(f"{where}: mean {value} is outside {LOWEST}..{HIGHEST}")
    return value


def _ratings(values: Sequence[str], where: str) -> tuple[int, ...]:
    """Integers from -4 to 4."""
    try:
        scores = tuple(int(value) for value in values)
    except ValueError as error:
        raise ValueError(f"{where}: ratings are whole numbers, found {','.join(values)[:60]!r}") from error
    outside = [score for score in scores if not LOWEST <= score <= HIGHEST]
    if outside:
        raise ValueError(f"{where}: rating {outside[0]} is outside {LOWEST}..{HIGHEST}")
    return scores


def _one(folder: Path, pattern: str) -> Path:
    """The one file that fits a pattern."""
    found = sorted(path for path in folder.rglob(pattern) if path.is_file())
    if len(found) != 1:
        raise ValueError(f"{folder}: expected one file for {pattern}, found {len(found)}")
    return found[0]


def _join_near_duplicates(records: Sequence[Rated]) -> list[Rated]:
    """Joins the groups of texts that share eight words in a row, or all words but for digits (union of sets by their
    smallest member)."""
    parent = {record.group: record.group for record in records}

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = group = parent[parent[group]]
        return group

    owner: dict[bytes | tuple[str, ...], str] = {}
    for record in records:
        words = words_of(record.text)
        starts = range(max(1, len(words) - NEAR_DUPLICATE_WORDS + 1))
        signs: list[bytes | tuple[str, ...]] = [tuple(words[start : start + NEAR_DUPLICATE_WORDS]) for start in starts]
        for sign in (*signs, key_of(record.text)):
            first, second = sorted((root(owner.setdefault(sign, record.group)), root(record.group)))
            parent[second] = first
    return [replace(record, group=root(record.group)) for record in records]
