"""Spans against a loop over all of them."""

import math

import pytest
import torch

from pipeline.evaluation.spans import top_spans


@pytest.mark.parametrize("max_tokens", [1, 3, 9, 20])
def test_the_best_spans_are_those_of_a_loop_over_all_spans(max_tokens: int) -> None:
    generator = torch.Generator().manual_seed(0)
    starts, ends = (torch.randn(20, 9, generator=generator) for _ in range(2))
    may_begin, may_end = (torch.rand(20, 9, generator=generator) < 0.7 for _ in range(2))
    may_begin[:, 4] = may_end[:, 4] = True
    result = top_spans(starts, ends, may_begin, may_end, max_tokens=max_tokens, num_best=5)
    for b in range(20):
        spans = [
            (float(starts[b, i] + ends[b, j]), i, j)
            for i in range(9)
            for j in range(i, min(i + max_tokens, 9))
            if may_begin[b, i] and may_end[b, j]
        ]
        assert float(result.log_total[b]) == pytest.approx(
            math.log(sum(math.exp(score) for score, _, _ in spans)), 1e-5
        )
        expected = sorted(spans, reverse=True)[:5]
        found = zip(result.scores[b].tolist(), result.starts[b].tolist(), result.ends[b].tolist(), strict=True)
        for (score, i, j), (wanted, first, last) in zip(found, expected, strict=False):
            assert (i, j) == (first, last)
            assert score == pytest.approx(wanted)
        assert result.scores[b, len(expected) :].isneginf().all()


def test_a_window_in_which_nothing_is_allowed_has_no_span() -> None:
    nothing = torch.zeros(1, 4, dtype=torch.bool)
    result = top_spans(torch.ones(1, 4), torch.ones(1, 4), nothing, nothing, max_tokens=3, num_best=2)
    assert result.scores.isneginf().all() and result.log_total.isneginf().all()


def test_what_stands_where_nothing_is_allowed_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(1)
    starts, ends = (torch.randn(1, 6, generator=generator) for _ in range(2))
    allowed = torch.tensor([[False, False, True, True, True, False]])
    one = top_spans(starts, ends, allowed, allowed, max_tokens=4, num_best=6)
    other = top_spans(starts + 50.0 * ~allowed, ends + 50.0 * ~allowed, allowed, allowed, max_tokens=4, num_best=6)
    assert one.scores.equal(other.scores) and one.starts.equal(other.starts) and one.log_total.equal(other.log_total)
