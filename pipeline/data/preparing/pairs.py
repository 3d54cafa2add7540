"""Translation pairs: cleaned, filtered, deduplicated, and split so that no source sentence lies in two splits.

Those that may become training pairs wait on disk: of each, memory holds some 70 bytes, and the name of its group where
whole groups are held out.
"""

import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from pipeline.config import Config
from pipeline.data.cleaning import (
    clean,
    clean_line,
    is_blank,
    key_of,
    num_letters,
    num_words,
    order_of,
    resolve_entities,
)
from pipeline.data.preparing.pair_spool import PairSpool
from pipeline.data.preparing.parallel import AnyParallel, Gettext, LocalisedJson, RawPair, TwoFiles, read_pairs
from pipeline.data.records import Pair
from pipeline.progress import progress
from pipeline.text.forms import PLAIN, MosesText, PlainText, TextForm, into_form

PLACEHOLDER = re.compile(r"%?\{[^{}\n]*\}|%\([^()\n]*\)[#0 +-]*\d*(?:\.\d+)?[a-z]|%(?:\d+\$)?(?:\.\d+)?[sdifr](?![\w])")
_MARKUP = re.compile(r"<[a-zA-Z/!][^<>]*>|\]\(|https?://|\w&\w|\[%")
_MNEMONIC = re.compile(r"(?<!\w)&(?=\w)")
_LETTER = re.compile(r"[^\W\d_]")


class PairsConfig(Config):
    """Parallel data and how it is filtered and split."""

    sources: tuple[AnyParallel, ...] = ()
    """Parallel sources; none leaves translation out."""
    min_words: PositiveInt = 1
    """Fewest words on the source side of a training pair. A Chinese or Japanese character counts as a word, and five
    of Thai, Lao, Burmese or Khmer; so below."""
    min_words_held_out: PositiveInt = 3
    """Fewest words on the source side of a validation or test pair that is split off here."""
    max_words: PositiveInt = 100
    """Most words on either side of a training pair."""
    max_ratio: PositiveFloat = 3.0
    """Largest ratio of the lengths of the two sides in characters, ten to spare; a Chinese or Japanese one counts as
    three."""
    repeats: Literal["one", "all"] = "one"
    """one: of pairs whose sources differ in case, punctuation, digits and spacing alone, one is left for training, with
    the translation that most of them have; all: each stays, as often as it comes. Either way no source of valid or test
    is in training, nor a pair that the settings above leave out, whose sides are equal or have no letters."""
    num_valid: NonNegativeInt = 0
    """Validation pairs to split off, from whole groups as `num_test`."""
    num_test: NonNegativeInt = 0
    """Test pairs to split off, from whole groups: a component, a template, a line of a file, what `group` of a table
    names. A group is held out that has at most a quarter of as many pairs, fit for scoring; where these are too few, at
    most as many pairs, or a tenth of all. What it has more than is wanted is left out."""
    text: TextForm = PlainText()
    """The form of the pairs that are written; a target that changes keeps what it was as its reference."""
    text_is_applied: bool = False
    """Whether the files of all sources have that form already."""


@dataclass(frozen=True)
class SpooledPairs:
    """Training pairs, read from disk whenever they are gone through."""

    spool: PairSpool
    numbers: Sequence[int]
    form: PlainText | MosesText
    """The form that they are brought into on the way."""

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Pair]:
        name = "translation: writing train"
        for number in progress(self.numbers, name=name, unit="pairs", total=len(self)):
            pair = self.spool.pair(number)
            pair = replace(pair, reference="") if pair.reference else pair
            yield pair if isinstance(self.form, PlainText) else _in_form(pair, self.form)


@dataclass
class PairSplits:
    """The pairs of each split, and why others were dropped."""

    train: SpooledPairs
    valid: list[Pair] = field(default_factory=list)
    test: list[Pair] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    num_read: int = 0

    @property
    def splits(self) -> dict[str, Iterable[Pair]]:
        """The pairs by the name of their split."""
        return {"train": self.train, "valid": self.valid, "test": self.test}


