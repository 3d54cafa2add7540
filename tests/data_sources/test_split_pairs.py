"""Pairs that are split off: with their reference, of any number, out of whole groups; and repeats that may stay."""

from itertools import islice, pairwise
from pathlib import Path
from typing import get_args

import pytest

from pipeline.data.preparing.pairs import PairsConfig, prepare_pairs
from pipeline.data.preparing.parallel import Table
from pipeline.data.records import Pair
from tests.data_sources.test_parallel_text import MOSES, prepared, table, two_files


@pytest.mark.parametrize("settings", [{}, {"text": MOSES}, {"text": MOSES, "text_is_applied": True}])
def test_pairs_that_are_split_off_keep_the_line_of_the_reference_and_training_pairs_do_not(
    settings: dict[str, object], tmp_path: Path
) -> None:
    names = [chr(ord("a") + number) * 3 for number in range(20)]
    (tmp_path / "raw.de").write_text("".join(f"Ein  Hund &amp; {name}!\n" for name in names))
    source = two_files(
        tmp_path,
        "split",
        [f"a dog {name}" for name in names],
        [f"ein hund {name}" for name in names],
        reference="raw.de",
    )
    found = prepared(tmp_path, source, num_valid=4, num_test=8, **settings)
    assert {split: len(pairs) for split, pairs in found.items()} == {"train": 8, "valid": 4, "test": 8}
    for pair in found["valid"] + found["test"]:
        assert pair.reference == f"Ein  Hund &amp; {pair.src[-3:]}!"
    is_tokenised_here = settings == {"text": MOSES}
    assert [pair.reference for pair in found["train"]] == [
        f"ein hund {pair.src[-3:]}" if is_tokenised_here else "" for pair in found["train"]
    ]


def test_a_pair_whose_reference_is_empty_is_for_training(tmp_path: Path) -> None:
    known, empty = ["four", "five", "six", "seven", "eight"], ["one", "two", "three"]
    (tmp_path / "raw.de").write_text("".join(f"{name}\n" for name in known) + " \n\u200b\n\n")
    names = known + empty
    source = two_files(tmp_path, "split", [f"a dog {name}" for name in names], names, reference="raw.de")
    found = prepared(tmp_path, source, num_test=5)
    assert [pair.src for pair in found["train"]] == [f"a dog {name}" for name in empty]
    assert {pair.src: pair.reference for pair in found["test"]} == {f"a dog {name}": name for name in known}


def test_paragraphs_of_a_line_have_those_of_its_reference(tmp_path: Path) -> None:
    lines = [f"the {n} dog\u2028the {n} cat" for n in ("first", "second", "third", "fourth")]
    (tmp_path / "raw.de").write_text(
        "".join(f"{line.upper()}\n" for line in lines[:3]) + "ONE\u2028AND TWO\u2028MORE\n"
    )
    source = two_files(tmp_path, "split", lines, [line.replace("the", "der") for line in lines], reference="raw.de")
    found = prepared(tmp_path, source, num_test=6, min_words_held_out=1)
    assert all(pair.reference == pair.src.upper() for pair in found["test"])
    assert [len(found[split]) for split in ("train", "test")] == [0, 6]


