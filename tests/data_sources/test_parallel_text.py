"""Parallel text as people have it: tokenised or not, in any script, and with faults that are named."""

import json
from pathlib import Path

import pytest

from pipeline.data.preparing.pairs import PairsConfig, prepare_pairs
from pipeline.data.preparing.parallel import AnyParallel, Gettext, LocalisedJson, PairRows, Table, TwoFiles, read_pairs
from pipeline.data.records import Pair
from pipeline.stages.translation_scores import as_plain
from pipeline.text.forms import PLAIN, MosesText
from pipeline.text.tokenizer_training import train_translation_bpe

MOSES = MosesText(kind="moses", src="en", tgt="de", lowercase=True)


def two_files(raw: Path, into: str, src: list[str], tgt: list[str], **settings: str) -> TwoFiles:
    """A source of two aligned files."""
    folder = raw / "own"
    folder.mkdir(parents=True, exist_ok=True)
    for language, lines in (("en", src), ("de", tgt)):
        (folder / f"{into}.{language}").write_bytes("".join(f"{line}\n" for line in lines).encode())
    values = {"kind": "two_files", "source": "own", "into": into, "src": f"{into}.en", "tgt": f"{into}.de"}
    return TwoFiles.model_validate(values | settings)


def prepared(raw: Path, *sources: AnyParallel, **settings: object) -> dict[str, list[Pair]]:
    """The pairs of each split."""
    config = PairsConfig.model_validate({"sources": sources, **settings})
    return {split: list(pairs) for split, pairs in prepare_pairs(config, raw).splits.items()}


def test_pairs_become_moses_tokens_and_keep_the_target_that_people_wrote(tmp_path: Path) -> None:
    train = two_files(tmp_path, "train", ["It's a dog."], ["Es ist ein Hund, ja."])
    test = two_files(tmp_path, "test", ["A Cat."], ["Eine Katze."])
    found = prepared(tmp_path, train, test, text=MOSES)
    assert [(pair.src, pair.tgt, pair.reference) for pair in found["train"]] == [
        ("it 's a dog .", "es ist ein hund , ja .", "Es ist ein Hund, ja.")
    ]
    assert [(pair.src, pair.tgt, pair.reference) for pair in found["test"]] == [
        ("a cat .", "eine katze .", "Eine Katze.")
    ]


def test_text_that_has_its_form_already_is_left_alone_and_its_reference_comes_from_a_third_file(tmp_path: Path) -> None:
    (tmp_path / "raw.de").write_text("Eine Katze!\n")
    train = two_files(tmp_path, "train", ["a dog ."], ["ein hund ."])
    test = two_files(tmp_path, "test", ["a cat &apos;s ."], ["eine katze !"], reference="raw.de")
    found = prepared(tmp_path, train, test, text=MOSES, text_is_applied=True)
    (pair,) = found["test"]
    assert (pair.src, pair.tgt, pair.reference) == ("a cat 's .", "eine katze !", "Eine Katze!")


@pytest.mark.parametrize("form", [{}, {"text": MOSES}])
@pytest.mark.parametrize("kind", ["two_files", "table", "rows"])
def test_a_translation_of_a_test_set_is_scored_against_the_untouched_line(
    kind: str, form: dict[str, MosesText], tmp_path: Path
) -> None:
    raw = "Cafe\u0301 &amp; Tee  f\u00fcr\u200bzwei "
    found = prepared(tmp_path, source_of(kind, "test", [("a cat", raw), ("a dog", "ein Hund")], tmp_path), **form)
    one, two = found["test"]
    assert one.reference == raw
    assert one.tgt == ("caf\u00e9 & tee f\u00fcrzwei" if form else "Caf\u00e9 & Tee f\u00fcrzwei")
    assert as_plain(["", ""], [one, two], MOSES if form else PLAIN)[1] == [raw, "ein Hund"]


