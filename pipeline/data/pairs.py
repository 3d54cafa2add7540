"""Translation pairs: cleaned, filtered, deduplicated, and split so that no source sentence lies in two splits."""

import html
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from pipeline.config import Config
from pipeline.data.cleaning import clean, clean_line, key_of, order_of
from pipeline.data.parallel import AnyParallel, Gettext, LocalisedJson, RawPair, read_pairs
from pipeline.data.records import SPLITS, Pair
from pipeline.progress import progress
from pipeline.text.forms import MosesText, PlainText, TextForm, into_form

PLACEHOLDER = re.compile(r"%?\{[^{}\n]*\}|%\([^()\n]*\)[#0 +-]*\d*(?:\.\d+)?[a-z]|%(?:\d+\$)?(?:\.\d+)?[sdifr](?![\w])")
_MARKUP = re.compile(r"<[a-zA-Z/!][^<>]*>|\]\(|https?://|\w&\w|\[%")
_MNEMONIC = re.compile(r"(?<!\w)&(?=\w)")
_LETTER = re.compile(r"[^\W\d_]")


class PairsConfig(Config):
    """Parallel data and how it is filtered and split."""

    sources: tuple[AnyParallel, ...] = ()
    """Parallel sources; none leaves translation out."""
    min_words: PositiveInt = 1
    """Fewest words on the source side of a training pair."""
    min_words_held_out: PositiveInt = 3
    """Fewest words on the source side of a validation or test pair that is split off here."""
    max_words: PositiveInt = 100
    """Most words on either side of a training pair."""
    max_ratio: PositiveFloat = 3.0
    """Largest ratio of the lengths of the two sides in characters."""
    num_valid: NonNegativeInt = 0
    """Validation pairs to split off, from whole groups."""
    num_test: NonNegativeInt = 0
    """Test pairs to split off, from whole groups."""
    text: TextForm = PlainText()
    """The form of the pairs that are written; a target that changes keeps what it was as its reference."""
    text_is_applied: bool = False
    """Whether the files of all sources have that form already."""


