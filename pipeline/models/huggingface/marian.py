"""Translation models to and from `MarianMTModel`, or a layout of our own where Marian has no such model.

Marian is post-norm with sinusoidal positions. Its softmax runs over all V tokens, ours over all but <pad>: the bias
of <pad> is written as -10,000, so that the probabilities are the same; tools that drop the last row, such as
CTranslate2, and `bad_words_ids` come to the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

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
from pipeline.models.recurrent import Recurrent, RecurrentConfig
from pipeline.models.seq2seq import Seq2Seq, TransformerConfig
from pipeline.models.translation import TiedEmbeddings, pad_id

OWN_TYPES = {"transformer": "pipeline-transformer", "recurrent": "pipeline-recurrent"}
"""model_type of what no class of Hugging Face computes."""

PAD_BIAS = -1e4

GNMT_PENALTY = "gnmt_penalty"
"""The key of generation_config.json for the exponent of GNMT's normalisation (Wu et al. 2016, eq. 14)."""


def is_marian(config: TransformerConfig | RecurrentConfig) -> bool:
    """True for the variant that a `MarianMTModel` computes."""
    return isinstance(config, TransformerConfig) and config.norm == "post" and config.positions == "sinusoidal"


def translation_to_huggingface(model: Seq2Seq | Recurrent) -> Exported:
    """A `MarianMTModel`, or, for other variants, our own names under a `model_type` of our own."""
    if isinstance(model, Seq2Seq) and is_marian(model.config):
        config, state = _to_marian_config(model.config), rename(model, _marian_names(model.config))
        bias = state["final_logits_bias"]
        bias[pad_id(model.config.vocab_size)] = PAD_BIAS
        state["final_logits_bias"] = bias.unsqueeze(0)
        return config, state
    config = {
        "architectures": [type(model).__name__],
        "model_type": OWN_TYPES[model.config.kind],
        "model": model.config.model_dump(mode="json"),
    }
    return config, {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def translation_from_huggingface(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Seq2Seq | Recurrent:
    """The model of any folder that `translation_to_huggingface` describes, and of published Marian models."""
    model: Seq2Seq | Recurrent
    match setting(config, "model_type"):
        case "marian":
            return _from_marian(config, state)
        case "pipeline-transformer":
            model = Seq2Seq(TransformerConfig.model_validate(setting(config, "model")))
        case "pipeline-recurrent":
            model = Recurrent(RecurrentConfig.model_validate(setting(config, "model")))
        case found:
            allowed = ", ".join(["marian", *OWN_TYPES.values()])
            raise ValueError(f"config.json: model_type is {found!r}, allowed for translation: {allowed}")
    fill(model, [Name(name, (name,)) for name, _ in model.named_parameters()], state)
    return model


def marian_generation_settings(
    config: TransformerConfig | RecurrentConfig,
    *,
    num_beams: int,
    normalisation: Literal["length", "gnmt"],
    length_penalty: float,
    suppressed: Sequence[int] = (),
) -> dict[str, Any]:
    """What generation_config.json holds for a `MarianMTModel`; the recurrent models follow the same conventions.

    `suppressed` tokens are never generated, nor is the padding.

    A log-probability of n tokens is divided by `n ** a` (length) or by `((5 + n) / 6) ** a` (gnmt), with a the
    `length_penalty`. `transformers` reads that key as the first, always. GNMT's a goes by a name of our own, which
    `transformers` passes over: it then searches with its default, n ** 1, and takes no number for what it is not.
    """
    pad = pad_id(config.vocab_size)
    penalty = "length_penalty" if normalisation == "length" else GNMT_PENALTY
    return {
        "decoder_start_token_id": pad,
        "pad_token_id": pad,
        "eos_token_id": 0,
        "bos_token_id": None,
        "bad_words_ids": [[token] for token in (pad, *suppressed)],
        "forced_eos_token_id": None,
        "max_length": config.max_length,
        "num_beams": num_beams,
        penalty: length_penalty,
    }


def _from_marian(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Seq2Seq:
    model = Seq2Seq(_from_marian_config(config))
    tensors = {name: tensor for name, tensor in state.items() if not name.endswith("embed_positions.weight")}
    source, target = "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"
    match model.config.tied_embeddings:
        case "all":
            shared = "model.shared.weight"
            tensors = without_copies(tensors, {source: shared, target: shared, "lm_head.weight": shared})
        case "decoder":
            tensors = without_copies(tensors, {"lm_head.weight": target})
    bias = tensors.get("final_logits_bias", torch.zeros(1, model.config.vocab_size)).reshape(-1).clone()
    bias[-1:] = 0.0
    fill(model, _marian_names(model.config), tensors | {"final_logits_bias": bias})
    pad = pad_id(model.config.vocab_size)
    if model.embeddings.target.weight[pad].any() or model.embeddings.source.weight[pad].any():
        raise ValueError(f"the embedding of <pad>, row {pad}, is not zero: the decoder would start differently")
    return model


def _marian_names(config: TransformerConfig) -> list[Name]:
    names = [Name("embeddings.output.bias", ("final_logits_bias",))]
    match config.tied_embeddings:
        case "all":
            names.append(embedding("embeddings.target", "model.shared"))
        case "decoder" | "none":
            names.append(embedding("embeddings.source", "model.encoder.embed_tokens"))
            names.append(embedding("embeddings.target", "model.decoder.embed_tokens"))
    if config.tied_embeddings == "none":
        names.append(embedding("embeddings.output", "lm_head"))
    for i in range(config.num_encoder_layers):
        names += _layer_names(f"encoder.{i}", f"model.encoder.layers.{i}")
    for i in range(config.num_decoder_layers):
        ours, theirs = f"decoder.{i}", f"model.decoder.layers.{i}"
        cross = f"{theirs}.encoder_attn"
        names += _layer_names(ours, theirs)
        names += linear(f"{ours}.cross_attention.query", f"{cross}.q_proj")
        names += linear(f"{ours}.cross_attention.key_value", f"{cross}.k_proj", f"{cross}.v_proj")
        names += linear(f"{ours}.cross_attention.output", f"{cross}.out_proj")
        names += linear(f"{ours}.cross_attention_residual.norm", f"{theirs}.encoder_attn_layer_norm")
    return names


def _layer_names(ours: str, theirs: str) -> list[Name]:
    """What encoder and decoder layers have in common."""
    heads = [f"{theirs}.self_attn.{part}_proj" for part in ("q", "k", "v")]
    return [
        *linear(f"{ours}.attention.qkv", *heads),
        *linear(f"{ours}.attention.output", f"{theirs}.self_attn.out_proj"),
        *linear(f"{ours}.attention_residual.norm", f"{theirs}.self_attn_layer_norm"),
        *linear(f"{ours}.feed_forward.inner", f"{theirs}.fc1"),
        *linear(f"{ours}.feed_forward.output", f"{theirs}.fc2"),
        *linear(f"{ours}.feed_forward_residual.norm", f"{theirs}.final_layer_norm"),
    ]


def _to_marian_config(config: TransformerConfig) -> dict[str, Any]:
    pad = pad_id(config.vocab_size)
    return {
        "architectures": ["MarianMTModel"],
        "model_type": "marian",
        "vocab_size": config.vocab_size,
        "decoder_vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "encoder_layers": config.num_encoder_layers,
        "decoder_layers": config.num_decoder_layers,
        "encoder_attention_heads": config.num_heads,
        "decoder_attention_heads": config.num_heads,
        "encoder_ffn_dim": config.d_ff,
        "decoder_ffn_dim": config.d_ff,
        "max_position_embeddings": config.max_length,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.activation_dropout,
        "encoder_layerdrop": 0.0,
        "decoder_layerdrop": 0.0,
        "activation_function": config.activation,
        "scale_embedding": config.scale_embedding,
        "share_encoder_decoder_embeddings": config.tied_embeddings == "all",
        "tie_word_embeddings": config.tied_embeddings != "none",
        "is_encoder_decoder": True,
        "pad_token_id": pad,
        "decoder_start_token_id": pad,
        "eos_token_id": 0,
        "bos_token_id": None,
        "forced_eos_token_id": None,
        "bad_words_ids": [[pad]],
        "use_cache": True,
        "dtype": "float32",
    }


def _from_marian_config(config: Mapping[str, Any]) -> TransformerConfig:
    vocab_size, num_heads = setting(config, "vocab_size"), setting(config, "encoder_attention_heads")
    d_ff, activation = setting(config, "encoder_ffn_dim"), setting(config, "activation_function")
    pad = pad_id(vocab_size)
    require(
        config,
        {
            "decoder_vocab_size": vocab_size,
            "decoder_attention_heads": num_heads,
            "decoder_ffn_dim": d_ff,
            "pad_token_id": pad,
            "decoder_start_token_id": pad,
            "eos_token_id": 0,
            "normalize_before": False,
            "normalize_embedding": False,
            "static_position_embeddings": True,
            "add_final_layer_norm": False,
        },
    )
    is_shared = config.get("share_encoder_decoder_embeddings", True)
    tied: TiedEmbeddings = "all" if is_shared else "decoder" if config.get("tie_word_embeddings", True) else "none"
    return TransformerConfig(
        kind="transformer",
        vocab_size=vocab_size,
        d_model=setting(config, "d_model"),
        num_encoder_layers=setting(config, "encoder_layers"),
        num_decoder_layers=setting(config, "decoder_layers"),
        num_heads=num_heads,
        d_ff=d_ff,
        max_length=setting(config, "max_position_embeddings"),
        dropout=setting(config, "dropout"),
        attention_dropout=setting(config, "attention_dropout"),
        activation_dropout=setting(config, "activation_dropout"),
        norm="post",
        positions="sinusoidal",
        activation="silu" if activation == "swish" else activation,
        tied_embeddings=tied,
        scale_embedding=setting(config, "scale_embedding"),
    )
