"""Where a translation Transformer looks: the weights of its attention to the source, for reports.

Legend: B batch, Q decoder layers, H heads, T target length, S source length, D model size.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pipeline.models.attention import CrossAttention, KeyValueCache
from pipeline.models.seq2seq import Seq2Seq


@torch.no_grad()
def attention_maps(
    model: Seq2Seq, src: Int[Tensor, "B S"], src_mask: Bool[Tensor, "B S"], tgt: Int[Tensor, "B T"]
) -> Float[Tensor, "B Q H T S"]:
    """The weight of each source position in each target position; a row sums to 1, padding has weight 0.

    The fused kernel keeps no weights, so they are computed beside it.
    """
    maps: list[Tensor] = []

    def record(module: nn.Module, inputs: tuple[Tensor, KeyValueCache, Tensor]) -> None:
        assert isinstance(module, CrossAttention)
        hidden, memory, mask = inputs
        queries = module.query(hidden).unflatten(2, (module.num_heads, -1)).transpose(1, 2)  # (B, H, T, K)
        scores = queries @ memory.keys.transpose(-2, -1) * queries.size(-1) ** -0.5
        maps.append(scores.masked_fill(~mask, float("-inf")).softmax(dim=-1))

    handles = [layer.cross_attention.register_forward_pre_hook(record) for layer in model.decoder]
    try:
        model(src, src_mask, tgt)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(maps, dim=1)
