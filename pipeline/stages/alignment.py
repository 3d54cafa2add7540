"""How answers changed: the tuned model beside the one it started from, on the same held-out requests and draws.

The judge is a rule-based analyser that no training has seen. KL is in nats of an answer, from the tuned model to the
start, over the tokens of the answers that the tuned model sampled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field, PositiveInt, field_validator

from pipeline.config import Config
from pipeline.data.prepared import read_conversations
from pipeline.evaluation.preference import SentimentJudge, distinct_n, paired_difference, sequence_kl
from pipeline.inference.generation import Answer, SamplingConfig, are_shortened, evenly_spread, generate
from pipeline.inference.handover import OpenedGPT, open_scorer
from pipeline.inference.scoring import Policy, answer_log_probs, score_answers
from pipeline.layout import Layout
from pipeline.models.gpt import GPT
from pipeline.text.chat import SHORTEST_PROMPT, encode_prompt

_NUM_SAMPLES = 20


class PromptsConfig(Config):
    """Which requests are answered."""

    sources: tuple[str, ...]
    """Sources of prepared/conversations whose requests are used."""
    max_length: Annotated[int, Field(ge=SHORTEST_PROMPT)]
    """Longest request in tokens, <bos>, <user>, one of its text and <assistant> at least; a longer one is shortened
    from the left, and counted."""


class AlignmentConfig(Config):
    """How answers are sampled and judged."""

    prompts: PromptsConfig
    """Which requests."""
    split: Literal["valid", "test"]
    """Whose requests are judged: those of `valid` to choose settings by, those of `test` to report."""
    num_prompts: PositiveInt
    """At most so many of them, spread over the split."""
    decoding: SamplingConfig
    """How answers are sampled; its seed is the bootstrap's too."""
    num_resamples: PositiveInt
    """Bootstrap resamples of the prompts."""

    @field_validator("decoding")
    @classmethod
    def _whole_distribution(cls, decoding: SamplingConfig) -> SamplingConfig:
        if decoding.top_k or decoding.top_p < 1.0:
            raise ValueError("top_k must be 0 and top_p 1: the KL is that of the whole distribution")
        return decoding


@dataclass(frozen=True)
class Requests:
    """Encoded requests, ready to be answered."""

    ids: tuple[Int[np.ndarray, "_"], ...]
    is_shortened: tuple[bool, ...]
    """True for those that lost tokens on the left."""

    def counts(self) -> dict[str, int]:
        """For the metrics."""
        return {"num_prompts": len(self.ids), "num_shortened": sum(self.is_shortened)}

    def spread(self, count: int) -> "Requests":
        """At most `count` of them, evenly spread."""
        chosen = evenly_spread(len(self.ids), count)
        return Requests(tuple(self.ids[i] for i in chosen), tuple(self.is_shortened[i] for i in chosen))


@dataclass(frozen=True)
class Judged:
    """Metrics by name, and answers of both models side by side."""

    metrics: dict[str, Any]
    samples: list[dict[str, Any]]


@dataclass(frozen=True)
class Side:
    """The answers of one model, and what is said of them."""

    answers: tuple[Answer, ...]
    judged: Float[np.ndarray, "N"]
    rewards: Float[np.ndarray, "N"]

    def metrics(self, other: "Side") -> dict[str, float]:
        """Means over the answers; diversity on as many words of each as both models have said."""
        words = ([one.text.split() for one in side.answers] for side in (self, other))
        return {
            "judge": float(self.judged.mean()),
            "reward": float(self.rewards.mean()),
            "distinct_2": distinct_n([own[: len(theirs)] for own, theirs in zip(*words, strict=True)], 2),
            "length": float(np.mean([len(one.token_ids) for one in self.answers])),
            "ended": float(np.mean([one.has_ended for one in self.answers])),
        }


def alignment_inputs(layout: Layout) -> tuple[Path, ...]:
    """What the evaluation reads beside the models that are compared."""
    return layout.model("reward"), layout.data("prepared/conversations")