def prepare_pairs(config: PairsConfig, raw: Path, scratch: Path | None = None) -> PairSplits:
    """Reads, filters and splits all sources of `config`; the pairs wait in `scratch`, or where temporary files do."""
    spool, train = PairSpool(scratch), array("q")
    form = PLAIN if config.text_is_applied else config.text
    is_as_written = isinstance(config.text, PlainText) or not config.text_is_applied
    result = PairSplits(SpooledPairs(spool, train, form))
    held_out = {"valid": result.valid, "test": result.test}
    for source in config.sources:
        found = progress(read_pairs(source, raw), name=f"translation: {source.source}", unit="pairs")
        for number, pair in enumerate(found):
            result.num_read += 1
            group = f"{source.source}/{pair.group}"
            if source.into in ("valid", "test"):
                # A published test set stays whole and in order, or its scores compare with nobody's.
                src, tgt = clean_line(pair.src), clean_line(pair.tgt)
                reference = pair.reference
                if not reference and pair.tgt != tgt and is_as_written:
                    reference = pair.tgt
                kept = Pair(f"{source.source}-{number}", src, tgt, source.source, group, reference)
                held_out[source.into].append(kept)
                continue
            has_reference = isinstance(source, TwoFiles) and bool(source.reference)
            is_for_training = source.into == "train" or (has_reference and is_blank(pair.reference))
            home = "" if is_for_training else group
            for part, (src, tgt, reference) in enumerate(_paragraphs(pair)):
                fault = ""
                if isinstance(source, LocalisedJson | Gettext):
                    src, tgt, fault = _plain(src, tgt)
                fault = fault or _fault(src, tgt, config)
                if fault:
                    result.dropped[fault] += 1
                    continue
                kept = Pair(f"{source.source}-{number}-{part}", src, tgt, source.source, home, reference)
                spool.append(kept, key_of(src))
    repeats = spool.repeats(without={key_of(pair.src) for pairs in held_out.values() for pair in pairs})
    num_unwanted = repeats.num_keys - int(repeats.is_wanted.sum())
    result.dropped["duplicate"] = 0 if config.repeats == "all" else len(spool) - repeats.num_keys
    result.dropped["in_fixed_test"] = repeats.num_unwanted_pairs if config.repeats == "all" else num_unwanted
    kept_of_each = repeats if config.repeats == "all" else (_agreed(same, spool) for same in repeats)
    _split(kept_of_each, spool, train, config, result)
    if not isinstance(form, PlainText):
        for pairs in held_out.values():
            pairs[:] = [_in_form(pair, form) for pair in pairs]
    return result


def _in_form(pair: Pair, form: MosesText) -> Pair:
    src, tgt = into_form(pair.src, form, "src"), into_form(pair.tgt, form, "tgt")
    return replace(pair, src=src, tgt=tgt, reference=pair.reference or pair.tgt)


def _paragraphs(pair: RawPair) -> Iterable[tuple[str, str, str]]:
    """Source, target and reference by paragraphs, when all have as many; else the whole as one pair.

    The reference of a single paragraph stays as it was written.
    """
    src, tgt = (clean(resolve_entities(text)).split("\n") for text in (pair.src, pair.tgt))
    if len(src) == len(tgt) > 1:
        reference = clean(pair.reference).split("\n") if pair.reference else [""] * len(src)
        if len(reference) == len(src):
            return zip(src, tgt, reference, strict=True)
    return [("\n".join(src), "\n".join(tgt), pair.reference)]


def _plain(src: str, tgt: str) -> tuple[str, str, str]:
    """Both sides of a message of a program, with placeholders numbered, and the reason to drop it if there is one."""
    src, tgt = _MNEMONIC.sub("", src), _MNEMONIC.sub("", tgt)
    if _MARKUP.search(src) or _MARKUP.search(tgt):
        return src, tgt, "markup"
    src, tgt, agree = _number_placeholders(src, tgt)
    return src, tgt, "" if agree else "placeholders"


def _fault(src: str, tgt: str, config: PairsConfig) -> str:
    """The reason to drop a pair, empty when it is good."""
    lengths = num_letters(src), num_letters(tgt)
    words = num_words(src), num_words(tgt)
    if "\n" in src or "\n" in tgt:
        return "paragraphs"
    if src.casefold() == tgt.casefold():
        return "equal"
    if not all(_LETTER.search(PLACEHOLDER.sub("", text)) for text in (src, tgt)):
        return "no_letters"
    if max(lengths) > config.max_ratio * min(lengths) + 10:
        return "length_ratio"
    if words[0] < config.min_words:
        return "too_short"
    return "too_long" if max(words) > config.max_words else ""