def test_a_reference_of_a_third_file_stays_untouched(tmp_path: Path) -> None:
    (tmp_path / "raw.de").write_text("Tee &amp;  Caf\u00e9!\n")
    test = two_files(tmp_path, "test", ["tea"], ["tee &amp; caf\u00e9 !"], reference="raw.de")
    (pair,) = prepared(tmp_path, test, text=MOSES, text_is_applied=True)["test"]
    assert (pair.tgt, pair.reference) == ("tee & caf\u00e9 !", "Tee &amp;  Caf\u00e9!")
    (bare,) = prepared(tmp_path, test.model_copy(update={"reference": ""}), text=MOSES, text_is_applied=True)["test"]
    assert bare.reference == "", "a target of Moses tokens is nothing that people wrote"


def test_files_of_different_length_are_refused_with_all_their_counts(tmp_path: Path) -> None:
    (tmp_path / "raw.de").write_text("Eins\nZwei\nDrei\n")
    test = two_files(tmp_path, "test", ["one", "two"], ["eins", "zwei"], reference="raw.de")
    expected = r"differ in length: .*test.en has 2 lines, .*test.de has 2 lines, .*raw.de has 3 lines"
    with pytest.raises(ValueError, match=expected):
        prepared(tmp_path, test)


def test_an_empty_line_of_a_parallel_file_is_named(tmp_path: Path) -> None:
    test = two_files(tmp_path, "test", ["one", "two"], ["eins", "  "])
    with pytest.raises(ValueError, match=r"test.de:2: empty line in a parallel file"):
        prepared(tmp_path, test)


EMPTY = ["", "  ", "\u200b", "&nbsp;", "\u200c"]


def source_of(kind: str, into: str, pairs: list[tuple[str, str]], raw: Path) -> AnyParallel:
    """A source of one file, or of two, with these pairs."""
    (raw / "own").mkdir()
    values = {"kind": kind, "source": "own", "into": into}
    if kind == "two_files":
        return two_files(raw, into, [src for src, _ in pairs], [tgt for _, tgt in pairs])
    if kind == "table":
        (raw / "own/pairs").write_text("".join(f"{src}\t{tgt}\n" for src, tgt in pairs))
        return Table.model_validate(values | {"file": "pairs"})
    (raw / "own/pairs").write_text("".join(json.dumps({"en": src, "de": tgt}) + "\n" for src, tgt in pairs))
    return PairRows.model_validate(values | {"file": "pairs", "src": "en", "tgt": "de"})


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("text", EMPTY)
@pytest.mark.parametrize("into", ["valid", "test"])
@pytest.mark.parametrize(
    ("kind", "messages"),
    [
        ("two_files", (r"{into}\.en:2: empty line", r"{into}\.de:2: empty line")),
        ("table", (r"own/pairs:2: expected a text .* none in src", r"own/pairs:2: expected a text .* none in tgt")),
        ("rows", (r"own/pairs:2: en is empty", r"own/pairs:2: de is empty")),
    ],
)
def test_an_empty_text_of_valid_or_test_is_refused_with_file_and_line(
    kind: str, messages: tuple[str, str], into: str, text: str, side: int, tmp_path: Path
) -> None:
    second = ("a cat", text) if side else (text, "eine Katze")
    source = source_of(kind, into, [("a dog", "ein Hund"), second], tmp_path)
    with pytest.raises(ValueError, match=messages[side].format(into=into)):
        prepared(tmp_path, source)


def test_an_empty_reference_of_a_third_file_is_refused_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "raw.de").write_text("Ein Hund.\n&#8203;\n")
    test = two_files(tmp_path, "test", ["a dog", "a cat"], ["ein hund", "eine katze"], reference="raw.de")
    with pytest.raises(ValueError, match=r"raw\.de:2: empty line in a parallel file"):
        prepared(tmp_path, test)


