"""Sampling and greedy continuation, against distributions worked by hand and one prompt at a time."""

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from pipeline.decoding.sampling import (
    Continuations,
    greedy,
    inverse_cdf,
    left_padded,
    sample,
    truncated_probs,
    uniforms,
)
from pipeline.models.gpt import GPT, GPTConfig
from tests.decoding.toy import ToyModel

EOS, PAD = 1, 0
PROMPTS = [[3, 4, 5], [6], [7, 3, 3, 2, 5], [2, 2], [4], [9, 8, 7, 6], [5, 5], [8]]
PROBS = tensor([[0.1, 0.4, 0.2, 0.3]])


def _sampled(model: ToyModel, prompts: list[list[int]], prompt_ids: list[int], *, seed: int = 3) -> Continuations:
    draws = uniforms(seed=seed, iteration=2, prompt_ids=prompt_ids, num_positions=12)
    return sample(model, left_padded(prompts, pad=PAD), draws, temperature=1.0, top_k=0, top_p=1.0, eos=EOS, pad=PAD)


def _row(result: Continuations, row: int) -> tuple[list[int], bool]:
    return result.tokens[row, : int(result.lengths[row])].tolist(), bool(result.has_ended[row])


def test_left_padding_puts_the_last_token_in_the_last_column() -> None:
    prompts = left_padded([[5], [6, 7, 8]], pad=9)
    assert prompts.input_ids.tolist() == [[9, 9, 5], [6, 7, 8]]
    assert prompts.mask.tolist() == [[False, False, True], [True, True, True]]


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="empty prompt"):
        left_padded([[5], []], pad=0)


def test_a_draw_depends_on_seed_iteration_prompt_and_position_alone() -> None:
    table = uniforms(seed=1, iteration=2, prompt_ids=[5, 9, 5], num_positions=6)
    assert torch.equal(table[0], table[2])
    assert torch.equal(uniforms(seed=1, iteration=2, prompt_ids=[9], num_positions=3)[0], table[1, :3])
    others = [
        uniforms(seed=2, iteration=2, prompt_ids=[5], num_positions=6),
        uniforms(seed=1, iteration=3, prompt_ids=[5], num_positions=6),
        table[1:2],
    ]
    assert all(not (other == table[0]).any() for other in others)


def test_draws_are_uniform() -> None:
    draws = uniforms(seed=0, iteration=0, prompt_ids=range(200), num_positions=50).flatten()
    counts = torch.histc(draws, bins=10, min=0.0, max=1.0)
    assert ((counts - 1000).square() / 1000).sum() < 27.9  # chi-squared, 9 degrees of freedom, p = 0.001


def test_inverse_cdf_gives_each_token_an_interval_as_long_as_its_probability() -> None:
    draws = tensor([0.0, 0.0999, 0.1, 0.4999, 0.5, 0.6999, 0.7, 0.9999], dtype=torch.float64)
    tokens = inverse_cdf(PROBS.double().expand(8, 4), draws)
    assert tokens.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_inverse_cdf_never_gives_a_token_without_probability() -> None:
    probs = tensor([[0.0, 0.5, 0.0, 0.5, 0.0]], dtype=torch.float64).expand(3, 5)
    last = 1.0 - 2.0**-53
    assert inverse_cdf(probs, tensor([0.0, 0.5, last], dtype=torch.float64)).tolist() == [1, 3, 3]
    uneven = tensor([[1.0 + 2.0**-52, 0.0]], dtype=torch.float64)
    assert inverse_cdf(uneven, tensor([last], dtype=torch.float64)).tolist() == [0]


def test_top_k_keeps_the_k_likeliest_tokens_even_among_ties() -> None:
    kept = truncated_probs(PROBS.log(), temperature=1.0, top_k=2, top_p=1.0)
    assert_close(kept, tensor([[0.0, 4 / 7, 0.0, 3 / 7]], dtype=torch.float64))
    ties = truncated_probs(torch.zeros(1, 6), temperature=1.0, top_k=2, top_p=1.0)
    assert_close(ties.sort().values, tensor([[0, 0, 0, 0, 0.5, 0.5]], dtype=torch.float64))


def test_top_p_keeps_the_smallest_set_that_reaches_p() -> None:
    for top_p, expected in ((0.3, [0, 1, 0, 0]), (0.65, [0, 4 / 7, 0, 3 / 7]), (0.75, [0, 4 / 9, 2 / 9, 3 / 9])):
        kept = truncated_probs(PROBS.log(), temperature=1.0, top_k=0, top_p=top_p)
        assert_close(kept, tensor([expected], dtype=torch.float64))


def test_top_p_counts_probability_within_the_top_k() -> None:
    kept = truncated_probs(PROBS.log(), temperature=1.0, top_k=2, top_p=0.57)  # 4/7 reaches 0.57, 0.4 does not
    assert_close(kept, tensor([[0.0, 1.0, 0.0, 0.0]], dtype=torch.float64))


def test_temperature_is_a_power_of_the_probabilities() -> None:
    kept = truncated_probs(PROBS.log(), temperature=0.5, top_k=0, top_p=1.0)
    squared = PROBS.double().square()
    assert_close(kept, squared / squared.sum(), atol=1e-6, rtol=0.0)


