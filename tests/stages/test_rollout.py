"""Experience: what a prompt is answered, what the models say of it, and what each token is credited with."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from pipeline.config import ByExamples, Epochs
from pipeline.data.examples.rollouts import RolloutBuffer
from pipeline.data.loaders import Cut
from pipeline.objectives.policy import FixedKL
from pipeline.stages import rollout
from pipeline.stages.rollout import Experience, RolloutConfig, RolloutWorker, ScoreScale
from pipeline.stages.rollout_loader import RolloutLoader
from tests.stages.opinions import ROLLOUT, actor_critic, gpt, prompts, tokenizer, worker

ALONE = Cut(rank=0, world_size=1, accumulation=1)
PLAIN = ScoreScale(mean=0.0, std=1.0)


def experience(worker: RolloutWorker, numbers: list[int], *, iteration: int = 0) -> Experience:
    """The experience of some prompts on one rank."""
    return worker.experience(actor_critic(), worker.prompts, numbers, iteration=iteration, place=ALONE)


def answers(found: Experience) -> list[list[int]]:
    """The tokens of each answer."""
    return [found.labels[row][found.is_response[row]].tolist() for row in range(len(found.labels))]


def test_an_answer_is_a_function_of_seed_iteration_and_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = list(range(11))
    whole = experience(worker(), numbers)
    monkeypatch.setattr(rollout, "_BATCH", 3)
    shuffled = [7, 2, 10, 0, 5, 1, 9, 3, 8, 4, 6]
    found = experience(worker(), shuffled)
    assert [answers(whole)[number] for number in shuffled] == answers(found)
    for field in fields(found):
        assert_close(getattr(found, field.name), getattr(whole, field.name)[shuffled])
    assert answers(experience(worker(), numbers, iteration=1)) != answers(whole)
    assert answers(experience(worker(seed=6), numbers)) != answers(whole)


def test_a_prompt_that_is_back_in_an_iteration_is_answered_by_other_draws() -> None:
    once, often = answers(experience(worker(), [3, 1])), answers(experience(worker(), [3, 1, 3, 3]))
    assert often[:2] == once
    assert len({tuple(often[row]) for row in (0, 2, 3)}) == 3


def test_ranks_share_the_prompts_and_then_hold_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = list(range(7))
    whole = experience(worker(), numbers)
    parts: list[list[torch.Tensor]] = [[], []]
    for rank in range(2):
        monkeypatch.setattr(torch.distributed, "all_reduce", parts[rank].append)
        place = Cut(rank=rank, world_size=2, accumulation=1)
        worker().experience(actor_critic(), prompts(11), numbers, iteration=0, place=place)
    for field, first, second in zip(fields(whole), *parts, strict=True):
        assert not (first[4:].any() or second[:4].any()), "a rank answered the prompts of another"
        assert_close((first + second).float(), getattr(whole, field.name).float())


def test_stored_values_are_those_of_each_conversation_alone_and_unpadded() -> None:
    found, model = experience(worker(), list(range(11))), actor_critic()
    one = worker()
    for row, answer in enumerate(answers(found)):
        ids = torch.tensor([[*prompts(11)[row].tolist(), *answer]])
        begin = ids.shape[1] - len(answer)
        where = slice(begin - 1, ids.shape[1] - 1)  # the outputs that predict the answer
        for stored, policy in ((found.log_probs, model.policy), (found.reference_log_probs, gpt(1))):
            logits = policy.logits(policy(ids))[0, where] / ROLLOUT["temperature"]
            never = sorted(tokenizer().special_ids - {tokenizer().eos_id})
            logits[:, never] = -torch.inf
            expected = logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)]
            assert_close(stored[row, where], expected, atol=1e-5, rtol=1e-5)
        assert_close(found.values[row, where], model.critic(ids)[0, where])
        assert_close(found.rewards[row], one.reward(ids, torch.tensor([ids.shape[1] - 1]))[0])
        assert found.input_ids[row, :begin].tolist() == prompts(11)[row].tolist()
        assert bool(found.has_ended[row]) == (answer[-1] == tokenizer().eos_id)
        assert not set(answer) & set(never)


def test_everything_stands_at_response_tokens_alone() -> None:
    buffer = worker().roll_out(actor_critic(), FixedKL(0.3), None, iteration=0, place=ALONE).buffer
    for values in (buffer.old_log_probs, buffer.old_values, buffer.advantages, buffer.returns):
        assert not values[~buffer.is_response].any()
        assert (values[buffer.is_response] != 0).all()


def returns(found: Experience, monkeypatch: pytest.MonkeyPatch, coef: float, **changes: Any) -> RolloutBuffer:
    """The buffer made from some experience."""
    one = worker(**changes)
    monkeypatch.setattr(one, "experience", lambda *_, **__: found)
    return one.roll_out(actor_critic(), FixedKL(coef), PLAIN, iteration=0, place=ALONE).buffer


def test_the_score_comes_at_eos_and_a_cut_off_answer_is_penalised(monkeypatch: pytest.MonkeyPatch) -> None:
    found = experience(worker(), list(range(8)))
    found = replace(found, has_ended=torch.arange(8) % 2 == 0)
    # With gamma 0 a return is the reward of its own token.
    buffer = returns(found, monkeypatch, 0.0, gamma=0.0, cut_off_penalty=2.5)
    last = [int(row.nonzero().max()) for row in found.is_response]
    expected = torch.zeros_like(buffer.returns)
    for row, column in enumerate(last):
        expected[row, column] = found.rewards[row] - (0.0 if row % 2 == 0 else 2.5)
    assert_close(buffer.returns, expected, atol=1e-5, rtol=1e-5)


def test_each_token_pays_for_its_own_divergence_from_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    found = replace(experience(worker(), list(range(8))), rewards=torch.zeros(8))
    buffer = returns(found, monkeypatch, 0.4, gamma=0.0, cut_off_penalty=0.0)
    assert_close(buffer.returns, -0.4 * (found.log_probs - found.reference_log_probs), atol=1e-5, rtol=1e-5)


def test_the_first_iteration_sets_the_scale_of_scores_and_later_ones_keep_it() -> None:
    one, model = worker(), actor_critic()
    first = one.roll_out(model, FixedKL(0.0), None, iteration=0, place=ALONE)
    assert first.report["score"] == pytest.approx(0.0, abs=1e-6)
    numbers = one.chosen_prompts(0)
    rewards = one.experience(model, one.prompts, numbers, iteration=0, place=ALONE).rewards
    assert first.scale.mean == pytest.approx(float(rewards.mean()))
    assert first.scale.std == pytest.approx(float(rewards.std(unbiased=False)))
    later = one.roll_out(model, FixedKL(0.0), first.scale, iteration=1, place=ALONE)
    assert later.scale == first.scale
    assert later.report["score"] == pytest.approx((later.report["reward"] - first.scale.mean) / first.scale.std)


def test_equal_rewards_leave_the_scale_as_it_is() -> None:
    assert ScoreScale.of(torch.full((5,), 0.25)) == ScoreScale(mean=0.25, std=1.0)


def test_whitened_advantages_have_mean_zero_and_variance_one_over_the_whole_rollout() -> None:
    buffer = worker().roll_out(actor_critic(), FixedKL(0.3), None, iteration=0, place=ALONE).buffer
    counted = buffer.advantages[buffer.is_response]
    assert float(counted.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(counted.var(unbiased=False)) == pytest.approx(1.0, abs=1e-4)


def test_every_prompt_is_used_once_before_any_is_used_again() -> None:
    one = worker(prompts_per_iteration=4)
    drawn = [number for iteration in range(11) for number in one.chosen_prompts(iteration)]
    for epoch in range(4):
        assert sorted(drawn[11 * epoch : 11 * (epoch + 1)]) == list(range(11))
    assert drawn[:11] != drawn[11:22]
    many = worker(prompts_per_iteration=25)
    assert many.chosen_prompts(0)[:11] == drawn[:11]
    assert len(many.chosen_prompts(3)) == 25


class Recorder:
    """A learner that counts its rollouts."""

    def __init__(self, rollout: RolloutBuffer) -> None:
        self.buffer = rollout
        self.iterations: list[int] = []

    def roll_out(self, iteration: int) -> None:
        """Takes note."""
        self.iterations.append(iteration)

    def rollout(self) -> RolloutBuffer:
        """Always the same."""
        return self.buffer


@pytest.fixture(scope="module")
def buffer() -> RolloutBuffer:
    """Eight answers."""
    return worker().roll_out(actor_critic(), FixedKL(0.3), None, iteration=0, place=ALONE).buffer


def loader(learner: Recorder, *, start: int = 0, place: Cut = ALONE) -> RolloutLoader:
    """Three iterations of two passes over eight answers, four a step."""
    return RolloutLoader(
        learner,
        RolloutConfig.model_validate(ROLLOUT),
        place,
        batching=ByExamples(kind="examples", examples_per_step=4),
        duration=Epochs(kind="epochs", num_epochs=2),
        seed=1,
        start=start,
    )


def test_an_iteration_passes_over_its_rollout_so_often_and_steps_are_numbered_on(buffer: RolloutBuffer) -> None:
    learner = Recorder(buffer)
    micros = list(loader(learner))
    assert [micro.update for micro in micros] == list(range(12))
    assert learner.iterations == [0, 1, 2]
    for begin in range(0, 12, 2):
        both = np.concatenate([micro.indices for micro in micros[begin : begin + 2]])
        assert sorted(both.tolist()) == list(range(8))
    groups = {frozenset(micro.indices.tolist()) for micro in micros}
    assert len(groups) > 8, "passes and iterations mix the answers anew"


@pytest.mark.parametrize("start", [3, 4, 7, 11, 12])
def test_a_resumed_iteration_goes_on_inside_and_rolls_out_at_the_next_border(buffer: RolloutBuffer, start: int) -> None:
    whole, learner = list(loader(Recorder(buffer))), Recorder(buffer)
    resumed = loader(learner, start=start)
    micros = list(resumed)
    assert len(resumed) == len(micros) == 12 - start
    for micro, expected in zip(micros, whole[start:], strict=True):
        assert (micro.update, micro.indices.tolist()) == (expected.update, expected.indices.tolist())
    assert learner.iterations == [iteration for iteration in range(3) if iteration * 4 >= start]


def test_ranks_and_micro_batches_cut_the_same_steps(buffer: RolloutBuffer) -> None:
    whole = list(loader(Recorder(buffer)))
    cuts = [Cut(rank=rank, world_size=2, accumulation=2) for rank in range(2)]
    parts = [list(loader(Recorder(buffer), place=place)) for place in cuts]
    assert all(len(loader(Recorder(buffer), place=place)) == 24 for place in cuts)
    for step, micro in enumerate(whole):
        found = [one.indices for part in parts for one in part if one.update == step]
        assert sorted(np.concatenate(found).tolist()) == sorted(micro.indices.tolist())
