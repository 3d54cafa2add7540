"""Rated texts -> preference pairs: of two texts on the same domain, people prefer the one that they rated higher.

The texts of one split make the pairs of that split; a text never meets one of another split.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.data.draws import draw_bits
from pipeline.data.records import Message, Rated


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to one prompt, the better one first."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    chosen_id: str
    rejected_id: str
    distance: float
    """Mean rating of the chosen text minus that of the rejected."""
    agreement: float
    """Share of the pairs of annotators, one of each text, whose ratings order the texts alike; ties count half."""


def pairs_from_ratings(
    texts: Sequence[Rated], *, prompts: Mapping[str, str], min_distance: float, max_uses: int, seed: int
) -> tuple[PreferencePair, ...]:
    """Pairs of texts of the same domain whose mean ratings are at least `min_distance` apart.

    No text is in more than `max_uses` pairs and no pair is made twice. Each text in turn, in an order drawn from the
    seed, takes partners at random among those far enough away that are still free. `prompts` gives the prompt of each
    domain; domains without one are left out. Raises ValueError when no pair can be made.
    """
    pairs = []
    for domain, prompt in sorted(prompts.items()):
        group = sorted((text for text in texts if text.domain == domain), key=lambda text: (text.mean, text.id))
        message = (Message(role="user", content=prompt),)
        for low, high in _couples([text.mean for text in group], min_distance, max_uses, seed):
            pairs.append(_pair(message, chosen=group[high], rejected=group[low]))
    if not pairs:
        raise ValueError(
            f"no two of {len(texts)} texts on the domains {sorted(prompts)} are rated {min_distance} apart; "
            f"found the domains {sorted({text.domain for text in texts})}"
        )
    return tuple(pairs)


def agreement(chosen: Sequence[int], rejected: Sequence[int]) -> float:
    """Probability that a random annotator of `chosen` rated higher than a random one of `rejected`; ties count half.

    Raises ValueError where a text has no individual ratings.
    """
    if not chosen or not rejected:
        raise ValueError("the agreement of annotators needs the individual ratings of both texts")
    difference = np.array(chosen)[:, None] - np.array(rejected)[None, :]  # (R1, R2)
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def _couples(means: Sequence[float], min_distance: float, max_uses: int, seed: int) -> list[tuple[int, int]]:
    """(lower, higher) numbers of ascending means, in the order in which they were drawn."""
    values = np.array(means, dtype=np.float64)
    uses = np.zeros(len(values), dtype=np.int64)
    made: dict[tuple[int, int], None] = {}
    order = np.argsort(draw_bits(seed, 0, np.arange(len(values))), kind="stable")
    # A tolerance: means are decimal fractions, so 2.3 - 1.3 is not exactly 1.
    lowest, highest = np.searchsorted(values, [values - min_distance + 1e-9, values + min_distance - 1e-9])
    for turn in range(max_uses):
        for i in order.tolist():
            if uses[i] > turn:
                continue
            free = np.concatenate([np.arange(lowest[i]), np.arange(highest[i], len(values))])
            free = free[uses[free] < max_uses]
            for j in free[np.argsort(draw_bits(seed, 1, turn, i, free))].tolist():
                couple = (min(i, j), max(i, j))
                if couple not in made:
                    made[couple] = None
                    uses[[i, j]] += 1
                    break
    return list(made)


def _pair(prompt: tuple[Message, ...], *, chosen: Rated, rejected: Rated) -> PreferencePair:
    return PreferencePair(
        prompt=prompt,
        chosen=chosen.text,
        rejected=rejected.text,
        chosen_id=chosen.id,
        rejected_id=rejected.id,
        distance=chosen.mean - rejected.mean,
        agreement=agreement(chosen.ratings, rejected.ratings),
    )
