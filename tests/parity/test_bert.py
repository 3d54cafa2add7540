"""BERT and its task heads compute what the classes of `transformers` compute, in both directions."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close
from transformers import (
    AutoTokenizer,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    BertPreTrainedModel,
)
from transformers import BertConfig as TheirConfig

from pipeline.inference.models import Classifier, open_model
from pipeline.models.bert import BertConfig, BertForPretraining
from pipeline.models.heads import SequenceClassifier, SpanHead, TokenClassifier
from pipeline.models.huggingface.bert import (
    bert_encoder_from_huggingface,
    bert_to_huggingface,
    masked_words_from_huggingface,
    sequence_classifier_from_huggingface,
    sequence_classifier_to_huggingface,
    span_head_from_huggingface,
    span_head_to_huggingface,
    token_classifier_from_huggingface,
    token_classifier_to_huggingface,
)
from pipeline.objectives.likelihood import token_cross_entropy
from pipeline.text.tokenizer_training import train_wordpiece
from tests.parity.hf import assert_same, mean_loss, open_theirs, save_theirs, spread, text_terms

CONFIG = BertConfig(vocab_size=37, d_model=24, num_layers=2, num_heads=3, d_ff=40, max_length=16)


def their_config() -> TheirConfig:
    return TheirConfig(
        vocab_size=37,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=16,
        pad_token_id=0,
    )


def ours() -> BertForPretraining:
    torch.manual_seed(0)
    model = BertForPretraining(CONFIG)
    spread(model)
    return model.eval()


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Ids, token types and mask of a full row and a padded one."""
    ids = torch.randint(5, 37, (2, 9), generator=torch.Generator().manual_seed(1))
    types = torch.tensor([[0] * 4 + [1] * 5] * 2)
    mask = torch.tensor([[True] * 9, [True] * 6 + [False] * 3])
    ids[~mask] = 0
    return ids, types, mask


def their_inputs() -> dict[str, Tensor]:
    ids, types, mask = inputs()
    return {"input_ids": ids, "token_type_ids": types, "attention_mask": mask.long()}


@torch.no_grad()
def test_transformers_opens_our_bert_and_gives_our_logits_and_loss(tmp_path: Path) -> None:
    our, mask = ours(), inputs()[2]
    theirs = open_theirs(tmp_path, BertForPreTraining, bert_to_huggingface(our, pad_token_id=0))
    labels = torch.where(mask & (torch.arange(9) % 2 == 0), inputs()[0].flip(1), -100)
    next_labels = torch.tensor([0, 1])
    expected = theirs(**their_inputs(), labels=labels, next_sentence_label=next_labels)
    hidden = our(*inputs())
    assert_same(our.mlm_logits(hidden)[mask], expected.prediction_logits[mask])
    assert_same(our.nsp_logits(hidden), expected.seq_relationship_logits)
    chosen = labels != -100
    loss = F.cross_entropy(our.mlm_logits(hidden[chosen]), labels[chosen])
    loss = loss + F.cross_entropy(our.nsp_logits(hidden), next_labels)
    assert_close(loss, expected.loss, atol=1e-4, rtol=0)


def test_the_gradient_of_every_parameter_is_theirs(tmp_path: Path) -> None:
    our = ours()
    theirs = open_theirs(tmp_path, BertForPreTraining, bert_to_huggingface(our, pad_token_id=0))
    ids, types, mask = inputs()
    chosen = mask & (torch.arange(9) % 2 == 0)
    labels, next_labels = ids.flip(1), torch.tensor([1, 0])
    loss = theirs(**their_inputs(), labels=labels.masked_fill(~chosen, -100), next_sentence_label=next_labels).loss
    torch.autograd.backward(loss)
    hidden = our(ids, types, mask)
    torch.autograd.backward(
        F.cross_entropy(our.mlm_logits(hidden[chosen]), labels[chosen])
        + F.cross_entropy(our.nsp_logits(hidden), next_labels)
    )
    gradients = copy.deepcopy(our)
    for parameter, source in zip(gradients.parameters(), our.parameters(), strict=True):
        assert source.grad is not None
        parameter.data = source.grad
    _, found = bert_to_huggingface(gradients, pad_token_id=0)
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4)
        # Nothing is learned of a key's bias: it adds the same to all scores of a query.
        assert gradient.abs().max() > 1e-4 or name.endswith("key.bias"), name


