"""Every class of `transformers` gives the BERT that is pretrained further, and says which heads it does not have."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import (
    BertForMaskedLM,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
    BertPreTrainedModel,
)

from pipeline.models.bert import BertForPretraining
from pipeline.models.huggingface.bert import pretraining_from_huggingface
from pipeline.objectives.likelihood import class_cross_entropy, token_cross_entropy
from tests.parity.hf import assert_same, mean_loss, save_theirs, spread
from tests.parity.test_bert import inputs, their_config, their_inputs


@torch.no_grad()
def test_we_open_their_bert_for_pretraining_and_give_its_logits_and_loss(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs: Any = BertForPreTraining(their_config())
    spread(theirs.eval())
    our, absent = pretraining_from_huggingface(*save_theirs(tmp_path, theirs))
    assert absent == ()
    (ids, _, mask), hidden = inputs(), our.eval()(*inputs())
    chosen, next_labels = mask & (torch.arange(9) % 2 == 0), torch.tensor([0, 1])
    labels = ids.flip(1)
    expected = theirs(**their_inputs(), labels=labels.masked_fill(~chosen, -100), next_sentence_label=next_labels)
    assert_same(our.mlm_logits(hidden)[mask], expected.prediction_logits[mask])
    assert_same(our.nsp_logits(hidden), expected.seq_relationship_logits)
    words = token_cross_entropy(our.mlm_logits(hidden[chosen]), labels[chosen], name="mlm")
    sentences = class_cross_entropy(our.nsp_logits(hidden), next_labels, name="nsp")
    assert_close(mean_loss(words) + mean_loss(sentences), expected.loss, atol=1e-4, rtol=0)


PARTS = {
    "bert.pooler.": ("pooler.dense.weight", "pooler.dense.bias"),
    "cls.predictions.": (
        "masked_word.dense.weight",
        "masked_word.dense.bias",
        "masked_word.norm.weight",
        "masked_word.norm.bias",
        "masked_word.decoder.bias",
    ),
    "cls.seq_relationship.": ("next_sentence.weight", "next_sentence.bias"),
}


@torch.no_grad()
@pytest.mark.parametrize(
    ("theirs", "absent"),
    [
        (BertForMaskedLM, ("bert.pooler.", "cls.seq_relationship.")),
        (BertForNextSentencePrediction, ("cls.predictions.",)),
        (BertModel, ("cls.predictions.", "cls.seq_relationship.")),
        (BertForSequenceClassification, ("cls.predictions.", "cls.seq_relationship.")),
        (BertForQuestionAnswering, ("bert.pooler.", "cls.predictions.", "cls.seq_relationship.")),
    ],
)
def test_of_other_classes_the_parts_that_are_missing_alone_begin_from_the_seed(
    theirs: type[BertPreTrainedModel], absent: tuple[str, ...], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model: Any = theirs(their_config())
    spread(model.eval())
    config, state = save_theirs(tmp_path, model)
    torch.manual_seed(5)
    found, named = pretraining_from_huggingface(config, state)
    assert named == absent
    torch.manual_seed(5)
    fresh = dict(BertForPretraining(found.config).named_parameters())
    random = {name for prefix in absent for name in PARTS[prefix]}
    same = {name for name, parameter in found.named_parameters() if torch.equal(parameter, fresh[name])}
    assert same == random
    mask, hidden = inputs()[2], found.eval()(*inputs())
    assert_same(hidden[mask], model.base_model(**their_inputs()).last_hidden_state[mask])
    if theirs is BertForMaskedLM:
        assert_same(found.mlm_logits(hidden)[mask], model(**their_inputs()).logits[mask])
    if theirs is BertForNextSentencePrediction:
        assert_same(found.nsp_logits(hidden), model(**their_inputs()).logits)


def test_a_part_that_is_there_by_half_is_refused(tmp_path: Path) -> None:
    config, state = save_theirs(tmp_path, BertForPreTraining(their_config()))
    for name in ("bert.pooler.dense.bias", "cls.seq_relationship.weight", "cls.predictions.transform.dense.bias"):
        with pytest.raises(ValueError, match=rf"the weights do not fit the configuration: missing {name} \([\d, ]+\)$"):
            pretraining_from_huggingface(config, {key: tensor for key, tensor in state.items() if key != name})
    with pytest.raises(ValueError, match="tie_word_embeddings is False, only True is supported"):
        pretraining_from_huggingface({**config, "tie_word_embeddings": False}, state)
