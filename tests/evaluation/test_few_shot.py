"""Choices and completions of a small GPT against one token at a time."""

import pytest
import torch
from torch import Tensor, tensor

from pipeline.evaluation.few_shot import Choice, completions, few_shot_score
from pipeline.models.gpt import GPT, GPTConfig

CPU = torch.device("cpu")
PAIRS = [([3, 4], [5, 6, 7]), ([8], [2]), ([4, 4, 4, 9, 1], [3, 3]), ([5, 2, 2], [1, 8, 8, 4])]


def _model() -> GPT:
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=12, d_model=16, num_layers=1, num_heads=2, max_length=16)).eval()
    with torch.no_grad():
        model.token_embedding.weight.mul_(20.0)  # far from uniform
    return model


def _next_log_probs(model: GPT, prefix: list[int]) -> Tensor:
    with torch.no_grad():
        return model.logits(model(tensor([prefix]))[0, -1]).log_softmax(-1)


@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_a_completion_is_the_sum_over_its_tokens_whatever_the_batch_and_its_padding(batch_size: int) -> None:
    model = _model()
    found = completions(model, PAIRS, pad=0, batch_size=batch_size, device=CPU)
    for (prompt, continuation), completion in zip(PAIRS, found, strict=True):
        expected = sum(
            float(_next_log_probs(model, prompt + continuation[:i])[token]) for i, token in enumerate(continuation)
        )
        assert completion.log_prob == pytest.approx(expected, abs=1e-4)
        assert completion.num_tokens == len(continuation)


def test_the_choice_is_the_largest_log_probability_per_token() -> None:
    model = _model()
    prompt = [3, 4]
    candidates = [[7, 7, 7], [5], [2, 9]]
    means = [
        sum(float(_next_log_probs(model, prompt + c[:i])[t]) for i, t in enumerate(c)) / len(c) for c in candidates
    ]
    best = means.index(max(means))
    right = Choice(prompt, candidates, answer=best)
    wrong = Choice(prompt, candidates, answer=(best + 1) % 3)
    pair = Choice(prompt, candidates[best:] + candidates[:best], answer=0)
    score = few_shot_score(model, [right, wrong, pair, right], pad=0, batch_size=5, device=CPU)
    assert score.accuracy == pytest.approx(3 / 4)
    assert score.chance == pytest.approx(1 / 3)


def test_length_does_not_decide_because_the_sum_is_divided_by_the_number_of_tokens() -> None:
    model = _model()
    prompt, long = [3, 4], [9, 9, 9, 9, 9, 9]
    singles = [[token] for token in range(12)]
    found = completions(model, [(prompt, tokens) for tokens in [long, *singles]], pad=0, batch_size=20, device=CPU)
    mean = found[0].log_prob / 6
    short = next(
        tokens for tokens, each in zip(singles, found[1:], strict=True) if found[0].log_prob < each.log_prob < mean
    )
    choice = Choice(prompt, [short, long], answer=1)
    assert few_shot_score(model, [choice], pad=0, batch_size=2, device=CPU).accuracy == 1.0


def test_an_empty_prompt_or_continuation_is_refused() -> None:
    with pytest.raises(ValueError, match="pair 1: a prompt and a continuation"):
        completions(_model(), [([1], [2]), ([1], [])], pad=0, batch_size=2, device=CPU)
