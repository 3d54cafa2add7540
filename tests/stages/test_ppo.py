"""The stage ppo: the first update on a rollout is that of its policy, rewards are learned, and bad settings refused."""

import json
import math
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.config import TrainingConfig
from pipeline.data.examples.rollouts import RolloutExamples
from pipeline.data.loaders import Cut
from pipeline.layout import Layout
from pipeline.models.heads import ActorCritic, RewardModel
from pipeline.objectives.policy import AdaptiveKL
from pipeline.runtime import RuntimeConfig
from pipeline.stages.ppo import (
    PolicyConfig,
    PPOConfig,
    ProximalPolicyOptimization,
    checked_loop,
    fit_by_rollouts,
)
from pipeline.stages.rollout import RolloutConfig, RolloutWorker, ScoreScale
from pipeline.tracking.tracker import Tracker
from pipeline.training.interrupt import Interrupt
from pipeline.training.run import StageRun
from tests.stages.opinions import ALIGNMENT, LATE, PPO, ROLLOUT, World, actor_critic, gpt, tokenizer, worker
from tests.training.harness import Workspace

ALONE = Cut(rank=0, world_size=1, accumulation=1)


def runtime(**changes: Any) -> RuntimeConfig:
    """One process on the CPU."""
    settings = {"accelerator": "cpu", "strategy": "single", "num_devices": 1, "num_nodes": 1, "accumulation": 1}
    settings |= {"precision": "32-true", "num_threads": 1, "prefetch": 0, "zero_stage": 0, "offload": "none"}
    return RuntimeConfig.model_validate(settings | changes)


def learner(**policy: Any) -> ProximalPolicyOptimization:
    """A module that is not trained yet."""
    return ProximalPolicyOptimization(
        actor_critic(),
        TrainingConfig.model_validate(PPO["training"]),
        PolicyConfig.model_validate(PPO["policy"] | policy),
        worker(),
        ALONE,
    )


def test_before_the_first_update_the_ratio_is_one_and_the_loss_is_minus_the_mean_advantage() -> None:
    module = learner()
    rollout = module.worker.roll_out(module.model, module.controller, None, iteration=0, place=ALONE)
    batch = RolloutExamples(rollout.buffer).collate(np.arange(8), 0)
    policy, value, entropy = module.objective(batch)
    count = int(rollout.buffer.is_response.sum())
    assert policy.num_targets == value.num_targets == entropy.num_targets == count
    assert float(policy.report["ratio"]) / count == pytest.approx(1.0, abs=1e-6)
    assert int(policy.report["clip_fraction"]) == 0
    # Whitened advantages have mean zero over the rollout.
    assert float(policy.loss_sum) / count == pytest.approx(0.0, abs=1e-5)
    error = (rollout.buffer.old_values - rollout.buffer.returns)[rollout.buffer.is_response]
    assert float(value.loss_sum) == pytest.approx(0.5 * float(error.square().sum()), rel=1e-4)


@pytest.fixture(scope="module")
def trained(world: World) -> Workspace:
    """The stage, run."""
    stage = world.stage("ppo", PPO)
    stage.run("cpu")
    return stage


def test_the_first_step_of_each_pass_sees_the_policy_that_sampled(trained: Workspace) -> None:
    for row in trained.curve():
        is_first = row["update"] % 4 == 1
        assert (row["train/policy/ratio"] == pytest.approx(1.0, abs=1e-5)) == is_first, row["update"]
        assert (row["train/policy/approx_kl"] < 1e-9) == is_first
        if is_first:
            assert row["train/policy/clip_fraction"] == 0.0


