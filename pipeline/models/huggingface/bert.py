"""BERT and its heads to and from `BertForPreTraining`, `BertForMaskedLM`, `BertModel` and the task classes.

`x_to_huggingface(model, ...)` gives what config.json and model.safetensors hold, tied parameters once;
`x_from_huggingface(config, state)` builds our model from that.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from pipeline.models.bert import Bert, BertConfig, BertForMaskedWords, BertForPretraining, Pooler
from pipeline.models.heads import SequenceClassifier, SpanHead, TokenClassifier
from pipeline.models.huggingface.labels import from_label_settings, label_settings, sequence_label_settings
from pipeline.models.huggingface.names import (
    Exported,
    Name,
    embedding,
    fill,
    linear,
    rename,
    require,
    setting,
    without_copies,
)

_HEADS = ("cls.", "classifier.", "qa_outputs.")
"""What stands on the encoder in the classes of Hugging Face."""
_POOLER = "bert.pooler."
_MASKED_WORDS = "cls.predictions."
_NEXT_SENTENCE = "cls.seq_relationship."
_TIED = {"tie_word_embeddings": True}
_COPIES = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
"""Tied parameters that a file may hold twice."""


def bert_to_huggingface(model: BertForPretraining, *, pad_token_id: int) -> Exported:
    """A `BertForPreTraining`; label 0 of its second head is "the second segment follows the first"."""
    return _to_config(model.config, "BertForPreTraining", pad_token_id), rename(model, _pretraining_names(model.config))


def pretraining_from_huggingface(
    config: Mapping[str, Any], state: Mapping[str, Tensor]
) -> tuple[BertForPretraining, tuple[str, ...]]:
    """The BERT with both heads from a `BertForPreTraining`, and the prefixes of what begins from random weights.

    Nothing does there; in a `BertForMaskedLM` it is the pooler and the head of next sentences, in a `BertModel` both
    heads. A head of a task is left behind. ValueError names what is missing of a part that is there otherwise.
    """
    model = BertForPretraining(_from_config(config))
    used = _without(_clean(state), *(head for head in _HEADS if head != "cls."))
    parts = {
        _POOLER: linear("pooler.dense", "bert.pooler.dense"),
        _MASKED_WORDS: _masked_word_head_names(),
        _NEXT_SENTENCE: linear("next_sentence", "cls.seq_relationship"),
    }
    absent = tuple(prefix for prefix in parts if not any(name.startswith(prefix) for name in used))
    if _MASKED_WORDS not in absent:
        require(config, _TIED)
        used = without_copies(used, _COPIES)
    present = [name for prefix, names in parts.items() if prefix not in absent for name in names]
    fill(model, [*_encoder_names(model.config), *present], used)
    return model, absent


def masked_words_from_huggingface(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> BertForMaskedWords:
    """Encoder and masked-word head from a `BertForMaskedLM`, or from a `BertForPreTraining` without its other head.

    ValueError names what is missing of them, and a decoder that is not the token embeddings.
    """
    require(config, _TIED)
    model = BertForMaskedWords(_from_config(config))
    used = _without(_clean(state), _POOLER, _NEXT_SENTENCE)
    fill(model, _masked_word_names(model.config), without_copies(used, _COPIES))
    return model


def bert_encoder_from_huggingface(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[Bert, Pooler | None]:
    """Encoder and pooler from a `BertModel` or any class that has a head on one; the head is left behind.

    There is no pooler in a `BertForMaskedLM`, nor in most files of taggers and span finders.
    """
    encoder = Bert(_from_config(config))
    pooler = Pooler(encoder.config.d_model)
    body = _without(_clean(state), *_HEADS)
    head = {name: body.pop(name) for name in list(body) if name.startswith(_POOLER)}
    fill(encoder, _encoder_names(encoder.config, ours=""), body)
    if not head:
        return encoder, None
    fill(pooler, linear("dense", "bert.pooler.dense"), head)
    return encoder, pooler


def sequence_classifier_to_huggingface(
    model: SequenceClassifier, *, pad_token_id: int, labels: Sequence[str]
) -> Exported:
    """A `BertForSequenceClassification`; `labels` names the outputs, and one output is a regression."""
    assert isinstance(model.encoder, Bert)
    config = _to_config(model.encoder.config, "BertForSequenceClassification", pad_token_id)
    config |= sequence_label_settings(labels, model.classifier.out_features, model.dropout.p)
    return config, rename(model, _sequence_names(model.encoder.config))


def sequence_classifier_from_huggingface(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> SequenceClassifier:
    """Our classifier from a `BertForSequenceClassification`; ValueError names what does not fit."""
    ours = _from_config(config)
    num_labels, dropout = from_label_settings(config)
    model = SequenceClassifier(Bert(ours), Pooler(ours.d_model), num_labels=num_labels, dropout=dropout)
    fill(model, _sequence_names(ours), _clean(state))
    return model


def token_classifier_to_huggingface(model: TokenClassifier, *, pad_token_id: int, labels: Sequence[str]) -> Exported:
    """A `BertForTokenClassification`; `labels` names the classes."""
    config = _to_config(model.encoder.config, "BertForTokenClassification", pad_token_id)
    config |= label_settings(labels, model.classifier.out_features, model.dropout.p)
    return config, rename(model, _token_names(model.encoder.config))


def token_classifier_from_huggingface(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> TokenClassifier:
    """Our tagger from a `BertForTokenClassification`; ValueError names what does not fit."""
    ours = _from_config(config)
    num_labels, dropout = from_label_settings(config)
    model = TokenClassifier(Bert(ours), num_labels=num_labels, dropout=dropout)
    # Older files carry the pooler of the encoder along, which this head does not look at.
    fill(model, _token_names(ours), _without(_clean(state), _POOLER))
    return model


def span_head_to_huggingface(model: SpanHead, *, pad_token_id: int) -> Exported:
    """A `BertForQuestionAnswering`."""
    config = model.encoder.config
    return _to_config(config, "BertForQuestionAnswering", pad_token_id), rename(model, _span_names(config))


def span_head_from_huggingface(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> SpanHead:
    """Our span finder from a `BertForQuestionAnswering`; ValueError names what does not fit."""
    model = SpanHead(Bert(_from_config(config)))
    fill(model, _span_names(model.encoder.config), _without(_clean(state), _POOLER))
    return model


def _encoder_names(config: BertConfig, *, ours: str = "encoder.") -> list[Name]:
    """Every parameter of a Bert that stands at `ours` in its module."""
    names = [
        embedding(f"{ours}token_embedding", "bert.embeddings.word_embeddings"),
        embedding(f"{ours}position_embedding", "bert.embeddings.position_embeddings"),
        embedding(f"{ours}token_type_embedding", "bert.embeddings.token_type_embeddings"),
        *linear(f"{ours}embedding_norm", "bert.embeddings.LayerNorm"),
    ]
    for i in range(config.num_layers):
        layer, block = f"{ours}layers.{i}", f"bert.encoder.layer.{i}"
        heads = [f"{block}.attention.self.{part}" for part in ("query", "key", "value")]
        names += linear(f"{layer}.attention.qkv", *heads)
        names += linear(f"{layer}.attention.output", f"{block}.attention.output.dense")
        names += linear(f"{layer}.attention_residual.norm", f"{block}.attention.output.LayerNorm")
        names += linear(f"{layer}.feed_forward.inner", f"{block}.intermediate.dense")
        names += linear(f"{layer}.feed_forward.output", f"{block}.output.dense")
        names += linear(f"{layer}.feed_forward_residual.norm", f"{block}.output.LayerNorm")
    return names


def _pretraining_names(config: BertConfig) -> list[Name]:
    return [
        *_masked_word_names(config),
        *linear("pooler.dense", "bert.pooler.dense"),
        *linear("next_sentence", "cls.seq_relationship"),
    ]


def _masked_word_names(config: BertConfig) -> list[Name]:
    return [*_encoder_names(config), *_masked_word_head_names()]


def _masked_word_head_names() -> list[Name]:
    return [
        *linear("masked_word.dense", "cls.predictions.transform.dense"),
        *linear("masked_word.norm", "cls.predictions.transform.LayerNorm"),
        Name("masked_word.decoder.bias", ("cls.predictions.bias",)),
    ]


def _sequence_names(config: BertConfig) -> list[Name]:
    pooler = linear("pooler.dense", "bert.pooler.dense")
    return [*_encoder_names(config), *pooler, *linear("classifier", "classifier")]


def _token_names(config: BertConfig) -> list[Name]:
    return [*_encoder_names(config), *linear("classifier", "classifier")]


def _span_names(config: BertConfig) -> list[Name]:
    return [*_encoder_names(config), *linear("classifier", "qa_outputs")]


def _clean(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Today's names for those of older files and of a bare BertModel; without buffers."""
    renamed = {}
    for name, tensor in state.items():
        name = re.sub(r"^(embeddings|encoder|pooler)\.", r"bert.\1.", name)
        name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
        renamed[re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)] = tensor
    renamed.pop("bert.embeddings.position_ids", None)
    return renamed


