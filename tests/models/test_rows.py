"""Rows without padding: the same hidden states and gradients as on padded rows, and nothing from row to row."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.models import rows as module
from pipeline.models.attention import attend, key_mask
from pipeline.models.bert import Bert, BertConfig
from pipeline.models.rows import Rows, attend_row_by_row

CONFIG = BertConfig(vocab_size=50, d_model=24, num_layers=2, num_heads=3, d_ff=40, max_length=100, dropout=0.0)
LENGTHS = {
    "long rows": [100, 71, 1, 100],
    "short rows": [30, 9, 1, 17],
    "full long rows": [80, 80],
    "full short rows": [12, 12, 12],
}


def encoder() -> Bert:
    torch.manual_seed(0)
    model = Bert(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def batch(lengths: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, token types and mask of right-padded rows."""
    drawn = torch.Generator().manual_seed(1)
    shape = len(lengths), max(lengths)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids, types = torch.randint(0, 50, shape, generator=drawn), torch.randint(0, 2, shape, generator=drawn)
    return ids, types, mask


def padded(model: Bert, ids: Tensor, types: Tensor, mask: Tensor) -> Tensor:
    """The encoder of the paper on padded rows, with attention masked."""
    positions = model.position_embedding(torch.arange(ids.size(1)))
    hidden: Tensor = model.embedding_norm(model.token_embedding(ids) + model.token_type_embedding(types) + positions)
    for layer in model.layers:
        hidden = layer(hidden, key_mask(mask))
    return hidden


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_hidden_states_and_gradients_are_those_of_padded_rows(lengths: list[int]) -> None:
    model, inputs = encoder(), batch(lengths)
    mask = inputs[2]
    weights = torch.randn(*mask.shape, CONFIG.d_model, generator=torch.Generator().manual_seed(2))
    found, gradients = [], []
    for hidden in (model(*inputs), padded(model, *inputs)):
        model.zero_grad()
        torch.autograd.backward((hidden * weights)[mask].sum() / mask.sum())
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
        found.append(hidden.detach()[mask])
    assert found[1].std() > 0.1 and len(gradients[0]) == len(gradients[1]) == len(list(model.parameters()))
    assert_close(found[0], found[1], atol=1e-5, rtol=0)
    for ours, expected in zip(*gradients, strict=True):
        assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_nothing_passes_from_one_row_to_another_or_from_padding(lengths: list[int]) -> None:
    model, (ids, types, mask) = encoder().eval(), batch(lengths)
    before = model(ids, types, mask)
    changed = (ids + 7) % 50
    other_row, other_padding = ids.clone(), torch.where(mask, ids, changed)
    other_row[0] = changed[0]
    assert torch.equal(model(other_row, types, mask)[1:], before[1:])
    assert not torch.allclose(model(other_row, types, mask)[0], before[0], atol=1e-3)
    assert torch.equal(model(other_padding, types, mask), before)
    assert not before[~mask].any()


def test_real_tokens_may_stand_anywhere_in_a_row() -> None:
    model, (ids, types, _) = encoder().eval(), batch([70, 70])
    mask = torch.rand(2, 70, generator=torch.Generator().manual_seed(3)) < 0.5
    with torch.no_grad():
        assert_close(model(ids, types, mask)[mask], padded(model, ids, types, mask)[mask], atol=1e-5, rtol=0)


def test_row_by_row_is_attention_within_each_row() -> None:
    drawn = torch.Generator().manual_seed(4)
    lengths, qkv = (90, 3, 70), torch.randn(163, 36, generator=drawn).requires_grad_()
    weights = torch.randn(163, 12, generator=drawn)
    each, begin = [], 0
    for length in lengths:
        heads = qkv[begin : begin + length].view(1, length, 3, 2, 6).permute(2, 0, 3, 1, 4)
        each.append(attend(heads[0], heads[1], heads[2], None)[0])
        begin += length
    expected, found = torch.cat(each), attend_row_by_row(qkv, lengths, num_heads=2, dropout_p=0.0)
    assert_close(found, expected, atol=1e-6, rtol=0)
    ours, theirs = (torch.autograd.grad((one * weights).sum(), qkv)[0] for one in (found, expected))
    assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_dropout_takes_the_rows_of_a_layer_one_by_one() -> None:
    """With dropout of the attention weights alone that drops almost nothing, the layer is the one without."""
    model, inputs = encoder(), batch([100, 71])
    expected = model(*inputs)
    for layer in model.layers:
        layer.attention.dropout = 2.0**-16
    torch.manual_seed(0)
    difference = (model(*inputs) - expected).abs()
    assert 0.0 < difference.max() < 0.5 and difference.median() < 1e-3


@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
@pytest.mark.parametrize("block", [2**18, 20])
def test_the_gradient_row_by_row_is_the_derivative_with_the_same_dropout(
    dropout_p: float, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)  # 20: one or two heads at a time
    torch.manual_seed(0)
    qkv = torch.randn(9, 3 * 6, dtype=torch.float64, requires_grad=True)

    def attended(values: Tensor) -> Tensor:
        torch.manual_seed(5)
        return attend_row_by_row(values, (3, 0, 5, 1), num_heads=3, dropout_p=dropout_p)

    assert torch.autograd.gradcheck(attended, (qkv,))


@torch.no_grad()
def test_dropout_row_by_row_leaves_the_mean_and_drops_its_share() -> None:
    """Queries are zero and values one: each weight is 1/8, an output the share of those that are kept, over 1 - p."""
    qkv = torch.cat([torch.zeros(80, 128), torch.ones(80, 64)], dim=1)
    torch.manual_seed(0)
    draws = torch.stack([attend_row_by_row(qkv, (8,) * 10, num_heads=4, dropout_p=0.25) for _ in range(100)])
    assert abs(draws.mean().item() - 1.0) < 0.01
    # A binomial of 8 with p = 0.75, over 8 and 0.75: variance 8 * 0.75 * 0.25 / 6^2.
    assert abs(draws.var().item() - 8 * 0.75 * 0.25 / 36) < 0.002
    assert torch.equal(attend_row_by_row(qkv, (8,) * 10, num_heads=4, dropout_p=0.0), torch.ones(80, 64))


def test_packing_and_padding_undo_each_other() -> None:
    mask = batch([4, 2, 0, 3])[2]
    rows, values = Rows.of(mask), torch.randn(4, 4, 5)
    assert rows.pack(values).equal(values[mask]) and rows.has_padding
    assert rows.pad(rows.pack(values)).equal(values * mask[..., None])
    assert rows.positions.tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 2]
    full = Rows.of(torch.ones(4, 4, dtype=torch.bool))
    assert full.pad(full.pack(values)).equal(values) and not full.has_padding
