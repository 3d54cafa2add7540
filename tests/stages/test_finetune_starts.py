"""The folders that a fine-tuning begins from: published BERTs of every class, and what was fine-tuned before."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import BertConfig as TheirConfig
from transformers import BertForMaskedLM

from pipeline.artifacts import load_model, read_json
from pipeline.inference.models import Classifier, open_model
from pipeline.models.bert import Bert, Pooler
from pipeline.stages.finetune import FinetuneConfig, build_encoder
from pipeline.text.tokenizer import VOCABULARY, load_tokenizer
from tests.foundations.chain import Run
from tests.parity.hf import save_theirs
from tests.stages.grammar import WORDS
from tests.stages.test_finetune import CONFIG, POLARITY, pretrained, tokenizer, write_start
from tests.training.harness import Workspace, snapshot

TAGS, QUESTIONS = {"kind": "tagging", "name": "names"}, {"kind": "questions", "name": "squad"}


def publish_masked_words(folder: Path) -> Path:
    """A `BertForMaskedLM` as `transformers` saves it, with a vocab.txt alone and settings that name no token."""
    torch.manual_seed(0)
    words = tokenizer()
    shape = TheirConfig(
        vocab_size=words.vocab_size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=12,
        initializer_range=0.1,
    )
    save_theirs(folder, BertForMaskedLM(shape))
    pieces = "\n".join(words.tokens(range(words.vocab_size)))
    (folder / VOCABULARY).write_text(f"{pieces}\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "model_max_length": 512}))
    return folder


def begun(folder: Path, **changes: Any) -> tuple[Bert, Pooler]:
    """Encoder and pooler of a configuration, made from one seed."""
    torch.manual_seed(1)
    return build_encoder(folder, FinetuneConfig.model_validate(CONFIG | {"task": POLARITY} | changes))


def test_a_pooler_that_is_missing_begins_from_the_seed_and_is_warned_of_where_it_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = publish_masked_words(tmp_path)
    (encoder, pooler), (_, again) = begun(folder), begun(folder)
    assert torch.equal(
        encoder.token_embedding.weight, load_model(folder).state["bert.embeddings.word_embeddings.weight"]
    )
    assert torch.equal(pooler.dense.weight, again.dense.weight) and not pooler.dense.bias.any()
    assert float(pooler.dense.weight.detach().std()) == pytest.approx(0.1, rel=0.1)
    warning = f"{folder}: the weights have no pooler (bert.pooler.dense): it begins from the seed"
    assert [(one.levelno, one.getMessage()) for one in caplog.records] == [(logging.WARNING, warning)] * 2
    caplog.clear()
    for changes in ({"task": TAGS}, {"task": QUESTIONS}, {"start": "random"}):
        begun(folder, **changes)
    begun(write_start(tmp_path / "whole", pretrained()))
    assert not caplog.records


def test_a_folder_that_does_not_fit_is_named(tmp_path: Path) -> None:
    folder = publish_masked_words(tmp_path)
    config = read_json(folder / "config.json")
    for changes, message in (
        (
            {"vocab_size": 7},
            r"the weights do not fit the configuration: bert\.embeddings\.word_embeddings\.weight: found",
        ),
        ({"model_type": "electra"}, "config.json: model_type is 'electra', only 'bert' is supported"),
    ):
        (folder / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(ValueError, match=f"^{folder}: {message}"):
            begun(folder)


def write_pairs(folder: Path, classes: Sequence[str]) -> dict[str, Any]:
    """A task of the user's own files, whose classes are told by the words of the text."""
    folder.mkdir()
    rows = [f"{WORDS[len(classes) * i]} {WORDS[i]}\t{name}" for i in range(3) for name in classes]
    for split in ("train", "valid"):
        (folder / f"{split}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    splits = {split: str(folder / f"{split}.tsv") for split in ("train", "valid")}
    return {"kind": "files", "splits": splits, "text": "text", "label": "label", "target": "classes"}


def test_a_published_bert_is_fine_tuned_and_what_comes_of_it_again_on_other_classes(tmp_path: Path) -> None:
    """As on MNLI, and from there on RTE."""
    root = tmp_path / "workspace"
    Workspace(root, snapshot(tmp_path / "code"), module="", config="conf/tiny/")
    (root / "conf/tiny/finetune").mkdir(parents=True)
    training = CONFIG["training"] | {"duration": {"kind": "steps", "num_steps": 2}, "validate_every": 2}
    classes = {"first": ("no", "perhaps", "yes"), "second": ("left", "right")}
    start, logs = publish_masked_words(root / "bert"), {}
    for name, labels in classes.items():
        task = write_pairs(root / f"files-{name}", labels)
        settings = CONFIG | {"task": task, "training": training, "encoder": str(start)}
        (root / f"conf/tiny/finetune/{name}.yaml").write_text(yaml.safe_dump(settings))
        logs[name] = Run(root, f"finetune/{name}").run("cpu").log
        start = root / "models/tiny/finetune" / name
        model = open_model(start)
        assert isinstance(model, Classifier) and model.labels == labels
        assert {one.label for one in model.classify(WORDS)} <= set(labels)
    assert "the weights have no pooler" in logs["first"] and "no pooler" not in logs["second"]
    found = [load_model(root / folder).state for folder in ("bert", "models/tiny/finetune/first", f"{start}")]
    apart = [
        (one["bert.embeddings.word_embeddings.weight"] - other["bert.embeddings.word_embeddings.weight"]).abs().max()
        for one, other in ((found[0], found[1]), (found[1], found[2]))
    ]
    # Two steps of Adam at a rate of 0.01 move a weight by 0.02 at most, a new start by several standard deviations.
    assert all(0 < float(distance) < 0.03 for distance in apart)
    assert load_tokenizer(start).hash == load_tokenizer(root / "bert").hash == tokenizer().hash