def read_prompts(
    layout: Layout, split: str, config: PromptsConfig, opened: OpenedGPT, max_new_tokens: int, *, key: str
) -> Requests:
    """The requests of one split, in the order of the file.

    ValueError, behind the `key` of `config`, when no source matches, and when request and answer may exceed the
    context.
    """
    context = opened.model.config.max_length
    if config.max_length + max_new_tokens > context:
        raise ValueError(
            f"{key}.max_length: requests of {config.max_length} tokens and answers of {max_new_tokens} do not fit "
            f"the model's context of {context}"
        )
    path = layout.data(f"prepared/conversations/{split}.jsonl")
    conversations = read_conversations(path)
    chosen = [one.messages[:-1] for one in conversations if one.source in config.sources]
    if not chosen:
        found = sorted({one.source for one in conversations})
        raise ValueError(f"{key}.sources: {path}: no conversations of {sorted(config.sources)}; the file has {found}")
    ids = tuple(encode_prompt(messages, opened.tokenizer, max_length=config.max_length) for messages in chosen)
    return Requests(ids, are_shortened(chosen, ids, opened.tokenizer))


def read_judged(layout: Layout, config: AlignmentConfig, start: OpenedGPT) -> Requests:
    """The requests that are to be judged, read before a training, which ends in vain where they cannot be.

    ValueError names the setting that does not fit the data or the model, and a reward model of another tokenizer.
    """
    open_scorer(layout.model("reward"), start.tokenizer)
    found = read_prompts(
        layout, config.split, config.prompts, start, config.decoding.max_new_tokens, key="alignment.prompts"
    )
    return found.spread(config.num_prompts)


def evaluate_alignment(
    layout: Layout, config: AlignmentConfig, requests: Requests, *, tuned: GPT, start: OpenedGPT
) -> Judged:
    """Judge, reward model, KL and diversity of the answers of both models to the requests of `read_judged`."""
    device = next(tuned.parameters()).device
    tokenizer, pad = start.tokenizer, start.tokenizer.pad_id
    first = start.model.to(device).eval()
    reward = open_scorer(layout.model("reward"), tokenizer).to(device).eval()
    judge = SentimentJudge()
    prompts = requests.ids

    def look_at(model: GPT) -> Side:
        answers = tuple(generate(model, tokenizer, prompts, config.decoding))
        scores = judge.scores([one.text for one in answers])
        return Side(answers, scores, score_answers(reward, prompts, [one.token_ids for one in answers], pad=pad))

    before, after = look_at(first), look_at(tuned)
    policy = Policy.of(tokenizer, temperature=config.decoding.temperature)
    own, original = (
        answer_log_probs(model, policy, prompts, [one.token_ids for one in after.answers], pad=pad)
        for model in (tuned, first)
    )
    kl = sequence_kl(own, original)
    change = paired_difference(
        after.judged, before.judged, num_resamples=config.num_resamples, seed=config.decoding.seed
    )
    metrics: dict[str, Any] = {
        "before": before.metrics(after),
        "after": after.metrics(before),
        "judge_change": {"mean": change.mean, "low": change.low, "high": change.high},
        "kl": kl.kl,
        "kl_standard_error": kl.standard_error,
        **requests.counts(),
    }
    asked = [tokenizer.decode(prompt.tolist()) for prompt in prompts]
    return Judged(metrics, side_by_side(asked, before, after))


def side_by_side(prompts: Sequence[str], before: Side, after: Side) -> list[dict[str, Any]]:
    """Some requests with the answers of both models."""
    return [
        {
            "prompt": prompts[i],
            "before": before.answers[i].text,
            "after": after.answers[i].text,
            "judge_before": float(before.judged[i]),
            "judge_after": float(after.judged[i]),
        }
        for i in evenly_spread(len(prompts), _NUM_SAMPLES)
    ]
