"""What benchmarks do with transformers, on a few rows and a small model."""

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from benchmarks import classify_texts, finetune_training, translate_decoding, translate_training
from benchmarks.references import glue
from benchmarks.shared import task
from benchmarks.shared.joeynmt import batch_size_for, mean_targets, num_batches
from benchmarks.translate_decoding import Ids, Run, Side, Translate, by_us, turn
from pipeline.artifacts import read_json, save_model, write_json
from pipeline.data.examples.classification import LabelledText, SequenceExamples
from pipeline.data.examples.translation import TokenRows, TranslationExamples
from pipeline.data.preparing.glue import TASKS, GlueName
from pipeline.data.records import Labelled, write_records
from pipeline.inference.translator import Translator
from pipeline.models.bert import BertConfig, BertForPretraining
from pipeline.models.huggingface.bert import bert_to_huggingface
from pipeline.numbers.made import machine
from pipeline.numbers.number import open_number
from pipeline.numbers.report import configuration_of
from pipeline.stages.finetune import FinetuneConfig
from pipeline.text.tokenizer_training import train_translation_bpe, train_wordpiece
from tests.project.toy_number import NUMBER, write_yaml

pytest.importorskip("transformers", reason="the peer of these benchmarks, of the extra dev")

# Some run a stage, or a Trainer, in this process.
pytestmark = pytest.mark.usefixtures("as_before")

SHAPE = BertConfig(vocab_size=64, d_model=16, num_layers=1, num_heads=2, d_ff=32, max_length=32)
LINES = [f"the {one} sea was {other} then" for one in ("old", "new", "red") for other in ("cold", "calm")]


def test_both_sides_of_classify_texts_say_the_same_and_a_difference_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classify_texts, "SHAPE", SHAPE)
    classify_texts.save_classifier(tmp_path, LINES)
    ours = classify_texts.ours(tmp_path, LINES).lines
    theirs = classify_texts.transformers_pipeline(tmp_path, LINES, batch_size=4).lines
    assert len(theirs) == len(LINES) == len(ours)
    classify_texts.check_same(theirs, ours)
    label, value = theirs[-1].split("\t")
    for other in (f"{label}\t{float(value) - 0.01:.4f}", f"another\t{value}"):
        with pytest.raises(SystemExit, match=f"error: line {len(LINES)}: "):
            classify_texts.check_same([*theirs[:-1], other], ours)


def reference_config(folder: Path, name: GlueName, *, num_epochs: int, lr: float) -> FinetuneConfig:
    """A small BERT in a folder, to be fine-tuned on a task."""
    tokenizer = train_wordpiece(LINES * 9, vocab_size=64)
    torch.manual_seed(0)
    model = BertForPretraining(SHAPE.model_copy(update={"vocab_size": tokenizer.vocab_size}))
    save_model(folder, *bert_to_huggingface(model, pad_token_id=tokenizer.pad_id))
    tokenizer.save(folder)
    return FinetuneConfig.model_validate(
        {
            "training": {
                "seed": 1,
                "batching": {"kind": "examples", "examples_per_step": 2},
                "duration": {"kind": "epochs", "num_epochs": num_epochs},
                "optimizer": {"lr": lr},
                "schedule": {"kind": "linear", "num_warmup_steps": 1},
                "validate_every": 9,
                "checkpoint_every": 9,
            },
            "task": {"kind": "glue", "name": name},
            "encoder": str(folder),
            "start": "pretrained",
            "max_length": 16,
            "dropout": 0.1,
        }
    )


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize(
    ("name", "scores"), [("SST-2", {"accuracy", "f1", "matthews"}), ("STS-B", {"pearson", "spearman"})]
)
def test_the_reference_of_glue_trains_from_our_folder_and_is_scored(
    name: GlueName, scores: set[str], dynamic: bool, tmp_path: Path
) -> None:
    task = TASKS[name]
    config = reference_config(tmp_path, name, num_epochs=1, lr=1e-3)
    rows = [
        LabelledText(line, line if task.is_pair else None, task.classes[i % 2] if task.classes else str(i), where="")
        for i, line in enumerate(LINES)
    ]
    found = glue.train(config, {"train": rows, "valid": rows}, name, dynamic=dynamic)
    assert found.keys() == scores | {"glue"}
    assert found["glue"] == pytest.approx(100 * sum(found[one] for one in task.scores) / len(task.scores))


