"""The n-gram model against dictionaries that follow the definition, and as a probability distribution."""

import math
import random
from collections import Counter, defaultdict

import numpy as np
import pytest

from pipeline.evaluation.kneser_ney import KneserNey, train_kneser_ney

VOCAB_SIZE = 7


def _text(length: int, *, seed: int = 0) -> list[int]:
    """A text with habits, of the tokens 0 to 5: the last token of the vocabulary never occurs."""
    draw = random.Random(seed)
    tokens = [0, 1]
    while len(tokens) < length:
        habit = (tokens[-1] + 2 * tokens[-2] + 1) % 6
        tokens.append(habit if draw.random() < 0.6 else min(int(draw.expovariate(0.6)), 5))
    return tokens


class Oracle:
    """Modified Kneser-Ney with dictionaries, recursion and no arrays."""

    def __init__(self, tokens: list[int], order: int) -> None:
        grams = {n: Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)) for n in range(1, order + 1)}
        self.counts: dict[int, dict[tuple[int, ...], int]] = {order: dict(grams[order])}
        for n in range(1, order):
            before: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
            for gram in grams[n + 1]:
                before[gram[1:]].add(gram[0])
            self.counts[n] = {gram: len(tokens_before) for gram, tokens_before in before.items()}
        self.discounts = {n: self._discounts(self.counts[n]) for n in self.counts}

    @staticmethod
    def _discounts(counts: dict[tuple[int, ...], int]) -> list[float]:
        n = [0.0] + [float(sum(count == k for count in counts.values())) for k in range(1, 5)]
        if 0.0 in n[1:]:
            return [0.0, 0.5, 1.0, 1.5]
        y = n[1] / (n[1] + 2 * n[2])
        raw = [k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3)]
        return [0.0, *raw] if min(raw) > 0.0 else [0.0, 0.5, 1.0, 1.5]

    def prob(self, context: tuple[int, ...], token: int) -> float:
        n = len(context) + 1
        lower = 1 / VOCAB_SIZE if n == 1 else self.prob(context[1:], token)
        after = {gram[-1]: count for gram, count in self.counts[n].items() if gram[:-1] == context}
        if not after:
            return lower
        total = sum(after.values())
        taken = {w: self.discounts[n][min(count, 3)] for w, count in after.items()}
        own = after[token] - taken[token] if token in after else 0.0
        return (own + sum(taken.values()) * lower) / total


def _next(model: KneserNey, context: list[int]) -> list[float]:
    """p(token | context) for every token."""
    return [math.exp(model.log_probs(np.array([*context, token]))[-1]) for token in range(VOCAB_SIZE)]


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [12, 400, 3000])
def test_probabilities_equal_those_of_the_definition(order: int, length: int) -> None:
    train, test = _text(length), [*_text(60, seed=1), 6, 6, 2, 1]
    model, oracle = train_kneser_ney(np.array(train), vocab_size=VOCAB_SIZE, order=order), Oracle(train, order)
    expected = [math.log(oracle.prob(tuple(test[max(0, i - order + 1) : i]), test[i])) for i in range(len(test))]
    np.testing.assert_allclose(model.log_probs(np.array(test)), expected, rtol=1e-10)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_of_every_context_sum_to_one(order: int) -> None:
    train = _text(400)
    model = train_kneser_ney(np.array(train), vocab_size=VOCAB_SIZE, order=order)
    contexts = [[], [6], train[:4], train[-4:], [5, 5, 5, 5], [6, 0, 1], *(train[i : i + 4] for i in range(30))]
    for context in contexts:
        probs = _next(model, context)
        assert sum(probs) == pytest.approx(1.0, abs=1e-12)
        assert min(probs) > 0.0


def test_a_token_that_follows_many_others_is_likelier_in_a_new_context_than_a_frequent_one_that_follows_few() -> None:
    # 5 ("Francisco") stands 30 times, always after 4; 0 stands 12 times, after 1, 2 and 3.
    train = [4, 5] * 30 + [1, 0, 2, 0, 3, 0] * 4
    model = train_kneser_ney(np.array(train), vocab_size=VOCAB_SIZE, order=2)
    probs = _next(model, [6])  # 6 was never seen
    assert probs[0] > probs[5]


def test_a_longer_context_predicts_better_where_the_text_has_habits() -> None:
    train, test = np.array(_text(5000)), np.array(_text(2000, seed=1))
    losses = [
        -train_kneser_ney(train, vocab_size=VOCAB_SIZE, order=order).log_probs(test).mean() for order in (1, 2, 3)
    ]
    assert losses[0] > losses[1] > losses[2]


def test_tokens_outside_the_vocabulary_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be in 0\.\.6, found 0\.\.7"):
        train_kneser_ney(np.array([0, 7]), vocab_size=VOCAB_SIZE, order=1)


def test_a_text_shorter_than_the_order_is_refused() -> None:
    with pytest.raises(ValueError, match=r"order in 1\.\.2 .* found 5"):
        train_kneser_ney(np.array([0, 1]), vocab_size=VOCAB_SIZE, order=5)