def _without(state: Mapping[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(prefixes)}


def _to_config(config: BertConfig, architecture: str, pad_token_id: int) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": "bert",
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.d_ff,
        "max_position_embeddings": config.max_length,
        "type_vocab_size": config.num_token_types,
        "hidden_act": config.activation,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "layer_norm_eps": config.layer_norm_eps,
        "initializer_range": config.initial_std,
        "position_embedding_type": "absolute",
        "pad_token_id": pad_token_id,
        "bos_token_id": None,
        "eos_token_id": None,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }


def _from_config(config: Mapping[str, Any]) -> BertConfig:
    require(
        config,
        {
            "model_type": "bert",
            "position_embedding_type": "absolute",
            "is_decoder": False,
        },
    )
    return BertConfig(
        vocab_size=setting(config, "vocab_size"),
        d_model=setting(config, "hidden_size"),
        num_layers=setting(config, "num_hidden_layers"),
        num_heads=setting(config, "num_attention_heads"),
        d_ff=setting(config, "intermediate_size"),
        max_length=setting(config, "max_position_embeddings"),
        num_token_types=setting(config, "type_vocab_size"),
        activation=setting(config, "hidden_act"),
        dropout=setting(config, "hidden_dropout_prob"),
        attention_dropout=setting(config, "attention_probs_dropout_prob"),
        initial_std=config.get("initializer_range", 0.02),
        layer_norm_eps=config.get("layer_norm_eps", 1e-12),
    )
