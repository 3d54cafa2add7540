"""How pairs become one a source and are split, with all of them in memory: what the code with the spool must equal."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

from pipeline.data.cleaning import key_of, order_of
from pipeline.data.records import Pair


def one_a_source(pairs: Sequence[Pair]) -> dict[bytes, list[Pair]]:
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
    return unique


def split_pairs(
    pairs: Sequence[Pair], *, without: Collection[bytes], num_test: int, num_valid: int
) -> dict[str, list[Pair]]:
    """Whole groups in a fixed order to test, valid and train; all pairs are taken to be fit for scoring."""
    splits: dict[str, list[Pair]] = {"train": [], "valid": [], "test": []}
    groups: dict[str, list[Pair]] = defaultdict(list)
    for key, same in one_a_source(pairs).items():
        if key in without:
            continue
        if len(same) == 1 and same[0].group:
            groups[same[0].group].append(same[0])
        else:
            splits["train"].append(same[0])
    remaining = iter(sorted(groups, key=order_of))
    for split, wanted in (("test", num_test), ("valid", num_valid)):
        chosen: list[Pair] = []
        while len(chosen) < wanted:
            group = next(remaining)
            if len(groups[group]) > wanted // 4:
                splits["train"] += groups[group]
            else:
                chosen += groups[group]
        splits[split] += chosen[:wanted]
    splits["train"] += [pair for group in remaining for pair in groups[group]]
    return splits
