"""A world of opinions: a text is good by its good words and bad by its bad ones, and people rate it so.

The words are such as the rule-based judge knows, and none of them is longer than a token.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from pipeline.data.records import Conversation, Message, Rated, write_records
from pipeline.inference.handover import save_gpt
from pipeline.models.gpt import GPT, GPTConfig
from pipeline.models.heads import ActorCritic, RewardModel
from pipeline.stages.rollout import RolloutConfig, RolloutWorker
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.tokenizer_training import train_byte_bpe
from tests.training.harness import Workspace

GOOD = ("good", "great", "lovely", "superb", "happy", "best")
BAD = ("bad", "awful", "sad", "horrible", "ugly", "worst")
PLAIN = ("film", "plot", "scene", "story", "actor", "music")
REQUESTS = ("Write a short movie review.", "What do you think of the movie?", "Review it.")
SPLITS = {"train": 160, "valid": 40, "test": 40}

PAIRS = {
    "prompts": {"movie": REQUESTS[0]},
    "min_distance": 1.0,
    "max_uses": 2,
    "seed": 7,
    "max_length": 40,
}
TRAINING = {
    "seed": 1,
    "batching": {"kind": "examples", "examples_per_step": 16},
    "duration": {"kind": "steps", "num_steps": 60},
    "optimizer": {"lr": 0.003, "betas": [0.9, 0.95]},
    "schedule": {"kind": "linear", "num_warmup_steps": 2},
    "validate_every": 20,
    "checkpoint_every": 20,
}
ALIGNMENT = {
    "prompts": {"sources": ["review-movie"], "max_length": 24},
    "split": "test",
    "num_prompts": 12,
    "decoding": {"kind": "sampling", "max_new_tokens": 8, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 11},
    "num_resamples": 50,
}
REWARD = {"training": TRAINING, "dropout": 0.0, "pairs": PAIRS, "num_calibration_bins": 5}
REFERENCE = {"pairs": PAIRS, "tokens_per_batch": 300}
DPO = {
    "training": TRAINING,
    "loss": {"kind": "sigmoid", "beta": 0.1, "label_smoothing": 0.0},
    "pairs": PAIRS,
    "alignment": ALIGNMENT,
}
ROLLOUT = {
    "num_iterations": 3,
    "prompts_per_iteration": 8,
    "max_new_tokens": 8,
    "temperature": 0.7,
    "gamma": 1.0,
    "lam": 0.95,
    "cut_off_penalty": 1.0,
    "whiten_advantages": True,
}
PPO: dict[str, Any] = {
    "training": TRAINING
    | {
        "batching": {"kind": "examples", "examples_per_step": 4},
        "duration": {"kind": "epochs", "num_epochs": 2},
        "validate_every": 6,
    },
    "policy": {
        "clip_range": 0.2,
        "value_clip_range": 0.2,
        "value_weight": 0.5,
        "entropy_weight": 0.0,
        "kl": {"kind": "adaptive", "coef": 0.1, "target": 6.0, "horizon": 100},
    },
    "rollout": ROLLOUT,
    "prompts": {"sources": ["review-movie"], "max_length": 24},
    "num_valid_prompts": 6,
    "alignment": ALIGNMENT,
}


def text(random: np.random.Generator) -> tuple[str, float]:
    """Some words and their rating."""
    good = int(random.integers(0, 5))
    words = [*random.choice(GOOD, good), *random.choice(BAD, 4 - good), *random.choice(PLAIN, random.integers(1, 5))]
    return " ".join(random.permutation(words)), float(2 * good - 4)


def write_data(root: Path) -> None:
    """The prepared data of profile tiny below `root`."""
    random = np.random.default_rng(0)
    for split, count in SPLITS.items():
        drawn = [text(random) for _ in range(count)]
        rated = [
            Rated(id=f"{split}-{i}", text=words, mean=mean, ratings=(int(mean),) * 3, domain="movie", group=f"{i}")
            for i, (words, mean) in enumerate(drawn)
        ]
        conversations = [
            Conversation(
                id=f"{split}-{i}",
                source="review-movie" if i % 4 else "chatter",
                messages=(Message("user", str(random.choice(REQUESTS))), Message("assistant", words)),
                group=f"{i}",
            )
            for i, (words, _) in enumerate(drawn)
        ]
        write_records(root / f"data/tiny/prepared/rated/{split}.jsonl", rated)
        write_records(root / f"data/tiny/prepared/conversations/{split}.jsonl", conversations)


def tokenizer() -> Tokenizer:
    """Byte-level BPE in which nearly every word of this world is one token."""
    words = [*GOOD, *BAD, *PLAIN]
    return train_byte_bpe([*(f"{one} {two}" for one in words for two in words), *REQUESTS * 30], vocab_size=360)


def gpt(seed: int = 0, *, eos: float = 3.0, dropout: float = 0.0) -> GPT:
    """An untrained model, with weights large enough that its preferences differ, and <eos> likelier by `eos` nats."""
    torch.manual_seed(seed)
    shape = GPTConfig(
        vocab_size=tokenizer().vocab_size,
        d_model=32,
        num_layers=1,
        num_heads=2,
        max_length=48,
        dropout=dropout,
        attention_dropout=dropout,
    )
    model = GPT(shape).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3.0)
        bias = model.final_norm.bias.normal_(std=0.5)
        model.token_embedding.weight[tokenizer().eos_id] += eos * bias / bias.square().sum()
    return model


def prompts(count: int) -> list[np.ndarray]:
    """Prompts of unequal lengths."""
    bos, user, assistant = (tokenizer().id_of(role) for role in ("bos", "user", "assistant"))
    return [np.array([bos, user, *range(40, 41 + i % 5), assistant], dtype=np.int64) for i in range(count)]


def worker(seed: int = 5, **changes: Any) -> RolloutWorker:
    """Eleven prompts, another reference than the policy of `actor_critic`, and some reward model."""
    torch.manual_seed(3)
    reward = RewardModel(gpt(7))
    return RolloutWorker(
        RolloutConfig.model_validate(ROLLOUT | changes),
        prompts(11),
        reference=gpt(1),
        reward=reward,
        tokenizer=tokenizer(),
        seed=seed,
    )


def actor_critic() -> ActorCritic:
    """A policy, and a critic whose values differ from token to token."""
    model = ActorCritic(gpt(0), gpt(2))
    torch.nn.init.normal_(model.critic.value.weight, std=0.3)
    return model


LATE: list[tuple[dict[str, Any], str]] = [
    (
        {"prompts": {"sources": ["news"], "max_length": 24}},
        "alignment.prompts.sources: data/tiny/prepared/conversations/",
    ),
    (
        {"prompts": {"sources": ["review-movie"], "max_length": 41}},
        "alignment.prompts.max_length: requests of 41 tokens",
    ),
    ({"decoding": ALIGNMENT["decoding"] | {"max_new_tokens": 25}}, "and answers of 25 do not fit"),  # type: ignore[operator]
]
"""Settings of `alignment` that no answer can be sampled by, and what is said of them."""


class World:
    """A workspace in which the preference stages can run."""

    def __init__(self, root: Path, code: Path) -> None:
        self.root = root
        Workspace(root, code, module="", config="")
        (root / "conf/tiny").mkdir()
        write_data(root)
        # As a published model has them; the preference stages have to do without.
        save_gpt(root / "models/tiny/sft", gpt(dropout=0.1), tokenizer())

    def stage(self, name: str, config: dict[str, Any], *, variant: str = "") -> Workspace:
        """A stage, ready to run; a variant writes elsewhere."""
        path = self.root / f"conf/tiny/{name}{variant}.yaml"
        path.write_text(yaml.safe_dump(config))
        return Stage(self.root, name, path)

    def forget(self, name: str) -> None:
        """Removes the output of a stage."""
        shutil.rmtree(self.root / "models/tiny" / name)


class Stage(Workspace):
    """One stage of the world."""

    def __init__(self, root: Path, name: str, config: Path) -> None:
        self.root = root
        self.module = f"pipeline.stages.{name}"
        self.config = config.relative_to(root).as_posix()
