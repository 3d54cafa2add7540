"""Attention against its definition, computed token by token."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from pipeline.models.attention import CrossAttention, KeyValueCache, SelfAttention, attend, key_mask, segment_mask
from pipeline.models.dropout import Dropout, dropout, kept


def test_segment_mask_allows_the_same_segment_up_to_oneself() -> None:
    mask = segment_mask(torch.tensor([[-1, 0, 0, 1]]))
    expected = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    assert mask[0, 0].int().tolist() == expected


def test_key_mask_hides_padding_from_every_query() -> None:
    mask = key_mask(torch.tensor([[True, False], [True, True]]))
    assert mask is not None and mask.tolist() == [[[[True, False]]], [[[True, True]]]]
    assert key_mask(torch.tensor([[True, True]])) is None


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("dropout_p", [0.0, 1e-9])
def test_attention_is_the_softmax_weighted_mean_of_the_values(is_causal: bool, dropout_p: float) -> None:
    torch.manual_seed(0)
    queries, keys, values = torch.randn(3, 2, 2, 4, 3).unbind(0)
    mask = torch.tensor([[1, 1, 0, 1], [1, 0, 1, 1]]).bool()
    if is_causal:
        allowed = torch.ones(2, 4, 4, dtype=torch.bool).tril()
        mixed = attend(queries, keys, values, None, is_causal=True, dropout_p=dropout_p)
    else:
        allowed = mask[:, None, :].expand(2, 4, 4)
        mixed = attend(queries, keys, values, key_mask(mask), dropout_p=dropout_p)
    for b in range(2):
        for h in range(2):
            for t in range(4):
                seen = [s for s in range(4) if allowed[b, t, s]]
                weights = [math.exp(float(queries[b, h, t] @ keys[b, h, s]) / math.sqrt(3)) for s in seen]
                mean = sum(w / sum(weights) * values[b, h, s] for w, s in zip(weights, seen, strict=True))
                assert_close(mixed[b, t, 3 * h : 3 * h + 3], mean, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["all", "keys", "segments", "causal"])
def test_attention_in_bfloat16_is_that_of_float32_up_to_its_rounding_with_its_gradients(kind: str) -> None:
    """With a gradient the products are written out on a CPU, without one they are those of the fused kernel."""
    torch.manual_seed(0)
    mask = {
        "all": None,
        "causal": None,
        "keys": key_mask(torch.arange(9) < torch.tensor([[9], [4]])),
        "segments": segment_mask(torch.tensor([[0] * 5 + [1] * 4, [0] * 7 + [-1] * 2])),
    }[kind]
    wanted = torch.randn(3, 2, 3, 9, 8, dtype=torch.bfloat16)
    rounded, exact = wanted.clone().requires_grad_(), wanted.float().requires_grad_()

    def attended(inputs: Tensor) -> Tensor:
        queries, keys, values = inputs.unbind(0)
        return attend(queries, keys, values, mask, is_causal=kind == "causal")

    found, expected = attended(rounded), attended(exact)
    assert found.dtype == torch.bfloat16
    assert_close(found.float(), expected, rtol=0, atol=0.03)
    assert_close(found, attended(wanted), rtol=0, atol=0.03)
    direction = torch.randn_like(expected)
    (ours,) = torch.autograd.grad((found.float() * direction).sum(), rounded)
    (theirs,) = torch.autograd.grad((expected * direction).sum(), exact)
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one.float(), other, rtol=0, atol=0.03 * float(other.abs().max()))


@pytest.mark.parametrize(
    ("dtype", "needs_gradient", "is_fused"),
    [
        (torch.float32, True, True),
        (torch.float32, False, True),
        (torch.bfloat16, True, False),
        (torch.bfloat16, False, True),
    ],
)
def test_the_fused_kernel_is_left_where_its_backward_pass_on_a_cpu_is_slow(
    dtype: torch.dtype, needs_gradient: bool, is_fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused, calls = F.scaled_dot_product_attention, list[torch.dtype]()

    def noted(queries: Tensor, keys: Tensor, values: Tensor, **settings: Any) -> Tensor:
        calls.append(queries.dtype)
        return fused(queries, keys, values, **settings)

    monkeypatch.setattr(F, "scaled_dot_product_attention", noted)
    queries, keys, values = torch.randn(3, 1, 2, 4, 8, dtype=dtype, requires_grad=needs_gradient).unbind(0)
    attend(queries, keys, values, None)
    assert calls == [dtype] * is_fused


def test_attention_dropout_keeps_the_mean_of_the_result() -> None:
    torch.manual_seed(0)
    queries, keys, values = torch.randn(3, 1, 1, 3, 2).unbind(0)
    many_queries, many_keys, many_values = (x.expand(40_000, 1, 3, 2) for x in (queries, keys, values))
    found = attend(many_queries, many_keys, many_values, None, is_causal=True, dropout_p=0.25)
    assert_close(found.mean(0), attend(queries, keys, values, None, is_causal=True)[0], atol=0.02, rtol=0)
    # The first position attends to itself alone, whose weight is dropped or not.
    assert_close((found[:, 0] == 0).all(-1).float().mean(), torch.tensor(0.25), atol=0.01, rtol=0)


@torch.no_grad()
def test_self_attention_in_pieces_equals_the_whole() -> None:
    torch.manual_seed(0)
    attention, hidden = SelfAttention(8, 2, dropout=0.0), torch.randn(2, 6, 8)
    whole = attention(hidden, None, is_causal=True)
    piece, cache = attention.extend(hidden[:, :2], None, None, is_causal=True)
    assert_close(piece, whole[:, :2], atol=1e-5, rtol=0)
    for t in range(2, 6):
        piece, cache = attention.extend(hidden[:, t : t + 1], cache, None)
        assert_close(piece, whole[:, t : t + 1], atol=1e-5, rtol=0)


@torch.no_grad()
def test_cross_attention_moves_with_its_source_order_and_ignores_padding() -> None:
    torch.manual_seed(0)
    attention = CrossAttention(8, 2, dropout=0.0)
    hidden, memory = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]]).bool()
    order = torch.tensor([4, 2, 0, 1, 3])
    out = attention(hidden, attention.project_memory(memory), key_mask(mask))
    permuted = attention(hidden, attention.project_memory(memory[:, order]), key_mask(mask[:, order]))
    assert_close(out, permuted, atol=1e-5, rtol=0)
    noise = torch.where(mask[..., None], memory, torch.randn_like(memory))
    assert_close(out, attention(hidden, attention.project_memory(noise), key_mask(mask)), atol=0, rtol=0)


def test_a_cache_is_a_value_although_it_writes_in_place() -> None:
    parts = torch.arange(6.0).view(6, 1, 1, 1, 1)
    base = KeyValueCache.of(parts[0], parts[0]).append(parts[1], parts[1])
    left = base.append(parts[2], parts[2])
    right = base.append(parts[3], parts[3])
    longer = left.append(parts[4], parts[4])
    assert left.buffer is base.buffer  # the fast path was taken, and left room
    assert right.buffer is not base.buffer
    assert base.keys.flatten().tolist() == [0, 1]
    assert left.values.flatten().tolist() == [0, 1, 2]
    assert right.keys.flatten().tolist() == [0, 1, 3]
    assert longer.values.flatten().tolist() == [0, 1, 2, 4]


def test_a_cache_selects_rows() -> None:
    keys = torch.arange(3.0).view(3, 1, 1, 1)
    cache = KeyValueCache.of(keys, -keys).select(torch.tensor([2, 2, 0]))
    assert cache.keys.flatten().tolist() == [2, 2, 0] and cache.values.flatten().tolist() == [-2, -2, 0]


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 7, 48, 60])
def test_one_query_takes_from_a_cache_what_attention_says(length: int) -> None:
    """Of a short past and of a long one, which another kernel computes; with spare room and rows that moved."""
    generator = torch.Generator().manual_seed(length)
    keys, values = (torch.randn(3, 2, length, 8, generator=generator) for _ in range(2))
    queries, rows = torch.randn(4, 2, 1, 8, generator=generator), torch.tensor([2, 0, 0, 1])
    cache = KeyValueCache.of(keys[:, :, :1], values[:, :, :1])
    for t in range(1, length):
        cache = cache.append(keys[:, :, t : t + 1], values[:, :, t : t + 1])
    found = cache.select(rows).attend_from(queries, None)
    weights = (queries @ keys[rows].transpose(2, 3) / 8**0.5).softmax(-1)
    assert_close(found, (weights @ values[rows]).transpose(1, 2).flatten(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_zeroes_a_share_p_and_scales_the_rest_so_that_the_mean_stays(p: float) -> None:
    torch.manual_seed(0)
    dropped = dropout(torch.ones(1000, 1001), p)
    left = dropped[dropped != 0]
    assert_close((dropped == 0).float().mean(), torch.tensor(p), atol=2e-3, rtol=0)
    assert_close(left, torch.full_like(left, 1 / (1 - p)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("p", "share"), [(1e-9, 0.0), (1 - 1e-9, 1.0)])
def test_dropout_at_the_ends_of_its_range(p: float, share: float) -> None:
    torch.manual_seed(0)
    factors = kept((100, 1000), p, dtype=torch.float32)
    assert_close((factors == 0).float().mean(), torch.tensor(share), atol=1e-3, rtol=0)
    assert factors.isfinite().all()
    assert_close(dropout(torch.ones(3), 1e-9), torch.ones(3))


def test_dropout_decides_neighbouring_elements_independently() -> None:
    torch.manual_seed(0)
    is_dropped = (dropout(torch.ones(250_000, 4), 0.5) == 0).double()
    correlation = torch.corrcoef(torch.cat([is_dropped[:-1], is_dropped[1:]], dim=1).T)
    assert (correlation - torch.eye(8)).abs().max() < 0.01


def test_dropout_repeats_when_the_state_of_the_generator_is_restored() -> None:
    module, values = Dropout(0.3), torch.randn(7, 11)
    state = torch.get_rng_state()
    first = module(values)
    second = module(values)
    torch.set_rng_state(state)
    assert torch.equal(module(values), first) and not torch.equal(first, second)
    assert torch.equal(module.eval()(values), values)


def test_the_gradient_of_dropout_is_its_mask() -> None:
    values = torch.ones(50, requires_grad=True)
    dropped = dropout(values, 0.4)
    (gradient,) = torch.autograd.grad(dropped.sum(), values)
    assert torch.equal(gradient, dropped.detach())
