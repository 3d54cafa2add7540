"""Encoders of texts and their poolings: padding, order, the published formulas by hand, and what learns."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close

from pipeline.models.bert import Bert, BertConfig, Pooler
from pipeline.models.bilm import BiLMConfig
from pipeline.models.bilstm import (
    AttentionPooling,
    BiLSTM,
    BiLSTMConfig,
    EndsPooling,
    LSTMLayers,
    MaxPooling,
    build_pooling,
    pooling_kind,
)
from pipeline.models.gpt import GPT, GPTConfig
from pipeline.models.heads import SequenceClassifier
from pipeline.models.text_encoders import (
    BiLMEncoder,
    BiLMEncoderConfig,
    GPTEncoder,
    LastTokenPooling,
    LayerMix,
    TextEncoder,
    TextPooler,
)
from tests.parity.hf import spread

V = 29
BILSTM = BiLSTMConfig(vocab_size=V, d_embedding=6, d_hidden=5, num_layers=2, max_length=12)
BILM = BiLMEncoderConfig(
    language_model=BiLMConfig(vocab_size=V, d_model=6, d_hidden=8, num_layers=2, dropout=0.5),
    d_hidden=5,
    num_layers=1,
    max_length=12,
)
GPT_SHAPE = GPTConfig(vocab_size=V, d_model=16, num_layers=2, num_heads=2, max_length=12)
BERT_SHAPE = BertConfig(vocab_size=V, d_model=16, num_layers=2, num_heads=2, d_ff=24, max_length=12, dropout=0.0)
NAMES = ("bert", "gpt", "max", "last", "attention", "bilm")


def parts(name: str) -> tuple[TextEncoder, TextPooler]:
    """Every pair of encoder and pooler that a configuration can ask for."""
    match name:
        case "bert":
            return Bert(BERT_SHAPE), Pooler(16)
        case "gpt":
            return GPTEncoder(GPT(GPT_SHAPE)), LastTokenPooling()
        case "max":
            return BiLSTM(BILSTM), MaxPooling()
        case "last":
            return BiLSTM(BILSTM), EndsPooling()
        case "attention":
            return BiLSTM(BILSTM), AttentionPooling(10)
        case _:
            return BiLMEncoder(BILM), AttentionPooling(10)


def classifier(name: str) -> SequenceClassifier:
    torch.manual_seed(0)
    model = SequenceClassifier(*parts(name), num_labels=3, dropout=0.0)
    spread(model)
    return model.eval()


def ids(*shape: int) -> Tensor:
    return torch.randint(5, V, shape, generator=torch.Generator().manual_seed(1))


def scores(model: SequenceClassifier, tokens: Tensor, mask: Tensor) -> Tensor:
    found: Tensor = model(tokens, torch.zeros_like(tokens), mask)
    return found


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_no_score_whatever_it_holds(name: str) -> None:
    model, tokens = classifier(name), ids(3, 7)
    lengths = (7, 4, 1)
    alone = [
        scores(model, tokens[i : i + 1, :n], torch.ones(1, n).bool()) for i, n in enumerate(lengths)
    ]  # each text by itself
    mask = torch.arange(10) < torch.tensor(lengths)[:, None]
    assert torch.cat(alone).std() > 1e-3
    for filler in (0, 9):
        padded = torch.where(mask, torch.cat([tokens, tokens[:, :3]], 1), filler)
        assert_close(scores(model, padded, mask), torch.cat(alone), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_every_token_and_their_order_change_the_scores(name: str) -> None:
    model, tokens = classifier(name), ids(1, 6)
    mask = torch.ones_like(tokens).bool()
    found = scores(model, tokens, mask)
    for place in range(6):
        changed = tokens.clone()
        changed[0, place] = 4
        assert (scores(model, changed, mask) - found).abs().max() > 1e-6, place
    assert (scores(model, tokens.flip(1), mask) - found).abs().max() > 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_texts_beyond_the_longest_length_are_refused(name: str) -> None:
    model, tokens = classifier(name), ids(1, 13)
    assert model.encoder.config.max_length == 12
    with pytest.raises(ValueError, match=r"13 tokens .* 12"):
        scores(model, tokens, torch.ones_like(tokens).bool())


@torch.no_grad()
def test_a_state_of_the_lstm_has_seen_one_side_in_each_half() -> None:
    torch.manual_seed(0)
    layers, vectors, mask = LSTMLayers(4, 3, 1, dropout=0.0), torch.randn(1, 5, 4), torch.ones(1, 5).bool()
    states = layers(vectors, mask)
    changed = vectors.clone()
    changed[0, 2] += 1.0
    moved = (layers(changed, mask) - states).abs() > 0
    assert moved[0, :, :3].any(1).tolist() == [False, False, True, True, True]
    assert moved[0, :, 3:].any(1).tolist() == [True, True, True, False, False]


@torch.no_grad()
def test_the_layers_are_the_bidirectional_lstm_of_pytorch_over_packed_sequences() -> None:
    torch.manual_seed(0)
    layers, vectors = LSTMLayers(4, 3, 2, dropout=0.0), torch.randn(2, 5, 4)
    theirs = torch.nn.LSTM(4, 3, 2, batch_first=True, bidirectional=True)
    for number in (0, 1):
        for part, end in ((layers.ahead[number], ""), (layers.back[number], "_reverse")):
            for name, parameter in part.named_parameters():
                getattr(theirs, name.replace("_l0", f"_l{number}{end}")).copy_(parameter)
    lengths = torch.tensor([5, 3])
    mask = torch.arange(5) < lengths[:, None]
    packed, (last, _) = theirs(pack_padded_sequence(vectors, lengths, batch_first=True))
    states = layers(vectors, mask)
    assert_close(states[mask], pad_packed_sequence(packed, batch_first=True)[0][mask])
    assert_close(EndsPooling()(states, mask), torch.cat([last[-2], last[-1]], dim=1))


def note(order: list[str], name: str, gradient: Tensor) -> None:
    order.append(name)


def test_gradients_are_ready_in_the_same_order_whatever_the_lengths_of_the_texts() -> None:
    # ZeRO-2 on two ranks asks for it.
    orders: list[list[str]] = []
    for lengths in ((5, 5, 5), (5, 3, 1), (1, 1, 1)):
        layers = LSTMLayers(4, 3, 2, dropout=0.0)
        orders.append([])
        for name, parameter in layers.named_parameters():
            hook = partial(note, orders[-1], name)
            parameter.register_hook(hook)  # type: ignore[no-untyped-call]
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        torch.autograd.backward(MaxPooling()(layers(torch.randn(3, max(lengths), 4), mask), mask).sum())
    assert orders[0] == orders[1] == orders[2]
    assert len(orders[0]) == 16


def test_the_forget_gates_begin_open_and_no_other() -> None:
    biases = {name: bias for name, bias in LSTMLayers(4, 3, 2, dropout=0.0).named_parameters() if "bias" in name}
    assert len(biases) == 8
    for name, bias in biases.items():
        assert bias[3:6].tolist() == [1.0 if "_ih_" in name else 0.0] * 3
        assert bias[:3].abs().max() < 1.0


@torch.no_grad()
def test_the_largest_value_is_that_of_a_real_token() -> None:
    hidden = torch.tensor([[[-3.0, -1.0], [-2.0, -5.0], [0.0, 0.0]]])  # the states at padding are zeros
    assert MaxPooling()(hidden, torch.tensor([[True, True, False]])).tolist() == [[-2.0, -1.0]]


@torch.no_grad()
def test_attention_is_the_published_formula() -> None:
    torch.manual_seed(0)
    pooling, hidden = AttentionPooling(4), torch.randn(1, 3, 4)
    spread(pooling)
    key, query = pooling.key, pooling.query.weight[0]
    importance = [math.exp(float(query @ torch.tanh(key.weight @ state + key.bias))) for state in hidden[0, :2]]
    alpha = [one / sum(importance) for one in importance]
    mask = torch.tensor([[True, True, False]])
    assert_close(pooling.weights(hidden, mask), torch.tensor([[*alpha, 0.0]]))
    assert_close(pooling(hidden, mask)[0], alpha[0] * hidden[0, 0] + alpha[1] * hidden[0, 1])


@torch.no_grad()
def test_the_mix_is_the_published_formula_and_at_first_the_mean() -> None:
    torch.manual_seed(0)
    layers = tuple(torch.randn(3, 2, 2, 4))
    mix = LayerMix(3)
    assert_close(mix(layers), torch.stack(layers).mean(0))
    mix.scores.copy_(torch.tensor([0.0, math.log(2.0), math.log(5.0)]))
    mix.gamma.fill_(4.0)
    assert_close(mix(layers), 0.5 * (layers[0] + 2 * layers[1] + 5 * layers[2]))


def test_the_language_model_stays_as_it_is_and_all_else_learns() -> None:
    model = classifier("bilm")
    assert isinstance(model.encoder, BiLMEncoder)
    for module in model.modules():
        module.training = True  # as a trainer may do it, in place of `model.train()`
    tokens = ids(4, 6)
    mask = torch.ones_like(tokens).bool()
    first, second = (scores(model, tokens, mask) for _ in range(2))
    assert torch.equal(first, second)  # its dropout of a half is off
    torch.autograd.backward(first.square().sum())
    for name, parameter in model.named_parameters():
        is_frozen = name.startswith("encoder.language_model.")
        assert parameter.requires_grad != is_frozen, name
        assert (parameter.grad is None) == is_frozen, name
    assert model.encoder.mix.scores.grad is not None and model.encoder.mix.scores.grad.abs().max() > 0


@pytest.mark.parametrize("kind", ["max", "last", "attention"])
def test_a_pooling_tells_its_name(kind: str) -> None:
    assert pooling_kind(build_pooling(kind, 4)) == kind  # type: ignore[arg-type]