@pytest.mark.parametrize("kind", ["two_files", "table"])
def test_a_pair_of_training_with_an_empty_side_is_left_out_and_counted(kind: str, tmp_path: Path) -> None:
    pairs = [("a dog", "ein Hund"), ("a cat", " "), ("", "ein Haus"), ("", ""), ("a tree", "ein Baum")]
    found = prepare_pairs(PairsConfig(sources=(source_of(kind, "train", pairs, tmp_path),)), tmp_path)
    assert [pair.src for pair in found.splits["train"]] == ["a dog", "a tree"]
    assert {why: count for why, count in found.dropped.items() if count} == {"no_letters": 2, "equal": 1}


def table(raw: Path, text: str, **settings: object) -> Table:
    """A table for training with this text."""
    (raw / "own").mkdir()
    (raw / "own/pairs.tsv").write_bytes(text.encode())
    return Table.model_validate({"kind": "table", "source": "own", "file": "pairs.tsv", "into": "train", **settings})


TATOEBA = "Go.\tGeh.\tCC-BY 2.0 #1\nA cat.\tEine Katze.\tCC-BY 2.0 #2\n"


def test_a_third_column_that_nobody_explained_is_refused_with_its_line_and_the_number_of_columns(
    tmp_path: Path,
) -> None:
    with pytest.raises(
        ValueError, match=r"pairs.tsv:1: expected 2 columns between tabs \(src, tgt\), found 3: 'Go. \| Geh."
    ):
        prepared(tmp_path, table(tmp_path, TATOEBA))


def test_columns_say_what_a_table_holds_and_a_header_is_no_pair(tmp_path: Path) -> None:
    source = table(tmp_path, f"English\tGerman\t\n{TATOEBA}", columns=["src", "tgt", "skip"], header=True)
    pairs = prepared(tmp_path, source)["train"]
    assert [(pair.src, pair.tgt) for pair in pairs] == [("Go.", "Geh."), ("A cat.", "Eine Katze.")]
    turned = source.model_copy(update={"columns": ("tgt", "group", "src")})
    first = next(read_pairs(turned, tmp_path))
    assert (first.src, first.tgt, first.group) == ("CC-BY 2.0 #1", "Go.", "Geh.")


@pytest.mark.parametrize("columns", [["src"], ["src", "tgt", "tgt"], ["group", "group", "src", "tgt"]])
def test_columns_that_do_not_name_both_texts_once_are_refused(columns: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"src and tgt once each, group at most once; found {', '.join(columns)}"):
        table(tmp_path, TATOEBA, columns=columns)


def test_quotation_marks_are_text_unless_the_table_is_quoted(tmp_path: Path) -> None:
    source = table(tmp_path, '"He said ""go""."\tGeh.\n')
    assert next(read_pairs(source, tmp_path)).src == '"He said ""go""."'
    quoted = source.model_copy(update={"quoting": "csv"})
    assert next(read_pairs(quoted, tmp_path)).src == 'He said "go".'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('"Oh\tdas\n' + "x\ty\n" * 50, "2: badly quoted: a quotation mark that opens a column is not closed"),
        (
            '"Oh\tdas\nx\ty\n"Go."\tGeh.\n',
            "2: badly quoted: a quotation mark in line 4 ends a column, and what is behind it is no tab",
        ),
        (
            '"a" dog\ty\n',
            "2: badly quoted: a quotation mark in line 2 ends a column, and what is behind it is no tab",
        ),
        (
            '"Oh\tdas\n' + "x\ty\n" * 50_000,
            "2: a column of this row has more than 131,072 characters, more than are allowed, or its quotation "
            "mark is not closed",
        ),
        (
            f'"{"x" * 140_000}"\ty\n',
            "2: a column of this row has more than 131,072 characters, more than are allowed, or its quotation "
            "mark is not closed",
        ),
        ("a\rb\ty\n", "2: a carriage return within the line, which is allowed between quotation marks only"),
        ('"a\n\nb"\ty\n"c\nd"\n', "5: expected 2 columns between tabs (src, tgt), found 1"),
        ('"a\nb"\t\n', "2: expected a text in each column, found none in tgt"),
    ],
)
def test_a_fault_of_a_quoted_row_is_that_of_the_line_where_the_row_begins(
    text: str, fault: str, tmp_path: Path
) -> None:
    source = table(tmp_path, f"a\tb\n{text}", quoting="csv", into="valid")
    with pytest.raises(ValueError) as found:
        list(read_pairs(source, tmp_path))
    assert str(found.value).startswith(f"{tmp_path}/own/pairs.tsv:{fault}")


