"""GPT, reward models and classifiers to and from `GPT2LMHeadModel` and `GPT2ForSequenceClassification`.

`x_to_huggingface(model, ...)` gives what config.json and model.safetensors hold, tied parameters once;
`x_from_huggingface(config, state)` builds our model from that.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.kinds import REWARD_MARK
from pipeline.models.gpt import GPT, GPTConfig
from pipeline.models.heads import RewardModel, SequenceClassifier
from pipeline.models.huggingface.labels import from_label_settings, sequence_label_settings
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
from pipeline.models.text_encoders import GPTEncoder, LastTokenPooling

_TOKENS = "transformer.wte.weight"


def gpt_to_huggingface(model: GPT, *, bos_token_id: int, eos_token_id: int, pad_token_id: int) -> Exported:
    """A `GPT2LMHeadModel`."""
    ids = {"bos_token_id": bos_token_id, "eos_token_id": eos_token_id, "pad_token_id": pad_token_id}
    return _to_config(model.config, "GPT2LMHeadModel") | ids, rename(model, _names(model.config, ours=""))


def gpt_from_huggingface(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> GPT:
    """Our GPT from a `GPT2LMHeadModel` or a bare `GPT2Model`; ValueError names what does not fit."""
    model = GPT(_from_config(config))
    fill(model, _names(model.config, ours=""), _clean(state))
    return model


def with_rows(config: Mapping[str, Any], state: Mapping[str, Tensor], num_rows: int) -> Exported:
    """A GPT-2 with at least so many token embeddings: the mean of the others is appended, and these keep their bits.

    ValueError when its output matrix is another, which would lack the rows.
    """
    cleaned = _clean(state)
    config, table, size = dict(config), cleaned.get(_TOKENS), setting(config, "vocab_size")
    # Weights that do not fit their configuration are named where the model is filled.
    if num_rows > size and table is not None and len(table) == size:
        new = table.float().mean(0, keepdim=True).to(table.dtype).expand(num_rows - size, -1)
        config, cleaned = config | {"vocab_size": num_rows}, cleaned | {_TOKENS: torch.cat([table, new])}
    return config, cleaned


def reward_to_huggingface(model: RewardModel, *, bos_token_id: int, eos_token_id: int, pad_token_id: int) -> Exported:
    """A `GPT2ForSequenceClassification` with one label, which scores the right-most token that is not <pad>.

    `REWARD_MARK` in its config tells it from a classifier.
    """
    _check_end_is_found(pad_token_id, eos_token_id)
    ids = {"bos_token_id": bos_token_id, "eos_token_id": eos_token_id, "pad_token_id": pad_token_id}
    labels = {"id2label": {"0": "reward"}, "label2id": {"reward": 0}, "problem_type": "regression"}
    config = _to_config(model.trunk.config, "GPT2ForSequenceClassification") | ids | labels | dict(REWARD_MARK)
    return config, rename(model, _reward_names(model.trunk.config))


def reward_from_huggingface(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> RewardModel:
    """Our reward model from a `GPT2ForSequenceClassification` with one label; ValueError names what does not fit."""
    model = RewardModel(GPT(_from_config(config)))
    fill(model, _reward_names(model.trunk.config), _clean(state))
    return model


def gpt_classifier_to_huggingface(
    model: SequenceClassifier, *, token_ids: Mapping[str, int], labels: Sequence[str]
) -> Exported:
    """A `GPT2ForSequenceClassification`, without the mark of a reward model.

    `token_ids` has pad_token_id, bos_token_id and eos_token_id.
    """
    assert isinstance(model.encoder, GPTEncoder)
    _check_end_is_found(token_ids["pad_token_id"], token_ids["eos_token_id"])
    config = _to_config(model.encoder.config, "GPT2ForSequenceClassification") | dict(token_ids)
    config |= sequence_label_settings(labels, model.classifier.out_features, model.dropout.p)
    return config, rename(model, _classifier_names(model.encoder.config))


def gpt_classifier_from_huggingface(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> SequenceClassifier:
    """Our classifier from a `GPT2ForSequenceClassification`; ValueError names what does not fit."""
    # GPT-2 has no dropout before this head, and no setting for it.
    num_labels, dropout = from_label_settings({"classifier_dropout": 0.0} | dict(config))
    model = SequenceClassifier(
        GPTEncoder(GPT(_from_config(config))),
        LastTokenPooling(),
        num_labels=num_labels,
        dropout=dropout,
        has_bias=False,
    )
    fill(model, _classifier_names(_from_config(config)), _clean(state))
    return model


def _check_end_is_found(pad_token_id: int, eos_token_id: int) -> None:
    if pad_token_id == eos_token_id:
        raise ValueError(f"pad_token_id and eos_token_id are both {pad_token_id}: the end of a text could not be found")


def _classifier_names(config: GPTConfig) -> list[Name]:
    return [*_names(config, ours="encoder.gpt."), Name("classifier.weight", ("score.weight",))]


def _reward_names(config: GPTConfig) -> list[Name]:
    return [*_names(config, ours="trunk."), Name("score.weight", ("score.weight",))]


def _names(config: GPTConfig, *, ours: str) -> list[Name]:
    """Every parameter of a GPT that stands at `ours` in its module. GPT-2 stores linear maps as (input, output)."""
    names = [
        embedding(f"{ours}token_embedding", "transformer.wte"),
        embedding(f"{ours}position_embedding", "transformer.wpe"),
        *linear(f"{ours}final_norm", "transformer.ln_f"),
    ]
    for i in range(config.num_layers):
        layer, block = f"{ours}layers.{i}", f"transformer.h.{i}"
        names += linear(f"{layer}.attention_residual.norm", f"{block}.ln_1")
        names += linear(f"{layer}.attention.qkv", f"{block}.attn.c_attn", is_transposed=True)
        names += linear(f"{layer}.attention.output", f"{block}.attn.c_proj", is_transposed=True)
        names += linear(f"{layer}.feed_forward_residual.norm", f"{block}.ln_2")
        names += linear(f"{layer}.feed_forward.inner", f"{block}.mlp.c_fc", is_transposed=True)
        names += linear(f"{layer}.feed_forward.output", f"{block}.mlp.c_proj", is_transposed=True)
    return names


def _clean(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Prefixes the names of a bare GPT2Model; drops the causal masks of old files and the tied head."""
    prefixed = {re.sub(r"^(wte|wpe|h|ln_f)\.", r"transformer.\1.", name): tensor for name, tensor in state.items()}
    kept = {
        name: tensor
        for name, tensor in prefixed.items()
        if not re.fullmatch(r"transformer\.h\.\d+\.attn\.(masked_)?bias", name)
    }
    return without_copies(kept, {"lm_head.weight": _TOKENS})


def _to_config(config: GPTConfig, architecture: str) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.max_length,
        "n_ctx": config.max_length,
        "n_embd": config.d_model,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_inner": None,
        "activation_function": "gelu_new",
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.attention_dropout,
        "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "tie_word_embeddings": True,
        "use_cache": True,
        "dtype": "float32",
    }


def _from_config(config: Mapping[str, Any]) -> GPTConfig:
    require(
        config,
        {
            "model_type": "gpt2",
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "reorder_and_upcast_attn": False,
            "tie_word_embeddings": True,
            "add_cross_attention": False,
        },
    )
    d_model = setting(config, "n_embd")
    if config.get("n_inner") not in (None, 4 * d_model):
        raise ValueError(f"config.json: n_inner is {config['n_inner']}, only four times n_embd {d_model} is supported")
    return GPTConfig(
        vocab_size=setting(config, "vocab_size"),
        d_model=d_model,
        num_layers=setting(config, "n_layer"),
        num_heads=setting(config, "n_head"),
        max_length=setting(config, "n_positions"),
        dropout=setting(config, "resid_pdrop"),
        attention_dropout=setting(config, "attn_pdrop"),
    )