def test_sampled_tokens_have_the_frequencies_of_the_distribution() -> None:
    model = ToyModel(vocab_size=6)
    result = sample(
        model,
        left_padded([[3]] * 4000, pad=PAD),
        uniforms(seed=0, iteration=0, prompt_ids=range(4000), num_positions=1),
        temperature=0.7,
        top_k=4,
        top_p=1.0,
        eos=EOS,
        pad=PAD,
    )
    logits, _ = model.start(tensor([[3]]), tensor([[0]]), tensor([[0]]))
    probs = truncated_probs(logits, temperature=0.7, top_k=4, top_p=1.0)[0]
    frequencies = torch.bincount(result.tokens[:, 0], minlength=6) / 4000
    assert_close(frequencies.double(), probs, atol=0.025, rtol=0.0)


def test_a_prompt_is_continued_the_same_alone_in_a_batch_and_in_another_order() -> None:
    together = _sampled(ToyModel(10), PROMPTS, list(range(8)))
    order = [5, 2, 7, 0, 1, 6, 4, 3]
    shuffled = _sampled(ToyModel(10), [PROMPTS[i] for i in order], order)
    for i in range(8):
        alone = _sampled(ToyModel(10), [PROMPTS[i]], [i])
        assert _row(together, i) == _row(alone, 0) == _row(shuffled, order.index(i))
    assert len({tuple(_row(together, i)[0]) for i in range(8)}) > 4


def test_a_gpt_continues_a_prompt_the_same_alone_in_a_batch_and_without_a_cache() -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=12, d_model=16, num_layers=2, num_heads=2, max_length=24)).eval()
    with torch.no_grad():
        model.token_embedding.weight.mul_(20.0)  # far from uniform
    together = greedy(model, left_padded(PROMPTS, pad=PAD), max_new_tokens=10, eos=EOS, pad=PAD)
    for i, prompt in enumerate(PROMPTS):
        alone = greedy(model, left_padded([prompt], pad=PAD), max_new_tokens=10, eos=EOS, pad=PAD)
        expected: list[int] = []
        while len(expected) < 10 and EOS not in expected:
            with torch.no_grad():
                expected.append(int(model.logits(model(tensor([prompt + expected])))[0, -1].argmax()))
        assert _row(together, i) == _row(alone, 0) == (expected, EOS in expected)


def test_continuations_end_with_eos_once_or_are_cut_off_and_then_padded() -> None:
    result = _sampled(ToyModel(10), PROMPTS * 4, list(range(32)))
    assert 0 < int(result.has_ended.sum()) < 32
    for row in range(32):
        tokens, has_ended = _row(result, row)
        assert (tokens[-1] == EOS) == has_ended == (EOS in tokens)
        assert EOS not in tokens[:-1]
        assert has_ended or len(tokens) == 12
        assert set(result.tokens[row, len(tokens) :].tolist()) <= {PAD}


def test_rows_that_ended_are_no_longer_computed() -> None:
    model = ToyModel(10)
    result = _sampled(model, PROMPTS * 4, list(range(32)))
    for step, num_rows in enumerate(model.rows_of_steps):
        num_open = int((result.lengths > step + 1).sum())
        assert num_open <= num_rows <= max(num_open / 0.8, num_open + 1)
    assert model.rows_of_steps[-1] < 32


def test_greedy_takes_the_likeliest_token_at_every_step() -> None:
    model = ToyModel(10)
    result = greedy(model, left_padded(PROMPTS, pad=PAD), max_new_tokens=9, eos=EOS, pad=PAD)
    for i, prompt in enumerate(PROMPTS):
        ids = tensor([prompt])
        logits, state = model.start(ids, torch.zeros_like(ids), torch.arange(len(prompt))[None])
        expected: list[int] = []
        while len(expected) < 9 and EOS not in expected:
            expected.append(int(logits.argmax()))
            logits, state = model.step(tensor(expected[-1:]), state)
        assert _row(result, i) == (expected, EOS in expected)


def test_sampling_from_the_likeliest_token_alone_is_greedy() -> None:
    prompts = left_padded(PROMPTS, pad=PAD)
    draws = uniforms(seed=0, iteration=0, prompt_ids=range(8), num_positions=9)
    sampled = sample(ToyModel(10), prompts, draws, temperature=1.0, top_k=1, top_p=1.0, eos=EOS, pad=PAD)
    best = greedy(ToyModel(10), prompts, max_new_tokens=9, eos=EOS, pad=PAD)
    assert torch.equal(sampled.tokens, best.tokens)


def test_suppressed_tokens_are_never_generated() -> None:
    prompts = left_padded(PROMPTS * 4, pad=PAD)
    draws = uniforms(seed=0, iteration=0, prompt_ids=range(32), num_positions=12)
    free = sample(ToyModel(10), prompts, draws, temperature=1.0, top_k=0, top_p=1.0, eos=EOS, pad=PAD)
    held = sample(
        ToyModel(10), prompts, draws, temperature=1.0, top_k=0, top_p=1.0, eos=EOS, pad=PAD, suppressed=[4, EOS]
    )
    assert (free.tokens == 4).any()
    assert not (held.tokens == 4).any() and not held.has_ended.any()


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [(0.0, 0, 1.0), (1.0, -1, 1.0), (1.0, 0, 0.0)])
def test_impossible_settings_are_refused(temperature: float, top_k: int, top_p: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        sample(
            ToyModel(10),
            left_padded([[3]], pad=PAD),
            torch.zeros(1, 2),
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            eos=EOS,
            pad=PAD,
        )
