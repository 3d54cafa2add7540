"""An interpolated n-gram model with modified Kneser-Ney smoothing: the baseline that a small language model must beat.

Legend: N tokens of a text, G distinct n-grams of one order, H distinct contexts (n-grams of the order below), V
vocabulary. After Chen and Goodman 1999: interpolated, with a discount each for counts of one, two, and three or more.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

Ids = Integer[np.ndarray, "N"]


@dataclass(frozen=True)
class _Order:
    """The n-grams of one order. The number of an n-gram is its place in `keys`."""

    keys: Integer[np.ndarray, "G"]
    """Number of the context * V + last token, sorted."""
    discounted: Float[np.ndarray, "G"]
    """Count less discount."""
    totals: Float[np.ndarray, "H"]
    """Sum of the counts after each context; 0 where it was seen only as the end of the text."""
    discounts: Float[np.ndarray, "H"]
    """What was taken off them: the share of the lower order."""


@dataclass(frozen=True)
class KneserNey:
    """Trained model; `orders[0]` holds single tokens."""

    orders: tuple[_Order, ...]
    vocab_size: int

    def log_probs(self, tokens: Ids) -> Float[np.ndarray, "N"]:
        """Natural log-probability of every token given up to n - 1 tokens before it."""
        _check(tokens, self.vocab_size)
        probs = np.full(len(tokens), 1.0 / self.vocab_size)
        contexts = np.zeros(len(tokens), dtype=np.int64)  # number of the n - 1 tokens before each token, -1 if unseen
        for order in self.orders:
            is_known = contexts >= 0
            totals = np.where(is_known, order.totals[contexts], 0.0)
            numbers = _lookup(order.keys, np.where(is_known, contexts * self.vocab_size + tokens, -1))
            discounted = np.where(numbers >= 0, order.discounted[numbers], 0.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                interpolated = (discounted + order.discounts[contexts] * probs) / totals
            probs = np.where(totals > 0, interpolated, probs)
            contexts = np.concatenate([[-1], numbers[:-1]])
        log_probs: np.ndarray = np.log(probs)
        return log_probs


def train_kneser_ney(tokens: Ids, *, vocab_size: int, order: int) -> KneserNey:
    """Counts the n-grams of one running text; documents are separated by a token of their own.

    The highest order counts occurrences; a lower one counts the different tokens found before its n-grams.
    """
    _check(tokens, vocab_size)
    if order < 1 or len(tokens) < order:
        raise ValueError(f"an order in 1..{len(tokens)} is possible with {len(tokens)} tokens, found {order}")
    levels: list[tuple[np.ndarray, np.ndarray]] = []  # keys and counts of each order
    numbers = np.zeros(len(tokens) + 1, dtype=np.int64)  # the empty n-gram before, between and after the tokens
    for n in range(1, order + 1):
        # numbers[i] is the (n - 1)-gram before token i + n - 1, and numbers[i + 1] the one that ends with it.
        keys, first, inverse, counts = np.unique(
            numbers[:-1] * vocab_size + tokens[n - 1 :], return_index=True, return_inverse=True, return_counts=True
        )
        if n > 1:
            lower_keys = levels[-1][0]
            levels[-1] = (lower_keys, np.bincount(numbers[1:][first], minlength=len(lower_keys)))
        levels.append((keys, counts))
        numbers = inverse
    sizes = [1, *(len(keys) for keys, _ in levels)]
    orders = tuple(
        _smoothed(keys, counts, keys // vocab_size, num_contexts)
        for (keys, counts), num_contexts in zip(levels, sizes, strict=False)
    )
    return KneserNey(orders, vocab_size)


def _smoothed(
    keys: Integer[np.ndarray, "G"],
    counts: Integer[np.ndarray, "G"],
    contexts: Integer[np.ndarray, "G"],
    num_contexts: int,
) -> _Order:
    """One order with its counts discounted."""
    by_count = np.concatenate([[0.0], _discounts(counts)])
    discount = by_count[np.minimum(counts, 3)]
    return _Order(
        keys=keys,
        discounted=counts - discount,
        totals=np.bincount(contexts, weights=counts, minlength=num_contexts),
        discounts=np.bincount(contexts, weights=discount, minlength=num_contexts),
    )


def _discounts(counts: Integer[np.ndarray, "G"]) -> Float[np.ndarray, "3"]:
    """Chen and Goodman's estimates from the numbers of n-grams seen once to four times.

    A text too small for positive estimates gets (0.5, 1, 1.5), KenLM's fallback: every context leaves a share to the
    lower order, so that no token is impossible.
    """
    fallback = np.array([0.5, 1.0, 1.5])
    n1, n2, n3, n4 = (int((counts == k).sum()) for k in range(1, 5))
    if not (n1 and n2 and n3 and n4):
        return fallback
    y = n1 / (n1 + 2 * n2)
    estimates = np.array([1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    return estimates if (estimates > 0.0).all() else fallback


def _lookup(keys: Integer[np.ndarray, "G"], wanted: Ids) -> Ids:
    """Place of each wanted key, -1 where it is not there."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found: np.ndarray = np.where(keys[places] == wanted, places, -1)
    return found


def _check(tokens: Ids, vocab_size: int) -> None:
    if len(tokens) and (tokens.min() < 0 or tokens.max() >= vocab_size):
        raise ValueError(f"tokens must be in 0..{vocab_size - 1}, found {tokens.min()}..{tokens.max()}")
