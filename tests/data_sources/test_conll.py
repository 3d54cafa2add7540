"""Column files become sentences in IOB2, whatever their scheme and layout; a fault is named with its line."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.data.prepared import read_tagged
from pipeline.data.preparing.conll import ConllSource, prepare_conll
from pipeline.data.preparing.tasks import prepare_tasks
from pipeline.data.records import Tagged

# As CoNLL-2003 was published, in IOB1, with two persons side by side.
PUBLISHED = """-DOCSTART- -X- O O

EU NNP I-NP I-ORG
rejects VBZ I-VP O
Peter NNP I-NP I-PER
Mary NNP B-NP B-PER

-DOCSTART- -X- O O

BRUSSELS NNP I-NP I-LOC
"""
EXPECTED = [
    (("EU", "rejects", "Peter", "Mary"), ("B-ORG", "O", "B-PER", "B-PER")),
    (("BRUSSELS",), ("B-LOC",)),
]


def source(**changes: Any) -> ConllSource:
    """Files of the folder `corpus`."""
    fields = {"kind": "conll", "source": "corpus", "train": "train.txt", "valid": "valid.txt", "scheme": "iob1"}
    return ConllSource.model_validate(fields | changes)


def read(path: Path, content: str | bytes, **changes: Any) -> list[Tagged]:
    """The sentences of a file with this content."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return prepared(path, **changes)


def prepared(path: Path, **changes: Any) -> list[Tagged]:
    """The sentences that are prepared of a file."""
    named = {"train": path.name, "valid": path.name, "types": ("A", "LOC", "ORG", "PER")}
    prepare_conll(source(**named | changes), path.parent, path.parent / "prepared")
    return list(read_tagged(path.parent / "prepared/train.jsonl"))


def pairs(sentences: list[Tagged]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [(one.words, one.tags) for one in sentences]


def test_the_published_files_are_read_as_sentences_in_iob2(tmp_path: Path) -> None:
    found = read(tmp_path / "eng.train", PUBLISHED)
    assert pairs(found) == EXPECTED
    assert [one.id for one in found] == ["eng.train:3", "eng.train:10"]


@pytest.mark.parametrize(
    "content",
    [
        PUBLISHED.replace("\n", "\r\n").encode("utf-8-sig"),
        PUBLISHED.replace(" ", "\t"),
        PUBLISHED.replace(" ", "  ").replace("\n\n", " \n\t\n\n"),
        PUBLISHED.rstrip("\n"),
        "\n\n" + PUBLISHED + "\n\n",
        PUBLISHED.replace("-DOCSTART- -X- O O\n\n", "-DOCSTART- (1)\n"),
    ],
    ids=["carriage returns", "tabs", "runs of blanks", "no last line end", "empty lines around", "short documents"],
)
def test_line_ends_blanks_and_borders_do_not_matter(tmp_path: Path, content: str | bytes) -> None:
    assert pairs(read(tmp_path / "x.txt", content)) == EXPECTED


def test_other_schemes_and_columns_give_the_same_sentences(tmp_path: Path) -> None:
    lines = [
        "1\tEU\tS-ORG\t_",
        "2\trejects\tO\t_",
        "3\tPeter\tS-PER\t_",
        "4\tMary\tS-PER\t_",
        "",
        "1\tBRUSSELS\tS-LOC\t_",
    ]
    changes = {"word_column": 2, "tag_column": -2, "separator": "tab"}
    assert pairs(read(tmp_path / "x.txt", "\n".join(lines), scheme="bioes", **changes)) == EXPECTED
    bilou = "\n".join(lines).replace("S-", "U-")
    assert pairs(read(tmp_path / "x.txt", bilou, scheme="bilou", **changes | {"tag_column": 3})) == EXPECTED


def test_between_tabs_a_word_may_hold_spaces_and_elsewhere_a_no_break_space(tmp_path: Path) -> None:
    (found,) = read(tmp_path / "x.txt", "New York\tI-LOC\n", separator="tab")
    assert found.words == ("New York",)
    (found,) = read(tmp_path / "x.txt", "10\u00a0000 O\n\u00a0 O\n\u3000 O\n")
    assert found.words == ("10\u00a0000", "\u00a0", "\u3000")


def test_comments_are_dropped_before_a_sentence_only_and_only_where_they_are_told(tmp_path: Path) -> None:
    content = "# text = a # b\na O\n# O\n# O\n\n#tag O\n"
    (first, second) = read(tmp_path / "x.txt", content, comment="# ")
    assert (first.words, second.words) == (("a", "#", "#"), ("#tag",))
    with pytest.raises(ValueError, match=r"x.txt:2: found 2 columns, line 1 has 6: 'a O'"):
        read(tmp_path / "x.txt", content)


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        ("EU I-ORG\nrejects\n", {}, r"x.txt:2: found 1 columns, line 1 has 2: 'rejects'"),
        ("EU I-ORG\nrejects O O\n", {}, r"x.txt:2: found 3 columns, line 1 has 2"),
        ("EU I-ORG\n\nO\n", {}, r"x.txt:3: found 1 columns"),
        ("a\tO\n\tO\n", {"separator": "tab"}, r"x.txt:2: the word is empty, in column 1"),
        ("EU I-ORG\nrejects X-ORG\n", {}, r"x.txt:2: a tag is O or one of B-TYPE, I-TYPE, found 'X-ORG'"),
        ("EU ORG\n", {}, r"x.txt:1: a tag is O or one of"),
        ("\nEU O\nrejects I-ORG\n", {"scheme": "iob2"}, r"x.txt:3: in iob2, I-ORG goes on with an entity of its type"),
        ("EU O\nrejects B-ORG\n", {}, r"x.txt:2: in iob1, B-ORG stands directly behind an entity of its type only"),
        ("EU O\nit B-A\n\nb O\n", {"scheme": "bioes"}, r"x.txt:2: .* ends with E-TYPE, found the end of the sentence"),
        ("EU I-ORG\n", {"tag_column": 3}, r"tag_column: found 3, the lines of .*x.txt have 2 columns"),
        ("EU I-ORG\n", {"word_column": -3}, r"word_column: found -3, the lines of .*x.txt have 2 columns"),
        ("EU I-ORG\n", {"word_column": 2}, r"x.txt:1: column 2 would be both word and tag"),
        ("EU I-ORG\n", {"tag_column": -2}, r"x.txt:1: column 1 would be both word and tag"),
        (b"EU I-ORG\n\xff O\n", {}, r"x.txt:2: not UTF-8: byte 0xff"),
        ("\n\n-DOCSTART- O\n\n", {}, r"x.txt: no sentence in this file"),
        ("", {}, r"x.txt: no sentence in this file"),
    ],
)
def test_a_fault_is_named_with_its_line(
    tmp_path: Path, content: str | bytes, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "x.txt", content, **changes)