@torch.no_grad()
def test_the_epsilon_of_the_norms_is_that_of_the_folder_in_both_directions(tmp_path: Path) -> None:
    config = their_config()
    config.layer_norm_eps = 0.5
    theirs: Any = BertForMaskedLM(config)
    spread(theirs)
    theirs.eval()
    found = masked_words_from_huggingface(*save_theirs(tmp_path, theirs)).eval()
    mask = inputs()[2]
    assert_same(found.mlm_logits(found(*inputs()))[mask], theirs(**their_inputs()).logits[mask])
    torch.manual_seed(0)
    our = BertForPretraining(CONFIG.model_copy(update={"layer_norm_eps": 0.5})).eval()
    spread(our)
    again = open_theirs(tmp_path, BertForPreTraining, bert_to_huggingface(our, pad_token_id=0))
    assert_same(our.mlm_logits(our(*inputs()))[mask], again(**their_inputs()).prediction_logits[mask])


@torch.no_grad()
def test_a_folder_with_more_rows_than_its_tokenizer_has_ids_answers_as_theirs(tmp_path: Path) -> None:
    texts = ["the old man saw the sea", "the sea was old"]
    tokenizer = train_wordpiece(texts * 9, vocab_size=60)
    config = their_config()
    config.vocab_size = tokenizer.vocab_size + 7
    theirs: Any = BertForSequenceClassification(config)
    spread(theirs)
    theirs.eval()
    theirs.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    model = open_model(tmp_path)
    assert isinstance(model, Classifier)
    asked = AutoTokenizer.from_pretrained(tmp_path)(texts, padding=True, return_tensors="pt")
    expected = theirs(**asked).logits.softmax(-1).max(-1)
    found = model.classify(texts)
    assert [one.label for one in found] == [f"LABEL_{number}" for number in expected.indices.tolist()]
    assert_same(torch.tensor([one.values[0] for one in found]), expected.values)


@torch.no_grad()
def test_files_with_the_names_of_2018_open_too() -> None:
    our = ours()
    config, state = bert_to_huggingface(our, pad_token_id=0)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in state.items()
    }
    old["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"]
    old["bert.embeddings.position_ids"] = torch.arange(16)
    again = masked_words_from_huggingface(config, old).eval()
    assert torch.equal(again.mlm_logits(again(*inputs())), our.mlm_logits(our(*inputs())))


