"""Token vectors narrowed to those that are read: the same training, and the others as they were."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.config import OptimizerConfig
from pipeline.models.bert import Bert, BertConfig
from pipeline.models.bilstm import BiLSTM, BiLSTMConfig
from pipeline.models.gpt import GPT, GPTConfig
from pipeline.models.read_rows import ReadRows, narrow, widen
from pipeline.models.text_encoders import GPTEncoder
from pipeline.training.base import build_optimizer

V = 40
READ = np.array([0, 2, 3, 11, 12, 39])

Trained = Bert | BiLSTM


def bert() -> Bert:
    return Bert(BertConfig(vocab_size=V, d_model=16, num_layers=2, num_heads=2, d_ff=24, max_length=9, dropout=0.0))


def bilstm() -> BiLSTM:
    return BiLSTM(BiLSTMConfig(vocab_size=V, d_embedding=6, d_hidden=5, num_layers=1, max_length=9))


def states(model: nn.Module, step: int) -> Tensor:
    """States of the real tokens of two rows, all of which are among those that are read."""
    drawn = np.random.default_rng(step)
    ids = torch.from_numpy(drawn.choice(READ, (2, 7)))
    mask = torch.arange(7) < torch.tensor([7, 4])[:, None]
    found: Tensor = model(torch.where(mask, ids, 0), torch.zeros_like(ids), mask)
    return found[mask]


def train(model: nn.Module, *, weight_decay: float) -> list[Tensor]:
    """The loss of every step."""
    optimizer = build_optimizer(
        model, OptimizerConfig(lr=0.01, betas=(0.9, 0.999), weight_decay=weight_decay, clip_norm=1.0), fused=True
    )
    losses = []
    for step in range(12):
        loss = states(model, step).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
    return losses


@pytest.mark.parametrize("build", [bert, bilstm])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_a_training_is_the_same_and_leaves_all_other_vectors_as_they_were(
    build: Callable[[], Trained], weight_decay: float
) -> None:
    torch.manual_seed(0)
    whole = build()
    before, narrowed = whole.token_embedding.weight.detach().clone(), copy.deepcopy(whole)
    table = narrow(narrowed, READ)
    assert table is not None and narrowed.token_embedding.weight.shape == (len(READ), before.size(1))
    losses = train(whole, weight_decay=weight_decay)
    assert losses[-1] < 0.9 * losses[0]
    assert_close(train(narrowed, weight_decay=weight_decay), losses, atol=1e-5, rtol=1e-5)
    widen(narrowed, table)
    assert narrowed.state_dict().keys() == whole.state_dict().keys()
    found, wanted = (model.state_dict() for model in (narrowed, whole))
    unread = np.setdiff1d(np.arange(V), READ)
    name = "token_embedding.weight"
    assert torch.equal(found[name][unread], before[unread])
    # By its decay alone AdamW would have made them smaller.
    assert_close(wanted[name][unread], before[unread] * (1 - 0.01 * weight_decay) ** 12)
    assert (found[name][READ[1:]] - before[READ[1:]]).abs().amin() > 0
    found[name], wanted[name] = found[name][READ], wanted[name][READ]
    assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_a_copy_of_the_narrowed_model_is_widened_and_keeps_its_own_rows() -> None:
    """As under DeepSpeed, which trains the model itself and hands the numbers to a copy."""
    torch.manual_seed(0)
    model = bert()
    before = model.token_embedding.weight.detach().clone()
    table = narrow(model, READ)
    assert table
    copied = copy.deepcopy(model)
    with torch.no_grad():
        copied.token_embedding.weight.add_(1.0)
    widen(nn.Sequential(copied), table)
    unread = np.setdiff1d(np.arange(V), READ)
    now = copied.token_embedding
    assert type(now) is nn.Embedding and now.weight.requires_grad
    assert torch.equal(now.weight[READ], before[READ] + 1.0) and torch.equal(now.weight[unread], before[unread])


def test_a_token_that_is_not_among_those_read_is_refused() -> None:
    model = bert()
    narrow(model, READ)
    with pytest.raises(IndexError):
        model.token_embedding(torch.tensor([2, 4]))


def test_the_rows_say_in_a_checkpoint_which_tokens_they_are() -> None:
    first, second = bert(), bert()
    narrow(first, READ)
    narrow(second, READ + np.array([0, 0, 1, 0, 0, 0]))
    assert isinstance(first.token_embedding, ReadRows)
    places = [model.state_dict()["token_embedding.place"] for model in (first, second)]
    assert places[0].tolist()[:5] == [0, -1, 1, 2, -1] and places[1].tolist()[:5] == [0, -1, 1, -1, 2]


def test_a_gpt_whose_vectors_predict_all_tokens_is_left_as_it_is() -> None:
    encoder = GPTEncoder(GPT(GPTConfig(vocab_size=V, d_model=16, num_layers=1, num_heads=2, max_length=9)))
    names = set(encoder.state_dict())
    assert narrow(encoder, READ) is None and set(encoder.state_dict()) == names
