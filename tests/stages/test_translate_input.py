"""What the stage translate makes of data that is unusual or at fault."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.artifacts import read_json
from pipeline.data.records import write_records
from pipeline.stages.translation_tokens import encode_pairs
from tests.stages.test_translate import SPLITS, pairs, settings, tokenizer, workspace
from tests.training.harness import snapshot


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return snapshot(tmp_path_factory.mktemp("code"))


def test_what_is_too_long_is_left_out_of_training_and_cut_elsewhere_counted_and_told(
    tmp_path: Path, code: Path
) -> None:
    made = workspace(tmp_path / "workspace", code, "transformer", settings("transformer"))
    folder = made.root / "data/tiny/prepared/translation"
    file = folder / "test.jsonl"
    first, *others = pairs(SPLITS["test"])
    long = replace(first, src=" ".join([first.src] * 40))
    write_records(file, [long, *others])
    for split, copies in (("train", 2), ("valid", 1)):
        read = pairs(SPLITS[split])
        write_records(folder / f"{split}.jsonl", [replace(read[0], tgt=long.src)] * copies + read[copies:])
    tokens = made.root / "data/tiny/tokens/translation/pairs"
    shutil.rmtree(tokens)
    encode_pairs(folder, tokens, tokenizer())
    log = made.run("cpu").log
    assert "0 sources and 2 targets of 80 training pairs have more than the 47 tokens" in log
    assert "0 sources and 1 targets of 10 validation pairs have more than the 47 tokens" in log
    assert f"1 of {len(others) + 1} test sources have more than the 47 tokens that the model reads" in log
    metrics = read_json(made.root / "metrics/tiny/translate/transformer.json")
    assert metrics["test"].items() >= {"num_pairs": len(others) + 1, "num_src_too_long": 1}.items()
    assert (metrics["training"]["num_pairs"], metrics["training"]["num_tgt_too_long"]) == (78, 2)
    assert (metrics["valid"]["num_pairs"], metrics["valid"]["num_tgt_too_long"]) == (10, 1)


def test_an_empty_reference_is_refused_before_any_training(tmp_path: Path, code: Path) -> None:
    made = workspace(tmp_path / "workspace", code, "transformer", settings("transformer"))
    file = made.root / "data/tiny/prepared/translation/test.jsonl"
    first, second, *others = pairs(SPLITS["test"])
    write_records(file, [first, replace(second, tgt=" "), *others])
    assert "test.jsonl:2: the target is empty" in made.run("cpu", expect=(2,)).log
    assert not list(made.root.glob(".pipeline/**/step-*"))


def test_a_corpus_of_one_pair_is_trained_on_and_translated(tmp_path: Path, code: Path) -> None:
    config = settings("transformer")
    config["num_attention_maps"] = 1
    made = workspace(tmp_path / "workspace", code, "transformer", config)
    folder = made.root / "data/tiny"
    for split in SPLITS:
        write_records(folder / f"prepared/translation/{split}.jsonl", pairs(range(1)))
    shutil.rmtree(folder / "tokens/translation/pairs")
    encode_pairs(folder / "prepared/translation", folder / "tokens/translation/pairs", tokenizer())
    made.run("cpu")
    metrics = read_json(made.root / "metrics/tiny/translate/transformer.json")
    assert metrics["training"]["num_pairs"] == 1 and metrics["test"]["num_pairs"] == 1


def test_while_hyper_parameters_are_chosen_the_test_set_is_not_opened(tmp_path: Path, code: Path) -> None:
    made = workspace(tmp_path / "workspace", code, "transformer", settings("transformer") | {"reads_test": False})
    (made.root / "data/tiny/prepared/translation/test.jsonl").write_text("no pairs")
    made.run("cpu")
    metrics = read_json(made.root / "metrics/tiny/translate/transformer.json")
    assert {"bleu", "nll"} <= metrics["valid"].keys() and not {"bleu", "chrf", "test"} & metrics.keys()
    rows = read_json(made.root / "metrics/tiny/samples/translate/transformer.json")
    assert {row["reference"] for row in rows} <= {pair.tgt for pair in pairs(SPLITS["valid"])}


def test_a_mean_of_more_weights_than_there_are_validations_is_refused_before_any_training(
    tmp_path: Path, code: Path
) -> None:
    config = settings("transformer") | {"selection": {"num_averaged": 4}}
    config["training"] |= {"duration": {"kind": "steps", "num_steps": 9}, "validate_every": 3}
    made = workspace(tmp_path / "workspace", code, "transformer", config)
    assert (
        "selection.num_averaged: 4, but 9 steps with validate_every 3 have 3 validations"
        in made.run("cpu", expect=(2,)).log
    )