@torch.no_grad()
@pytest.mark.parametrize(
    ("theirs", "has_pooler"),
    [
        (BertModel, True),
        (BertForPreTraining, True),
        (BertForNextSentencePrediction, True),
        (BertForSequenceClassification, True),
        (BertForMultipleChoice, True),
        (BertForMaskedLM, False),
        (BertForTokenClassification, False),
        (BertForQuestionAnswering, False),
    ],
)
def test_we_open_the_encoder_of_every_class_and_its_pooler_if_it_has_one(
    theirs: type[BertPreTrainedModel], has_pooler: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model: Any = theirs(their_config())
    spread(model.eval())
    encoder, pooler = bert_encoder_from_huggingface(*save_theirs(tmp_path, model))
    expected = model.base_model(**their_inputs())
    hidden = encoder.eval()(*inputs())
    assert_same(hidden[inputs()[2]], expected.last_hidden_state[inputs()[2]])
    assert (pooler is not None) == has_pooler
    if pooler is not None:
        assert_same(pooler(hidden), expected.pooler_output)


def test_the_encoder_of_a_decoder_that_is_not_tied_opens_and_a_head_of_no_class_is_named(tmp_path: Path) -> None:
    config, state = save_theirs(tmp_path, BertForMaskedLM(their_config()))
    untied = {**state, "cls.predictions.decoder.weight": torch.ones(37, 24)}
    encoder, _ = bert_encoder_from_huggingface({**config, "tie_word_embeddings": False}, untied)
    assert torch.equal(encoder.token_embedding.weight, state["bert.embeddings.word_embeddings.weight"])
    with pytest.raises(ValueError, match=r"the weights do not fit the configuration: unexpected crf\.transitions$"):
        bert_encoder_from_huggingface(config, {**state, "crf.transitions": torch.ones(3, 3)})


@torch.no_grad()
@pytest.mark.parametrize("theirs", [BertForMaskedLM, BertForPreTraining])
def test_masked_words_are_scored_as_by_their_class_with_and_without_the_other_head(
    theirs: type[BertPreTrainedModel], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model: Any = theirs(their_config())
    spread(model.eval())
    ours = masked_words_from_huggingface(*save_theirs(tmp_path, model)).eval()
    expected, mask = model(**their_inputs()), inputs()[2]
    expected = expected.logits if theirs is BertForMaskedLM else expected.prediction_logits
    assert_same(ours.mlm_logits(ours(*inputs()))[mask], expected[mask])


def test_what_a_head_of_masked_words_lacks_is_named(tmp_path: Path) -> None:
    config, state = save_theirs(tmp_path, BertForMaskedLM(their_config()))
    state.pop("cls.predictions.decoder.bias", None)
    for missing in ("transform.dense.weight", "transform.LayerNorm.bias", "bias"):
        name = f"cls.predictions.{missing}"
        with pytest.raises(ValueError, match=rf"the weights do not fit the configuration: missing {name} \([\d, ]+\)$"):
            masked_words_from_huggingface(config, {key: tensor for key, tensor in state.items() if key != name})
    untied = {**state, "cls.predictions.decoder.weight": torch.ones(37, 24)}
    with pytest.raises(ValueError, match=r"decoder\.weight differs from bert\.embeddings\.word_embeddings\.weight"):
        masked_words_from_huggingface(config, untied)
    with pytest.raises(ValueError, match="tie_word_embeddings is False, only True is supported"):
        masked_words_from_huggingface({**config, "tie_word_embeddings": False}, untied)


@torch.no_grad()
@pytest.mark.parametrize("labels", [["value"], ["bad", "fair", "good"]])
def test_sequence_classifiers_agree_in_both_directions(labels: list[str], tmp_path: Path) -> None:
    base = ours()
    our = SequenceClassifier(base.encoder, base.pooler, num_labels=len(labels), dropout=0.2)
    spread(our)
    exported = sequence_classifier_to_huggingface(our.eval(), pad_token_id=0, labels=labels)
    theirs = open_theirs(tmp_path, BertForSequenceClassification, exported)
    targets = torch.tensor([2, 0]) if len(labels) > 1 else torch.tensor([1.5, -0.5])
    expected, scores = theirs(**their_inputs(), labels=targets), our(*inputs())
    assert_same(scores, expected.logits)
    assert_close(mean_loss(text_terms(scores, targets)), expected.loss, atol=1e-4, rtol=0)
    assert [theirs.config.id2label[i] for i in range(len(labels))] == labels
    spread(theirs)
    again = sequence_classifier_from_huggingface(*save_theirs(tmp_path, theirs)).eval()
    assert_same(again(*inputs()), theirs(**their_inputs()).logits)
    assert again.dropout.p == 0.2


@torch.no_grad()
def test_token_classifiers_agree_in_both_directions(tmp_path: Path) -> None:
    our = TokenClassifier(ours().encoder, num_labels=3, dropout=0.2)
    spread(our)
    exported = token_classifier_to_huggingface(our.eval(), pad_token_id=0, labels=["O", "B", "I"])
    theirs, mask = open_theirs(tmp_path, BertForTokenClassification, exported), inputs()[2]
    chosen = mask & (torch.arange(9) % 2 == 0)
    targets = inputs()[0] % 3
    expected, scores = theirs(**their_inputs(), labels=targets.masked_fill(~chosen, -100)), our(*inputs())
    assert_same(scores[mask], expected.logits[mask])
    assert_close(mean_loss(token_cross_entropy(scores[chosen], targets[chosen])), expected.loss, atol=1e-4, rtol=0)
    spread(theirs)
    again = token_classifier_from_huggingface(*save_theirs(tmp_path, theirs)).eval()
    assert_same(again(*inputs())[mask], theirs(**their_inputs()).logits[mask])


@torch.no_grad()
@pytest.mark.parametrize("theirs", [BertForTokenClassification, BertForQuestionAnswering])
def test_files_of_taggers_and_span_finders_may_carry_the_pooler_along(
    theirs: type[BertPreTrainedModel], tmp_path: Path
) -> None:
    """As those of dslim/bert-base-NER do."""
    torch.manual_seed(0)
    model: Any = theirs(their_config())
    model.bert = BertModel(their_config(), add_pooling_layer=True)
    spread(model.eval())
    config, state = save_theirs(tmp_path, model)
    assert "bert.pooler.dense.weight" in state
    expected, mask = model(**their_inputs()), inputs()[2]
    if theirs is BertForTokenClassification:
        tags = token_classifier_from_huggingface(config, state).eval()(*inputs())
        assert_same(tags[mask], expected.logits[mask])
    else:
        assert_same(
            span_head_from_huggingface(config, state).eval()(*inputs()).start[mask], expected.start_logits[mask]
        )


@torch.no_grad()
def test_span_heads_agree_in_both_directions(tmp_path: Path) -> None:
    our = SpanHead(ours().encoder)
    spread(our)
    theirs = open_theirs(tmp_path, BertForQuestionAnswering, span_head_to_huggingface(our.eval(), pad_token_id=0))
    mask = inputs()[2]
    for model in (our, span_head_from_huggingface(*save_theirs(tmp_path, theirs)).eval()):
        assert_same(model(*inputs()).start[mask], theirs(**their_inputs()).start_logits[mask])
        assert_same(model(*inputs()).end[mask], theirs(**their_inputs()).end_logits[mask])


def test_labels_that_do_not_fit_the_outputs_are_refused() -> None:
    base = ours()
    model = SequenceClassifier(base.encoder, base.pooler, num_labels=2, dropout=0.0)
    with pytest.raises(ValueError, match=r"2 outputs, found the labels \['only'\]"):
        sequence_classifier_to_huggingface(model, pad_token_id=0, labels=["only"])