@pytest.mark.parametrize("dynamic", [True, False])
def test_what_the_reference_has_learned_it_says_of_the_same_rows(dynamic: bool, tmp_path: Path) -> None:
    """The Trainer predicts rows in an order of their lengths; labels in another would be right by chance."""
    config = reference_config(tmp_path, "SST-2", num_epochs=15, lr=3e-3)
    classes = TASKS["SST-2"].classes
    rows = [
        LabelledText(f"the {('old', 'new')[i % 2]} {'sea ' * (i * 5 % 9)}", None, classes[i % 2], where="")
        for i in range(48)
    ]
    found = glue.train(config, {"train": rows, "valid": rows}, "SST-2", dynamic=dynamic)
    assert found["accuracy"] >= 0.9


def number_with_a_reference(folder: Path) -> Path:
    """A number `mine` of one fine-tuning; its configuration."""
    write_yaml(
        folder / "conf/numbers/mine/number.yaml",
        NUMBER | {"key": "score.glue", "reference": "reference.json", "tasks": {"SST-2": {"key": "score.glue"}}},
    )
    config = reference_config(folder / "encoder", "SST-2", num_epochs=1, lr=1e-3)
    write_yaml(folder / "conf/numbers/mine/finetune/SST-2/seed-1.yaml", config.model_dump(mode="json"))
    return Path("conf/numbers/mine/finetune/SST-2/seed-1.yaml")


def test_the_reference_of_glue_times_a_whole_process_and_trains_anew_what_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = number_with_a_reference(tmp_path)
    folder = Path("runs/mine/data/prepared/tasks/SST-2")
    folder.mkdir(parents=True)
    write_json(folder / "task.json", {"kind": "glue", "name": "SST-2"})
    for split in ("train", "valid"):
        labels = TASKS["SST-2"].classes
        write_records(
            folder / f"{split}.jsonl", [Labelled(str(i), line, None, labels[i % 2]) for i, line in enumerate(LINES)]
        )
    glue.main(["--number", "mine", "--threads", "1"])
    found = read_json(Path("reference.json"))
    task, report = found["tasks"]["SST-2"], Path("reports/numbers/mine.json")
    assert task["seeds"] == [1] and 0 <= task["ours"][0] <= 100
    assert task["seconds"][0] > 2, "imports alone take as long: those of the process are among its seconds"
    glue.main(["--number", "mine", "--threads", "1"])
    assert read_json(Path("reference.json"))["tasks"] == found["tasks"]
    assert "warning" not in capsys.readouterr().err
    # Another configuration is another run, and one report of ours is of this machine, the other one is not.
    path.write_text(path.read_text().replace("max_length: 16", "max_length: 12"))
    write_json(report, {"made": {"SST-2/seed-1": {"machine": found["machine"]}}})
    glue.main(["--number", "mine", "--threads", "1"])
    changed = read_json(Path("reference.json"))["tasks"]["SST-2"]
    assert changed["seeds"] == [1] and len(changed["ours"]) == len(changed["seconds"]) == 1
    assert changed["configurations"] != task["configurations"] and "warning" not in capsys.readouterr().err
    write_json(report, {"made": {"SST-2/seed-1": {"machine": found["machine"] | {"threads": 99}}}})
    glue.main(["--number", "mine", "--threads", "1"])
    assert f"warning: {report}: 1 runs, as SST-2/seed-1, were made on " in capsys.readouterr().err
    for name in ("machine", "versions"):
        write_json(Path("reference.json"), found | {name: {"processor": "another"}})
        with pytest.raises(SystemExit, match=rf"reference\.json: {name}: its runs were made with .*'another'"):
            glue.main(["--number", "mine", "--threads", "1"])


