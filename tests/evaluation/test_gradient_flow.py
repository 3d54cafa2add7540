"""How far a gradient reaches back: networks whose gradients are known by hand, and every decoder in one picture."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.data.batches import TranslationBatch
from pipeline.evaluation.gradient_flow import decoder_gradients, gradient_by_distance
from pipeline.models.recurrent import Recurrent, RecurrentConfig

V, PAD = 23, 22


@pytest.mark.parametrize("weight", [0.5, -0.9, 1.2])
def test_the_gradient_of_a_linear_network_is_a_power_of_its_weight(weight: float) -> None:
    """h_t = w h_(t-1) + x_t and loss_t = 3 h_t: |d loss_t / d h_(t-k)| = 3 |w|^k."""
    hidden, states = torch.zeros(1, 2, 1, requires_grad=True), []
    for x in torch.randn(6, 1, 2, 1):
        hidden = weight * hidden + x
        states.append((hidden,))
    losses = [3.0 * one[0, :, 0] for (one,) in states]
    found = gradient_by_distance(states, losses, torch.ones(2, 6).bool(), longest=4)
    assert found == pytest.approx([3.0 * abs(weight) ** k for k in range(5)])


def test_the_gradient_of_an_lstm_with_open_gates_does_not_fade() -> None:
    """Gates of one: c_t = c_(t-1) + g_t, h_t = tanh(c_t); without recurrent weights d h_t / d c_(t-k) = 1 - h_t^2."""
    cell = nn.LSTM(1, 1, batch_first=True)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        dict(cell.named_parameters())["bias_ih_l0"][:] = torch.tensor([40.0, 40.0, 0.3, 40.0])
    states, state = [], (torch.zeros(1, 1, 1).requires_grad_(), torch.zeros(1, 1, 1).requires_grad_())
    for _ in range(5):
        _, state = cell(torch.zeros(1, 1, 1), state)
        states.append(state)
    losses = [one[0, :, 0] for one, _ in states]
    is_last = torch.arange(5)[None] == 4
    found = gradient_by_distance(states, losses, is_last, longest=9)
    slope = 1 - math.tanh(5 * math.tanh(0.3)) ** 2
    assert found == pytest.approx([1.0, *[slope] * 4])


def test_only_counted_losses_that_reach_back_so_far_are_in_a_mean() -> None:
    """Rows of other lengths: distance 2 is known from the longer row alone."""
    weights, hidden, states = torch.tensor([0.5, 2.0]).view(1, 2, 1), torch.zeros(1, 2, 1, requires_grad=True), []
    for _ in range(3):
        hidden = weights * hidden
        states.append((hidden,))
    counted = torch.tensor([[True, True, True], [True, True, False]])
    losses = [torch.where(counted[:, t], one[0, :, 0], torch.nan) for t, (one,) in enumerate(states)]
    found = gradient_by_distance(states, losses, counted, longest=9)
    assert found == pytest.approx([1.0, (0.5 + 0.5 + 2.0) / 3, 0.25])


def decoder(**shape: Any) -> tuple[Recurrent, TranslationBatch]:
    torch.manual_seed(0)
    base = {"kind": "recurrent", "cell": "gru", "vocab_size": V, "d_embedding": 10, "d_hidden": 12, "max_length": 12}
    model = Recurrent(RecurrentConfig.model_validate(base | shape)).eval()
    src, tgt, labels = (torch.randint(0, V - 1, (3, n)) for n in (5, 6, 6))
    is_target = torch.arange(6) < torch.tensor([[6], [4], [1]])
    return model, TranslationBatch(
        src, torch.ones_like(src).bool(), tgt, labels.masked_fill(~is_target, PAD), is_target
    )


@pytest.mark.parametrize(
    "shape",
    [
        {"cell": "rnn", "attention": "none"},
        {"cell": "gru", "attention": "none", "context": "every"},
        {"cell": "lstm", "attention": "general", "input_feeding": True},
    ],
)
def test_the_gradients_of_a_decoder_are_those_of_one_sentence_at_a_time(shape: dict[str, Any]) -> None:
    """Each loss of each sentence by finite differences of the state that the decoder goes on from."""
    model, batch = decoder(**shape)
    model.double()
    totals: dict[int, list[float]] = {}
    for row in range(3):
        src, tgt = batch.src[row : row + 1], batch.tgt[row : row + 1]
        for t in range(int(batch.is_target[row].sum())):
            for k in range(t + 1):
                totals.setdefault(k, []).append(_by_differences(model, src, tgt, int(batch.labels[row, t]), t, k))
    found = decoder_gradients(model, batch, longest=20)
    expected = [sum(norms) / len(norms) for _, norms in sorted(totals.items())]
    assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-3, atol=1e-6)


@torch.no_grad()
def _by_differences(model: Recurrent, src: Tensor, tgt: Tensor, label: int, t: int, k: int) -> float:
    """The norm of the gradient of -log p(label) at t by the state at t - k, one element after the other."""
    state = model.start(src, torch.ones_like(src).bool())
    for i in range(t - k + 1):
        before = state
        _, state = model.step(tgt[:, i], state)
    squares, step = 0.0, 1e-5
    for part, values in enumerate(state.hidden):
        for place in range(values.numel()):
            losses = []
            for sign in (1.0, -1.0):
                changed = values.clone().flatten()
                changed[place] += sign * step
                parts = [*state.hidden]
                parts[part] = changed.view_as(values)
                # The attentional state of the changed step follows from its state.
                shifted = replace(state, hidden=tuple(parts))
                token = model._embed(tgt[:, t - k].unsqueeze(1), model.embeddings.target)
                read = model._read_out(shifted.hidden[0][-1].unsqueeze(1), token, before.memory, before.src_mask)
                shifted, logits = replace(shifted, feed=read[:, 0]), model.logits(read[:, 0])
                for i in range(t - k + 1, t + 1):
                    logits, shifted = model.step(tgt[:, i], shifted)
                losses.append(-float(logits.log_softmax(-1)[0, label]))
            squares += ((losses[0] - losses[1]) / (2 * step)) ** 2
    return math.sqrt(squares)
