"""Continuing prompts one token at a time: sampling with temperature, top-k and top-p, and greedily.

Legend: N prompts, T prompt length, L longest continuation, M prompts still running, V vocabulary. Masks are boolean;
True counts. The caller puts the model in evaluation mode. What a prompt is continued with does not depend on the
batch it is in: a draw is a function of (seed, iteration, prompt, position), and rows never meet.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pipeline.decoding.protocol import PromptModel, S


@dataclass(frozen=True)
class Prompts:
    """Prompts padded on the left."""

    input_ids: Int[Tensor, "N T"]
    mask: Bool[Tensor, "N T"]


@dataclass(frozen=True)
class Continuations:
    """What was generated after each prompt."""

    tokens: Int[Tensor, "N L"]
    """The tokens, EOS included, then padding."""
    lengths: Int[Tensor, "N"]
    """Number of tokens, EOS included."""
    has_ended: Bool[Tensor, "N"]
    """True where EOS was generated; False where the continuation was cut off."""


def left_padded(prompts: Sequence[Sequence[int]], *, pad: int) -> Prompts:
    """A batch of prompts, the last token of each in the last column."""
    shortest = min((len(prompt) for prompt in prompts), default=0)
    if shortest == 0:
        raise ValueError(f"found an empty prompt among {len(prompts)}: a prompt has at least one token")
    longest = max(len(prompt) for prompt in prompts)
    input_ids = torch.full((len(prompts), longest), pad)
    mask = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        input_ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = True
    return Prompts(input_ids, mask)


def uniforms(*, seed: int, iteration: int, prompt_ids: Sequence[int], num_positions: int) -> Float[Tensor, "N L"]:
    """Draws from [0, 1): each a function of (seed, iteration, prompt id, position) (Philox, Salmon et al. 2011)."""
    key = np.array([seed, iteration], dtype=np.uint64)
    streams = (np.random.Philox(key=key, counter=np.array([0, 0, number, 0], dtype=np.uint64)) for number in prompt_ids)
    rows = [np.random.Generator(stream).random(num_positions) for stream in streams]
    return torch.from_numpy(np.array(rows).reshape(len(prompt_ids), num_positions))


def truncated_probs(
    logits: Float[Tensor, "M V"], *, temperature: float, top_k: int, top_p: float
) -> Float[Tensor, "M V"]:
    """softmax(logits / temperature), restricted and renormalised.

    First to the `top_k` likeliest tokens (Fan et al. 2018; 0: all), then to the smallest set of the likeliest whose
    probability reaches `top_p` (Holtzman et al. 2020, eq. 2; 1: all).
    """
    probs = (logits.double() / temperature).softmax(-1)
    if top_k == 0 and top_p == 1.0:
        return probs
    num_kept = min(top_k, probs.shape[1]) if top_k else probs.shape[1]
    largest, tokens = probs.topk(num_kept, dim=-1)
    largest = largest / largest.sum(-1, keepdim=True)
    mass_before = largest.cumsum(-1) - largest
    largest = largest.masked_fill(mass_before >= top_p, 0.0)
    largest = largest / largest.sum(-1, keepdim=True)
    return torch.zeros_like(probs).scatter(1, tokens, largest)


def inverse_cdf(probs: Float[Tensor, "M V"], draws: Float[Tensor, "M"]) -> Int[Tensor, "M"]:
    """The first token at which the cumulative probability, in the order of the vocabulary, exceeds the draw."""
    cumulative = probs.cumsum(-1)
    return torch.searchsorted(cumulative, (draws * cumulative[:, -1])[:, None], right=True).squeeze(1)


@torch.no_grad()
def sample(
    model: PromptModel[S],
    prompts: Prompts,
    draws: Float[Tensor, "N L"],
    *,
    temperature: float,
    top_k: int,
    top_p: float,
    eos: int,
    pad: int,
    suppressed: Sequence[int] = (),
) -> Continuations:
    """Samples up to L tokens after each prompt, one for each of its draws (see `uniforms`).

    `suppressed` tokens are never generated: the distribution is that of the others.
    """
    if temperature <= 0.0:
        raise ValueError(f"temperature must be above 0, found {temperature}: see greedy for the likeliest token")
    if top_k < 0 or not 0.0 < top_p <= 1.0:
        raise ValueError(f"top_k must be 0 or more and top_p in (0, 1], found {top_k} and {top_p}")

    def choose(logits: Tensor, rows: Tensor, position: int) -> Tensor:
        probs = truncated_probs(logits, temperature=temperature, top_k=top_k, top_p=top_p)
        return inverse_cdf(probs, draws[rows, position].to(probs))

    return _generate(model, prompts, choose, max_new_tokens=draws.shape[1], eos=eos, pad=pad, suppressed=suppressed)


@torch.no_grad()
def greedy(
    model: PromptModel[S],
    prompts: Prompts,
    *,
    max_new_tokens: int,
    eos: int,
    pad: int,
    suppressed: Sequence[int] = (),
) -> Continuations:
    """Continues each prompt with the likeliest token at every step."""

    def choose(logits: Tensor, rows: Tensor, position: int) -> Tensor:
        return logits.argmax(-1)

    return _generate(model, prompts, choose, max_new_tokens=max_new_tokens, eos=eos, pad=pad, suppressed=suppressed)


def _generate(
    model: PromptModel[S],
    prompts: Prompts,
    choose: Callable[[Tensor, Tensor, int], Tensor],
    *,
    max_new_tokens: int,
    eos: int,
    pad: int,
    suppressed: Sequence[int],
) -> Continuations:
    """The loop: `choose(logits, rows, position)` gives the next token of each running row."""
    mask = prompts.mask
    num_rows = len(mask)
    segment_ids = mask.long() - 1
    position_ids = (mask.cumsum(1) - 1).clamp(min=0)
    logits, state = model.start(prompts.input_ids, segment_ids, position_ids)

    tokens = torch.full((num_rows, max_new_tokens), pad, device=mask.device)
    lengths = torch.zeros(num_rows, dtype=torch.long, device=mask.device)
    has_ended = torch.zeros(num_rows, dtype=torch.bool, device=mask.device)
    never = torch.tensor(list(suppressed), dtype=torch.long, device=mask.device)
    rows = torch.arange(num_rows, device=mask.device)
    for position in range(max_new_tokens):
        if len(never):
            logits = logits.index_fill(1, never, -torch.inf)
        chosen = choose(logits, rows, position).masked_fill(has_ended[rows], pad)
        tokens[rows, position] = chosen
        lengths[rows] += ~has_ended[rows]
        has_ended[rows] |= chosen == eos
        is_open = ~has_ended[rows]
        num_open = int(is_open.sum())
        if num_open == 0 or position + 1 == max_new_tokens:
            break
        # Dropping rows copies the whole state, so it waits until that pays.
        if num_open <= 0.8 * len(rows):
            kept = is_open.nonzero().squeeze(1)
            rows, chosen, state = rows[kept], chosen[kept], state.select(kept)
        logits, state = model.step(chosen, state)
    return Continuations(tokens, lengths, has_ended)