def test_a_file_that_is_missing_and_a_column_without_a_number_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.txt: no such file"):
        prepared(tmp_path / "nowhere.txt")
    with pytest.raises(ValidationError, match="columns are counted from 1, or from the last with -1"):
        source(word_column=0)


def write(raw: Path, **files: str) -> None:
    (raw / "corpus").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (raw / f"corpus/{name}.txt").write_text(content)


def prepare(raw: Path, **changes: Any) -> Any:
    """The counts of the task `people`, prepared below raw/../out."""
    return prepare_tasks({"people": source(**changes)}, raw, raw.parent / "out")["people"]


def test_a_prepared_task_has_its_types_its_splits_and_their_sizes(tmp_path: Path) -> None:
    raw, folder = tmp_path / "raw", tmp_path / "out/people"
    write(raw, train=PUBLISHED, valid="Mary I-PER\n", test="it O\n")
    assert prepare(raw, test="test.txt") == {
        "train": {"records": 2, "words": 5, "entities": 4},
        "valid": {"records": 1, "words": 1, "entities": 1},
        "test": {"records": 1, "words": 1, "entities": 0},
    }
    assert json.loads((folder / "task.json").read_text()) == {"kind": "tagging", "types": ["LOC", "ORG", "PER"]}
    assert pairs(list(read_tagged(folder / "train.jsonl"))) == EXPECTED
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert rows[1] == {"id": "train.txt:10", "words": ["BRUSSELS"], "tags": ["B-LOC"]}


def test_tags_of_mixed_schemes_are_read_leniently_where_that_is_asked_for_and_counted(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    # B-ORG as iob2 has it, I-PER as iob1.
    write(raw, train="EU B-ORG\nsaw O\nMary I-PER\nAnn I-PER\n", valid="Mary B-PER\n")
    for scheme in ("iob1", "iob2"):
        with pytest.raises(ValueError, match=rf"train.txt:[13]: in {scheme}"):
            prepare(raw, scheme=scheme)
    assert prepare(raw, scheme="lenient") == {
        "train": {"records": 1, "words": 4, "entities": 2, "tags_rewritten": 1},
        "valid": {"records": 1, "words": 1, "entities": 1, "tags_rewritten": 0},
    }
    (sentence,) = read_tagged(tmp_path / "out/people/train.jsonl")
    assert sentence.tags == ("B-ORG", "O", "B-PER", "I-PER")
    write(raw, train="EU ORG\n")
    with pytest.raises(ValueError, match=r"train.txt:1: a tag is O or one of .*, found 'ORG'"):
        prepare(raw, scheme="lenient")


def test_a_task_without_a_test_file_has_no_test_split(tmp_path: Path) -> None:
    write(tmp_path / "raw", train="EU I-ORG\n", valid="it O\n")
    assert prepare(tmp_path / "raw").keys() == {"train", "valid"}
    found = sorted(path.name for path in (tmp_path / "out/people").iterdir())
    assert found == ["task.json", "train.jsonl", "valid.jsonl"]


def test_a_type_that_is_not_among_those_of_training_is_named_with_its_line(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write(raw, train="EU I-ORG\n", valid="it O\nsaw O\nMary I-PER\n")
    with pytest.raises(ValueError, match=r"valid.txt:3: entities of type 'PER' are not allowed; allowed are \['ORG'\]"):
        prepare(raw)
    prepare(raw, types=["ORG", "PER"])
    with pytest.raises(ValueError, match=r"train.txt:1: entities of type 'ORG' are not allowed; allowed are \['PER'\]"):
        prepare(raw, types=["PER"])


def test_training_without_an_entity_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "raw", train="it O\n", valid="it O\n")
    with pytest.raises(ValueError, match=r"train.txt: no entity to learn from; every tag is O"):
        prepare(tmp_path / "raw")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "a", "words": ["x"], "tags": ["O", "O"]}, "tags: expected one a word, found 2 for 1 words"),
        ({"id": "a", "words": [], "tags": []}, "tags: expected one a word, found 0 for 0 words"),
        ({"id": "a", "words": ["x"], "tags": ["I-A"]}, "in iob2, I-A goes on with"),
        ({"id": "a", "words": "x", "tags": ["O"]}, "words: expected a list of texts, found 'x'"),
        ({"id": 1, "words": ["x"], "tags": ["O"]}, "id: expected a text, found 1"),
    ],
)
def test_a_damaged_row_of_a_prepared_task_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    (tmp_path / "train.jsonl").write_text('{"id": "a", "words": ["x"], "tags": ["O"]}\n' + json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=f"train.jsonl:2: {message}"):
        read_tagged(tmp_path / "train.jsonl")