@pytest.mark.parametrize(("limit", "expected"), [("", 7), ("3", 3)])
def test_the_reference_of_glue_has_the_threads_of_our_own_runs(
    limit: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    ours = machine()
    run = number_with_a_reference(tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    done = {
        "ours": [1.0],
        "seconds": [1.0],
        "seeds": [1],
        "configurations": [configuration_of(open_number("mine"), run)],
    }
    known = {"machine": ours, "versions": glue.made_with(), "tasks": {"SST-2": done}}
    write_json(Path("reference.json"), known)
    glue.main(["--number", "mine"])  # with other threads it would refuse the file
    assert ours["threads"] == machine()["threads"] == expected


def test_the_reference_of_glue_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        glue.main(["--help"])
    assert ended.value.code == 0
    assert glue.__doc__ and glue.__doc__.splitlines()[0] in capsys.readouterr().out


TWO_OF_SIX = (10, 11, 12, 13, 14, 15)
"""Lengths of which two make less than any three, so that a count says whether it is of two rows."""


def rows_of(lengths: Sequence[int]) -> SequenceExamples:
    ids = tuple(np.full(length, 5, dtype=np.int64) for length in lengths)
    types = tuple(np.zeros_like(row) for row in ids)
    labels = np.array([i % 2 for i in range(len(ids))])
    return SequenceExamples(ids, types, labels, pad_id=0, is_shortened=np.zeros(len(ids), dtype=bool))


def pairs_of(src: Sequence[int], tgt: Sequence[int]) -> TranslationExamples:
    """Pairs of sentences of so many tokens, EOS counted."""
    first, second = (
        TokenRows.of([[5] * (length - 1) for length in lengths], max_length=99, eos_id=1) for lengths in (src, tgt)
    )
    return TranslationExamples(first, second, pad_id=9, bos_id=9)


def check_two_rows_a_step(counts: Sequence[int]) -> None:
    """Each step trained two of the six rows, and each epoch of three steps all of them."""
    assert len(counts) >= 6
    assert all(10 + 11 <= count <= 14 + 15 for count in np.diff([0, *counts]))
    assert [counts[2], counts[5]] == [sum(TWO_OF_SIX), 2 * sum(TWO_OF_SIX)]


@pytest.mark.parametrize("side", ["ours", "as it comes", "at its best"])
def test_finetuning_counts_the_real_tokens_of_the_rows_that_were_trained(
    side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune_training, "SHAPE", SHAPE)
    monkeypatch.setattr(finetune_training, "VOCABULARY", SHAPE.vocab_size)
    monkeypatch.setattr(finetune_training, "LENGTH", 16)
    monkeypatch.setattr(finetune_training, "ROWS", 2)
    monkeypatch.setenv("PIPELINE_TRACKING", "local")
    monkeypatch.setenv("PIPELINE_RUNTIME", "cpu")
    data = rows_of(TWO_OF_SIX)
    if side == "ours":
        times = finetune_training.ours(data, 3, 2)
    else:
        times = finetune_training.trainer(data, 3, 2, dynamic=side == "at its best")
    assert len(times) == 3 + finetune_training.WARM_UP
    check_two_rows_a_step([count for _, count in times])


def test_finetuning_trains_an_epoch_and_gives_each_round_a_seed_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[int, int]] = []

    def apart(threads: int, train: Any, data: SequenceExamples, num_steps: int, seed: int) -> finetune_training.Times:
        taken.append((num_steps, seed))
        return [(float(step), 7 * step) for step in range(num_steps + finetune_training.WARM_UP)]

    reported: list[dict[str, list[float]]] = []
    monkeypatch.setattr(finetune_training, "apart", apart)
    monkeypatch.setattr(finetune_training, "examples", lambda folder: rows_of([4] * 65))
    monkeypatch.setattr(finetune_training, "report", lambda data, found, *others: reported.append(found))
    for name in ("OMP_NUM_THREADS", "PIPELINE_TRACKING", "PIPELINE_RUNTIME"):
        monkeypatch.setenv(name, "")
    threads = ["--threads", str(torch.get_num_threads())]
    finetune_training.main(["--rounds", "2", *threads])
    finetune_training.main(["--rounds", "1", "--steps", "8", *threads])
    assert taken == [(3, 1)] * 3 + [(3, 2)] * 3 + [(8, 1)] * 3
    assert [list(found.values()) for found in reported] == [[[7.0, 7.0]] * 3, [[7.0]] * 3]


def test_the_trainer_of_translation_groups_by_the_longer_side_and_counts_the_targets_that_were_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers import trainer_pt_utils

    grouped: list[list[int]] = []

    class Grouping(trainer_pt_utils.LengthGroupedSampler):
        def __iter__(self) -> Any:
            grouped.append(list(self.lengths))
            return super().__iter__()  # type: ignore[no-untyped-call]

    monkeypatch.setattr(trainer_pt_utils, "LengthGroupedSampler", Grouping)
    monkeypatch.setattr(task, "TOKENS_PER_STEP", 30)
    monkeypatch.setattr(translate_training, "speed", lambda times: times)
    data = pairs_of([3] * 6, TWO_OF_SIX)
    made = task.Task(data, data, train_translation_bpe(LINES * 9, vocab_size=60))
    assert made.steps_per_epoch == 3 and made.targets_per_step == 25
    times: Any = translate_training.transformers_trainer(made, 3)
    assert len(grouped) > 1 and all(lengths == list(TWO_OF_SIX) for lengths in grouped)
    assert len(times) == 3 + task.WARM_UP
    check_two_rows_a_step([count for _, count in times])


def test_joeynmt_is_compared_with_ours_of_the_same_dropout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(translate_training, "matrix_peak", lambda: 1e9)
    data = pairs_of([3] * 6, TWO_OF_SIX)
    made = task.Task(data, data, train_translation_bpe(LINES * 9, vocab_size=60))
    alike = translate_training.AS_JOEYNMT
    translate_training.report(
        made, {"ours": [8.0], "transformers": [4.0], alike: [6.0], "JoeyNMT": [2.0]}, num_steps=3, threads=1
    )
    lines = {line.split("  ")[0].strip(): line for line in map(str.strip, capsys.readouterr().out.splitlines())}
    assert lines["transformers"].endswith("ours x 2.00") and lines["JoeyNMT"].endswith(f"{alike} x 3.00")
    config = task.model_config(60, inner_dropout=task.DROPOUT)
    assert {config.dropout, config.attention_dropout, config.activation_dropout} == {task.DROPOUT}


def test_a_batch_of_joeynmt_ends_with_the_sentence_that_fills_it_padding_counted() -> None:
    assert [num_batches([5] * 12, size) for size in (15, 16, 31)] == [4, 3, 2]  # 3 sentences, 4, and 7 with 5 left
    assert num_batches([10, 2, 2, 2], 20) == 2 and num_batches([2, 2, 10, 2], 20) == 2
    assert mean_targets(pairs_of([5] * 12, [3] * 12), 15) == 9
    assert mean_targets(pairs_of([3] * 12, [5] * 12), 15) == 15


def test_the_batch_size_of_joeynmt_is_the_least_that_gives_a_step_as_many_targets() -> None:
    assert batch_size_for(pairs_of([5] * 12, [3] * 12), targets=12) == 16
    drawn = np.random.default_rng(0)
    data = pairs_of(drawn.integers(4, 30, 500).tolist(), drawn.integers(4, 30, 500).tolist())
    size = batch_size_for(data, targets=400)
    assert mean_targets(data, size - 1) < 400 <= mean_targets(data, size)


def test_a_side_is_open_during_its_turn_alone() -> None:
    calls: list[int] = []

    class Engine:
        def __call__(self, sources: Sequence[np.ndarray], size: int, ours: Translator) -> list[Ids]:
            calls.append(len(sources))
            return [(size,)] * len(sources)

    opened: list[weakref.ref[Engine]] = []

    def open_engine() -> Translate:
        assert all(one() is None for one in opened)
        engine = Engine()
        opened.append(weakref.ref(engine))
        return engine

    searching: Any = None
    side = Side(open_engine, 16, searching)
    sources = [np.array([1])] * 70
    for _ in range(2):
        assert turn(side, sources, torch.get_num_threads()).found == [(16,)] * 70
    assert calls == [64, 70] * 2 and opened[-1]() is None


@pytest.mark.parametrize(
    ("seconds", "num_sources", "tried", "best"),
    [
        # Faster at 256 than at 128: the next one is tried, and is slower.
        ([9.0, 8.0, 7.0, 6.0, 5.0, 5.5, 1.0], 1000, [16, 32, 64, 128, 256, 512], 256),
        ([9.0, 8.0, 7.0, 6.0, 6.5, 1.0], 1000, [16, 32, 64, 128, 256], 128),
        # By chance slower at first: up to 128 all are tried, and an equal time is no slower one.
        ([9.0, 9.5, 7.0, 7.5, 7.0, 7.1], 1000, [16, 32, 64, 128, 256, 512], 64),
        # A batch of all sentences is the largest there is.
        ([9.0, 8.0, 7.0, 6.0, 5.0], 100, [16, 32, 64, 128], 128),
    ],
)
def test_the_batch_of_a_peer_is_doubled_until_a_larger_one_is_slower(
    seconds: list[float], num_sources: int, tried: list[int], best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[int] = []

    def one_turn(side: Side, sources: Sequence[np.ndarray], threads: int) -> Run:
        turns.append(side.size)
        # The first turn of two is disturbed.
        taken = seconds[int(np.log2(side.size)) - 4]
        return Run([], taken if turns.count(side.size) > 1 else 100.0 / side.size + taken, 0.0)

    monkeypatch.setattr(translate_decoding, "turn", one_turn)
    sources = [np.array([3])] * num_sources
    found = translate_decoding.best_size("peer", lambda: by_us, sources, cast("Translator", None), 1)
    assert found == best
    assert turns == [size for size in tried for _ in range(2)]
