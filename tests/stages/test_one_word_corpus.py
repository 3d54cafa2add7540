"""Own files of one word through prepare, tokenize and translate: each stage does its part or names what to set."""

from pathlib import Path

import pytest
import yaml

from pipeline.inference.translator_folder import open_translator
from pipeline.text.tokenizer import load_tokenizer
from tests.training.harness import ROOT, Outcome, Workspace, change_yaml, snapshot

DOG = ("dog", "Hund")
HOT_DOG = ("hot dog", "heißer Hund")


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return snapshot(tmp_path_factory.mktemp("code"))


def workspace(root: Path, code: Path, **splits: tuple[str, str]) -> Workspace:
    """A folder with one pair a split, and the settings of the smallest profile."""
    made = Workspace(root, code, module="", config="")
    (root / "data/tiny/raw/own").mkdir(parents=True)
    for split, pair in splits.items():
        (root / f"data/tiny/raw/own/{split}.tsv").write_text("\t".join(pair) + "\n")
    sources = [{"kind": "table", "source": "own", "into": split, "file": f"{split}.tsv"} for split in splits]
    (root / "conf/tiny/translate").mkdir(parents=True)
    (root / "conf/tiny/prepare.yaml").write_text(yaml.safe_dump({"translation": {"sources": sources}}))
    (root / "conf/tiny/tokenize.yaml").write_text(yaml.safe_dump({"translation": {"vocab_size": 400}}))
    (root / "conf/tiny/translate/transformer.yaml").write_bytes(
        (ROOT / "conf/tiny/translate/transformer.yaml").read_bytes()
    )
    return made


def run(made: Workspace, stage: str, *, fails: bool = False) -> Outcome:
    """Runs a stage; one that fails says so in one message."""
    made.module, made.config = f"pipeline.stages.{stage}", f"conf/tiny/{stage}.yaml"
    if stage == "translate":
        made.config = "conf/tiny/translate/transformer.yaml"
    outcome = made.run("cpu", expect=(2 if fails else 0,))
    assert outcome.log.count("error: ") == fails and "Traceback" not in outcome.log
    return outcome


def test_one_word_is_learnt_and_translated_once_the_model_has_the_size_that_the_message_names(
    tmp_path: Path, code: Path
) -> None:
    made = workspace(tmp_path / "workspace", code, train=DOG, valid=HOT_DOG, test=HOT_DOG)
    run(made, "prepare")
    run(made, "tokenize")
    num_ids = load_tokenizer(made.root / "data/tiny/tokens/translation").vocab_size
    expected = f"model.vocab_size is 400, but the tokenizer in data/tiny/tokens/translation has {num_ids} ids"
    assert expected in run(made, "translate", fails=True).log
    change_yaml(made.root / made.config, {"model.vocab_size": num_ids})
    run(made, "translate")
    (found,) = open_translator(made.output).translate(["dog"])
    assert found.text == "Hund"


def test_one_pair_for_training_and_scoring_alike_is_refused_with_the_reason(tmp_path: Path, code: Path) -> None:
    made = workspace(tmp_path / "workspace", code, train=DOG, valid=DOG, test=DOG)
    log = run(made, "prepare", fails=True).log
    assert "nothing of role translation is left for training; dropped: {'in_fixed_test': 1}; in_fixed_test are" in log


@pytest.mark.parametrize("missing", ["valid", "test"])
def test_a_split_without_pairs_is_named_with_the_keys_that_give_it_some(
    tmp_path: Path, code: Path, missing: str
) -> None:
    splits = {split: HOT_DOG for split in ("valid", "test") if split != missing}
    made = workspace(tmp_path / "workspace", code, train=DOG, **splits)
    run(made, "prepare")
    expected = f"translation/{missing}.jsonl: no pairs; translation of prepare.yaml needs a source with into: {missing}"
    assert f"{expected}, or num_{missing}" in run(made, "tokenize", fails=True).log
