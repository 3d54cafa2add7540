"""One PPO iteration's experience: answers sampled by the policy, scored, and turned into advantages.

Legend: N prompts of the iteration, T longest prompt plus longest answer, L longest answer.
Everything is a function of (seed, iteration, prompt) and of the weights, so a resumed run goes on as if it had never
stopped. Each rank does its share of the prompts; then all ranks hold the whole rollout.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from pipeline.config import ByExamples, Config, Epochs, Probability
from pipeline.data.batches import MicroBatch, RolloutBatch
from pipeline.data.loaders import Cut, TrainingLoader
from pipeline.data.plan import TrainingPlan
from pipeline.data.rollouts import RolloutBuffer, RolloutExamples
from pipeline.decoding.sampling import Continuations, left_padded, sample, uniforms
from pipeline.models.gpt import GPT
from pipeline.models.heads import ActorCritic, RewardModel
from pipeline.objectives.likelihood import token_log_probs
from pipeline.objectives.policy import KLController, generalized_advantages, masked_moments, token_rewards, whiten
from pipeline.text.tokenizer import Tokenizer


class RolloutConfig(Config):
    """How experience is gathered."""

    num_iterations: PositiveInt
    """PPO iterations: each samples answers once and then learns from them."""
    prompts_per_iteration: PositiveInt
    """Prompts answered in an iteration, over all ranks; a multiple of batching.examples_per_step."""
    max_new_tokens: PositiveInt
    """Longest answer in tokens, EOS included; a longer one is cut off and penalised."""
    temperature: PositiveFloat
    """Divides the logits, in sampling and in every log-probability."""
    gamma: Probability
    """Discount of later rewards."""
    lam: Probability
    """Lambda of the generalized advantage estimate."""
    cut_off_penalty: NonNegativeFloat
    """Taken from the score of an answer without EOS."""
    whiten_advantages: bool
    """Whether advantages are shifted and scaled to mean 0 and variance 1 over the rollout."""


@dataclass(frozen=True)
class Rollout:
    """What an iteration learns from, and how it went."""

    buffer: RolloutBuffer
    report: dict[str, float]
    """Means over answers or response tokens: score, KL, length, share that ended."""


@dataclass(frozen=True)
class ScoreScale:
    """Rewards become scores of mean 0 and standard deviation 1 over the answers of the untuned model.

    Only differences of rewards are determined; this fixes the scale against the KL penalty (Ziegler et al. 2019, 2.1).
    """

    mean: float
    std: float

    @staticmethod
    def of(rewards: Float[np.ndarray, "N"]) -> "ScoreScale":
        """The scale that the rewards of some answers set."""
        return ScoreScale(mean=float(rewards.mean()), std=max(float(rewards.std()), 1e-6))


class RolloutWorker:
    """Samples and scores answers with the current policy; owns the frozen models, which are never trained."""

    def __init__(
        self,
        config: RolloutConfig,
        prompts: Sequence[Int[np.ndarray, "n"]],
        *,
        reference: GPT,
        reward: RewardModel,
        scale: ScoreScale,
        tokenizer: Tokenizer,
        seed: int,
    ) -> None:
        if len(prompts) < config.prompts_per_iteration:
            raise ValueError(
                f"prompts_per_iteration: {config.prompts_per_iteration} wanted, the data has {len(prompts)} prompts"
            )
        self.config = config
        self.prompts = prompts
        self.reference = reference.eval().requires_grad_(False)
        self.reward = reward.eval().requires_grad_(False)
        self.scale = scale
        self.eos = tokenizer.eos_id
        self.pad = tokenizer.pad_id
        self.seed = seed

    def chosen_prompts(self, iteration: int) -> list[int]:
        """The prompts of an iteration: each is used once before any is used again."""
        count = self.config.prompts_per_iteration
        chosen: list[int] = []
        for number in range(iteration * count, (iteration + 1) * count):
            epoch, place = divmod(number, len(self.prompts))
            chosen.append(int(np.random.default_rng((self.seed, epoch)).permutation(len(self.prompts))[place]))
        return chosen

    @torch.no_grad()
    def roll_out(self, model: ActorCritic, controller: KLController, *, iteration: int, place: Cut) -> Rollout:
        """Answers, scores and advantages of one iteration. A collective operation."""
        config, device = self.config, next(model.parameters()).device
        numbers = self.chosen_prompts(iteration)
        mine = np.array_split(np.arange(len(numbers)), place.world_size)[place.rank]
        width = max(len(self.prompts[number]) for number in numbers) + config.max_new_tokens
        table = torch.zeros(_NUM_COLUMNS, len(numbers), width, dtype=torch.float64, device=device)
        if len(mine):
            table[:, torch.from_numpy(mine).to(device)] = self._answer(
                model, [numbers[i] for i in mine], iteration=iteration, width=width
            )
        if place.world_size > 1:
            dist.all_reduce(table)
        ids, mask, log_probs, reference_log_probs, values, per_row = table
        is_response = mask.bool()[:, 1:]
        rewarded, has_ended = per_row[:, 0], per_row[:, 1].bool()
        scores = (rewarded - self.scale.mean) / self.scale.std
        log_probs, reference_log_probs, values = (
            log_probs[:, 1:].float(),
            reference_log_probs[:, 1:].float(),
            values[:, 1:].float(),
        )
        rewards = token_rewards(
            scores.float(),
            log_probs,
            reference_log_probs,
            is_response,
            has_ended,
            kl_coef=controller.coef,
            cut_off_penalty=config.cut_off_penalty,
        )
        learned = generalized_advantages(rewards, values, is_response, gamma=config.gamma, lam=config.lam)
        advantages = learned.advantages
        if config.whiten_advantages:
            advantages = whiten(advantages, is_response, masked_moments(advantages, is_response))
        kl = ((log_probs - reference_log_probs) * is_response).sum(1)
        report = {
            "reward": float(rewarded.mean()),
            "score": float(scores.mean()),
            "kl": float(kl.mean()),
            "kl_coef": controller.coef,
            "length": float(is_response.sum(1).double().mean()),
            "ended": float(has_ended.double().mean()),
            "return": float(learned.returns[is_response].mean()),
        }
        buffer = RolloutBuffer(
            input_ids=ids.long()[:, :-1].cpu(),
            labels=ids.long()[:, 1:].cpu(),
            is_response=is_response.cpu(),
            old_log_probs=log_probs.cpu(),
            old_values=values.cpu(),
            advantages=advantages.cpu(),
            returns=learned.returns.cpu(),
        )
        return Rollout(buffer, report)

    def _answer(
        self, model: ActorCritic, numbers: Sequence[int], *, iteration: int, width: int
    ) -> Float[Tensor, "C N T"]:
        """This rank's rows of the table: ids, mask, log-probabilities of both models, values, and row facts.

        Column t of the four token tables belongs to the token at t, which the outputs at t - 1 predict.
        """
        config, device = self.config, next(model.parameters()).device
        was_training = model.training
        model.eval()
        prompts = left_padded([self.prompts[number].tolist() for number in numbers], pad=self.pad)
        draws = uniforms(seed=self.seed, iteration=iteration, prompt_ids=numbers, num_positions=config.max_new_tokens)
        answers = sample(
            model.policy,
            type(prompts)(prompts.input_ids.to(device), prompts.mask.to(device)),
            draws.to(device),
            temperature=config.temperature,
            top_k=0,
            top_p=1.0,
            eos=self.eos,
            pad=self.pad,
        )
        table = torch.zeros(_NUM_COLUMNS, len(numbers), width, dtype=torch.float64, device=device)
        ids, is_answer, last = self._join(numbers, answers, width)
        output = model(ids[:, :-1])
        counted = is_answer[:, 1:]
        actions = ids[:, 1:][counted]
        own = token_log_probs(model.logits(output.hidden[counted]) / config.temperature, actions)
        hidden = self.reference(ids[:, :-1])[counted]
        reference = token_log_probs(self.reference.logits(hidden) / config.temperature, actions)
        table[0], table[1] = ids.double(), is_answer.double()
        for column, values in ((2, own), (3, reference), (4, output.values[counted])):
            table[column, :, 1:][counted] = values.double()
        table[5, :, 0] = self.reward(ids, last).double()
        table[5, :, 1] = answers.has_ended.double()
        model.train(was_training)
        return table

    def _join(
        self, numbers: Sequence[int], answers: Continuations, width: int
    ) -> tuple[Int[Tensor, "N T"], Tensor, Int[Tensor, "N"]]:
        """Prompt and answer of each row, right-padded; which tokens are the answer's; where the last one stands."""
        device = answers.tokens.device
        ids = torch.full((len(numbers), width), self.pad, device=device)
        is_answer = torch.zeros(len(numbers), width, dtype=torch.bool, device=device)
        begins = torch.tensor([len(self.prompts[number]) for number in numbers], device=device)
        for row, number in enumerate(numbers):
            begin, length = int(begins[row]), int(answers.lengths[row])
            ids[row, :begin] = torch.from_numpy(self.prompts[number]).to(device)
            ids[row, begin : begin + length] = answers.tokens[row, :length]
            is_answer[row, begin : begin + length] = True
        return ids, is_answer, begins + answers.lengths - 1


_NUM_COLUMNS = 6
"""Token id, whether it is the answer's, log-probability under policy and reference, value; and facts of the row."""


def iteration_plan(
    buffer: RolloutBuffer, batching: ByExamples, duration: Epochs, *, seed: int, iteration: int
) -> TrainingPlan[RolloutBatch]:
    """The optimizer steps of one iteration: `duration` passes over its rollout."""
    return TrainingPlan(RolloutExamples(buffer), batching, duration, seed=seed * 1_000_003 + iteration)


def iteration_batches(
    plan: TrainingPlan[RolloutBatch], place: Cut, *, iteration: int, start: int
) -> Iterator[MicroBatch[RolloutBatch]]:
    """This rank's micro-batches of one iteration from its optimizer step `start` on, numbered over all iterations."""
    for micro in TrainingLoader(plan, place, start=start, prefetch=0):
        micro.update += iteration * plan.num_steps
        micro.epoch = iteration
        yield micro
