"""One PPO iteration's experience: answers sampled by the policy, scored, and turned into advantages.

Legend: N prompts of the iteration, T longest prompt plus longest answer, L longest answer. `labels[n, t]` is the action
taken at t. Everything is a function of (seed, iteration, prompt) and of the weights, so a resumed run goes on as if it
had never stopped. Each rank does its share of the prompts; then all ranks hold the whole.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from pipeline.config import Config, Probability
from pipeline.data.examples.rollouts import RolloutBuffer
from pipeline.data.loaders import Cut
from pipeline.decoding.sampling import Continuations, Prompts, left_padded, sample, uniforms
from pipeline.inference.scoring import Policy, join
from pipeline.models.gpt import GPT
from pipeline.models.heads import ActorCritic, RewardModel
from pipeline.objectives.likelihood import token_log_probs
from pipeline.objectives.policy import (
    KLController,
    generalized_advantages,
    kl_k1,
    masked_moments,
    token_rewards,
    whiten,
)
from pipeline.progress import progress
from pipeline.text.tokenizer import Tokenizer

_BATCH = 64
_VALIDATION = 2**32
"""The iteration whose draws a validation takes; no training has so many."""


class RolloutConfig(Config):
    """How experience is gathered."""

    num_iterations: PositiveInt
    """PPO iterations: each samples answers once and then learns from them."""
    prompts_per_iteration: PositiveInt
    """Prompts answered in an iteration, over all ranks; a multiple of batching.examples_per_step."""
    max_new_tokens: PositiveInt
    """Longest answer in tokens, <eos> included; a longer one is cut off and penalised."""
    temperature: PositiveFloat
    """Divides the logits, in sampling and in every log-probability."""
    gamma: Probability
    """Discount of later rewards."""
    lam: Probability
    """Lambda of the generalized advantage estimate."""
    cut_off_penalty: NonNegativeFloat
    """Taken from the score of an answer without <eos>."""
    whiten_advantages: bool
    """Whether advantages are shifted and scaled to mean 0 and variance 1 over the rollout."""


@dataclass(frozen=True)
class Experience:
    """Sampled answers and what every model says of them; 0 outside the answers."""

    input_ids: Int[Tensor, "N T"]
    labels: Int[Tensor, "N T"]
    is_response: Bool[Tensor, "N T"]
    log_probs: Float[Tensor, "N T"]
    reference_log_probs: Float[Tensor, "N T"]
    values: Float[Tensor, "N T"]
    rewards: Float[Tensor, "N"]
    has_ended: Bool[Tensor, "N"]

    def report(self) -> dict[str, float]:
        """Means over the answers: reward, KL to the reference in nats of an answer, tokens, share that ended."""
        return {
            "reward": float(self.rewards.double().mean()),
            "kl": float(kl_k1(self.log_probs, self.reference_log_probs).double().sum(1).mean()),
            "length": float(self.is_response.double().sum(1).mean()),
            "ended": float(self.has_ended.double().mean()),
        }


@dataclass(frozen=True)
class ScoreScale:
    """Rewards become scores of mean 0 and standard deviation 1 over the answers of the untuned model.

    Only differences of rewards are determined; this fixes the scale against the KL penalty (Ziegler et al. 2019, 2.1).
    """

    mean: float
    std: float

    @staticmethod
    def of(rewards: Float[Tensor, "N"]) -> "ScoreScale":
        """The scale that the rewards of some answers set; equal rewards say nothing of it and leave it as it is."""
        rewards = rewards.double()
        std = float(rewards.std(unbiased=False))
        return ScoreScale(mean=float(rewards.mean()), std=std if std > 1e-6 else 1.0)


@dataclass(frozen=True)
class Rollout:
    """What an iteration learns from, and how it went."""

    buffer: RolloutBuffer
    scale: ScoreScale
    """The scale of its scores, and of every later iteration's."""
    report: dict[str, float]


