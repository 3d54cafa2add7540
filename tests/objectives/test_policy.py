"""Policy objectives, each against a slow oracle that loops over tokens, or a value worked by hand."""

import math

import pytest
import torch
from torch import Tensor, tensor
from torch.nn import functional as F
from torch.testing import assert_close

from pipeline.objectives.policy import (
    AdaptiveKL,
    FixedKL,
    entropy_bonus,
    generalized_advantages,
    kl_k1,
    kl_k3,
    masked_moments,
    ppo_policy_loss,
    ppo_value_loss,
    token_entropy,
    token_rewards,
    whiten,
)

# Left padding, a prompt, a response, right padding; a response that fills the row; two turns; one token.
IS_RESPONSE = tensor(
    [
        [0, 0, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 1, 1],
        [0, 1, 1, 0, 0, 1, 1],
        [0, 0, 0, 1, 0, 0, 0],
    ]
).bool()


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _spans(row: Tensor) -> list[int]:
    return [t for t in range(len(row)) if row[t]]


def test_token_rewards_equal_the_oracle_of_one_token_at_a_time() -> None:
    log_probs, reference = _normal(4, 7, seed=1), _normal(4, 7, seed=2)
    scores, has_ended = _normal(4, seed=3), tensor([True, False, True, False])
    expected = torch.zeros(4, 7)
    for b in range(4):
        span = _spans(IS_RESPONSE[b])
        for t in span:
            expected[b, t] = -0.3 * (log_probs[b, t] - reference[b, t])
        expected[b, span[-1]] += scores[b] - (0.0 if has_ended[b] else 1.5)
    rewards = token_rewards(scores, log_probs, reference, IS_RESPONSE, has_ended, kl_coef=0.3, cut_off_penalty=1.5)
    assert_close(rewards, expected)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_advantages_equal_the_sum_over_all_later_temporal_differences(gamma: float, lam: float) -> None:
    rewards, values = _normal(4, 7, seed=4), _normal(4, 7, seed=5)
    expected = torch.zeros(4, 7)
    for b in range(4):
        span = _spans(IS_RESPONSE[b])
        for i, t in enumerate(span):
            for j in range(i, len(span)):
                bootstrap = gamma * values[b, span[j + 1]] if j + 1 < len(span) else 0.0
                delta = rewards[b, span[j]] + bootstrap - values[b, span[j]]
                expected[b, t] += (gamma * lam) ** (j - i) * delta
    result = generalized_advantages(rewards, values, IS_RESPONSE, gamma=gamma, lam=lam)
    assert_close(result.advantages, expected)
    assert_close(result.returns, torch.where(IS_RESPONSE, expected + values, 0.0))


def test_with_lambda_one_and_no_discount_the_return_is_the_sum_of_the_rewards_to_come() -> None:
    rewards, values = _normal(1, 4, seed=6), _normal(1, 4, seed=7)
    mask = torch.ones(1, 4, dtype=torch.bool)
    result = generalized_advantages(rewards, values, mask, gamma=1.0, lam=1.0)
    assert_close(result.returns, rewards.flip(1).cumsum(1).flip(1))


def test_what_stands_outside_the_response_changes_no_advantage() -> None:
    rewards, values = _normal(4, 7, seed=8), _normal(4, 7, seed=9)
    noise = torch.where(IS_RESPONSE, 0.0, 1e4)
    clean = generalized_advantages(rewards, values, IS_RESPONSE, gamma=0.9, lam=0.8)
    noisy = generalized_advantages(rewards + noise, values - noise, IS_RESPONSE, gamma=0.9, lam=0.8)
    assert torch.equal(clean.advantages, noisy.advantages)
    assert torch.equal(clean.returns, noisy.returns)


def test_advantages_do_not_depend_on_padding() -> None:
    rewards, values = _normal(4, 7, seed=8), _normal(4, 7, seed=9)
    clean = generalized_advantages(rewards, values, IS_RESPONSE, gamma=0.9, lam=0.8)
    rewards, values, mask = (F.pad(x, (3, 2)) for x in (rewards, values, IS_RESPONSE))
    padded = generalized_advantages(rewards, values, mask, gamma=0.9, lam=0.8)
    assert torch.equal(clean.advantages, padded.advantages[:, 3:10])


def test_whitened_values_have_mean_zero_and_variance_one_over_the_counted_positions_alone() -> None:
    values = 5 + 3 * _normal(4, 7, seed=10)
    values = torch.where(IS_RESPONSE, values, 1e6)
    whitened = whiten(values, IS_RESPONSE, masked_moments(values, IS_RESPONSE))
    assert_close(whitened[IS_RESPONSE].mean(), tensor(0.0), atol=1e-6, rtol=0.0)
    assert_close(whitened[IS_RESPONSE].var(unbiased=False), tensor(1.0), atol=1e-5, rtol=0.0)
    assert not whitened[~IS_RESPONSE].any()


def test_whitening_does_not_depend_on_how_the_rollout_is_cut() -> None:
    values = _normal(4, 7, seed=11)
    parts = [masked_moments(values[i : i + 2], IS_RESPONSE[i : i + 2]) for i in (0, 2)]
    whole = whiten(values, IS_RESPONSE, masked_moments(values, IS_RESPONSE))
    cut = torch.cat([whiten(values[i : i + 2], IS_RESPONSE[i : i + 2], parts[0] + parts[1]) for i in (0, 2)])
    assert_close(whole, cut)