def test_each_iteration_is_reported_once_with_the_coefficient_that_followed_the_one_before(
    trained: Workspace,
) -> None:
    rows = trained.curve()
    assert [row["update"] for row in rows if "rollout/kl" in row] == [1, 5, 9]
    first, second, third = (row for row in rows if "rollout/kl" in row)
    assert first["rollout/kl"] == pytest.approx(0.0, abs=1e-5), "the first rollout is the reference's own"
    assert first["rollout/score"] == pytest.approx(0.0, abs=1e-5)
    controller = AdaptiveKL(coef=0.1, target=6.0, horizon=100)
    for row, later in ((first, second), (second, third)):
        assert row["rollout/kl_coef"] == pytest.approx(controller.coef)
        controller = controller.step(row["rollout/kl"], 8)
        assert later["rollout/kl_coef"] == pytest.approx(controller.coef)
    assert [row["update"] for row in rows if "valid/kl" in row] == [6, 12]


def test_the_log_shows_reward_and_kl_of_every_rollout(trained: Workspace) -> None:
    log = "\n".join(path.read_text() for path in trained.root.glob("*.log"))
    lines = [line for line in log.split("\n") if line.startswith("ppo ") and "steps/s" in line]
    assert [line.split()[1] for line in lines][:3] == ["1/12", "5/12", "9/12"]
    assert all("rollout/reward" in line and "rollout/kl" in line and "s left" in line for line in lines)


def test_both_sides_are_judged_on_the_same_requests(trained: Workspace) -> None:
    metrics = json.loads((trained.root / "metrics/tiny/ppo.json").read_text())
    assert metrics["num_prompts"] == 12
    assert metrics["prompts"]["train"]["num_prompts"] > metrics["prompts"]["train"]["num_shortened"] == 0
    assert metrics["judge_change"]["low"] <= metrics["judge_change"]["mean"] <= metrics["judge_change"]["high"]
    assert set(metrics["before"]) == set(metrics["after"])
    assert metrics["before"] != metrics["after"]


def test_a_checkpoint_inside_an_iteration_carries_rollout_scale_and_coefficient() -> None:
    module, fresh = learner(), learner()
    rollout = module.worker.roll_out(module.model, module.controller, None, iteration=0, place=ALONE)
    module._buffer, module._scale = rollout.buffer, rollout.scale
    module.controller = AdaptiveKL(coef=0.37, target=6.0, horizon=100)
    fresh.load_extra_state(module.extra_state())
    assert fresh.controller == module.controller
    assert fresh._scale == ScoreScale(rollout.scale.mean, rollout.scale.std)
    assert all(fresh.rollout().state()[name].equal(tensor) for name, tensor in rollout.buffer.state().items())


@pytest.mark.parametrize(
    ("changes", "zero_stage", "message"),
    [
        ({"batching": {"kind": "tokens", "tokens_per_step": 100}}, 0, "training.batching: ppo needs kind examples"),
        ({"duration": {"kind": "steps", "num_steps": 3}}, 0, "training.duration: ppo needs kind epochs, found steps"),
        (
            {"batching": {"kind": "examples", "examples_per_step": 3}},
            0,
            "rollout.prompts_per_iteration: 8 is no multiple of training.batching.examples_per_step, 3",
        ),
        ({}, 3, "which ZeRO-3 splits; use ZeRO-1 or 2"),
    ],
)
def test_what_ppo_cannot_do_is_refused(changes: dict[str, Any], zero_stage: int, message: str) -> None:
    config = PPOConfig.model_validate(PPO | {"training": PPO["training"] | changes})
    strategy = "deepspeed" if zero_stage else "single"
    with pytest.raises(ValueError, match=message):
        checked_loop(config, runtime(zero_stage=zero_stage, strategy=strategy))


def test_a_coefficient_that_one_step_could_turn_round_is_refused() -> None:
    kl = {"kind": "adaptive", "coef": 0.1, "target": 6.0, "horizon": 10}
    policy, rollout = PPO["policy"] | {"kl": kl}, PPO["rollout"] | {"prompts_per_iteration": 50}
    with pytest.raises(ValueError, match=r"policy.kl.horizon: found 10, allowed is more than 10: of 50 answers"):
        PPOConfig.model_validate(PPO | {"policy": policy, "rollout": rollout})
    PPOConfig.model_validate(PPO | {"policy": policy, "rollout": rollout | {"prompts_per_iteration": 49}})


