"""Test sets of word vectors are read before anything is trained: the published files, and faults in own ones."""

from pathlib import Path

import gensim
import pytest

from pipeline.data.preparing.corpus import PrepareConfig, prepare
from pipeline.data.preparing.word_tests import ScoredPair, read_analogies, read_pairs

GENSIM_FILES = Path(gensim.__file__).parent / "test" / "test_data"
FILES = {
    "wordsim353.tsv": "# one\ttwo\tscore\n\n\ntiger\tcat\t7.35\n",
    "simlex999.txt": "old\tnew\t1.58\r\n",
    "questions-words.txt": ": family\n\nboy girl king queen\n",
}


def test_the_files_of_gensim_hold_the_published_numbers_of_pairs_and_questions() -> None:
    assert len(read_pairs(GENSIM_FILES / "wordsim353.tsv")) == 353
    assert len(read_pairs(GENSIM_FILES / "simlex999.txt")) == 999
    sections = read_analogies(GENSIM_FILES / "questions-words.txt")
    assert len(sections) == 14
    assert sum(len(section.questions) for section in sections) == 19544
    assert sections[0].name == "capital-common-countries"
    assert sections[0].questions[0] == ("athens", "greece", "baghdad", "iraq")
    assert read_pairs(GENSIM_FILES / "wordsim353.tsv")[1] == ScoredPair("tiger", "cat", 7.35)


def prepared_words(raw: Path, **changes: str) -> dict[str, int]:
    """The counts of the role `words`, of files with these contents."""
    (raw / "own").mkdir(parents=True)
    for name, content in (FILES | changes).items():
        (raw / "own" / name).write_text(content, newline="")
    counts: dict[str, int] = prepare(PrepareConfig(words="own"), raw, raw.parent / "out")[0]["words"]
    return counts


def test_own_word_tests_are_copied_without_empty_lines_and_counted(tmp_path: Path) -> None:
    assert prepared_words(tmp_path / "raw") == {"questions-words.txt": 1, "simlex999.txt": 1, "wordsim353.tsv": 1}
    words = tmp_path / "out/words"
    assert (words / "wordsim353.tsv").read_text() == "# one\ttwo\tscore\ntiger\tcat\t7.35\n"
    assert read_pairs(words / "simlex999.txt") == (ScoredPair("old", "new", 1.58),)
    assert read_analogies(words / "questions-words.txt")[0].questions == (("boy", "girl", "king", "queen"),)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "wordsim353.tsv",
            "\n\ntiger cat 7.35\n",
            r":3: expected two words and a score between tabs, found 'tiger cat 7",
        ),
        ("wordsim353.tsv", "Word 1\tWord 2\tHuman\n", r":1: expected two words and a score"),
        ("simlex999.txt", "old\tnew\t1\n\nold\tnew\tnan\n", r":3: expected two words and a score"),
        ("simlex999.txt", "\tnew\t1\n", r":1: expected two words and a score"),
        ("simlex999.txt", "# nothing\n", r": no pair of words in this file"),
        ("questions-words.txt", "\n: family\n\nboy girl king\n", r":4: expected four words below a ': section' line"),
        ("questions-words.txt", "boy girl king queen\n", r":1: expected four words below a ': section' line"),
        ("questions-words.txt", ": family\n", r": no question in this file"),
    ],
)
def test_a_fault_in_own_word_tests_is_named_by_prepare_with_its_line_in_the_users_file(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    with pytest.raises(ValueError, match=rf"raw/own/{name}{message}"):
        prepared_words(tmp_path / "raw", **{name: content})


def test_word_tests_that_are_not_utf8_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_bytes(b"caf\xc3\xa9\ttea\t1\ncaf\xe9\ttea\t1\n")
    with pytest.raises(ValueError, match=r"pairs\.tsv:2: not UTF-8: byte 0xe9"):
        read_pairs(tmp_path / "pairs.tsv")
