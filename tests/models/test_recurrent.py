"""Recurrent translation models: padding, causality, steps against teacher forcing, attention by hand."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.models.recurrent import Recurrent, RecurrentConfig
from pipeline.models.translation import TokenProjection

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

VARIANTS: list[dict[str, object]] = [
    {"cell": "gru", "attention": "additive"},
    {"cell": "lstm", "attention": "general", "input_feeding": True, "tied_embeddings": "decoder"},
    {"cell": "rnn", "attention": "dot", "bidirectional": False, "num_layers": 1},
    {"cell": "lstm", "attention": "none", "tied_embeddings": "none"},
    {"cell": "gru", "attention": "additive", "input_feeding": True, "bidirectional": False},
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
@pytest.mark.parametrize("kind", ["additive", "dot", "general"])
def test_the_context_is_the_softmax_weighted_mean_of_the_real_source_states(kind: str) -> None:
    model = tiny({"attention": kind, "bidirectional": False})
    attention, src = model.attention, ids(2, 4)
    mask = torch.arange(4) < torch.tensor([[4], [2]])
    memory, states = model.encode(src, mask), torch.randn(2, 3, 12)
    contexts = attention(states, memory, mask)
    for b in range(2):
        for t in range(3):
            scores = []
            for s in range(int(mask[b].sum())):
                query, source = states[b, t], memory.outputs[b, s]
                if kind == "additive":
                    inner = torch.tanh(attention.query(query) + attention.key(source))
                    scores.append(float(attention.score(inner)))
                elif kind == "general":
                    scores.append(float(query @ attention.key.weight @ source))
                else:
                    scores.append(float(query @ source))
            total = sum(math.exp(score) for score in scores)
            mean = sum(math.exp(score) / total * memory.outputs[b, s] for s, score in enumerate(scores))
            assert_close(contexts[b, t], mean, atol=1e-5, rtol=0)


def test_pad_has_no_score_and_its_row_no_gradient() -> None:
    model, src, tgt = tiny(VARIANTS[0]), ids(2, 5), ids(2, 4)
    tgt[:, 0] = PAD
    logits = model.logits(model(src, torch.ones_like(src).bool(), tgt))
    assert logits.shape[-1] == PAD and isinstance(model.embeddings.output, TokenProjection)
    torch.autograd.backward(logits.logsumexp(-1).sum())
    weight = model.embeddings.target.weight
    assert weight.grad is not None and weight.grad[PAD].abs().sum() == 0 and weight[PAD].abs().sum() == 0


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ({"attention": "none", "input_feeding": True}, "input_feeding needs an attention"),
        ({"attention": "dot", "bidirectional": True}, "attention dot needs"),
    ],
)
def test_choices_that_do_not_fit_together_are_refused(variant: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecurrentConfig.model_validate(BASE | variant)


def test_a_source_longer_than_the_model_is_refused_with_both_numbers() -> None:
    src = ids(1, 13)
    with pytest.raises(ValueError, match="13 tokens exceed the longest sequence of this model, 12"):
        tiny({}).encode(src, src != PAD)
