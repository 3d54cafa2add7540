"""The BERTs from which pretraining goes on, and those that do not fit."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import BertConfig as TheirConfig
from transformers import BertForMaskedLM, BertForPreTraining

from pipeline.data.token_arrays import in_memory
from pipeline.models.bert import BertConfig, BertForPretraining
from pipeline.models.huggingface.bert import bert_to_huggingface
from pipeline.stages.pretrain_bert import PretrainBertConfig, build_model
from pipeline.stages.pretrain_bert_starts import open_pretrained
from pipeline.text.tokenizer import VOCABULARY, Tokenizer
from pipeline.text.wordpiece import wordpiece_backend
from tests.parity.hf import save_theirs, spread
from tests.stages.test_pretrain_bert import CONFIG, tokenizer, workspace
from tests.training.harness import snapshot

SHAPE = BertConfig(vocab_size=tokenizer().vocab_size, **CONFIG["model"])


def published(folder: Path, theirs: Any = BertForPreTraining, **changes: Any) -> Path:
    """A BERT of the sizes of the stage, with positions to spare, as `transformers` saves it, and its tokenizer."""
    torch.manual_seed(3)
    sizes = {
        "vocab_size": tokenizer().vocab_size,
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 96,
        "max_position_embeddings": 64,
    }
    model = theirs(TheirConfig(**(sizes | changes)))
    spread(model)
    save_theirs(folder, model)
    tokenizer().save(folder)
    return folder


def test_a_training_goes_on_from_all_weights_of_a_published_bert(tmp_path: Path) -> None:
    folder = published(tmp_path / "bert")
    changes = {
        "start": {"kind": "pretrained", "folder": str(folder)},
        "training.duration.num_steps": 1,
        "training.optimizer.lr": 1e-7,
    }
    made = workspace(tmp_path / "workspace", snapshot(tmp_path / "code"), changes)
    made.run("cpu")
    before, after = load_file(folder / "model.safetensors"), made.weights()
    tied = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    assert before.keys() - tied == after.keys()
    for name, tensor in after.items():
        assert_close(tensor, before[name], atol=1e-6, rtol=0)
    assert after["bert.embeddings.position_embeddings.weight"].shape == (64, 48)


def test_what_a_start_does_not_say_of_dropout_and_first_weights_is_that_of_the_configuration(tmp_path: Path) -> None:
    folder = published(tmp_path, layer_norm_eps=1e-6, hidden_act="relu")
    config = PretrainBertConfig.model_validate(
        CONFIG | {"start": {"kind": "pretrained", "folder": str(folder)}, "model": CONFIG["model"] | {"dropout": 0.3}}
    )
    shape = SHAPE.model_copy(update={"dropout": 0.3})
    model = build_model(shape, config, in_memory([[[5]]]), tokenizer())
    expected = {"dropout": 0.3, "attention_dropout": 0.0, "layer_norm_eps": 1e-6, "activation": "relu"}
    assert model.config == shape.model_copy(update=expected | {"max_length": 64})


def test_heads_that_are_missing_are_named_in_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = published(tmp_path / "masked", BertForMaskedLM)
    open_pretrained(folder, SHAPE, tokenizer())
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"{folder}: the weights have no pooler (bert.pooler.*), no head of next sentences (cls.seq_relationship.*): "
        "what is missing begins from the seed"
    )
    caplog.clear()
    open_pretrained(published(tmp_path / "whole"), SHAPE, tokenizer())
    assert not caplog.records


def cased(words: Tokenizer) -> Tokenizer:
    """The same vocabulary, but case and accents are kept."""
    ids = {token: number for number, token in enumerate(words.tokens(range(words.vocab_size)))}
    return Tokenizer(wordpiece_backend(ids, lower_case=False), words.special)


def test_another_vocabulary_than_that_of_the_tokens_is_refused(tmp_path: Path) -> None:
    folder = published(tmp_path)
    pieces = tokenizer().tokens(range(tokenizer().vocab_size))
    last, before = pieces[-1], pieces[-2]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / VOCABULARY).write_text("\n".join([*pieces[:-2], last, before]) + "\n", encoding="utf-8")
    size = len(pieces)
    message = rf"^{folder}: its vocabulary of {size} differs from that of the tokens, of {size}, in 2 tokens: "
    with pytest.raises(ValueError, match=message) as refused:
        open_pretrained(folder, SHAPE, tokenizer())
    assert f"{last!r} is {size - 2} there and {size - 1} here" in str(refused.value)
    assert f"wordpiece.given of tokenize.yaml: {folder}" in str(refused.value)


def test_the_same_vocabulary_in_another_case_is_refused(tmp_path: Path) -> None:
    folder = published(tmp_path)
    cased(tokenizer()).save(folder)
    with pytest.raises(ValueError, match=rf"^{folder}: its tokenizer cuts .* they differ in case or accents"):
        open_pretrained(folder, SHAPE, tokenizer())


@pytest.mark.parametrize(
    ("shape", "theirs", "message"),
    [
        ({"num_layers": 3}, {}, r"^model: found \{.*'num_layers': 3.*\}, .* has \{.*'num_layers': 2"),
        ({"max_length": 65}, {}, r"^model.max_length: found 65, allowed is up to 64, as "),
        ({}, {"type_vocab_size": 1}, r": type_vocab_size is 1, two segments need 2$"),
        ({}, {"hidden_size": 50}, r"^model: found \{'d_model': 48.* has \{'d_model': 50"),
    ],
)
def test_other_sizes_are_refused(shape: dict[str, Any], theirs: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = published(tmp_path, **theirs)
    with pytest.raises(ValueError, match=message):
        open_pretrained(folder, SHAPE.model_copy(update=shape), tokenizer())


def test_what_this_stage_made_is_opened_bit_by_bit(tmp_path: Path) -> None:
    model = BertForPretraining(SHAPE)
    spread(model)
    folder = published(tmp_path)
    config, state = bert_to_huggingface(model, pad_token_id=tokenizer().pad_id)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(state, folder / "model.safetensors")
    again = open_pretrained(folder, SHAPE, tokenizer())
    assert again.config == SHAPE
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    folder = published(tmp_path / "bert")
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    (bare / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=rf"^{bare}: no tokenizer in this folder"):
        open_pretrained(bare, SHAPE, tokenizer())
    with pytest.raises(ValueError, match=rf"^{tmp_path / 'none'}: no tokenizer"):
        open_pretrained(tmp_path / "none", SHAPE, tokenizer())
