"""Which rated texts are repeats, which stay together, and which become one document of running text."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.data.prepared import read_documents
from pipeline.data.preparing.corpus import PrepareConfig, prepare
from pipeline.data.preparing.rated import RatedConfig, RatedSplits, RatingsTable, TwoFileRatings, prepare_rated


def prepared_table(raw: Path, texts: Sequence[str], *, held_out: float = 0.1) -> RatedSplits:
    """The splits of a table of texts."""
    (raw / "own").mkdir(parents=True)
    (raw / "own/r.tsv").write_text("".join(f"{text}\t1,2\tmovie\n" for text in texts))
    source = RatingsTable(kind="table", source="own", file="r.tsv")
    return prepare_rated(RatedConfig(sources=(source,), valid_share=held_out, test_share=held_out), raw)


def texts_of(result: RatedSplits) -> dict[str, list[str]]:
    return {split: [record.text for record in found] for split, found in result.splits.items()}


def test_texts_that_differ_in_digits_are_no_repeats_and_stay_in_one_split(tmp_path: Path) -> None:
    stars = [f"The {food} was {number} out of 5 stars." for food in ("soup", "bread", "cake") for number in range(6)]
    result = prepared_table(tmp_path, stars, held_out=0.34)
    splits = texts_of(result)
    assert sorted(text for found in splits.values() for text in found) == sorted(stars)
    assert all(len({text.split()[1] for text in found}) == 1 for found in splits.values())
    assert not result.dropped


def test_texts_that_differ_in_case_and_signs_alone_are_repeats(tmp_path: Path) -> None:
    result = prepared_table(tmp_path, ["It was 5 stars.", "it was 5 stars!", "It was 4 stars", ":) :) :)", ":( :( :("])
    assert texts_of(result)["train"] == ["It was 5 stars.", "It was 4 stars", ":) :) :)", ":( :( :("]
    assert result.dropped == {"duplicate": 1}


def two_files(raw: Path, domain: str, ids: Sequence[str]) -> TwoFileRatings:
    """A source of one text for each id."""
    (raw / "own").mkdir(parents=True, exist_ok=True)
    rows = [(name, f"text {chr(97 + place // 26)}{chr(97 + place % 26)} here") for place, name in enumerate(ids)]
    (raw / "own/t.txt").write_text("".join(f"{name}\t1\t{text}\n" for name, text in rows))
    (raw / "own/r.txt").write_text("".join(f"{name}\t1\t0\t[1, 1]\n" for name in ids))
    return TwoFileRatings(kind="two_files", source="own", texts="t.txt", ratings="r.txt", domain=domain)


@pytest.mark.parametrize("domain", ["hotel", "hotel_review", "a_b_c"])
def test_the_name_of_a_domain_has_no_part_in_the_split(tmp_path: Path, domain: str) -> None:
    source = two_files(tmp_path, domain, [str(number) for number in range(100)])
    result = prepare_rated(RatedConfig(sources=(source,)), tmp_path)
    assert {split: len(found) for split, found in result.splits.items()} == {"train": 80, "valid": 10, "test": 10}


@pytest.mark.parametrize("domain", ["hotel", "hotel_review"])
def test_the_sentences_of_a_review_stay_together_and_are_one_document(tmp_path: Path, domain: str) -> None:
    source = two_files(tmp_path, domain, [f"no_{review}_{number}" for review in range(20) for number in range(5)])
    config = PrepareConfig.model_validate({"rated": {"sources": [source]}, "rated_as_text": True, "text": TEXT})
    (tmp_path / "own/plain.md").write_text("A text of its own.\n")
    prepare(config, tmp_path, tmp_path / "out")
    documents = [one for one in read_documents(tmp_path / "out/text/train.jsonl") if one.id.startswith("rated/")]
    assert len(documents) == 16 and all(one.text.count("\n") == 4 for one in documents)
    assert all(one.id == f"rated/{one.title}" and one.title.startswith(f"{domain}-") for one in documents)


TEXT = {"sources": [{"kind": "files", "source": "own", "files": "*.md", "into": "train"}], "min_words": 1}


@pytest.mark.parametrize("source", ["reviews", "my_reviews", "own_1"])
def test_each_text_of_a_table_is_a_document_of_its_own_whatever_the_source_is_called(
    tmp_path: Path, source: str
) -> None:
    (tmp_path / source).mkdir()
    (tmp_path / source / "r.tsv").write_text("".join(f"text {name} here\t1,2\tmovie\n" for name in "abcdef"))
    (tmp_path / "own").mkdir(exist_ok=True)
    (tmp_path / "own/plain.md").write_text("A text of its own.\n")
    table = {"kind": "table", "source": source, "file": "r.tsv"}
    rated = {"sources": [table], "valid_share": 0, "test_share": 0}
    config = PrepareConfig.model_validate({"rated": rated, "rated_as_text": True, "text": TEXT})
    prepare(config, tmp_path, tmp_path / "out")
    documents = [one for one in read_documents(tmp_path / "out/text/train.jsonl") if one.id.startswith("rated/")]
    assert [one.text for one in documents] == [f"text {name} here" for name in "abcdef"]
    assert (tmp_path / "out/rated/train.jsonl").read_text().count('"document"') == 0
