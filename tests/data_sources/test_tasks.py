"""Tasks to fine-tune on: prepared with every row, compared for overlap, and read back as they were."""

from pathlib import Path

import pytest

from pipeline.artifacts import read_json
from pipeline.data.corpus import PrepareConfig, prepare
from pipeline.data.prepared import read_labelled
from pipeline.data.records import Labelled, read_lines

SENTENCES = ["it 's a charming and often affecting journey .", "unflinchingly bleak and desperate", "a gem ."]


def write_sst(folder: Path, *, valid: list[str]) -> None:
    """SST-2 as its official files are: train, dev, and a test set without labels."""
    folder.mkdir(parents=True)
    for file, rows in {"train": SENTENCES, "dev": valid}.items():
        lines = [f"{text}\t{i % 2}" for i, text in enumerate(rows)]
        (folder / f"{file}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    (folder / "test.tsv").write_text(f"index\tsentence\n0\t{SENTENCES[0]}\n1\t\n")


def config(**more: object) -> PrepareConfig:
    return PrepareConfig.model_validate(
        {"tasks": {"films": {"kind": "glue", "source": "glue", "name": "SST-2"}}} | more
    )


def test_every_row_is_written_in_order_with_its_label_and_an_empty_text_is_kept(tmp_path: Path) -> None:
    write_sst(tmp_path / "raw/glue/SST-2", valid=["dull"])
    counts, _ = prepare(config(), tmp_path / "raw", tmp_path / "out")
    assert counts == {
        "tasks": {"films": {split: {"records": n} for split, n in {"train": 3, "valid": 1, "test": 2}.items()}}
    }
    folder = tmp_path / "out/tasks/films"
    assert read_json(folder / "task.json") == {"kind": "glue", "name": "SST-2"}
    assert read_labelled(folder / "train.jsonl") == tuple(
        Labelled(f"train-{i}", text, None, ("negative", "positive")[i % 2]) for i, text in enumerate(SENTENCES)
    )
    assert [(one.text, one.label) for one in read_labelled(folder / "test.jsonl")] == [(SENTENCES[0], ""), ("", "")]


def test_the_overlap_of_a_held_out_split_with_running_text_and_with_training_is_measured(tmp_path: Path) -> None:
    """Six 2-grams of the dev sentence: all stand in the text, one of them (and desperate) in the training set."""
    write_sst(tmp_path / "raw/glue/SST-2", valid=["what a bleak film and desperate too"])
    (tmp_path / "raw/own").mkdir()
    # The first document goes to valid, the second to train.
    (tmp_path / "raw/own/a.txt").write_text("other words " * 12)
    (tmp_path / "raw/own/b.txt").write_text("what a bleak film and desperate too " * 3)
    prepared = config(text={"sources": [{"kind": "files", "source": "own"}]}, overlap_words=2)
    _, table = prepare(prepared, tmp_path / "raw", tmp_path / "out")
    row = table["tasks.films.valid"]
    assert (row["num_ngrams"], row["text"]) == (6, 1.0)
    assert row["tasks.films"] == pytest.approx(1 / 6, abs=1e-6)
    assert "tasks.films.train" not in table


def test_a_source_that_was_not_fetched_and_one_without_the_task_are_named(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(ValueError, match=r"raw/glue: no such source; fetch.yaml has to name it"):
        prepare(config(), tmp_path / "raw", tmp_path / "out")
    (tmp_path / "raw/glue").mkdir()
    with pytest.raises(ValueError, match=r"raw/glue: SST-2 needs train.tsv, or train.jsonl of the hub: found neither"):
        prepare(config(), tmp_path / "raw", tmp_path / "out")


def test_what_is_written_is_the_same_bytes_for_the_same_files(tmp_path: Path) -> None:
    write_sst(tmp_path / "raw/glue/SST-2", valid=["dull"])
    for out in ("one", "two"):
        prepare(config(), tmp_path / "raw", tmp_path / out)
    for split in ("train", "valid", "test"):
        one, two = (list(read_lines(tmp_path / out / f"tasks/films/{split}.jsonl")) for out in ("one", "two"))
        assert one == two
