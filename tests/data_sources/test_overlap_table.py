"""The overlap that `prepare` reports: every test set against every training set that was written, counted by hand."""

import json
from pathlib import Path

import pytest

from pipeline.stages import fetch, prepare

FILES = {
    "train.txt": "the cat sat on the mat tonight\n",
    "test.txt": "the cat sat on my knees tonight\n",
    "train.tsv": "a cat sat down\teine Katze saß da\n",
    "test.tsv": "a cat sat on the mat\teine Katze saß hier auf\n",
    "train.jsonl": json.dumps(
        {"messages": [{"role": "user", "content": "yes a cat"}, {"role": "assistant", "content": "no dog is here"}]}
    ),
    "test.jsonl": json.dumps(
        {"messages": [{"role": "user", "content": "no dog is here"}, {"role": "assistant", "content": "yes a cat sat"}]}
    ),
}
OWN = """
text:
  sources:
    - {kind: files, source: mine, into: train, files: train.txt}
    - {kind: files, source: mine, into: test, files: test.txt}
translation:
  sources:
    - {kind: table, source: mine, into: train, file: train.tsv}
    - {kind: table, source: mine, into: test, file: test.tsv}
conversations:
  sources:
    - {kind: chats, source: mine, into: train, file: train.jsonl}
    - {kind: chats, source: mine, into: test, file: test.jsonl}
overlap_words: 3
"""


def prepared(fetched: str, config: str) -> dict[str, dict[str, float]]:
    """The overlap.json of a corpus, whose numbers are among the metrics too."""
    for stage, text in ((fetch, fetched), (prepare, config)):
        path = Path("conf/own") / f"{stage.__name__.rpartition('.')[2]}.yaml"
        path.write_text(text)
        stage.main(path)
    table: dict[str, dict[str, float]] = json.loads(Path("data/own/prepared/overlap.json").read_text())
    assert json.loads(Path("metrics/own/prepare.json").read_text())["overlap"] == table
    return table


def test_the_test_set_of_every_role_is_compared_with_the_training_set_of_every_role(project: Path) -> None:
    toy = "{kind: generated, seed: 1, num_documents: 60, num_pairs: 400, num_rated: 200, num_conversations: 60}"
    config = """
text: {sources: [{kind: files, source: toy, files: text/*.txt}]}
translation:
  sources: [{kind: table, source: toy, file: translation.tsv, columns: [group, src, tgt]}]
  num_valid: 20
  num_test: 20
rated: {sources: [{kind: table, source: toy, file: rated.tsv}]}
conversations: {sources: [{kind: chats, source: toy, file: conversations.jsonl}]}
"""
    table = prepared(f"sources: {{toy: {toy}}}", config)
    roles = {"text", "translation.src", "translation.tgt", "rated", "conversations"}
    assert {name: row.keys() for name, row in table.items()} == dict.fromkeys(roles, roles | {"num_ngrams"})
    assert all(row["num_ngrams"] > 0 for row in table.values())


def test_the_shares_are_those_of_a_count_by_hand(project: Path) -> None:
    """Of conversations the answers alone are compared: the requests here would be found on the other side."""
    (project / "mine").mkdir()
    for name, content in FILES.items():
        (project / "mine" / name).write_text(content)
    table = prepared("sources: {mine: {kind: folder, path: mine, licence: own}}", OWN)
    nowhere = {"text": 0.0, "translation.src": 0.0, "translation.tgt": 0.0, "conversations": 0.0}
    expected = {
        # the cat sat, cat sat on
        "text": nowhere | {"num_ngrams": 5, "text": 2 / 5},
        # cat sat on, sat on the, on the mat; a cat sat
        "translation.src": nowhere | {"num_ngrams": 4, "text": 3 / 4, "translation.src": 1 / 4},
        # eine Katze saß
        "translation.tgt": nowhere | {"num_ngrams": 3, "translation.tgt": 1 / 3},
        # a cat sat
        "conversations": nowhere | {"num_ngrams": 2, "translation.src": 1 / 2},
    }
    assert table == {name: pytest.approx(row, abs=1e-6) for name, row in expected.items()}
