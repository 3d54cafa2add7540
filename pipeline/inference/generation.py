"""Answers of a GPT: prompts in, texts out, for samples, judges, reward models and people alike.

What a prompt is answered with depends on its place in the sequence of prompts and on the seed, not on the batches in
which the prompts are run. Special tokens other than <eos> are never generated: an answer is text and then its end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, assert_never

import numpy as np
from jaxtyping import Int
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from pipeline.config import Config
from pipeline.decoding.sampling import Continuations, Prompts, greedy, left_padded, sample, uniforms
from pipeline.models.gpt import GPT
from pipeline.progress import progress
from pipeline.text.chat import SHORTEST_PROMPT, Message, encode_prompt
from pipeline.text.tokenizer import Tokenizer

_BATCH = 64
_ANY_LENGTH = 10**9


class GreedyConfig(Config):
    """The likeliest token at every step."""

    kind: Literal["greedy"]
    max_new_tokens: PositiveInt
    """Longest answer in tokens, <eos> included."""


class SamplingConfig(Config):
    """A draw from the model's distribution at every step."""

    kind: Literal["sampling"]
    max_new_tokens: PositiveInt
    """Longest answer in tokens, <eos> included."""
    temperature: PositiveFloat
    """Divides the logits: below 1 the likely tokens become likelier."""
    top_k: NonNegativeInt
    """Draw from so many of the likeliest tokens (Fan et al. 2018); 0 for all."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)]
    """Draw from the smallest set of tokens with this probability (Holtzman et al. 2020); 1 for all."""
    seed: NonNegativeInt
    """Seed of the draws."""


@dataclass(frozen=True)
class Answer:
    """What was generated after one prompt."""

    text: str
    token_ids: tuple[int, ...]
    """The tokens, <eos> included where it was generated."""
    has_ended: bool
    """False where the answer was cut off at its longest length."""


def encode_prompts(
    requests: Sequence[Sequence[Message]], model: GPT, tokenizer: Tokenizer, *, max_new_tokens: int
) -> list[Int[np.ndarray, "_"]]:
    """Prompts in what an answer of `max_new_tokens` leaves of the context, shortened from the left.

    Each request is a conversation that ends with a turn of the user.
    """
    room = model.config.max_length - max_new_tokens
    if room < SHORTEST_PROMPT:
        raise ValueError(
            f"max_new_tokens: found {max_new_tokens}, the context of {model.config.max_length} tokens allows at most "
            f"{model.config.max_length - SHORTEST_PROMPT}"
        )
    return [encode_prompt(messages, tokenizer, max_length=room) for messages in requests]


def evenly_spread(num_requests: int, count: int) -> list[int]:
    """Places of at most `count` of so many requests, evenly spread from the first to nearly the last."""
    kept = min(count, num_requests)
    return [i * num_requests // kept for i in range(kept)]


def are_shortened(
    requests: Sequence[Sequence[Message]], prompts: Sequence[Int[np.ndarray, "_"]], tokenizer: Tokenizer
) -> tuple[bool, ...]:
    """Which of the requests lost tokens in these prompts."""
    whole = (encode_prompt(messages, tokenizer, max_length=_ANY_LENGTH) for messages in requests)
    return tuple(len(kept) < len(full) for kept, full in zip(prompts, whole, strict=True))


def generate(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[Int[np.ndarray, "_"]],
    decoding: GreedyConfig | SamplingConfig,
    *,
    iteration: int = 0,
) -> list[Answer]:
    """One answer to each prompt, in their order; another `iteration` draws other answers."""
    answers: dict[int, Answer] = {}
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    was_training = model.training
    model.eval()
    # Spare rows of the embeddings that stand for no token, and the special tokens but <eos>.
    without_token = set(range(model.config.vocab_size)) - tokenizer.ids_from(0)
    suppressed = sorted((tokenizer.special_ids - {tokenizer.eos_id}) | without_token)
    batches = [order[begin : begin + _BATCH] for begin in range(0, len(order), _BATCH)]
    for numbers in progress(batches, name="generating", unit="answers", total=len(order), size=len):
        padded = left_padded([prompts[number].tolist() for number in numbers], pad=tokenizer.pad_id)
        found = _continue(model, tokenizer, padded, numbers, decoding, iteration, suppressed)
        rows = zip(numbers, found.tokens.tolist(), found.lengths.tolist(), found.has_ended.tolist(), strict=True)
        for number, tokens, length, has_ended in rows:
            token_ids = tuple(tokens[:length])
            answers[number] = Answer(tokenizer.decode(token_ids), token_ids, has_ended)
    model.train(was_training)
    return [answers[number] for number in range(len(prompts))]


def _continue(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Prompts,
    numbers: Sequence[int],
    decoding: GreedyConfig | SamplingConfig,
    iteration: int,
    suppressed: Sequence[int],
) -> Continuations:
    """The continuations of one batch."""
    device = model.token_embedding.weight.device
    moved = Prompts(prompts.input_ids.to(device), prompts.mask.to(device))
    eos, pad = tokenizer.eos_id, tokenizer.pad_id
    match decoding:
        case GreedyConfig():
            return greedy(model, moved, max_new_tokens=decoding.max_new_tokens, eos=eos, pad=pad, suppressed=suppressed)
        case SamplingConfig():
            draws = uniforms(
                seed=decoding.seed, iteration=iteration, prompt_ids=numbers, num_positions=decoding.max_new_tokens
            )
            return sample(
                model,
                moved,
                draws.to(device),
                temperature=decoding.temperature,
                top_k=decoding.top_k,
                top_p=decoding.top_p,
                eos=eos,
                pad=pad,
                suppressed=suppressed,
            )
        case _:
            assert_never(decoding)
