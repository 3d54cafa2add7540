"""Parallel text in rows of JSON, as the hub has it: through fetch and prepare, and with faults that are named."""

import json
from pathlib import Path

import pytest

from pipeline.stages import fetch, prepare
from tests.data_sources.test_stages import configure, rows

FETCH = "sources: {h: {kind: hub, dataset: hub, revision: abc123, splits: [train, validation, test], licence: MIT}}"
PREPARE = """
translation:
  sources:
    - {{kind: rows, source: h, into: train, file: train.jsonl, src: {src}, tgt: {tgt}}}
    - {{kind: rows, source: h, into: valid, file: validation.jsonl, src: {src}, tgt: {tgt}}}
    - {{kind: rows, source: h, into: test, file: test.jsonl, src: {src}, tgt: {tgt}}}
"""
Pairs = list[tuple[str, object]]
SPLITS: dict[str, Pairs] = {
    "train": [("a dog", "ein Hund")],
    "validation": [("a cat", "eine Katze")],
    "test": [("a cow", "eine Kuh")],
}


def prepared(project: Path, *, src: str = "translation.en", tgt: str = "translation.de", **changes: Pairs) -> None:
    """Fetches a data set in the hub's layout and prepares its pairs."""
    (project / "hub").mkdir()
    for split, pairs in (SPLITS | changes).items():
        lines = [json.dumps({"translation": {"en": en, "de": de}}, ensure_ascii=False) + "\n" for en, de in pairs]
        (project / "hub" / f"{split}.jsonl").write_text("".join(lines))
    fetch.main(configure(project, "fetch", FETCH))
    prepare.main(configure(project, "prepare", PREPARE.format(src=src, tgt=tgt)))


def test_rows_of_a_hub_data_set_become_the_pairs_of_its_splits(project: Path) -> None:
    test: Pairs = [("two cows", "zwei Kühe"), ("a cow", "eine Kuh"), ("two cows", "zwei Kühe")]
    prepared(project, train=[("a dog", "ein Hund"), ("a dog", ""), ("the dog", "der Hund")], test=test)
    found = {
        split: [(row["src"], row["tgt"]) for row in rows(f"data/own/prepared/translation/{split}.jsonl")]
        for split in ("train", "valid", "test")
    }
    assert found == {
        "train": [("a dog", "ein Hund"), ("the dog", "der Hund")],
        "valid": SPLITS["validation"],
        "test": test,
    }
    counts = json.loads(Path("metrics/own/prepare.json").read_text())["counts"]["translation"]
    assert (counts["read"], counts["dropped"]) == (7, {"no_letters": 1})


@pytest.mark.parametrize(
    ("tgt", "message"),
    [
        ("translation.fr", r"h/train\.jsonl:1: no key 'translation\.fr'; translation has de, en$"),
        ("text.de", r"h/train\.jsonl:1: no key 'text\.de'; the row has translation$"),
        ("translation.en.text", r"h/train\.jsonl:1: no key 'translation\.en\.text'; en is str, which has no keys$"),
        ("translation", r"h/train\.jsonl:1: translation: expected a text, found \{'de': 'ein Hund', 'en': 'a dog'\}$"),
    ],
)
def test_a_key_that_leads_to_no_text_is_named_with_what_is_there(project: Path, tgt: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepared(project, tgt=tgt)
    assert not Path("data/own/prepared").exists()


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("a dog", "ein Hund"), ("a cat", None)], r"train\.jsonl:2: translation\.de: expected a text, found None$"),
        ([("a dog", ["ein", "Hund"])], r"train\.jsonl:1: translation\.de: expected a text, found \['ein', 'Hund'\]$"),
        ([("a dog", 1)], r"train\.jsonl:1: translation\.de: expected a text, found 1$"),
    ],
)
def test_a_value_that_is_no_text_is_named_with_its_line(project: Path, pairs: Pairs, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepared(project, train=pairs, validation=pairs, test=pairs)


def test_splits_of_a_hub_data_set_that_do_not_fit_each_other_are_named(project: Path) -> None:
    with pytest.raises(ValueError, match=r"^hub data set hub \(validation\) cannot be loaded: .*'eine Katze'"):
        prepared(project, train=[("a dog", 1)])