def _number_placeholders(src: str, tgt: str) -> tuple[str, str, bool]:
    """Every placeholder as {1}, {2}, ... by its first place in the source; False when the sides have different ones."""
    numbers: dict[str, str] = {}
    for found in PLACEHOLDER.findall(src):
        numbers.setdefault(found, f"{{{len(numbers) + 1}}}")
    if Counter(PLACEHOLDER.findall(src)).keys() != Counter(PLACEHOLDER.findall(tgt)).keys():
        return src, tgt, False
    return (
        PLACEHOLDER.sub(lambda match: numbers[match.group()], src),
        PLACEHOLDER.sub(lambda match: numbers[match.group()], tgt),
        True,
    )


def _agreed(same: Sequence[int], spool: PairSpool) -> Sequence[int]:
    """Of the pairs of one source: one a group, all with the most frequent translation of that source."""
    if len(same) == 1:
        return same
    pairs = {number: spool.pair(number) for number in same}
    votes = Counter(pair.tgt for pair in pairs.values())
    target = min(votes, key=lambda tgt: (-votes[tgt], tgt))
    first: dict[str, int] = {}
    for number, pair in pairs.items():
        if pair.tgt == target:
            first.setdefault(pair.group, number)
    return list(first.values())


def _split(
    found: Iterable[Sequence[int]], spool: PairSpool, train: "array[int]", config: PairsConfig, result: PairSplits
) -> None:
    """Sends whole groups, in a fixed random order, to test and valid until these are full, and the rest to train.

    `found` are the pairs of each source: all of them, or one a group.

    A source that several groups share belongs to train. What a held-out group shares with others is thus no test pair.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for numbers in found:
        group = spool.group(numbers[0])
        if group and all(spool.group(number) == group for number in numbers):
            groups[group].extend(numbers)
        else:
            train.extend(numbers if config.repeats == "all" else numbers[:1])

    def fit(name: str) -> list[Pair]:
        return [pair for pair in map(spool.pair, groups[name]) if _is_fit_for_scoring(pair, config)]

    names = sorted(groups, key=order_of)
    taken: set[str] = set()
    begin = 0
    for split, pairs, wanted in (("test", result.test, config.num_test), ("valid", result.valid, config.num_valid)):
        free = [name for name in names if name not in taken]
        largest = max(wanted, sum(map(len, groups.values())) // 10)
        # No group has at most a quarter of three pairs.
        for some, limit in ((names[begin:] if wanted > 3 else [], wanted // 4), (free, wanted), (free, largest)):
            chosen = _first_groups(some, fit, wanted, limit)
            if sum(map(len, chosen.values())) >= wanted:
                break
        else:
            raise ValueError(_too_few(split, wanted, largest, [len(fit(name)) for name in free], config))
        if chosen:
            begin = names.index(list(chosen)[-1]) + 1
        taken |= chosen.keys()
        pairs += [pair for good in chosen.values() for pair in good][:wanted]
        left_out = sum(len(groups[name]) for name in chosen) - min(wanted, sum(map(len, chosen.values())))
        result.dropped["not_scored"] += left_out
    for name in names:
        if name not in taken:
            train.extend(groups[name])


def _first_groups(
    names: Iterable[str], fit: Callable[[str], list[Pair]], wanted: int, limit: int
) -> dict[str, list[Pair]]:
    """The first groups with at most `limit` pairs that are fit for scoring, and these, until there are `wanted`."""
    chosen: dict[str, list[Pair]] = {}
    num_found = 0
    for name in names:
        if num_found >= wanted:
            break
        pairs = fit(name)
        if len(pairs) <= limit:
            chosen[name] = pairs
            num_found += len(pairs)
    return chosen


def _too_few(split: str, wanted: int, limit: int, sizes: Sequence[int], config: PairsConfig) -> str:
    """What to say where the groups that are left, with so many pairs fit for scoring each, cannot fill a split."""
    small, large = ([size for size in sizes if (size <= limit) == is_small] for is_small in (True, False))
    message = (
        f"translation: too few groups for num_{split}: {wanted:,}: sources with into: split have {len(sizes):,} left, "
        f"{len(small):,} of them with at most {limit:,} pairs fit for scoring, {sum(small):,} in all"
    )
    if large:
        message += (
            f"; {len(large):,} have more, {min(large):,} the smallest, and stay in train: a group lies in one split as "
            f"a whole, and is held out with at most {wanted:,} pairs or a tenth of all"
        )
    return f"{message}; fit are {config.min_words_held_out} words (min_words_held_out) and more, without placeholders"


def _is_fit_for_scoring(pair: Pair, config: PairsConfig) -> bool:
    """Held-out pairs are phrases, without the placeholders that would be copied for free."""
    return num_words(pair.src) >= config.min_words_held_out and not PLACEHOLDER.search(pair.src)
