"""Targets that are drawn: their distribution, their end, their probability, and that rows never meet."""

import pytest
import torch
from torch import tensor

from pipeline.decoding.beam import Hypothesis, greedy_search
from pipeline.decoding.sampling import uniforms
from pipeline.decoding.target_sampling import sample_targets
from tests.decoding.toy import ToyModel, ToyState

EOS, BOS = 0, 3
SOURCES = [11, 5, 7, 300, 42, 8, 19, 1000]
LENGTHS = [12, 9, 3, 1, 15, 2, 10, 7]


def drawn(
    rows: list[int],
    *,
    seed: int = 3,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    suppressed: tuple[int, ...] = (),
) -> list[Hypothesis]:
    return sample_targets(
        ToyModel(vocab_size=6),
        ToyState(tensor([SOURCES[i] for i in rows])),
        uniforms(seed=seed, iteration=0, prompt_ids=rows, num_positions=max(LENGTHS[i] for i in rows)),
        bos=BOS, eos=EOS, max_lengths=tensor([LENGTHS[i] for i in rows]), temperature=temperature, top_k=top_k,
        top_p=top_p, suppressed=suppressed,
    )  # fmt: skip


def test_what_is_drawn_for_a_row_does_not_depend_on_the_batch() -> None:
    together = drawn(list(range(8)))
    assert [drawn([i])[0].tokens for i in range(8)] == [one.tokens for one in together]
    order = [6, 1, 7, 3, 0, 5, 2, 4]
    assert [one.tokens for one in drawn(order)] == [together[i].tokens for i in order]
    assert [one.tokens for one in drawn(list(range(8)), seed=4)] != [one.tokens for one in together]


def test_the_log_probability_is_that_of_the_model_whatever_the_temperature() -> None:
    for temperature, top_p in ((1.0, 1.0), (2.0, 1.0), (0.5, 0.8)):
        found = drawn(list(range(8)), temperature=temperature, top_p=top_p)
        for source, hypothesis in zip(SOURCES, found, strict=True):
            model, state, expected = ToyModel(vocab_size=6), ToyState(tensor([source])), 0.0
            for last, token in zip((BOS, *hypothesis.tokens), (*hypothesis.tokens, EOS), strict=True):
                logits, state = model.step(tensor([last]), state)
                expected += logits.log_softmax(1)[0, token].item()
            assert hypothesis.log_prob == hypothesis.score == pytest.approx(expected, abs=1e-4)


def test_drawing_from_the_likeliest_token_alone_is_greedy_search() -> None:
    found = drawn(list(range(8)), top_k=1)
    best = greedy_search(
        ToyModel(vocab_size=6), ToyState(tensor(SOURCES)), bos=BOS, eos=EOS, max_lengths=tensor(LENGTHS)
    )
    assert [one.tokens for one in found] == [one.tokens for one in best]
    assert any(one.tokens for one in found)


def test_suppressed_tokens_are_never_drawn_and_leave_their_share_to_the_others() -> None:
    free = drawn(list(range(8)))
    held = drawn(list(range(8)), suppressed=(2, 4))
    assert {2, 4} <= {token for one in free for token in one.tokens}
    found = {token for one in held for token in one.tokens}
    assert found and not found & {2, 4}


def test_a_target_ends_at_its_longest_length() -> None:
    class Endless(ToyModel):
        def step(self, tokens: torch.Tensor, state: ToyState) -> tuple[torch.Tensor, ToyState]:
            logits, state = super().step(tokens, state)
            return logits.index_fill(1, tensor([EOS]), -1000.0), state

    draws = torch.rand(8, 15, generator=torch.Generator().manual_seed(0))
    found = sample_targets(
        Endless(vocab_size=6), ToyState(tensor(SOURCES)), draws, bos=BOS, eos=EOS, max_lengths=tensor(LENGTHS),
        temperature=1.0, top_k=0, top_p=1.0,
    )  # fmt: skip
    assert [len(one.tokens) + 1 for one in found] == LENGTHS
    assert all(EOS not in one.tokens for one in found)


def test_first_tokens_come_as_often_as_the_model_says() -> None:
    model = ToyModel(vocab_size=4)
    logits, _ = model.step(tensor([BOS]), ToyState(tensor([11])))
    count = 4000
    found = sample_targets(
        model, ToyState(tensor([11] * count)), uniforms(seed=1, iteration=0, prompt_ids=range(count), num_positions=2),
        bos=BOS, eos=EOS, max_lengths=torch.full((count,), 2), temperature=2.0, top_k=0, top_p=1.0,
    )  # fmt: skip
    counts = torch.bincount(tensor([(*one.tokens, EOS)[0] for one in found]), minlength=4)
    expected = count * (logits[0] / 2.0).softmax(0)
    assert ((counts - expected).square() / expected).sum() < 16.3  # chi-squared, 3 degrees of freedom, p = 0.001
