"""JSON can say half a character, a lone surrogate, which UTF-8 cannot hold: it is named where it is read."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.data.preparing.dialogues import Instructions, read_conversations
from pipeline.data.preparing.parallel import Gettext, LocalisedJson, PairRows, read_pairs
from pipeline.data.records import read_rows
from tests.data_sources.test_hub import fetched, hub_folder, stream
from tests.data_sources.test_parallel_text import prepared

HALF = "ein \ud83d Text"
WHOLE = {"en": "a \U0001f600 text", "de": "ein \\ud83d Text"}


@pytest.mark.parametrize("into", ["split", "train", "valid", "test"])
@pytest.mark.parametrize("side", ["en", "de"])
def test_half_a_character_of_a_pair_is_named_with_file_line_and_key(into: str, side: str, tmp_path: Path) -> None:
    rows = [{"t": WHOLE}, {"t": WHOLE | {side: HALF}}]
    (tmp_path / "own").mkdir()
    (tmp_path / "own/pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {"kind": "rows", "source": "own", "into": into, "file": "pairs.jsonl", "src": "t.en", "tgt": "t.de"}
    source = PairRows.model_validate(values)
    with pytest.raises(ValueError, match=rf"pairs\.jsonl:2: t\.{side}: half a character, .* \\ud83d at position 4$"):
        prepared(tmp_path, source)


def test_whole_characters_and_escaped_backslashes_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"t": WHOLE}) + "\n")
    assert list(read_rows(path)) == [{"t": WHOLE}]
    path.write_text('{"a": ["b", {"c": "\\uDE00"}]}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl:1: a\[1\]\.c: half a character, .* \\ude00 at position 0$"):
        list(read_rows(path))


def test_half_a_character_of_a_message_of_a_program_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "own/app/translations"
    folder.mkdir(parents=True)
    (folder / "en.json").write_text(json.dumps({"a": {"b": "a text"}}))
    (folder / "de.json").write_text(json.dumps({"a": {"b": HALF}}))
    with pytest.raises(ValueError, match=r"de\.json: a\.b: half a character"):
        list(read_pairs(LocalisedJson(kind="localised_json", source="own", tgt="de.json"), tmp_path))
    (folder / "m.po").write_text('msgid "a text"\nmsgstr ""\n"ein \\ud83d Text"\n')
    with pytest.raises(ValueError, match=r"m\.po:3: msgstr: half a character"):
        list(read_pairs(Gettext(kind="gettext", source="own"), tmp_path))


def test_half_a_character_of_an_instruction_is_named(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/i.json").write_text(json.dumps([{"instruction": "Say", "output": HALF}]))
    with pytest.raises(ValueError, match=r"i\.json: \[0\]\.output: half a character"):
        list(read_conversations(Instructions(kind="instructions", source="own", file="i.json"), tmp_path))


def test_half_a_character_of_a_row_of_the_hub_is_named_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(split: str) -> Iterator[dict[str, str]]:
        yield from ({"text": "a"}, {"text": HALF})

    monkeypatch.chdir(tmp_path)
    hub_folder(tmp_path, [])
    stream(monkeypatch, rows)
    with pytest.raises(ValueError, match=r"^hub data set hub \(train\), row 2: text: half a character"):
        fetched(tmp_path)


@pytest.mark.parametrize("broken", ["en.json", "de.json"])
@pytest.mark.parametrize(
    ("text", "message"), [('{"a":\n"b",}', r":2: not JSON: .* at column \d+$"), ("", ": empty file")]
)
def test_a_broken_translation_file_of_a_program_is_named(text: str, message: str, broken: str, tmp_path: Path) -> None:
    folder = tmp_path / "own/app/translations"
    folder.mkdir(parents=True)
    for name in ("en.json", "de.json"):
        (folder / name).write_text(text if name == broken else '{"a": "b"}')
    with pytest.raises(ValueError, match=f"app/translations/{broken}{message}"):
        list(read_pairs(LocalisedJson(kind="localised_json", source="own", tgt="de.json"), tmp_path))