class RolloutWorker:
    """Samples and scores answers with the current policy; owns the frozen models, which are never trained."""

    def __init__(
        self,
        config: RolloutConfig,
        prompts: Sequence[Int[np.ndarray, "_"]],
        *,
        reference: GPT,
        reward: RewardModel,
        tokenizer: Tokenizer,
        seed: int,
    ) -> None:
        if not prompts:
            raise ValueError("no prompts; at least one is needed")
        self.config = config
        self.prompts = prompts
        self.reference = reference.eval().requires_grad_(False)
        self.reward = reward.eval().requires_grad_(False)
        self.policy = Policy.of(tokenizer, temperature=config.temperature)
        self.eos = tokenizer.eos_id
        self.pad = tokenizer.pad_id
        self.seed = seed

    def chosen_prompts(self, iteration: int) -> list[int]:
        """The prompts of an iteration: each is used once before any is used again."""
        size, count = len(self.prompts), self.config.prompts_per_iteration
        first, last = iteration * count, (iteration + 1) * count
        epochs = range(first // size, (last - 1) // size + 1)
        order = np.concatenate([np.random.default_rng((self.seed, epoch)).permutation(size) for epoch in epochs])
        return [int(number) for number in order[first - epochs[0] * size :][:count]]

    def roll_out(
        self, model: ActorCritic, controller: KLController, scale: ScoreScale | None, *, iteration: int, place: Cut
    ) -> Rollout:
        """Answers, scores and advantages of one iteration. A collective operation.

        Without a `scale` these answers, which an untuned policy then has given, set it.
        """
        config, numbers = self.config, self.chosen_prompts(iteration)
        found = self.experience(model, self.prompts, numbers, iteration=iteration, place=place)
        scale = scale or ScoreScale.of(found.rewards)
        scores = (found.rewards - scale.mean) / scale.std
        rewards = token_rewards(
            scores,
            found.log_probs,
            found.reference_log_probs,
            found.is_response,
            found.has_ended,
            kl_coef=controller.coef,
            cut_off_penalty=config.cut_off_penalty,
        )
        learned = generalized_advantages(rewards, found.values, found.is_response, gamma=config.gamma, lam=config.lam)
        advantages = learned.advantages
        if config.whiten_advantages:
            advantages = whiten(advantages, found.is_response, masked_moments(advantages, found.is_response))
        report = {
            **found.report(),
            "score": float(scores.double().mean()),
            "kl_coef": controller.coef,
            "return": float(learned.returns[found.is_response].double().mean()),
        }
        buffer = RolloutBuffer(
            input_ids=found.input_ids.cpu(),
            labels=found.labels.cpu(),
            is_response=found.is_response.cpu(),
            old_log_probs=found.log_probs.cpu(),
            old_values=found.values.cpu(),
            advantages=advantages.cpu(),
            returns=learned.returns.cpu(),
        )
        return Rollout(buffer, scale, report)

    def validate(self, model: ActorCritic, prompts: Sequence[Int[np.ndarray, "_"]], *, place: Cut) -> dict[str, float]:
        """The report of the answers to held-out prompts, with the same draws each time. A collective operation."""
        return self.experience(model, prompts, range(len(prompts)), iteration=_VALIDATION, place=place).report()

    @torch.no_grad()
    def experience(
        self,
        model: ActorCritic,
        prompts: Sequence[Int[np.ndarray, "_"]],
        numbers: Sequence[int],
        *,
        iteration: int,
        place: Cut,
    ) -> Experience:
        """Answers to the prompts with the given numbers, shared out among the ranks. A collective operation."""
        device = next(model.parameters()).device
        self.reference.to(device)
        self.reward.to(device)
        was_training = model.training
        model.eval()
        width = max(len(prompts[number]) for number in numbers) + self.config.max_new_tokens
        whole = _empty(len(numbers), width - 1, device)
        own = np.array_split(np.arange(len(numbers)), place.world_size)[place.rank]
        streams = _streams(numbers, len(prompts))
        is_shown = place.rank == 0
        for rows in progress(
            _batches(own), name="rollout", unit="answers", total=len(own), size=len, is_shown=is_shown
        ):
            asked = [prompts[numbers[row]] for row in rows]
            part = self._answer(model, asked, [streams[row] for row in rows], iteration=iteration, width=width)
            for field in fields(part):
                getattr(whole, field.name)[torch.from_numpy(rows).to(device)] = getattr(part, field.name)
        if place.world_size > 1:
            for field in fields(whole):
                # Every rank adds its own rows to the zeros of the others, so nothing is rounded.
                total = getattr(whole, field.name).double()
                dist.all_reduce(total)
                getattr(whole, field.name).copy_(total)
        model.train(was_training)
        return whole

    def _answer(
        self,
        model: ActorCritic,
        asked: Sequence[Int[np.ndarray, "_"]],
        streams: Sequence[int],
        *,
        iteration: int,
        width: int,
    ) -> Experience:
        """The experience of one batch of prompts, each answered by the draws of its stream."""
        answers = self._sample(model.policy, asked, streams, iteration=iteration)
        tokens = [row[:length] for row, length in zip(answers.tokens.tolist(), answers.lengths.tolist(), strict=True)]
        joined = join(asked, tokens, pad=self.pad, width=width)
        device = answers.tokens.device
        ids, counted = joined.ids.to(device), joined.is_answer[:, 1:].to(device)
        inputs, labels = ids[:, :-1], ids[:, 1:]
        output = model(inputs)
        own = token_log_probs(self.policy.logits(model.logits(output.hidden[counted])), labels[counted])
        hidden = self.reference(inputs)[counted]
        reference = token_log_probs(self.policy.logits(self.reference.logits(hidden)), labels[counted])
        nowhere = torch.zeros(counted.shape, device=device)
        return Experience(
            input_ids=inputs,
            labels=labels,
            is_response=counted,
            log_probs=nowhere.masked_scatter(counted, own.float()),
            reference_log_probs=nowhere.masked_scatter(counted, reference.float()),
            values=torch.where(counted, output.values.float(), 0.0),
            rewards=self.reward(ids, joined.last.to(device)).float(),
            has_ended=answers.has_ended,
        )

    def _sample(
        self, policy: GPT, prompts: Sequence[Int[np.ndarray, "_"]], streams: Sequence[int], *, iteration: int
    ) -> Continuations:
        """Answers to some prompts; what one is answered depends on its stream, not on the others."""
        device = policy.token_embedding.weight.device
        padded = left_padded([prompt.tolist() for prompt in prompts], pad=self.pad)
        draws = uniforms(
            seed=self.seed, iteration=iteration, prompt_ids=streams, num_positions=self.config.max_new_tokens
        )
        return sample(
            policy,
            Prompts(padded.input_ids.to(device), padded.mask.to(device)),
            draws.to(device),
            temperature=self.policy.temperature,
            top_k=0,
            top_p=1.0,
            eos=self.eos,
            pad=self.pad,
            suppressed=self.policy.suppressed,
        )


def _streams(numbers: Sequence[int], num_prompts: int) -> list[int]:
    """A stream of draws for each prompt of an iteration: its number, and another one each time that it is back."""
    times: Counter[int] = Counter()
    found = []
    for number in numbers:
        found.append(number + num_prompts * times[number])
        times[number] += 1
    return found


def _batches(rows: Int[np.ndarray, "_"]) -> list[Int[np.ndarray, "_"]]:
    return [rows[begin : begin + _BATCH] for begin in range(0, len(rows), _BATCH)]


def _empty(num_rows: int, width: int, device: torch.device) -> Experience:
    """The experience of no rank: zeros everywhere."""
    ids = torch.zeros(num_rows, width, dtype=torch.long, device=device)
    numbers = torch.zeros(num_rows, width, device=device)
    return Experience(
        input_ids=ids,
        labels=ids.clone(),
        is_response=ids.bool(),
        log_probs=numbers,
        reference_log_probs=numbers.clone(),
        values=numbers.clone(),
        rewards=numbers[:, 0].clone(),
        has_ended=ids[:, 0].bool(),
    )
