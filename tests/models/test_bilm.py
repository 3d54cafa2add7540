"""The bidirectional language model: each direction sees its own side alone, and padding changes nothing."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.models.bilm import BidirectionalLM, BiLMConfig
from pipeline.models.bilstm import turned_places

CONFIG = BiLMConfig(vocab_size=23, d_model=6, d_hidden=8, num_layers=2)
E = 6


def tiny(config: BiLMConfig = CONFIG) -> BidirectionalLM:
    torch.manual_seed(0)
    return BidirectionalLM(config).eval()


def ids(*shape: int) -> Tensor:
    return torch.randint(3, 23, shape, generator=torch.Generator().manual_seed(1))


def directions(model: BidirectionalLM, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The top states ahead and back."""
    ahead, back = model(tokens, torch.ones_like(tokens).bool())[-1].chunk(2, dim=2)
    return ahead, back


@torch.no_grad()
@pytest.mark.parametrize("place", range(6))
def test_a_token_reaches_the_states_at_and_behind_it_ahead_and_those_at_and_before_it_back(place: int) -> None:
    model, tokens = tiny(), ids(1, 6)
    changed = tokens.clone()
    changed[0, place] = 2
    moved = [
        ((new - old).abs() > 0).any(2)[0].tolist()
        for new, old in zip(directions(model, changed), directions(model, tokens), strict=True)
    ]
    assert moved[0] == [t >= place for t in range(6)]
    assert moved[1] == [t <= place for t in range(6)]


@torch.no_grad()
@pytest.mark.parametrize("d_hidden", [6, 8])
def test_padding_changes_no_state_of_any_layer(d_hidden: int) -> None:
    model, tokens = tiny(CONFIG.model_copy(update={"d_hidden": d_hidden})), ids(2, 6)
    mask = torch.arange(9) < torch.tensor([[6], [3]])
    padded = model(torch.cat([tokens, tokens[:, :3]], 1), mask)
    for row, length in enumerate((6, 3)):
        alone = model(tokens[row : row + 1, :length], torch.ones(1, length).bool())
        assert len(alone) == 3
        for layer, expected in zip(padded, alone, strict=True):
            assert_close(layer[row, :length], expected[0], atol=1e-6, rtol=0)


def test_turning_keeps_padding_behind_and_twice_is_nothing() -> None:
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    turned = turned_places(mask)
    assert turned.tolist() == [[2, 1, 0, 3], [0, 1, 2, 3]]
    assert torch.equal(turned.gather(1, turned), torch.arange(4).expand(2, 4))


@torch.no_grad()
def test_back_is_ahead_over_the_text_turned_round_with_the_same_weights() -> None:
    model, tokens = tiny(), ids(2, 5)
    model.back.load_state_dict(model.ahead.state_dict())
    ahead, _ = directions(model, tokens.flip(1))
    _, back = directions(model, tokens)
    assert_close(back, ahead.flip(1))


@torch.no_grad()
def test_the_lowest_layer_is_the_token_vector_twice_and_the_second_lstm_adds_to_the_first() -> None:
    model, tokens = tiny(), ids(1, 5)
    vectors, first, second = model(tokens, torch.ones_like(tokens).bool())
    embedded = model.token_embedding(tokens)
    assert_close(vectors, torch.cat([embedded, embedded], 2))
    lower, upper = model.ahead.layers
    below = lower(embedded)[0]
    assert_close(first[..., :E], below)
    assert_close(second[..., :E], below + upper(below)[0])


def test_directions_share_vectors_and_softmax_and_no_lstm() -> None:
    model = tiny()
    modules = [module for module in model.modules() if isinstance(module, nn.Embedding | nn.Linear | nn.LSTM)]
    assert [type(module).__name__ for module in modules] == ["Embedding", *["LSTM"] * 4, "Linear"]
    ahead, back = (next(part.parameters()) for part in (model.ahead, model.back))
    assert not torch.equal(ahead, back)


def test_cells_fewer_than_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="d_hidden must be at least d_model, found 5 and 6"):
        BiLMConfig(vocab_size=23, d_model=6, d_hidden=5, num_layers=1)