def test_policy_loss_equals_the_oracle_of_one_token_at_a_time() -> None:
    log_probs, old, advantages = _normal(40, seed=12), _normal(40, seed=13), _normal(40, seed=14)
    loss, num_clipped = 0.0, 0
    for new, before, advantage in zip(log_probs.tolist(), old.tolist(), advantages.tolist(), strict=True):
        ratio = math.exp(new - before)
        kept = min(max(ratio, 0.8), 1.2)
        loss -= min(ratio * advantage, kept * advantage)
        num_clipped += kept * advantage < ratio * advantage
    terms = ppo_policy_loss(log_probs, old, advantages, clip_range=0.2)
    assert_close(terms.loss_sum, tensor(loss))
    assert 0 < int(terms.report["clip_fraction"]) == num_clipped < 40
    assert (terms.num_targets, terms.name) == (40, "policy")


def test_policy_gradient_at_the_old_policy_is_minus_the_advantage() -> None:
    log_probs = tensor([-1.0, -2.0, -0.5], requires_grad=True)
    advantages = tensor([2.0, -1.0, 0.5])
    torch.autograd.backward(ppo_policy_loss(log_probs, log_probs.detach(), advantages, clip_range=0.2).loss_sum)
    assert_close(log_probs.grad, -advantages)


def test_the_surrogate_stops_pushing_only_where_the_ratio_has_gone_too_far_the_right_way() -> None:
    # Ratio 1.5: gone too far for a positive advantage, to be undone for a negative one. Ratio 0.5: the reverse.
    log_probs = tensor([1.5, 1.5, 0.5, 0.5]).log().requires_grad_()
    torch.autograd.backward(
        ppo_policy_loss(log_probs, torch.zeros(4), tensor([1.0, -1.0, 1.0, -1.0]), clip_range=0.2).loss_sum
    )
    assert log_probs.grad is not None
    assert_close(log_probs.grad, tensor([0.0, 1.5, -0.5, 0.0]))


def test_value_loss_equals_the_oracle_of_one_token_at_a_time() -> None:
    values, old, returns = _normal(40, seed=15), _normal(40, seed=16), _normal(40, seed=17)
    loss, num_clipped = 0.0, 0
    for value, before, goal in zip(values.tolist(), old.tolist(), returns.tolist(), strict=True):
        near = before + min(max(value - before, -0.3), 0.3)
        loss += 0.5 * max((value - goal) ** 2, (near - goal) ** 2)
        num_clipped += (near - goal) ** 2 > (value - goal) ** 2
    terms = ppo_value_loss(values, old, returns, clip_range=0.3, weight=0.1)
    assert_close(terms.loss_sum, tensor(loss))
    assert 0 < int(terms.report["value_clip_fraction"]) == num_clipped < 40
    assert terms.weight == 0.1


def test_kl_estimators_have_the_divergence_as_their_mean_under_the_policy() -> None:
    policy, reference = tensor([0.5, 0.3, 0.2]), tensor([0.2, 0.2, 0.6])
    exact = (policy * (policy / reference).log()).sum()
    assert_close((policy * kl_k1(policy.log(), reference.log())).sum(), exact)
    assert_close((policy * kl_k3(policy.log(), reference.log())).sum(), exact)
    assert (kl_k3(policy.log(), reference.log()) >= 0).all()


def test_approx_kl_estimates_the_divergence_of_the_new_policy_from_the_old_one() -> None:
    # Tokens sampled from the old policy in its own proportions: 5, 3 and 2 of ten.
    old, new = tensor([0.5, 0.3, 0.2]), tensor([0.4, 0.4, 0.2])
    tokens = tensor([0] * 5 + [1] * 3 + [2] * 2)
    terms = ppo_policy_loss(new[tokens].log(), old[tokens].log(), torch.ones(10), clip_range=0.2)
    assert_close(terms.report["approx_kl"] / 10, (old * (old / new).log()).sum())


def test_entropy_of_uniform_and_of_certain_distributions_is_known() -> None:
    logits = tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, -math.inf, -math.inf], [0.0, -math.inf, -math.inf, -math.inf]])
    assert_close(token_entropy(logits), tensor([math.log(4), math.log(2), 0.0]))
    terms = entropy_bonus(logits, weight=0.01)
    assert_close(terms.loss_sum, -tensor(math.log(8)))
    assert_close(terms.report["entropy"], tensor(math.log(8)))


def test_entropy_gradient_is_finite_where_a_class_is_impossible() -> None:
    logits = tensor([[1.0, 0.0, -math.inf]], requires_grad=True)
    torch.autograd.backward(token_entropy(logits).sum())
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_adaptive_kl_moves_by_the_clipped_error_and_comes_to_rest_at_the_target() -> None:
    controller = AdaptiveKL(coef=0.2, target=6.0, horizon=1000)
    assert controller.step(6.0, 100).coef == 0.2
    assert controller.step(6.6, 100).coef == pytest.approx(0.2 * (1 + 0.1 * 0.1))
    assert controller.step(60.0, 100).coef == pytest.approx(0.2 * (1 + 0.2 * 0.1))
    assert controller.step(-5.0, 100).coef == pytest.approx(0.2 * (1 - 0.2 * 0.1))


def test_fixed_kl_stays() -> None:
    assert FixedKL(0.2).step(100.0, 64) == FixedKL(0.2)
