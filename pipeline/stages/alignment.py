"""How answers changed: the tuned model beside the one it started from, on the same held-out requests and draws.

The judge is a rule-based analyser that no training has seen. KL is in nats of an answer, from the tuned model to the
start, over the tokens of the answers that the tuned model sampled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor

from pipeline.config import Config
from pipeline.data.padding import pad_ids, pad_mask
from pipeline.data.prepared import read_conversations
from pipeline.evaluation.preference import SentimentJudge, distinct_n, paired_difference, sequence_kl
from pipeline.layout import Layout
from pipeline.models.gpt import GPT
from pipeline.models.heads import RewardModel
from pipeline.objectives.likelihood import response_log_probs
from pipeline.stages.generation import Answer, SamplingConfig, generate
from pipeline.stages.handover import OpenedGPT, open_reward
from pipeline.text.chat import encode_prompt
from pipeline.text.tokenizer import Tokenizer

_BATCH = 128


class PromptsConfig(Config):
    """Which requests are answered."""

    sources: tuple[str, ...]
    """Sources of prepared/conversations whose requests are used."""
    max_length: PositiveInt
    """Longest request in tokens; a longer one is shortened from the left."""


class AlignmentConfig(Config):
    """How answers are sampled and judged."""

    prompts: PromptsConfig
    """Requests, taken from the test split."""
    num_prompts: PositiveInt
    """How many of them."""
    decoding: SamplingConfig
    """How answers are sampled; its seed is the bootstrap's too."""
    num_resamples: PositiveInt
    """Bootstrap resamples of the prompts."""


@dataclass(frozen=True)
class Judged:
    """Metrics by name, and answers of both models side by side."""

    metrics: dict[str, Any]
    samples: list[dict[str, Any]]


def alignment_inputs(layout: Layout) -> tuple[Path, ...]:
    """What the evaluation reads beside the models that are compared."""
    return layout.model("reward"), layout.data("prepared/conversations")


def read_prompts(layout: Layout, split: str, config: PromptsConfig, tokenizer: Tokenizer) -> list[np.ndarray]:
    """Encoded requests of one split, in the order of the file; ValueError when no source matches."""
    path = layout.data(f"prepared/conversations/{split}.jsonl")
    conversations = read_conversations(path)
    chosen = [one for one in conversations if one.source in config.sources]
    if not chosen:
        found = sorted({one.source for one in conversations})
        raise ValueError(f"{path}: no conversations of {sorted(config.sources)}; the file has {found}")
    return [encode_prompt(one.messages[:-1], tokenizer, max_length=config.max_length) for one in chosen]


def evaluate_alignment(layout: Layout, config: AlignmentConfig, *, tuned: GPT, start: OpenedGPT) -> Judged:
    """Judge, reward model, KL and diversity of the answers of both models."""
    device = next(tuned.parameters()).device
    tokenizer = start.tokenizer
    first = start.model.to(device).eval()
    reward = open_reward(layout.model("reward")).model.to(device).eval()
    prompts = read_prompts(layout, "test", config.prompts, tokenizer)[: config.num_prompts]
    both = tuple(generate(model, tokenizer, prompts, config.decoding) for model in (first, tuned))
    texts = [[one.text for one in answers] for answers in both]
    judge = SentimentJudge()
    judged = [judge.scores(found) for found in texts]
    rewards = [score_answers(reward, prompts, answers, tokenizer) for answers in both]
    own, original = (answer_log_probs(model, prompts, both[1], tokenizer) for model in (tuned, first))
    kl = sequence_kl(own, original)
    change = paired_difference(judged[1], judged[0], num_resamples=config.num_resamples, seed=config.decoding.seed)
    sides = {
        name: {
            "judge": float(judged[i].mean()),
            "reward": float(rewards[i].mean()),
            "distinct_2": distinct_n([text.split() for text in texts[i]], 2),
            "length": float(np.mean([len(one.token_ids) for one in answers])),
            "ended": float(np.mean([one.has_ended for one in answers])),
        }
        for i, (name, answers) in enumerate(zip(("before", "after"), both, strict=True))
    }
    metrics: dict[str, Any] = {
        **sides,
        "judge_change": {"mean": change.mean, "low": change.low, "high": change.high},
        "kl": kl.kl,
        "kl_standard_error": kl.standard_error,
        "num_prompts": len(prompts),
    }
    samples = [
        {
            "prompt": tokenizer.decode(prompts[i].tolist()),
            "before": texts[0][i],
            "after": texts[1][i],
            "judge_before": float(judged[0][i]),
            "judge_after": float(judged[1][i]),
        }
        for i in range(min(20, len(prompts)))
    ]
    return Judged(metrics, samples)


@torch.no_grad()
def score_answers(
    model: RewardModel, prompts: Sequence[np.ndarray], answers: Sequence[Answer], tokenizer: Tokenizer
) -> Float[np.ndarray, "N"]:
    """The reward of each answer, read at its true last token."""
    device = next(model.parameters()).device
    rewards: list[float] = []
    for rows in _batches(prompts, answers):
        ids = pad_ids([row for row, _ in rows], tokenizer.pad_id).to(device)
        last = torch.tensor([len(row) - 1 for row, _ in rows], device=device)
        rewards += model(ids, last).double().tolist()
    return np.array(rewards)


@torch.no_grad()
def answer_log_probs(
    model: GPT, prompts: Sequence[np.ndarray], answers: Sequence[Answer], tokenizer: Tokenizer
) -> Float[np.ndarray, "N"]:
    """log p(answer | prompt), a sum over the answer's tokens."""
    device = next(model.parameters()).device
    sums: list[float] = []
    for rows in _batches(prompts, answers):
        ids = pad_ids([row[:-1] for row, _ in rows], tokenizer.pad_id).to(device)
        labels = pad_ids([row[1:] for row, _ in rows], tokenizer.pad_id).to(device)
        counted = pad_mask([np.arange(1, len(row)) >= begin for row, begin in rows]).to(device)
        logits: Tensor = model.logits(model(ids)[counted])
        sums += response_log_probs(logits, labels[counted], counted).double().tolist()
    return np.array(sums)


def _batches(prompts: Sequence[np.ndarray], answers: Sequence[Answer]) -> list[list[tuple[np.ndarray, int]]]:
    """Conversations with the length of their prompt, in groups."""
    rows = [
        (np.concatenate([prompt, np.array(answer.token_ids, dtype=np.int64)]), len(prompt))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    return [rows[i : i + _BATCH] for i in range(0, len(rows), _BATCH)]