def groups(raw: Path, *sizes: int) -> Table:
    """A table with groups of these sizes, each with its size in its name; no two sources are alike."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = iter([one + two + three for one in letters for two in letters for three in letters])
    lines = []
    for number, size in enumerate(sizes):
        for word in islice(words, size):
            lines.append(f"{number} of {size}\tthe dog {word}\tder Hund {word}\n")
    return table(raw, "".join(lines), columns=["group", "src", "tgt"], into="split")


def check_whole(found: dict[str, list[Pair]], *, size: int, num_pairs: int) -> None:
    """No group lies in two splits, and only what is over of the last one of each is left out."""
    names = {split: {pair.group for pair in pairs} for split, pairs in found.items()}
    assert not names["train"] & names["valid"] and not names["train"] & names["test"] | names["valid"] & names["test"]
    num_over = sum(-len(found[split]) % size for split in ("valid", "test"))
    assert sum(map(len, found.values())) == num_pairs - num_over


@pytest.mark.parametrize("wanted", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_split_may_be_as_small_as_one_pair(size: int, wanted: int, tmp_path: Path) -> None:
    source = groups(tmp_path, *[size] * (200 // size))
    found = prepared(tmp_path, source, num_valid=wanted, num_test=wanted)
    assert [len(found[split]) for split in ("valid", "test")] == [wanted, wanted]
    check_whole(found, size=size, num_pairs=200)


@pytest.mark.parametrize(("num_valid", "num_test"), [(0, 100), (100, 100), (100, 0), (100, 4), (4, 100), (20, 50)])
def test_documents_that_are_larger_than_a_quarter_of_a_split_may_be_held_out(
    num_valid: int, num_test: int, tmp_path: Path
) -> None:
    found = prepared(tmp_path, groups(tmp_path, *[60] * 10), num_valid=num_valid, num_test=num_test)
    assert (len(found["valid"]), len(found["test"])) == (num_valid, num_test)
    check_whole(found, size=60, num_pairs=600)


@pytest.mark.parametrize(("large", "small"), [(15, 5), (60, 15)])
def test_large_groups_are_held_out_only_where_small_ones_are_too_few(large: int, small: int, tmp_path: Path) -> None:
    found = prepared(tmp_path, groups(tmp_path, *[large, small] * 20), num_valid=20, num_test=20)
    assert all(pair.group.endswith(f" of {small}") for pair in found["valid"] + found["test"])
    assert len(found["train"]) == 20 * (large + small) - sum(small * -(-20 // small) for _ in ("valid", "test"))


def test_what_was_too_large_for_test_is_there_for_valid(tmp_path: Path) -> None:
    source = groups(tmp_path, *[60] * 10, *[1] * 4)
    found = prepared(tmp_path, source, num_valid=600, num_test=4)
    assert {pair.group[-5:] for pair in found["test"]} == {" of 1"} and not found["train"]


def test_groups_that_are_too_large_to_be_held_out_are_told_with_their_size_and_the_limit(tmp_path: Path) -> None:
    source = groups(tmp_path, 60, 60, 60)
    with pytest.raises(
        ValueError,
        match=r"too few groups for num_test: 20: sources with into: split have 3 left, 0 of them with at most 20 pairs "
        r".*; 3 have more, 60 the smallest, and stay in train: .* at most 20 pairs or a tenth of all; fit are 3 words",
    ):
        prepared(tmp_path, source, num_test=20)
    with pytest.raises(
        ValueError, match=r"num_valid: 61: .* have 3 left, 3 of them .* 61 pairs .* 0 in all; fit are 9"
    ):
        prepared(tmp_path, source, num_test=0, num_valid=61, min_words_held_out=9)


REPEATS = [
    ("The dog.", "Der Hund."),
    ("a cat", "eine Katze"),
    ("the dog", "Der Hund."),
    ("the dog", "Der Rüde."),
    ("a cow", "eine Kuh"),
    ("a cow", "eine Kuh"),
    ("A cow!", "Die Kuh."),
    ("1 cow", "1 Kuh"),
    ("2 cows", "2 cows"),
]
"""Two sources that repeat, once more in another case and with a punctuation mark, and what is left out anyway."""


def test_repeats_stay_where_all_are_wanted_but_for_sources_that_are_held_out(tmp_path: Path) -> None:
    train = two_files(tmp_path, "train", [src for src, _ in REPEATS], [tgt for _, tgt in REPEATS])
    test = two_files(tmp_path, "test", ["a COW"], ["eine Kuh"])
    found = {
        repeats: prepare_pairs(PairsConfig(sources=(train, test), repeats=repeats), tmp_path)
        for repeats in get_args(PairsConfig.model_fields["repeats"].annotation)
    }
    texts = {name: sorted((pair.src, pair.tgt) for pair in one.splits["train"]) for name, one in found.items()}
    assert texts == {
        "one": [("1 cow", "1 Kuh"), ("The dog.", "Der Hund."), ("a cat", "eine Katze")],
        "all": sorted([*REPEATS[:4], REPEATS[7]]),
    }
    dropped = {name: {why: count for why, count in one.dropped.items() if count} for name, one in found.items()}
    assert dropped == {
        "one": {"duplicate": 4, "in_fixed_test": 1, "equal": 1},
        "all": {"in_fixed_test": 3, "equal": 1},
    }
    for one in found.values():
        num_kept = len(one.train) + len(one.valid) + len(one.test)
        assert one.num_read == num_kept + one.dropped.total()


@pytest.mark.parametrize(("repeats", "of_each"), [("one", 1), ("all", 2)])
def test_repeats_within_a_group_go_where_it_goes_and_those_of_several_groups_are_for_training(
    repeats: str, of_each: int, tmp_path: Path
) -> None:
    names = "abcdefghij"
    lines = [f"{name}\tthe dog {name}\tder Hund\n{name}\tThe dog {name}!\tder Hund\n" for name in names]
    for one, two in pairwise(names):
        lines += [f"{name}\tyes, {one} and {two}\tja\n" for name in (one, two)]
    source = table(tmp_path, "".join(lines), columns=["group", "src", "tgt"], into="split")
    found = prepared(tmp_path, source, repeats=repeats, num_valid=4, num_test=4)
    dogs = {name: [pair for pair in pairs if pair.tgt != "ja"] for name, pairs in found.items()}
    check_whole(dogs, size=of_each, num_pairs=10 * of_each)
    assert [len(found[split]) - len(dogs[split]) for split in ("train", "valid", "test")] == [9 * of_each, 0, 0]


def test_the_default_leaves_one_of_repeats() -> None:
    assert PairsConfig().repeats == "one"
