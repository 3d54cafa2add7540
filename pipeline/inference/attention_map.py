"""Which source tokens a translation model looks at for each target token, for people to see.

Legend: N translations of a batch (here 1), T target length, S source length, H heads, D model size.
The fused kernel of the Transformer keeps no weights, so they are computed anew. The recurrent attention is asked for
the mean of unit vectors instead of its values: that mean is the weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pipeline.inference.translator import Translation, Translator
from pipeline.models.attention import CrossAttention, KeyValueCache
from pipeline.models.recurrent import Recurrent
from pipeline.models.seq2seq import Seq2Seq
from pipeline.models.source_attention import Memory, SourceAttention


@dataclass(frozen=True)
class AttentionMap:
    """The weights that a model gave to the tokens of a source while it read a translation."""

    src_tokens: tuple[str, ...]
    tgt_tokens: tuple[str, ...]
    """The tokens that were predicted, EOS at the end."""
    weights: Float[Tensor, "T S"]
    """Each row sums to one, or with local_p to less: the mean over all heads and layers that attend to the source."""


@torch.no_grad()
def attention_map(translator: Translator, text: str, translation: Translation) -> AttentionMap:
    """The weights behind one translation, of an ensemble the mean. ValueError for a model without attention."""
    tokenizer = translator.tokenizer
    (source,) = translator.encode([text], too_long="cut")
    of_models = [_weights(model, tokenizer.bos_id, source, translation) for model in translator.models]
    return AttentionMap(
        src_tokens=tuple(tokenizer.tokens(source.tolist())),
        tgt_tokens=tuple(tokenizer.tokens([*translation.tokens, tokenizer.eos_id])),
        weights=torch.stack(of_models).mean(0),
    )


def _weights(
    model: Seq2Seq | Recurrent, bos: int, source: Int[np.ndarray, "S"], translation: Translation
) -> Float[Tensor, "T S"]:
    if not has_attention(model):
        raise ValueError("a model without attention gives its sources no weights")
    src = torch.from_numpy(source)[None]
    tgt = torch.tensor([[bos, *translation.tokens]])
    device = next(model.parameters()).device
    with _recorded(model) as weights:
        model(src.to(device), torch.ones_like(src, dtype=torch.bool).to(device), tgt.to(device))
    # Layers attend one after the other, each to all targets; with input feeding the targets come one after the other.
    return torch.cat(weights, dim=1).view(-1, tgt.size(1), src.size(1)).mean(0).cpu()


def has_attention(model: Seq2Seq | Recurrent) -> bool:
    """Whether a model attends to its source, and so has an `attention_map`."""
    return isinstance(model, Seq2Seq) or model.config.attention != "none"


@contextmanager
def _recorded(model: Seq2Seq | Recurrent) -> Iterator[list[Tensor]]:
    """The weights (N, t, S) of every attention to the source, in the order in which they are computed."""
    weights: list[Tensor] = []

    def record(module: nn.Module, arguments: tuple[Any, ...], result: Tensor) -> None:
        match module:
            case CrossAttention():
                weights.append(_of_heads(module, *arguments))
            case SourceAttention():
                weights.append(_of_states(module, *arguments))

    attentions = [module for module in model.modules() if isinstance(module, CrossAttention | SourceAttention)]
    hooks = [module.register_forward_hook(record) for module in attentions]
    try:
        yield weights
    finally:
        for hook in hooks:
            hook.remove()


def _of_heads(
    attention: CrossAttention,
    hidden: Float[Tensor, "N T D"],
    memory: KeyValueCache,
    mask: Bool[Tensor, "N 1 1 S"] | None,
) -> Float[Tensor, "N T S"]:
    """The mean weights of all heads (Vaswani et al. 2017, eq. 1)."""
    queries = attention.query(hidden).unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
    scores = (queries * queries.size(-1) ** -0.5) @ memory.keys.transpose(-2, -1)  # (N, H, T, S)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights: Tensor = scores.softmax(dim=-1)
    return weights.mean(1)


def _of_states(
    attention: SourceAttention, states: Float[Tensor, "N T H"], memory: Memory, src_mask: Bool[Tensor, "N S"]
) -> Float[Tensor, "N T S"]:
    """The weights of a recurrent decoder; calling `forward` does not run the hook again."""
    units = torch.eye(memory.outputs.size(1), device=states.device).expand(len(states), -1, -1)
    weights: Tensor = attention.forward(states, replace(memory, outputs=units), src_mask)
    return weights
