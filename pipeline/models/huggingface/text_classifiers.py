"""Classifiers of texts to and from model folders: the classes of Hugging Face, or a layout of our own.

BERT is a `BertForSequenceClassification`, GPT a `GPT2ForSequenceClassification`. Recurrent networks have no class
there: they keep our own names of parameters under a `model_type` of our own, as the bidirectional language model does.
"""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from torch import Tensor, nn

from pipeline.models.bert import Bert
from pipeline.models.bilm import BidirectionalLM, BiLMConfig
from pipeline.models.bilstm import BiLSTM, BiLSTMConfig, Pooling, build_pooling, pooling_kind
from pipeline.models.heads import SequenceClassifier
from pipeline.models.huggingface.bert import sequence_classifier_from_huggingface, sequence_classifier_to_huggingface
from pipeline.models.huggingface.gpt import gpt_classifier_from_huggingface, gpt_classifier_to_huggingface
from pipeline.models.huggingface.labels import from_label_settings, sequence_label_settings
from pipeline.models.huggingface.names import Exported, Name, fill, require, setting
from pipeline.models.text_encoders import BiLMEncoder, BiLMEncoderConfig, GPTEncoder

_BILSTM, _BILM_CLASSIFIER, _BILM = "pipeline-bilstm", "pipeline-bilm-classifier", "pipeline-bilm"


def text_classifier_to_huggingface(
    model: SequenceClassifier, *, token_ids: Mapping[str, int], labels: Sequence[str]
) -> Exported:
    """What the folder of a classifier holds; `labels` names the outputs, and one output is a regression.

    `token_ids` are those of config.json, as `pad_token_id`; BERT needs that one, GPT those of bos and eos too.
    """
    match model.encoder:
        case Bert():
            return sequence_classifier_to_huggingface(model, pad_token_id=token_ids["pad_token_id"], labels=labels)
        case GPTEncoder():
            return gpt_classifier_to_huggingface(model, token_ids=token_ids, labels=labels)
        case BiLSTM():
            return _to_own_layout(model, _BILSTM, token_ids, labels)
        case BiLMEncoder():
            return _to_own_layout(model, _BILM_CLASSIFIER, token_ids, labels)
        case _:
            assert_never(model.encoder)


def text_classifier_from_huggingface(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> SequenceClassifier:
    """The classifier of any folder that `text_classifier_to_huggingface` describes, and of published BERTs and GPT-2s.

    ValueError names what does not fit.
    """
    encoder: BiLSTM | BiLMEncoder
    match setting(config, "model_type"):
        case "bert":
            return sequence_classifier_from_huggingface(config, state)
        case "gpt2":
            return gpt_classifier_from_huggingface(config, state)
        case "pipeline-bilstm":
            encoder = BiLSTM(BiLSTMConfig.model_validate(setting(config, "model")))
        case "pipeline-bilm-classifier":
            encoder = BiLMEncoder(BiLMEncoderConfig.model_validate(setting(config, "model")))
        case found:
            allowed = ", ".join(["bert", "gpt2", _BILSTM, _BILM_CLASSIFIER])
            raise ValueError(f"config.json: model_type is {found!r}, allowed for classifiers: {allowed}")
    num_labels, dropout = from_label_settings(config)
    pooler = build_pooling(setting(config, "pooling"), encoder.config.d_model)
    model = SequenceClassifier(encoder, pooler, num_labels=num_labels, dropout=dropout)
    fill(model, _own_names(model), state)
    return model


def bilm_to_huggingface(model: BidirectionalLM, *, token_ids: Mapping[str, int]) -> Exported:
    """What the folder of a bidirectional language model holds."""
    config = {
        "architectures": [type(model).__name__],
        "model_type": _BILM,
        "model": model.config.model_dump(mode="json"),
        **token_ids,
    }
    return config, _own_state(model)


def bilm_from_huggingface(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> BidirectionalLM:
    """The bidirectional language model of a folder; ValueError names what does not fit."""
    setting(config, "model_type")
    require(config, {"model_type": _BILM})
    model = BidirectionalLM(BiLMConfig.model_validate(setting(config, "model")))
    fill(model, _own_names(model), state)
    return model


def _to_own_layout(
    model: SequenceClassifier, model_type: str, token_ids: Mapping[str, int], labels: Sequence[str]
) -> Exported:
    assert isinstance(model.pooler, Pooling)
    config = {
        "architectures": [type(model).__name__],
        "model_type": model_type,
        "model": model.encoder.config.model_dump(mode="json"),
        "pooling": pooling_kind(model.pooler),
        **token_ids,
        **sequence_label_settings(labels, model.classifier.out_features, model.dropout.p),
    }
    return config, _own_state(model)


def _own_names(model: nn.Module) -> list[Name]:
    return [Name(name, (name,)) for name, _ in model.named_parameters()]


def _own_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
