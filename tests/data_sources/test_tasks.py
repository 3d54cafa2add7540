"""Tasks to fine-tune on: prepared with every row, compared for overlap, and read back as they were."""

import json
from pathlib import Path

import pytest

from pipeline.artifacts import read_json
from pipeline.config import load
from pipeline.data.fetching.hub import HubSource
from pipeline.data.fetching.sources import FetchConfig
from pipeline.data.prepared import read_labelled
from pipeline.data.preparing.corpus import PrepareConfig, prepare
from pipeline.data.preparing.glue import TASKS, is_asked
from pipeline.data.preparing.tasks import GlueSource
from pipeline.data.question_records import read_questions
from pipeline.data.records import Labelled, read_lines
from tests.training.harness import ROOT

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


def test_every_task_of_the_number_on_glue_is_prepared_with_all_splits_from_the_rows_of_the_hub(tmp_path: Path) -> None:
    """One stand-in row for each split that fetch.yaml names, with every key that one of the data sets has."""
    folder = ROOT / "conf/numbers/glue-bert-base"
    row = dict.fromkeys(("sentence", "sentence1", "sentence2", "question", "question1", "question2"), "A cat .")
    row |= dict.fromkeys(("premise", "hypothesis"), "A dog .")
    for name, source in load(folder / "fetch.yaml", FetchConfig).sources.items():
        if isinstance(source, HubSource):
            (tmp_path / "raw" / name).mkdir(parents=True)
            for split in source.splits:
                # The labels of MRPC's test set are known on the hub.
                label = -1 if split.startswith("test") and name != "mrpc" else 1
                line = json.dumps(row | {"label": label, "idx": 5})
                (tmp_path / f"raw/{name}/{split}.jsonl").write_text(line + "\n")
    counts, _ = prepare(load(folder / "prepare.yaml", PrepareConfig), tmp_path / "raw", tmp_path / "out")
    for name, task in TASKS.items():
        splits = {split for split, _, _, _ in task.splits}
        assert counts["tasks"][name] == {split: {"records": 1} for split in splits}
        for split in filter(is_asked, splits):
            (one,) = read_labelled(tmp_path / f"out/tasks/{name}/{split}.jsonl")
            assert (one.id, one.label) == (f"{split}-5", "equivalent" if name == "MRPC" else "")


def test_a_diagnostic_set_of_another_task_and_one_that_was_not_fetched_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="diagnostic: the diagnostic set is answered by MNLI alone, found RTE"):
        GlueSource(kind="glue", source="glue", name="RTE", diagnostic="ax")
    (tmp_path / "raw/glue").mkdir(parents=True)
    task = {"kind": "glue", "source": "glue", "name": "MNLI", "diagnostic": "ax"}
    with pytest.raises(ValueError, match=r"raw/ax: no such source; fetch.yaml has to name it"):
        prepare(config(tasks={"MNLI": task}), tmp_path / "raw", tmp_path / "out")


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


def test_questions_are_prepared_and_their_passages_compared_with_running_text(tmp_path: Path) -> None:
    """Of the two 3-grams of the held-out passage both stand in the text, of the four of its question none does."""
    folder = tmp_path / "raw/squad"
    folder.mkdir(parents=True)
    for file, passage in {"train": "It rained all night.", "dev": "A dog was here."}.items():
        question = {
            "id": file,
            "question": "Which animal was it then?",
            "answers": [{"text": passage, "answer_start": 0}],
        }
        content = {"data": [{"title": "", "paragraphs": [{"context": passage, "qas": [question]}]}]}
        (folder / f"{file}.json").write_text(json.dumps(content))
    (tmp_path / "raw/own").mkdir()
    # The first document goes to valid, the second to train.
    (tmp_path / "raw/own/a.txt").write_text("other words " * 12)
    (tmp_path / "raw/own/b.txt").write_text("a dog was here too " * 5)
    squad = {"kind": "squad", "source": "squad", "train": "train.json", "valid": "dev.json", "unanswerable": False}
    prepared = PrepareConfig.model_validate(
        {"tasks": {"qa": squad}, "text": {"sources": [{"kind": "files", "source": "own"}]}, "overlap_words": 3}
    )
    counts, table = prepare(prepared, tmp_path / "raw", tmp_path / "out")
    assert {split: counts["tasks"]["qa"][split]["records"] for split in ("train", "valid")} == {"train": 1, "valid": 1}
    assert read_json(tmp_path / "out/tasks/qa/task.json")["kind"] == "questions"
    assert [one.id for one in read_questions(tmp_path / "out/tasks/qa/valid.jsonl")] == ["dev"]
    row = table["tasks.qa.valid"]
    assert row["num_ngrams"] == 5
    assert row["text"] == pytest.approx(2 / 5, abs=1e-6)
    # The questions are the same words.
    assert row["tasks.qa"] == pytest.approx(3 / 5, abs=1e-6)


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
