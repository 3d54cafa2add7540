"""Recurrent translation models: the papers' equations by hand, padding, causality, steps against teacher forcing."""

import math
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.config import load
from pipeline.models.dropout import Dropout
from pipeline.models.recurrent import Recurrent, RecurrentConfig
from pipeline.models.translation import TokenProjection
from tests.models import slow_recurrent

V, PAD = 23, 22

BASE: dict[str, object] = {
    "kind": "recurrent",
    "cell": "gru",
    "vocab_size": V,
    "d_embedding": 10,
    "d_hidden": 12,
    "num_layers": 2,
    "max_length": 12,
}

DECODERS: list[dict[str, object]] = [{"attention": "none"}, {"attention": "none", "context": "every"}]
for fed in (False, True):
    DECODERS += [{"attention": kind, "input_feeding": fed} for kind in ("additive", "dot", "general")]
    DECODERS += [{"attention": "local_p", "input_feeding": fed, "window": 2}]
EVERY: list[dict[str, object]] = [
    {"cell": cell, "bidirectional": both, "num_layers": layers, **decoder}
    for cell, both, layers, decoder in product(("rnn", "lstm", "gru"), (True, False), (1, 2), DECODERS)
    if not (both and decoder["attention"] == "dot")
]
EVERY += [{**decoder, "bidirectional": False, "scale_embedding": False} for decoder in DECODERS]
"""All that the configuration allows of cell, encoder, depth and decoder."""

VARIANTS: list[dict[str, object]] = [
    {"cell": "gru", "attention": "additive"},
    {"cell": "lstm", "attention": "general", "input_feeding": True, "tied_embeddings": "decoder"},
    {"cell": "rnn", "attention": "dot", "bidirectional": False, "num_layers": 1},
    {"cell": "lstm", "attention": "none", "tied_embeddings": "none"},
    {"cell": "gru", "attention": "none", "context": "every"},
    {"cell": "gru", "attention": "additive", "input_feeding": True, "bidirectional": False},
    {"cell": "gru", "attention": "local_p", "window": 1, "scale_embedding": False},
    {"cell": "lstm", "attention": "local_p", "input_feeding": True},
]


def tiny(variant: dict[str, object]) -> Recurrent:
    torch.manual_seed(0)
    model = Recurrent(RecurrentConfig.model_validate(BASE | variant))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return model.eval()


