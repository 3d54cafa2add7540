"""What benchmarks do with transformers, on a few rows and a small model."""

from pathlib import Path

import pytest

from benchmarks import classify_texts
from benchmarks.references import glue
from pipeline.artifacts import save_model
from pipeline.data.classification import LabelledText
from pipeline.data.glue import TASKS, GlueName
from pipeline.models.bert import BertConfig, BertForPretraining
from pipeline.models.huggingface.bert import bert_to_huggingface
from pipeline.stages.finetune import FinetuneConfig
from pipeline.text.training import train_wordpiece

pytest.importorskip("transformers", reason="the peer of these benchmarks, of the extra dev")

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


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize(
    ("name", "scores"), [("SST-2", {"accuracy", "f1", "matthews"}), ("STS-B", {"pearson", "spearman"})]
)
def test_the_reference_of_glue_trains_from_our_folder_and_is_scored(
    name: GlueName, scores: set[str], dynamic: bool, tmp_path: Path
) -> None:
    task = TASKS[name]
    tokenizer = train_wordpiece(LINES * 9, vocab_size=64)
    model = BertForPretraining(SHAPE.model_copy(update={"vocab_size": tokenizer.vocab_size}))
    save_model(tmp_path, *bert_to_huggingface(model, pad_token_id=tokenizer.pad_id))
    tokenizer.save(tmp_path)
    config = FinetuneConfig.model_validate(
        {
            "training": {
                "seed": 1,
                "batching": {"kind": "examples", "examples_per_step": 2},
                "duration": {"kind": "epochs", "num_epochs": 1},
                "optimizer": {"lr": 1e-3},
                "schedule": {"kind": "linear", "num_warmup_steps": 1},
                "validate_every": 9,
                "checkpoint_every": 9,
            },
            "task": {"kind": "glue", "name": name},
            "encoder": str(tmp_path),
            "start": "pretrained",
            "max_length": 16,
            "dropout": 0.1,
        }
    )
    rows = [
        LabelledText(line, line if task.is_pair else None, task.classes[i % 2] if task.classes else str(i), where="")
        for i, line in enumerate(LINES)
    ]
    found, seconds = glue.train(config, {"train": rows, "valid": rows}, name, dynamic=dynamic)
    assert found.keys() == scores | {"glue"} and seconds > 0
    assert found["glue"] == pytest.approx(100 * sum(found[one] for one in task.scores) / len(task.scores))


def test_the_reference_of_glue_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        glue.main(["--help"])
    assert ended.value.code == 0
    assert glue.__doc__ and glue.__doc__.splitlines()[0] in capsys.readouterr().out
