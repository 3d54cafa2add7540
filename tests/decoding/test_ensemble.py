"""An ensemble decides by the mean of the probabilities of its members."""

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from pipeline.decoding.beam import beam_search
from pipeline.decoding.ensemble import Ensemble, EnsembleState, Member, mean_probability
from tests.decoding.toy import ToyModel, ToyState

SOURCES = tensor([11, 5, 7, 300])


def ensemble(*models: ToyModel) -> EnsembleState:
    return EnsembleState(tuple(Member(model, ToyState(SOURCES)) for model in models))


def other() -> ToyModel:
    model = ToyModel(vocab_size=6)
    model.table = model.table.flip(0)
    return model


def test_the_mean_of_two_distributions_is_that_of_their_probabilities() -> None:
    # Not of their logarithms, which would give sqrt(0.9 * 0.5) : sqrt(0.1 * 0.5) = 3 : 1.
    mean = mean_probability([tensor([[0.9, 0.1]]).log(), tensor([[0.5, 0.5]]).log()])
    assert_close(mean, tensor([[0.7, 0.3]]).log())


def test_each_step_is_the_mean_of_what_the_members_give_after_the_same_tokens() -> None:
    one, two = ToyModel(vocab_size=6), other()
    state, first, second = ensemble(one, two), ToyState(SOURCES), ToyState(SOURCES)
    for tokens, rows in ((tensor([3, 3, 3, 3]), tensor([3, 0, 0])), (tensor([1, 2, 4]), tensor([2, 1]))):
        found, state = Ensemble().step(tokens, state)
        ours, first = one.step(tokens, first)
        theirs, second = two.step(tokens, second)
        assert_close(found.exp(), (ours.softmax(1) + theirs.softmax(1)) / 2)
        state, first, second = state.select(rows), first.select(rows), second.select(rows)


@pytest.mark.parametrize("copies", [1, 2, 5])
def test_a_model_with_itself_finds_what_it_finds_alone_with_the_same_scores(copies: int) -> None:
    def search(model: object, state: object) -> list[list[tuple[tuple[int, ...], float, float]]]:
        found = beam_search(
            model,  # type: ignore[arg-type]
            state,  # type: ignore[type-var]
            bos=3, eos=0, max_lengths=tensor([9, 5, 12, 7]), beam_size=4, num_best=3, normalisation="length",
            length_penalty=1.0,
        )  # fmt: skip
        return [[(one.tokens, one.log_prob, one.score) for one in row] for row in found]

    alone = search(ToyModel(vocab_size=6), ToyState(SOURCES))
    together = search(Ensemble(), ensemble(*[ToyModel(vocab_size=6)] * copies))
    for ours, theirs in zip(together, alone, strict=True):
        assert [one[0] for one in ours] == [one[0] for one in theirs]
        for one, two in zip(ours, theirs, strict=True):
            assert one[1:] == pytest.approx(two[1:], abs=1e-4)


def test_logits_without_a_common_scale_do_not_matter() -> None:
    shifted = ToyModel(vocab_size=6)
    shifted.table = shifted.table + 50.0
    plain, _ = Ensemble().step(tensor([1, 2, 3, 4]), ensemble(ToyModel(vocab_size=6), other()))
    moved, _ = Ensemble().step(tensor([1, 2, 3, 4]), ensemble(shifted, other()))
    assert_close(plain, moved, atol=1e-5, rtol=0)
    assert_close(plain.exp().sum(1), torch.ones(4))
