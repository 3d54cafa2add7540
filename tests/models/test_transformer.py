"""The layers of a Transformer, pre-norm and post-norm, against those of PyTorch with the same weights."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.models.attention import key_mask
from pipeline.models.seq2seq import Seq2Seq, TransformerConfig
from pipeline.models.transformer import DecoderLayer, EncoderLayer, Layers, NormPlacement
from tests.parity.hf import spread

V, D, HEADS, D_FF = 23, 16, 2, 24
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
NAMES = {
    "attention.qkv.": "self_attn.in_proj_",
    "attention.output.": "self_attn.out_proj.",
    "attention_residual.norm.": "norm1.",
    "cross_attention.output.": "multihead_attn.out_proj.",
    "cross_attention_residual.norm.": "norm2.",
    "feed_forward.inner.": "linear1.",
    "feed_forward.output.": "linear2.",
}


def theirs(layer: EncoderLayer | DecoderLayer, norm: NormPlacement) -> nn.Module:
    """PyTorch's layer with the weights of ours."""
    is_decoder = isinstance(layer, DecoderLayer)
    kind = nn.TransformerDecoderLayer if is_decoder else nn.TransformerEncoderLayer
    found = kind(D, HEADS, D_FF, dropout=0.0, activation="relu", batch_first=True, norm_first=norm == "pre")
    names = NAMES | {"feed_forward_residual.norm.": "norm3." if is_decoder else "norm2."}
    ours = layer.state_dict()
    state: dict[str, Tensor] = {}
    for part in ("weight", "bias"):
        state |= {new + part: ours[old + part] for old, new in names.items() if old + part in ours}
        if is_decoder:
            pieces = [ours[f"cross_attention.{name}.{part}"] for name in ("query", "key_value")]
            state[f"multihead_attn.in_proj_{part}"] = torch.cat(pieces)
    found.load_state_dict(state)
    return found


def future(length: int) -> Tensor:
    """True where PyTorch may not look."""
    return torch.ones(length, length, dtype=torch.bool).triu(1)


def model(norm: NormPlacement) -> Seq2Seq:
    torch.manual_seed(0)
    config = TransformerConfig(
        kind="transformer",
        vocab_size=V,
        d_model=D,
        num_encoder_layers=2,
        num_decoder_layers=2,
        num_heads=HEADS,
        d_ff=D_FF,
        max_length=12,
        norm=norm,
        positions="learned",
    )
    made = Seq2Seq(config)
    spread(made, keep_zero=V - 1)
    return made.eval()


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_decoder_layer_is_that_of_pytorch_at_once_and_step_by_step(norm: NormPlacement) -> None:
    torch.manual_seed(0)
    layer = DecoderLayer(D, HEADS, D_FF, norm=norm, activation="relu", dropout=0.0, attention_dropout=0.0)
    spread(layer)
    hidden, source = 2.0 * torch.randn(2, 6, D), torch.randn(2, 5, D)
    expected = theirs(layer, norm)(hidden, source, tgt_mask=future(6), memory_key_padding_mask=~MASK)
    memory, mask = layer.cross_attention.project_memory(source), key_mask(MASK)
    assert_close(layer(hidden, memory, mask), expected, atol=1e-5, rtol=0)
    with torch.no_grad():
        cache = None
        for t in range(6):
            step, cache = layer.extend(hidden[:, t : t + 1], cache, memory, mask)
            assert_close(step[:, 0], expected[:, t], atol=1e-5, rtol=0)


def embedded(made: Seq2Seq, tokens: Tensor, positions: Tensor) -> Tensor:
    """Token vectors times the root of their size, plus the position vectors, one after the other."""
    rows = [
        [made.embeddings.target.weight[token] * D**0.5 + positions[t] for t, token in enumerate(row)]
        for row in tokens.tolist()
    ]
    return torch.stack([torch.stack(row) for row in rows])


def tables(made: Seq2Seq) -> tuple[Tensor, Tensor]:
    """The learned positions of source and target."""
    source, target = made.source_positions.table, made.target_positions.table
    assert source is not None and target is not None
    assert not torch.allclose(source.weight, target.weight, atol=1e-2)
    return source.weight, target.weight


def test_learned_positions_are_added_to_the_scaled_token_vectors_each_side_with_its_own() -> None:
    made = model("post")
    source, target = tables(made)
    made.encoder, made.decoder = Layers(), Layers()
    src, tgt = torch.randint(0, V - 1, (2, 5)), torch.randint(0, V - 1, (2, 4))
    memory = made.encode(src, MASK)
    assert_close(memory, embedded(made, src, source), atol=1e-5, rtol=0)
    assert_close(made.decode(tgt, memory, MASK), embedded(made, tgt, target), atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_whole_model_is_layers_of_pytorch_and_pre_norm_ends_each_stack_with_a_norm(norm: NormPlacement) -> None:
    made = model(norm)
    source, target = tables(made)
    src, tgt = torch.randint(0, V - 1, (2, 5)), torch.randint(0, V - 1, (2, 4))

    def ended(hidden: Tensor, final: nn.Module) -> Tensor:
        if norm == "post":
            return hidden
        state = final.state_dict()
        return nn.functional.layer_norm(hidden, (D,), state["weight"], state["bias"])

    hidden = embedded(made, src, source)
    for encoder_layer in made.encoder:
        hidden = theirs(encoder_layer, norm)(hidden, src_key_padding_mask=~MASK)
    memory = ended(hidden, made.encoder_norm)
    hidden = embedded(made, tgt, target)
    for decoder_layer in made.decoder:
        layer = theirs(decoder_layer, norm)
        hidden = layer(hidden, memory, tgt_mask=future(4), memory_key_padding_mask=~MASK)
    assert_close(made(src, MASK, tgt), ended(hidden, made.decoder_norm), atol=1e-4, rtol=0)
