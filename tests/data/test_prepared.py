import json
from pathlib import Path

import pytest

from pipeline.data import prepared
from pipeline.data.records import Conversation, Document, Message, Pair, Rated, Record, write_records

RECORDS: dict[str, Record] = {
    "read_documents": Document(id="d", title="t", source="s", text="one\ntwo"),
    "read_pairs": Pair(id="p", src="a", tgt="b", source="s", group="p"),
    "read_rated": Rated(id="r", text="good", mean=1.5, ratings=(1, 2), domain="movie", group="r"),
    "read_conversations": Conversation(
        id="c", source="s", messages=(Message("user", "a"), Message("assistant", "b")), group="c"
    ),
}


@pytest.mark.parametrize(("reader", "record"), RECORDS.items())
def test_a_written_record_is_read_back(reader: str, record: Record, tmp_path: Path) -> None:
    write_records(tmp_path / "x.jsonl", [record, record])
    assert getattr(prepared, reader)(tmp_path / "x.jsonl") == (record, record)


@pytest.mark.parametrize(
    ("reader", "bad"),
    [
        ("read_documents", {"text": 3}),
        ("read_pairs", {"tgt": None}),
        ("read_rated", {"mean": 5}),
        ("read_rated", {"ratings": "1 2"}),
        ("read_conversations", {"messages": []}),
        ("read_conversations", {"messages": [{"role": "user", "content": "a"}]}),
        ("read_conversations", {"messages": [{"role": "robot", "content": "a"}]}),
        ("read_conversations", {"messages": [{"role": "user", "content": " "}]}),
    ],
)
def test_a_bad_record_is_named_by_file_and_line(reader: str, bad: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    write_records(path, [RECORDS[reader]])
    path.write_text(path.read_text() + json.dumps(json.loads(path.read_text()) | bad) + "\n")
    with pytest.raises(ValueError, match=r"x.jsonl:2: "):
        getattr(prepared, reader)(path)


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x.jsonl: no such file"):
        prepared.read_pairs(tmp_path / "x.jsonl")
    (tmp_path / "x.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"x.jsonl: empty file"):
        prepared.read_pairs(tmp_path / "x.jsonl")
