"""Layers laid out for the CPU: the same answers, and no layer where it would not gain or could not be."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.inference import packed
from pipeline.inference.packed import PackedLinear, can_pack, pack
from pipeline.models.bert import BertConfig, BertForMaskedWords
from pipeline.models.seq2seq import Seq2Seq, TransformerConfig
from pipeline.models.translation import TokenProjection

needs_packing = pytest.mark.skipif(not can_pack(), reason="this PyTorch has no packed product, or this CPU no AVX-512")


@needs_packing
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 384), (5, 384), (3, 7, 384), (700, 384)])
def test_a_packed_layer_multiplies_as_the_layer_does(shape: tuple[int, ...], has_bias: bool) -> None:
    model, values = nn.Sequential(nn.Linear(384, 385, bias=has_bias)), torch.randn(shape, requires_grad=True)
    expected = model(values).detach()
    pack(model)
    found: Tensor = model(values)
    assert isinstance(model[0], PackedLinear) and not found.requires_grad
    assert_close(found, expected, atol=2e-6, rtol=1e-5)


@needs_packing
def test_rows_that_are_a_view_are_read_as_they_are() -> None:
    layer, values = nn.Linear(384, 400), torch.randn(384, 2, 9)
    view = values.permute(2, 1, 0)[::2, 0]
    assert_close(PackedLinear(layer.weight, layer.bias)(view), layer(view).detach(), atol=2e-6, rtol=1e-5)


@needs_packing
def test_only_large_layers_of_float32_are_packed() -> None:
    model = nn.ModuleDict(
        {
            "large": nn.Linear(384, 384),
            "small": nn.Linear(384, 300),
            "rounded": nn.Linear(384, 384).bfloat16(),
            "inside": nn.Sequential(nn.ReLU(), nn.Linear(512, 512)),
        }
    )
    pack(model)
    found = {name for name, part in model.named_modules() if isinstance(part, PackedLinear)}
    assert found == {"large", "inside.1"}


@needs_packing
def test_a_packed_model_refuses_to_be_moved() -> None:
    model = nn.Sequential(nn.Linear(512, 512))
    pack(model)
    with pytest.raises(RuntimeError, match="open its folder anew"):
        model.to("meta")


def test_nothing_is_packed_where_the_product_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "can_pack", lambda: False)
    model = nn.Sequential(nn.Linear(512, 512))
    pack(model)
    assert type(model[0]) is nn.Linear


@needs_packing
def test_the_projection_of_a_translation_model_keeps_pad_impossible() -> None:
    projection = TokenProjection(2000, 128)
    nn.init.normal_(projection.weight)
    model = nn.Sequential(projection)
    hidden = torch.randn(6, 128)
    expected = model(hidden).detach()
    pack(model)
    assert isinstance(model[0], PackedLinear)
    found: Tensor = model(hidden)
    assert torch.isneginf(found[:, -1]).all()
    assert_close(found[:, :-1], expected[:, :-1], atol=2e-5, rtol=1e-5)


@needs_packing
def test_whole_models_answer_as_before() -> None:
    torch.manual_seed(1)
    shape = BertConfig(vocab_size=1000, d_model=256, num_layers=2, num_heads=4, d_ff=1024, max_length=32)
    bert = BertForMaskedWords(shape).eval()
    ids = torch.randint(0, 1000, (3, 20))
    batch = ids, torch.zeros_like(ids), torch.arange(20) < torch.tensor([[20], [11], [1]])
    translator = Seq2Seq(
        TransformerConfig(
            kind="transformer",
            vocab_size=1000,
            d_model=256,
            num_encoder_layers=1,
            num_decoder_layers=2,
            num_heads=4,
            d_ff=1024,
            max_length=32,
        )
    ).eval()
    with torch.inference_mode():
        expected = bert.mlm_logits(bert(*batch)), _steps(translator, ids)
        pack(bert)
        pack(translator)
        found = bert.mlm_logits(bert(*batch)), _steps(translator, ids)
    for model in (bert, translator):
        assert any(isinstance(part, PackedLinear) for part in model.modules())
    assert_close(found, expected, atol=1e-4, rtol=1e-4)


def _steps(model: Seq2Seq, src: Tensor) -> Tensor:
    """Log-probabilities of three steps that all take token 7."""
    state = model.start(src, torch.ones_like(src).bool())
    found = []
    for _ in range(3):
        logits, state = model.step(torch.full((len(src),), 7), state)
        found.append(F.log_softmax(logits, dim=1))
    return torch.stack(found)
