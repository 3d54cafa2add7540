"""Running text of any size: the borders of its documents, its repeats, and its overlap."""

import json
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from pydantic import ValidationError

from pipeline.data.cleaning import key_of, words_of
from pipeline.data.preparing import overlap as overlap_module
from pipeline.data.preparing.documents import DocumentCounts, DocumentsConfig, TextRows, split_documents
from pipeline.data.preparing.overlap import overlap
from pipeline.data.preparing.repeats import KeyFile

ROOT = Path(__file__).parents[2]


def documents(
    project: Path,
    source: TextRows,
    rows: list[dict[str, object]],
    counts: DocumentCounts | None = None,
    *,
    min_words: int = 1,
) -> list[tuple[str, str, str]]:
    (project / "raw" / "h").mkdir(parents=True, exist_ok=True)
    (project / "raw/h/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = DocumentsConfig(sources=(source,), min_words=min_words)
    found = split_documents(config, project / "raw", counts or DocumentCounts(), lambda: ())
    return [(split, document.id, document.text) for split, document in found]


def test_columns_that_are_not_there_are_named_beside_those_that_are(project: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.jsonl:2: no text at key 'text'; the row has content, id"):
        documents(
            project,
            TextRows(kind="rows", source="h", file="train.jsonl"),
            [{"text": "a"}, {"content": "b", "id": 1}],
        )


def test_rows_of_one_sentence_are_joined_to_documents_whose_neighbours_stay_neighbours(project: Path) -> None:
    source = TextRows(kind="rows", source="h", file="train.jsonl", into="train", rows_per_document=3)
    names = ["one", "two", "three", "four", "five", "six", "seven"]
    found = documents(project, source, [{"text": f"the {name} .\nit ."} for name in names])
    assert found == [
        ("train", "h/1", "the one . it .\nthe two . it .\nthe three . it ."),
        ("train", "h/4", "the four . it .\nthe five . it .\nthe six . it ."),
        ("train", "h/7", "the seven . it ."),
    ]


def test_parts_of_books_whose_borders_are_lost_may_not_lie_in_several_splits() -> None:
    with pytest.raises(ValidationError, match=r"rows_per_document: 3 rows .* allowed is into: train, valid or test"):
        TextRows(kind="rows", source="h", file="f", rows_per_document=3)


def test_headings_and_entries_of_lists_are_left_out_where_paragraphs_have_a_fewest_number_of_words(
    project: Path,
) -> None:
    source = TextRows(kind="rows", source="h", file="train.jsonl", into="train", min_paragraph_words=3)
    text = "It is a town.\n\nHistory\n\nIt was founded.\nSee also"
    assert documents(project, source, [{"text": text}, {"text": "See also"}]) == [
        ("train", "h/1", "It is a town.\nIt was founded.")
    ]


def test_every_document_and_paragraph_that_is_left_out_is_counted_under_its_own_name(project: Path) -> None:
    rows: list[dict[str, object]] = [
        {"text": text} for text in ("One two three four.\nSee also", "See also", "", "***\n", "See also\n\nHistory")
    ]
    kept = TextRows(kind="rows", source="h", file="train.jsonl", into="train", min_paragraph_words=3)
    counts = DocumentCounts()
    assert [name for _, name, _ in documents(project, kept, rows, counts)] == ["h/1"]
    assert (counts.num_read, +counts.dropped) == (5, {"short_paragraphs": 5, "empty_documents": 4})
    whole = TextRows(kind="rows", source="h", file="train.jsonl")
    counts = DocumentCounts()
    assert [name for _, name, _ in documents(project, whole, rows, counts, min_words=3)] == ["h/1", "h/5"]
    assert (counts.num_read, +counts.dropped) == (5, {"short_documents": 1, "empty_documents": 2})


def test_a_document_that_came_before_is_left_out_wherever_it_is(project: Path) -> None:
    source = TextRows(kind="rows", source="h", file="train.jsonl", into="train")
    texts = ["a b", "c d", "A b!", "e f", "c d", "a b"]
    found = documents(project, source, [{"text": text} for text in texts])
    assert [name for _, name, _ in found] == ["h/1", "h/2", "h/4"]


@pytest.mark.parametrize("at_once", [1, 3, 7, 1000])
def test_repeats_are_those_that_a_set_of_all_keys_finds(at_once: int) -> None:
    random, keys, seen = Random(at_once), KeyFile(None), set[bytes]()
    expected = []
    for _ in range(60):
        key = key_of(random.choice("abcdefghijklmnopqrstuvwxyz"))
        expected.append(key in seen)
        seen.add(key)
        keys.append(key)
    assert keys.repeats(at_once=at_once).tolist() == expected
    assert KeyFile(None).repeats().tolist() == []


def slow_ngrams(texts: list[str], n: int) -> Counter[tuple[str, ...]]:
    lines = [words_of(line) for text in texts for line in text.split("\n")]
    return Counter(tuple(words[i : i + n]) for words in lines if words for i in range(max(1, len(words) - n + 1)))


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_the_overlap_is_that_of_ngrams_kept_as_words_however_many_texts_at_once(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlap_module, "_CHARACTERS_AT_ONCE", 20)
    random = Random(n)

    def texts(count: int) -> list[str]:
        lines = [" ".join(random.choices("abcde", k=random.randint(0, 9))) for _ in range(3 * count)]
        return ["\n".join(lines[i : i + 3]) for i in range(0, len(lines), 3)]

    tests, trains = {"s": texts(5), "t": texts(9)}, {"u": texts(20), "v": texts(2)}
    table = overlap(tests, trains, n=n)
    for test, test_texts in tests.items():
        grams = slow_ngrams(test_texts, n)
        assert table[test]["num_ngrams"] == grams.total()
        for train, train_texts in trains.items():
            seen = slow_ngrams(train_texts, n)
            share = sum(count for gram, count in grams.items() if gram in seen) / grams.total()
            assert table[test][train] == pytest.approx(share, abs=1e-6)
