"""GPT: what a token may see, however rows are packed, padded or stepped through."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.models.gpt import GPT, GPTConfig


def tiny_gpt(dropout: float = 0.0) -> GPT:
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=29,
        d_model=16,
        num_layers=2,
        num_heads=2,
        max_length=24,
        dropout=dropout,
        attention_dropout=dropout,
    )
    model = GPT(config)
    with torch.no_grad():
        for parameter in model.parameters():  # far from the initialisation, where almost everything is near zero
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def random_ids(*shape: int) -> Tensor:
    return torch.randint(0, 29, shape, generator=torch.Generator().manual_seed(1))


def test_logits_do_not_depend_on_later_tokens() -> None:
    model, ids = tiny_gpt(), random_ids(3, 10)
    changed = ids.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 29
    assert torch.equal(model(ids)[:, :6], model(changed)[:, :6])
    assert not torch.equal(model(ids)[:, 6], model(changed)[:, 6])


@torch.no_grad()
def test_changing_one_packed_document_leaves_the_others_bit_equal() -> None:
    model, ids = tiny_gpt(), random_ids(2, 12)
    segments = torch.tensor([[0] * 4 + [1] * 5 + [-1] * 3, [0] * 7 + [1] * 5])
    positions = torch.tensor([[*range(4), *range(5), 0, 0, 0], [*range(7), *range(5)]])
    changed = ids.clone()
    changed[segments == 0] = (changed[segments == 0] + 1) % 29
    before, after = model.logits(model(ids, segments, positions)), model.logits(model(changed, segments, positions))
    assert torch.equal(before[segments != 0], after[segments != 0])
    assert not torch.equal(before[segments == 0], after[segments == 0])


@torch.no_grad()
def test_a_packed_document_gets_the_logits_of_the_document_alone() -> None:
    model, ids = tiny_gpt(), random_ids(1, 12)
    segments = torch.tensor([[0] * 4 + [1] * 8])
    positions = torch.tensor([[*range(4), *range(8)]])
    packed = model(ids, segments, positions)
    assert_close(packed[:, :4], model(ids[:, :4]), atol=1e-5, rtol=0)
    assert_close(packed[:, 4:], model(ids[:, 4:]), atol=1e-5, rtol=0)


@torch.no_grad()
def test_left_padding_does_not_change_the_logits() -> None:
    model, ids = tiny_gpt(), random_ids(1, 7)
    padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), ids], dim=1)
    segments = torch.tensor([[-1] * 5 + [0] * 7])
    positions = torch.tensor([[0] * 5 + [*range(7)]])
    assert_close(model(padded, segments, positions)[:, 5:], model(ids), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("num_pads", [0, 3])
def test_stepping_with_a_cache_equals_one_forward_pass(num_pads: int) -> None:
    model, ids = tiny_gpt(), random_ids(2, 12)
    full = model.logits(model(ids))
    padded = torch.cat([torch.zeros(2, num_pads, dtype=torch.long), ids[:, :4]], dim=1)
    segments = torch.tensor([[-1] * num_pads + [0] * 4] * 2)
    positions = torch.tensor([[0] * num_pads + [*range(4)]] * 2)
    logits, state = model.start(padded, segments, positions) if num_pads else model.start(padded)
    for t in range(4, 12):
        assert_close(logits, full[:, t - 1], atol=1e-5, rtol=0)
        logits, state = model.step(ids[:, t], state)
    assert_close(logits, full[:, 11], atol=1e-5, rtol=0)


@torch.no_grad()
def test_rows_of_different_prompt_length_step_together() -> None:
    model, ids = tiny_gpt(), random_ids(2, 10)
    prompt = torch.stack([ids[0, :6], torch.cat([torch.zeros(4, dtype=torch.long), ids[1, :2]])])
    segments = torch.tensor([[0] * 6, [-1] * 4 + [0] * 2])
    positions = torch.tensor([[*range(6)], [0] * 4 + [0, 1]])
    logits, state = model.start(prompt, segments, positions)
    logits, state = model.step(torch.stack([ids[0, 6], ids[1, 2]]), state)
    logits, state = model.step(torch.stack([ids[0, 7], ids[1, 3]]), state)
    assert_close(logits[0], model.logits(model(ids[:1, :8]))[0, -1], atol=1e-5, rtol=0)
    assert_close(logits[1], model.logits(model(ids[1:, :4]))[0, -1], atol=1e-5, rtol=0)


@torch.no_grad()
def test_selected_rows_continue_as_if_they_had_been_there_from_the_start() -> None:
    model, ids = tiny_gpt(), random_ids(3, 8)
    rows = torch.tensor([2, 0, 2, 1])
    _, state = model.start(ids[:, :4])
    _, state = model.step(ids[:, 4], state)
    selected, _ = model.step(ids[rows, 5], state.select(rows))
    straight, _ = model.step(ids[:, 5], state)
    assert_close(selected, straight[rows], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_state_can_be_continued_twice() -> None:
    model, ids = tiny_gpt(), random_ids(2, 9)
    _, state = model.start(ids[:, :4])
    _, state = model.step(ids[:, 4], state)
    first, after_first = model.step(ids[:, 5], state)
    other, _ = model.step((ids[:, 5] + 1) % 29, state)
    again, _ = model.step(ids[:, 5], state)
    assert torch.equal(first, again) and not torch.equal(first, other)
    continued, _ = model.step(ids[:, 6], after_first)
    assert_close(continued, model.logits(model(ids[:, :7]))[:, -1], atol=1e-5, rtol=0)


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"25 tokens do not fit the context of 24"):
        tiny_gpt().start(random_ids(1, 25))


def test_generating_beyond_the_context_is_refused_with_both_numbers() -> None:
    model = tiny_gpt()
    with torch.no_grad():
        _, state = model.start(random_ids(1, 24))
        with pytest.raises(ValueError, match=r"25 tokens, the context holds 24"):
            model.step(torch.tensor([1]), state)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="found 3 and 16"):
        GPTConfig(vocab_size=29, d_model=16, num_layers=1, num_heads=3, max_length=8)


def test_the_output_matrix_is_the_embedding_itself() -> None:
    model = tiny_gpt()
    assert model.head.weight is model.token_embedding.weight
    assert len([name for name, _ in model.named_parameters() if "head" in name]) == 0


def test_gpt2_small_has_its_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = GPT(GPTConfig(vocab_size=50257, d_model=768, num_layers=12, num_heads=12, max_length=1024))
    assert sum(parameter.numel() for parameter in model.parameters()) == 124_439_808


def test_dropout_acts_in_training_and_not_in_evaluation() -> None:
    model, ids = tiny_gpt(dropout=0.3), random_ids(2, 8)
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))
