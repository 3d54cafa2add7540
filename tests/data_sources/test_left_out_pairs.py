"""Which training pairs are too short, too long or too unequal, in any script, and how those left out are told."""

from pathlib import Path

import pytest

from pipeline.data.cleaning import num_words
from pipeline.stages import prepare
from tests.data_sources.test_parallel_text import prepared, table
from tests.data_sources.test_stages import configure, own_files


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("two words", 2),
        ("well-known, isn't it?", 3),
        ("我喜欢吃苹果。", 6),
        ("我有 iPhone 15!", 4),
        ("東京タワーへ行く", 8),
        ("ฉันชอบกินข้าว", 3),
        ("나는 사과를 좋아한다", 3),
        ("", 0),
    ],
)
def test_words_are_counted_where_a_script_has_no_spaces(text: str, expected: int) -> None:
    assert num_words(text) == expected


ENGLISH = "In the afternoon the two of them walked slowly along the river and talked about their school days."


def test_an_ordinary_chinese_pair_is_kept_and_may_be_held_out_by_the_defaults(tmp_path: Path) -> None:
    pairs = [
        (f"{ENGLISH} {number}", f"下午他们俩沿着河边慢慢走聊起了上学的日子。{number}")
        for number in "一二三四五六七八九十"
    ]
    assert len(pairs[0][0]) > 3 * len(pairs[0][1]) + 10
    text = "".join(f"{zh}\t{en}\n" for en, zh in pairs)
    source = table(tmp_path, text, into="split")
    found = prepared(tmp_path, source, num_valid=4, num_test=4)
    assert [len(found[split]) for split in ("train", "valid", "test")] == [2, 4, 4]
    assert len(prepared(tmp_path, source, max_ratio=1.1)["train"]) == 0


def test_pairs_that_are_left_out_in_numbers_are_told_with_the_settings_behind_it(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = "".join(f"the dog number {number}\tder Hund Nummer {number}\n" for number in ("one", "two", "three"))
    own_files(
        project,
        {"train.tsv": good + "short\tkurz und dann noch sehr viel mehr Wörter\n", "test.tsv": "a cat\teine Katze\n"},
    )
    sources = [f"{{kind: table, source: mine, file: {split}.tsv, into: {split}}}" for split in ("train", "test")]
    text = f"translation: {{sources: [{', '.join(sources)}], max_ratio: 9}}"
    prepare.main(configure(project, "prepare", text))
    assert not [record for record in caplog.records if "left out" in record.getMessage()]
    text = text.replace("max_ratio: 9", "max_ratio: 1.1")
    prepare.main(configure(project, "prepare", text))
    (told,) = [record for record in caplog.records if "left out" in record.getMessage()]
    assert told.levelname == "WARNING"
    assert told.getMessage().endswith("1 of 5 pairs read are left out: length_ratio 1 (max_ratio: 1.1)")