def ids(*shape: int) -> Tensor:
    return torch.randint(0, V - 1, shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_of_source_and_target_does_not_change_the_logits(variant: dict[str, object]) -> None:
    model, src, tgt = tiny(variant), ids(2, 5), ids(2, 4)
    alone = [
        model.logits(model(src[i : i + 1, :n], torch.ones(1, n).bool(), tgt[i : i + 1])) for i, n in ((0, 5), (1, 3))
    ]
    padded_src = torch.cat([src, torch.full((2, 3), PAD)], dim=1)
    mask = torch.arange(8) < torch.tensor([[5], [3]])
    padded_tgt = torch.cat([tgt, torch.full((2, 2), PAD)], dim=1)
    padded = model.logits(model(padded_src, mask, padded_tgt))
    assert_close(padded[:, :4], torch.cat(alone), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_equal_teacher_forcing_also_after_rows_are_selected(variant: dict[str, object]) -> None:
    model, src, tgt = tiny(variant), ids(3, 5), ids(3, 6)
    tgt[:, 0] = PAD
    mask = torch.arange(5) < torch.tensor([[5], [3], [4]])
    full = model.logits(model(src, mask, tgt))
    state = model.start(src, mask)
    for t in range(3):
        logits, state = model.step(tgt[:, t], state)
        assert_close(logits, full[:, t], atol=1e-5, rtol=0)
    rows = torch.tensor([2, 0, 0])
    state = state.select(rows)
    for t in range(3, 6):
        logits, state = model.step(tgt[rows, t], state)
        assert_close(logits, full[rows, t], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_states_depend_on_the_source_and_on_earlier_target_tokens_only(variant: dict[str, object]) -> None:
    model, src, tgt = tiny(variant), ids(2, 5), ids(2, 6)
    mask = torch.ones_like(src).bool()
    hidden = model(src, mask, tgt)
    later, other = tgt.clone(), src.clone()
    later[:, 3:] = (later[:, 3:] + 1) % (V - 1)
    other[:, 0] = (other[:, 0] + 1) % (V - 1)
    assert torch.equal(hidden[:, :3], model(src, mask, later)[:, :3])
    assert ((hidden - model(src, mask, later)).abs().amax(-1)[:, 3:] > 0).all()
    assert ((hidden - model(other, mask, tgt)).abs().amax(-1) > 0).all()


@torch.no_grad()
@pytest.mark.parametrize("variant", EVERY, ids=lambda variant: "-".join(map(str, variant.values())))
def test_every_variant_gives_the_scores_of_its_equations_in_training_and_in_steps(variant: dict[str, object]) -> None:
    model, src, tgt = tiny(variant), ids(2, 6), ids(2, 4)
    tgt[:, 0] = PAD
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    expected = torch.stack([slow_recurrent.logits(model, src[i, :n], tgt[i]) for i, n in ((0, 6), (1, 4))])
    assert_close(model.logits(model(src, mask, tgt)), expected, atol=1e-5, rtol=0)
    state = model.start(src, mask)
    for t in range(4):
        scores, state = model.step(tgt[:, t], state)
        assert_close(scores, expected[:, t], atol=1e-5, rtol=0)


def weights(model: Recurrent, states: Tensor, length: int) -> Tensor:
    """What a model's attention gives each of `length` source positions, all of which it sees: the mean of units."""
    src = ids(len(states), length)
    memory = replace(
        model.encode(src, src != PAD), outputs=torch.eye(length, dtype=states.dtype).expand(len(states), -1, -1)
    )
    found: Tensor = model.attention(states, memory, src != PAD)
    return found


@torch.no_grad()
def test_local_attention_looks_at_the_window_around_the_predicted_position_and_nowhere_else() -> None:
    """With v = 0 the position is S / 2 = 4 (eq. 9), with equal scores each of the five inside has a fifth (eq. 10)."""
    model = tiny({"attention": "local_p", "window": 2})
    model.attention.centre.weight.zero_()
    model.attention.key.weight.zero_()
    gaussian = torch.tensor([math.exp(-2.0), math.exp(-0.5), 1.0, math.exp(-0.5), math.exp(-2.0)])  # sigma = 1
    expected = torch.cat([torch.zeros(2), gaussian / 5, torch.zeros(1)])
    assert_close(weights(model, torch.randn(2, 3, 12), 8), expected.expand(2, 3, 8))


@torch.no_grad()
@pytest.mark.parametrize("end", [-1.0, 1.0])
def test_a_predicted_position_at_either_end_of_a_source_still_has_a_word_in_its_window(end: float) -> None:
    model = tiny({"attention": "local_p", "window": 1})
    model.attention.position.weight.fill_(1e3)
    model.attention.centre.weight.fill_(1e3)
    for length in (1, 2, 7):
        found = weights(model, torch.full((1, 1, 12), end), length)[0, 0]
        inside = torch.arange(length) > length - 2 if end > 0 else torch.arange(length) < 2
        assert found.isfinite().all() and ((found > 0) == inside).all()


@torch.no_grad()
def test_lower_precision_by_autocast_looks_at_the_same_positions_of_a_long_source() -> None:
    """With equal scores the weights are those of the positions; bfloat16 has no odd number behind 256."""
    model = tiny({"attention": "local_p", "max_length": 400, "window": 3})
    model.attention.key.weight.zero_()
    model.attention.centre.weight.mul_(4.0)
    states = torch.randn(1, 64, 12)
    expected = weights(model, states, 400)
    assert expected[0, :, 256:].any() and expected[0, :, :256].any()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = weights(model, states, 400).float()
    moved = (found - expected).abs().sum(-1) / expected.sum(-1)
    assert moved.max() < 0.02


@torch.no_grad()
def test_positions_are_not_rounded_where_the_weights_are_bfloat16_themselves() -> None:
    """DeepSpeed trains such weights without autocast."""
    model = tiny({"attention": "local_p", "max_length": 400, "window": 3}).to(torch.bfloat16)
    model.attention.key.weight.zero_()
    found = weights(model, torch.randn(1, 64, 12, dtype=torch.bfloat16), 400)
    numbers, (far,) = torch.arange(400), found[0, :, 256:].any(1).nonzero(as_tuple=True)
    assert found.dtype == torch.bfloat16 and len(far)
    for row in found[0, far].float():
        centre = float((numbers * row).sum() / row.sum())
        assert row[(numbers - centre).abs() <= 2.5].all() and not row[(numbers - centre).abs() > 3.5].any()


def test_gradients_reach_the_prediction_of_the_position() -> None:
    model, src, tgt = tiny({"attention": "local_p"}), ids(2, 6), ids(2, 4)
    torch.autograd.backward(model(src, src != PAD, tgt).square().sum())
    for parameter in (*model.attention.position.parameters(), *model.attention.centre.parameters()):
        assert parameter.grad is not None and (parameter.grad != 0).any()


def drawn(variant: dict[str, object]) -> dict[str, float]:
    """The rate of every dropout of a model in training, by its place, as the modules hold it."""
    model = Recurrent(RecurrentConfig.model_validate(BASE | variant))
    rates = {name: module.p for name, module in model.named_modules() if isinstance(module, Dropout)}
    return rates | {"encoder": model.encoder.dropout, "decoder": model.decoder.dropout}


def test_one_rate_of_dropout_goes_to_every_place_and_four_go_each_to_its_own() -> None:
    places = ("embedding_dropout", "memory_dropout", "readout_dropout", "encoder", "decoder")
    assert drawn({"dropout": 0.25}) == dict.fromkeys(places, 0.25)
    each = {"embedding": 0.1, "layers": 0.2, "memory": 0.3, "readout": 0.4}
    assert drawn({"dropout": each}) == dict(zip(places, (0.1, 0.3, 0.4, 0.2, 0.2), strict=True))


@pytest.mark.parametrize("place", ["embedding", "layers", "memory", "readout"])
def test_dropout_acts_where_its_name_says(place: str) -> None:
    """Zeros are seen where the named values arrive: in the cell's input, its second layer, the memory, the result."""
    none = {"embedding": 0.0, "layers": 0.0, "memory": 0.0, "readout": 0.0}
    model = tiny({"dropout": none | {place: 0.5}, "attention": "general"}).train()
    entered: list[Tensor] = []
    model.decoder.register_forward_pre_hook(lambda _, arguments: entered.append(arguments[0]))
    src, tgt = ids(3, 6), ids(3, 4)
    memory = model.encode(src, src != PAD)
    hidden = model.decode(tgt, memory, src != PAD)
    zeros = {
        "embedding": (entered[0] == 0).any(),
        "memory": (memory.outputs == 0).any(),
        "readout": (hidden == 0).any(),
    }
    assert {name for name, found in zeros.items() if found} == {place} - {"layers"}
    if place == "layers":
        assert not torch.equal(hidden, model.decode(tgt, memory, src != PAD))


@pytest.mark.parametrize("both", [True, False])
def test_the_forget_gates_of_an_lstm_and_of_nothing_else_begin_open(both: bool) -> None:
    """With inputs and states of 0, (i, f, g, o) come from the biases alone: f is sigmoid(1), the rest is drawn."""
    shape: dict[str, object] = {"cell": "lstm", "bidirectional": both}
    model = Recurrent(RecurrentConfig.model_validate(BASE | shape))
    for cells in (model.encoder, model.decoder):
        values = dict(cells.named_parameters())
        for name in [name for name in values if name.startswith("bias_ih_")]:
            gates = (values[name] + values[name.replace("_ih_", "_hh_")]).view(4, -1)
            assert_close(gates[1], torch.ones(12))
            assert gates[[0, 2, 3]].abs().max() < 2 * 12**-0.5
            assert gates[[0, 2, 3]].std() > 0.1
    for cell in ("rnn", "gru"):
        other = Recurrent(RecurrentConfig.model_validate(BASE | shape | {"cell": cell}))
        assert all(value.abs().max() < 12**-0.5 for value in other.decoder.parameters())


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("both", [True, False])
def test_gradients_are_ready_in_one_order_whatever_the_lengths(cell: str, both: bool) -> None:
    """ZeRO-2 adds up what its ranks have ready at the same place of this order."""
    model = Recurrent(
        RecurrentConfig.model_validate(BASE | {"cell": cell, "bidirectional": both, "attention": "general"})
    )
    order: list[str] = []
    for name, parameter in model.named_parameters():
        register: Any = parameter.register_hook
        register(lambda _, name=name: order.append(name))
    found = set()
    for lengths in ((5, 5, 5), (5, 4, 2), (1, 1, 1), (2, 1, 1), (4, 1, 1)):
        order.clear()
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        torch.autograd.backward(model.logits(model(ids(3, max(lengths)), mask, ids(3, 4))).sum())
        found.add(tuple(order))
    assert len(found) == 1


def truncated(variant: dict[str, object], steps: int) -> Recurrent:
    """A model in training without dropout."""
    return tiny(variant | {"dropout": 0.0, "truncate_steps": steps}).train()


def gradients(model: Recurrent) -> list[Tensor]:
    """Of a loss of all target positions, for every parameter that it reaches."""
    src, tgt = ids(3, 6), ids(3, 7)
    loss = model.logits(model(src, src != PAD, tgt)).logsumexp(-1).square().sum()
    return [one for one in torch.autograd.grad(loss, list(model.parameters()), allow_unused=True) if one is not None]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_stretch_as_long_as_the_target_cuts_nothing(variant: dict[str, object]) -> None:
    whole = gradients(truncated(variant, 0))
    for steps in (7, 8):
        assert all(map(torch.equal, gradients(truncated(variant, steps)), whole))
    cut = gradients(truncated(variant, 3))
    assert not all(torch.allclose(one, other, rtol=1e-3) for one, other in zip(cut, whole, strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_gradient_passes_a_cut_and_the_forward_values_are_the_same(variant: dict[str, object]) -> None:
    """Cuts every 3 tokens: target token j reaches the state of t, with gradient, where both are in one stretch."""
    model, src, tgt = truncated(variant, 3), ids(2, 6), ids(2, 7)
    embedded: list[Tensor] = []

    def keep(module: torch.nn.Module, arguments: tuple[Tensor, ...], result: Tensor) -> Tensor:
        embedded.append(result.detach().requires_grad_())
        return embedded[-1]

    memory = model.encode(src, src != PAD)
    handle = model.embeddings.target.register_forward_hook(keep)
    hidden = model.decode(tgt, memory, src != PAD)
    handle.remove()
    for t in range(7):
        (reached,) = torch.autograd.grad(hidden[:, t].sum(), embedded, retain_graph=True)
        expected = (torch.arange(7) <= t) & (torch.arange(7) // 3 == t // 3)
        assert ((reached != 0).any(2) == expected).all()
        (first,) = torch.autograd.grad(hidden[:, t].sum(), memory.initial[0], retain_graph=True, allow_unused=True)
        is_fed = variant.get("context") == "every"
        assert (first is not None and bool((first != 0).any())) == (t < 3 or is_fed)
    assert_close(hidden, truncated(variant, 0).decode(tgt, memory, src != PAD), atol=1e-6, rtol=0)


def test_pad_has_no_score_and_its_row_no_gradient() -> None:
    model, src, tgt = tiny(VARIANTS[0]), ids(2, 5), ids(2, 4)
    tgt[:, 0] = PAD
    logits = model.logits(model(src, torch.ones_like(src).bool(), tgt))
    assert bool((logits[..., PAD] == -torch.inf).all()) and bool(logits[..., :PAD].isfinite().all())
    assert isinstance(model.embeddings.output, TokenProjection)
    torch.autograd.backward(logits.logsumexp(-1).sum())
    weight = model.embeddings.target.weight
    assert weight.grad is not None and weight.grad[PAD].abs().sum() == 0 and weight[PAD].abs().sum() == 0


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ({"attention": "none", "input_feeding": True}, "input_feeding needs an attention"),
        ({"attention": "dot", "bidirectional": True}, "attention dot needs"),
        ({"attention": "general", "context": "every"}, "context every is for attention none, found general"),
        ({"attention": "additive", "window": 7}, "window is for attention local_p, found 7 for additive"),
        ({"dropout": {"embedding": 0.1, "memory": 0.1}}, "readout"),
    ],
)
def test_choices_that_do_not_fit_together_are_refused(variant: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecurrentConfig.model_validate(BASE | variant)


@pytest.mark.parametrize(
    ("dropout", "mistakes"),
    [
        ("1.5", ["dropout: Input should be less than 1, found 1.5"]),
        ("{embedding: 0.3, memory: 2, readout: 0.5}", ["dropout.memory: Input should be less than 1, found 2"]),
    ],
)
def test_a_mistake_in_dropout_is_told_once(dropout: str, mistakes: list[str], tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in (BASE | {"dropout": dropout}).items()))
    with pytest.raises(ValueError) as found:
        load(path, RecurrentConfig)
    assert [line.strip() for line in str(found.value).splitlines()[1:]] == mistakes


def test_a_source_longer_than_the_model_is_refused_with_both_numbers() -> None:
    src = ids(1, 13)
    with pytest.raises(ValueError, match="13 tokens exceed the longest sequence of this model, 12"):
        tiny({}).encode(src, src != PAD)