def test_a_quoted_row_of_several_lines_is_of_the_group_of_its_first_line(tmp_path: Path) -> None:
    source = table(tmp_path, 'a\tb\n"c\nd"\te\nf\tg\n', quoting="csv")
    found = [(pair.src, pair.group) for pair in read_pairs(source, tmp_path)]
    assert found == [("a", "pairs.tsv:1"), ("c\nd", "pairs.tsv:2"), ("f", "pairs.tsv:4")]


@pytest.mark.parametrize("text", ["", " ", "\u200b"])
@pytest.mark.parametrize("kind", ["gettext", "localised_json"])
def test_a_message_that_nobody_has_translated_is_no_test_pair(kind: str, text: str, tmp_path: Path) -> None:
    messages = {"a dog": "ein Hund", "a cat": text, "a cow": "eine Kuh"}
    folder = tmp_path / "own/app/translations"
    folder.mkdir(parents=True)
    (folder / "m.po").write_text("".join(f'msgid "{src}"\nmsgstr "{tgt}"\n\n' for src, tgt in messages.items()))
    (folder / "en.json").write_text(json.dumps({src: src for src in messages}))
    (folder / "de.json").write_text(json.dumps(messages))
    values = {"kind": kind, "source": "own", "into": "test"}
    is_json = kind == "localised_json"
    source = LocalisedJson.model_validate(values | {"tgt": "de.json"}) if is_json else Gettext.model_validate(values)
    found = prepared(tmp_path, source)["test"]
    assert [(pair.src, pair.tgt) for pair in found] == [("a dog", "ein Hund"), ("a cow", "eine Kuh")]


STRANGE = [
    ("a\x00b\x07c", "a b c"),
    ("tab\there", "tab here"),
    ("zero\u200bwidth \u202eoverride", "zerowidth override"),
    ("שלום לכולם", "שלום לכולם"),
    ("مَرْحَبًا بالعالم", "مَرْحَبًا بالعالم"),
    ("cafe\u0301 nin\u0303o", "caf\u00e9 ni\u00f1o"),
    ("हिन्दी में", "हिन्दी में"),
    ("می\u200cروم به خانه", "می\u200cروم به خانه"),
    ("क्\u200dष और र्\u200cक", "क्\u200dष और र्\u200cक"),
    ("go \U0001f468\u200d\U0001f469\u200d\U0001f467 go", "go \U0001f468\u200d\U0001f469\u200d\U0001f467 go"),
    ("\u200fab\u200ecd\u2060e\ufeff", "abcde"),
    ("one\x0bline\x85still\u2003one", "one line still one"),
]


@pytest.mark.parametrize(("text", "expected"), STRANGE)
def test_any_script_survives_and_control_characters_become_spaces(text: str, expected: str, tmp_path: Path) -> None:
    test = two_files(tmp_path, "test", [text, "second"], [text, "zweitens"])
    train = two_files(tmp_path, "train", ["a dog"], ["ein Hund"])
    pair = prepared(tmp_path, test, train)["test"][0]
    assert (pair.src, pair.tgt) == (expected, expected)
    tokenizer = train_translation_bpe([expected, "a dog"], vocab_size=60)
    assert tokenizer.decode(tokenizer.encode(expected)) == expected


def test_a_corpus_of_one_word_is_a_corpus(tmp_path: Path) -> None:
    train = two_files(tmp_path, "train", ["dog"], ["Hund"])
    test = two_files(tmp_path, "test", ["cat"], ["Katze"])
    found = prepared(tmp_path, train, test)
    assert [(pair.src, pair.tgt) for pair in found["train"]] == [("dog", "Hund")]
    assert len(found["test"]) == 1