@dataclass
class PairSplits:
    """The pairs of each split, and why others were dropped."""

    splits: dict[str, list[Pair]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    dropped: Counter[str] = field(default_factory=Counter)
    num_read: int = 0


def prepare_pairs(config: PairsConfig, raw: Path) -> PairSplits:
    """Reads, filters and splits all sources of `config`."""
    result = PairSplits()
    candidates: list[Pair] = []
    for source in config.sources:
        found = progress(read_pairs(source, raw), name=f"translation: {source.source}", unit="pairs")
        for number, pair in enumerate(found):
            result.num_read += 1
            group = f"{source.source}/{pair.group}"
            if source.into in ("valid", "test"):
                # A published test set stays whole and in order, or its scores compare with nobody's.
                src, tgt, reference = (clean_line(text) for text in (pair.src, pair.tgt, pair.reference))
                kept = Pair(f"{source.source}-{number}", src, tgt, source.source, group, reference)
                result.splits[source.into].append(kept)
                continue
            for part, (src, tgt) in enumerate(_paragraphs(pair)):
                fault = ""
                if isinstance(source, LocalisedJson | Gettext):
                    src, tgt, fault = _plain(src, tgt)
                fault = fault or _fault(src, tgt, config)
                if fault:
                    result.dropped[fault] += 1
                    continue
                home = "" if source.into == "train" else group
                candidates.append(Pair(f"{source.source}-{number}-{part}", src, tgt, source.source, home))
    held_out = {key_of(pair.src) for split in ("valid", "test") for pair in result.splits[split]}
    unique = _deduplicate(candidates, result.dropped)
    fresh = {key: pairs for key, pairs in unique.items() if key not in held_out}
    result.dropped["in_fixed_test"] = len(unique) - len(fresh)
    _split(fresh, config, result)
    if not isinstance(config.text, PlainText) and not config.text_is_applied:
        for split, pairs in result.splits.items():
            shown = progress(pairs, name=f"translation: {split} into {config.text.kind}", unit="pairs")
            result.splits[split] = [_in_form(pair, config.text) for pair in shown]
    return result


def _in_form(pair: Pair, form: MosesText) -> Pair:
    src, tgt = into_form(pair.src, form, "src"), into_form(pair.tgt, form, "tgt")
    return replace(pair, src=src, tgt=tgt, reference=pair.tgt)


def _paragraphs(pair: RawPair) -> Iterable[tuple[str, str]]:
    """The paragraphs of both sides in parallel, when there are as many; else the whole as one pair."""
    src, tgt = (clean(html.unescape(text)).split("\n") for text in (pair.src, pair.tgt))
    if len(src) == len(tgt):
        return zip(src, tgt, strict=True)
    return [("\n".join(src), "\n".join(tgt))]


def _plain(src: str, tgt: str) -> tuple[str, str, str]:
    """Both sides of a message of a program, with placeholders numbered, and the reason to drop it if there is one."""
    src, tgt = _MNEMONIC.sub("", src), _MNEMONIC.sub("", tgt)
    if _MARKUP.search(src) or _MARKUP.search(tgt):
        return src, tgt, "markup"
    src, tgt, agree = _number_placeholders(src, tgt)
    return src, tgt, "" if agree else "placeholders"


def _fault(src: str, tgt: str, config: PairsConfig) -> str:
    """The reason to drop a pair, empty when it is good."""
    lengths = len(src), len(tgt)
    num_words = len(src.split()), len(tgt.split())
    if "\n" in src or "\n" in tgt:
        return "paragraphs"
    if src.casefold() == tgt.casefold():
        return "equal"
    if not all(_LETTER.search(PLACEHOLDER.sub("", text)) for text in (src, tgt)):
        return "no_letters"
    if max(lengths) > config.max_ratio * min(lengths) + 10:
        return "length_ratio"
    if num_words[0] < config.min_words:
        return "too_short"
    return "too_long" if max(num_words) > config.max_words else ""


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


def _deduplicate(pairs: Sequence[Pair], dropped: Counter[str]) -> dict[bytes, list[Pair]]:
    """By normalised source: one pair a group, all with the most frequent translation of that source."""
    by_key: dict[bytes, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_key[key_of(pair.src)].append(pair)
    unique: dict[bytes, list[Pair]] = {}
    for key, same in by_key.items():
        votes = Counter(pair.tgt for pair in same)
        target = min(votes, key=lambda tgt: (-votes[tgt], tgt))
        first: dict[str, Pair] = {}
        for pair in same:
            if pair.tgt == target:
                first.setdefault(pair.group, pair)
        unique[key] = list(first.values())
        dropped["duplicate"] += len(same) - 1
    return unique


def _split(unique: dict[bytes, list[Pair]], config: PairsConfig, result: PairSplits) -> None:
    """Sends whole groups, in a fixed random order, to test and valid until these are full, and the rest to train.

    A source that several groups share belongs to train. What a held-out group shares with others is thus no test pair.
    """
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pairs in unique.values():
        if len(pairs) == 1 and pairs[0].group:
            groups[pairs[0].group].append(pairs[0])
        else:
            result.splits["train"].append(pairs[0])
    remaining: Iterator[str] = iter(sorted(groups, key=order_of))
    for split, wanted in (("test", config.num_test), ("valid", config.num_valid)):
        chosen: list[Pair] = []
        while len(chosen) < wanted:
            group = next(remaining, None)
            if group is None:
                raise ValueError(f"translation: too few groups for {wanted} {split} pairs; found {len(chosen)}")
            good = [pair for pair in groups[group] if _is_fit_for_scoring(pair, config)]
            if len(good) > wanted // 4:
                result.splits["train"] += groups[group]
                continue
            result.dropped["not_scored"] += len(groups[group]) - len(good)
            chosen += good
        result.splits[split] += chosen[:wanted]
    result.splits["train"] += [pair for group in remaining for pair in groups[group]]


def _is_fit_for_scoring(pair: Pair, config: PairsConfig) -> bool:
    """Held-out pairs are phrases, without the placeholders that would be copied for free."""
    return len(pair.src.split()) >= config.min_words_held_out and not PLACEHOLDER.search(pair.src)