def test_a_refusal_is_one_line_before_anything_is_loaded(world: World) -> None:
    config = PPO | {"training": PPO["training"] | {"duration": {"kind": "steps", "num_steps": 3}}}
    outcome = world.stage("ppo", config, variant="-refused").run("cpu", expect=(2,))
    assert "error: training.duration: ppo needs kind epochs, found steps" in outcome.log
    assert "Traceback" not in outcome.log


@pytest.mark.parametrize(("changes", "reason"), LATE)
def test_settings_of_the_answers_are_refused_before_training(
    world: World, changes: dict[str, Any], reason: str
) -> None:
    outcome = world.stage("ppo", PPO | {"alignment": ALIGNMENT | changes}, variant="-late").run("cpu", expect=(2,))
    assert reason in outcome.log
    assert "padding" not in outcome.log and "steps/s" not in outcome.log and "Traceback" not in outcome.log


class Bandit(RewardModel):
    """Pays 1 for one token as the whole answer, 0 for every other."""

    wanted = 0

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        last: Int[Tensor, "B"],
        segment_ids: Int[Tensor, "B T"] | None = None,
        position_ids: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B"]:
        """Whether the last token is the wanted one."""
        return (input_ids[torch.arange(len(last)), last] == self.wanted).float()


@pytest.fixture
def handlers() -> Iterator[None]:
    """Puts the signal handlers back that a training replaces."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_bandit_with_one_paying_token_is_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handlers: None, accumulation: int
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    changes = {"max_new_tokens": 1, "num_iterations": 12, "prompts_per_iteration": 64, "temperature": 0.2}
    prompt = np.array([1, 3, 40, 4], dtype=np.int64)
    bandit = Bandit(gpt(3))
    one = RolloutWorker(
        RolloutConfig.model_validate(ROLLOUT | changes | {"cut_off_penalty": 0.0}),
        [prompt] * 64,
        reference=gpt(eos=0.0),
        reward=bandit,
        tokenizer=tokenizer(),
        seed=1,
    )
    logits = one.reference.start(torch.from_numpy(prompt)[None])[0]
    chances, tokens = one.policy.logits(logits).softmax(-1)[0].sort(descending=True)
    # The second likeliest, so that greed is wrong; what is never sampled cannot be learned.
    bandit.wanted, chance = int(tokens[1]), float(chances[1])
    assert 0.1 < chance < 0.2
    # Without momentum the policy rests as soon as every answer is paid and all advantages are 0.
    settings = PPO["training"] | {"optimizer": {"lr": 0.01, "betas": [0.0, 0.99]}, "checkpoint_every": 100}
    settings |= {"batching": {"kind": "examples", "examples_per_step": 32}, "schedule": {"kind": "constant"}}
    training = TrainingConfig.model_validate(settings)
    policy = PolicyConfig.model_validate(PPO["policy"] | {"kl": {"kind": "fixed", "coef": 0.0}})
    place = Cut(rank=0, world_size=1, accumulation=accumulation)
    module = ProximalPolicyOptimization(ActorCritic(gpt(eos=0.0), gpt(4)), training, policy, one, place)
    run = StageRun(
        Layout.of(Path("conf/tiny/bandit.yaml")), "key", runtime(accumulation=accumulation), Interrupt(), Tracker()
    )
    batching, duration = training.batching, training.duration
    fit_by_rollouts(run, module, batching, duration, [prompt])  # type: ignore[arg-type]
    shares = [row["rollout/reward"] for row in module.history if "rollout/reward" in row]
    assert len(shares) == 12
    assert shares[0] == pytest.approx(chance, abs=3 * math.sqrt(chance * (1 - chance) / 64))
    assert min(shares[6:]) > 0.9
    assert [row["update"] for row in module.history if "rollout/reward" in row] == list(range(1, 49, 4))
