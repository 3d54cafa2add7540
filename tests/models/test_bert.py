"""BERT and its heads: padding, positions, which weights are one, where a reward is read."""

import copy

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.models.bert import Bert, BertConfig, BertForPretraining, Pooler
from pipeline.models.gpt import GPT, GPTConfig
from pipeline.models.heads import ActorCritic, RewardModel, SequenceClassifier, SpanHead, TokenClassifier, ValueModel

CONFIG = BertConfig(vocab_size=31, d_model=16, num_layers=2, num_heads=2, d_ff=40, max_length=12)
GPT_CONFIG = GPTConfig(vocab_size=29, d_model=16, num_layers=2, num_heads=2, max_length=16)


def ids(*shape: int) -> Tensor:
    return torch.randint(5, 29, shape, generator=torch.Generator().manual_seed(1))


def pretraining() -> BertForPretraining:
    torch.manual_seed(0)
    return BertForPretraining(CONFIG).eval()


@torch.no_grad()
def test_padding_changes_no_score() -> None:
    model, tokens, types = pretraining(), ids(2, 7), torch.tensor([[0] * 4 + [1] * 3] * 2)
    alone = model(tokens, types, torch.ones_like(tokens).bool())
    pads = torch.tensor([[9, 8, 0], [0, 0, 0]])  # whatever the padding holds
    mask = torch.tensor([[True] * 7 + [False] * 3] * 2)
    padded = model(torch.cat([tokens, pads], 1), torch.cat([types, pads.clamp(max=1)], 1), mask)
    assert_close(model.mlm_logits(padded[:, :7]), model.mlm_logits(alone), atol=1e-5, rtol=0)
    assert_close(model.nsp_logits(padded), model.nsp_logits(alone), atol=1e-5, rtol=0)


@pytest.mark.parametrize("attention_dropout", [0.0, 1e-9])
def test_states_that_are_read_are_the_same_where_no_others_are_computed(attention_dropout: float) -> None:
    torch.manual_seed(0)
    # In training, since dropout chooses how attention is computed; this much of it drops nothing.
    model = Bert(CONFIG.model_copy(update={"attention_dropout": attention_dropout, "dropout": 0.0, "max_length": 80}))
    tokens, lengths = ids(4, 75), torch.tensor([75, 66, 1, 70])
    mask = torch.arange(75) < lengths.unsqueeze(1)
    read = torch.zeros_like(mask)
    read[0, [0, 3, 70]] = read[1, [0, 68]] = read[2, 0] = True  # 68 is padding, and row 3 is not read at all
    types = torch.zeros_like(tokens)
    weights = torch.randn(*read.shape, CONFIG.d_model)

    def gradients(hidden: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad((hidden * weights)[read & mask].sum(), list(model.parameters())))

    whole, some = model(tokens, types, mask), model(tokens, types, mask, read)
    assert_close(some[read & mask], whole[read & mask], atol=1e-5, rtol=0)
    assert not some[~(read & mask)].any()
    for found, expected in zip(gradients(some), gradients(whole), strict=True):
        assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("length", [9, 70])
@torch.no_grad()
def test_the_last_layer_has_its_attention_dropout_where_few_states_are_read(length: int) -> None:
    torch.manual_seed(0)
    # One layer: the dropout of those below would hide that the last has none.
    changes = {"num_layers": 1, "attention_dropout": 0.5, "dropout": 0.0, "max_length": 80, "initial_std": 0.5}
    shape = CONFIG.model_copy(update=changes)
    model, tokens = Bert(shape), ids(1, length)
    inputs = tokens, torch.zeros_like(tokens), torch.ones_like(tokens).bool()
    read = torch.arange(length).expand_as(tokens) == 2
    found = torch.stack([model(*inputs, read)[0, 2] for _ in range(2)])
    assert not torch.allclose(found[0], found[1], atol=1e-4)
    first = torch.stack([model.first_states(*inputs)[0] for _ in range(2)])
    assert not torch.allclose(first[0], first[1], atol=1e-4)
    assert_close(model.eval().first_states(*inputs), model(*inputs)[:, 0], atol=1e-5, rtol=0)


def test_nothing_may_be_read() -> None:
    model, tokens = pretraining(), ids(2, 7)
    mask = torch.ones_like(tokens).bool()
    assert not model(tokens, torch.zeros_like(tokens), mask, torch.zeros_like(mask)).any()


@torch.no_grad()
def test_every_token_sees_both_sides_and_knows_its_position_and_segment() -> None:
    model, tokens = pretraining().encoder, ids(1, 6)
    types, mask = torch.zeros_like(tokens), torch.ones_like(tokens).bool()
    hidden = model(tokens, types, mask)
    changed = tokens.clone()
    changed[0, 3] = 4
    assert ((model(changed, types, mask) - hidden).abs().amax(-1) > 1e-6).all()
    swapped = model(tokens.flip(1), types, mask).flip(1)
    assert not torch.allclose(swapped, hidden, atol=1e-3)
    assert not torch.allclose(model(tokens, 1 - types, mask), hidden, atol=1e-3)


def test_the_masked_word_scores_come_from_the_embedding_itself() -> None:
    model = pretraining()
    assert model.masked_word.decoder.weight is model.encoder.token_embedding.weight


@pytest.mark.parametrize(
    ("d_model", "num_layers", "num_heads", "published"), [(768, 12, 12, 109_482_240), (1024, 24, 16, 335_141_888)]
)
def test_base_and_large_have_their_published_sizes(
    d_model: int, num_layers: int, num_heads: int, published: int
) -> None:
    config = BertConfig(
        vocab_size=30_522,
        d_model=d_model,
        num_layers=num_layers,
        num_heads=num_heads,
        d_ff=4 * d_model,
        max_length=512,
    )
    with torch.device("meta"):
        parts = Bert(config), Pooler(d_model)
    assert sum(parameter.numel() for part in parts for parameter in part.parameters()) == published


def test_a_sequence_longer_than_the_model_is_refused_with_both_numbers() -> None:
    tokens = ids(1, 13)
    with pytest.raises(ValueError, match="13 tokens exceed the longest sequence of this model, 12"):
        pretraining()(tokens, torch.zeros_like(tokens), torch.ones_like(tokens).bool())


@torch.no_grad()
def test_classifiers_stand_on_the_modules_that_they_were_given() -> None:
    model, tokens = pretraining(), ids(3, 6)
    inputs = tokens, torch.zeros_like(tokens), torch.ones_like(tokens).bool()
    hidden = model(*inputs)
    sequence = SequenceClassifier(model.encoder, model.pooler, num_labels=3, dropout=0.1).eval()
    assert_close(sequence(*inputs), sequence.classifier(model.pooler(hidden)), atol=1e-6, rtol=0)
    tags = TokenClassifier(model.encoder, num_labels=4, dropout=0.1).eval()
    assert_close(tags(*inputs), tags.classifier(hidden), atol=0, rtol=0)
    spans = SpanHead(model.encoder).eval()
    assert_close(torch.stack(spans(*inputs), dim=-1), spans.classifier(hidden), atol=0, rtol=0)


@torch.no_grad()
def test_a_reward_is_read_at_the_last_token_whatever_the_padding() -> None:
    torch.manual_seed(0)
    model, tokens = RewardModel(GPT(GPT_CONFIG)).eval(), ids(2, 6)
    alone = torch.cat([model(tokens[:1, :4], torch.tensor([3])), model(tokens[1:], torch.tensor([5]))])
    padded = torch.cat([tokens, ids(2, 3)], dim=1)
    assert_close(model(padded, torch.tensor([3, 5])), alone, atol=1e-5, rtol=0)


def test_the_reward_head_starts_with_the_published_deviation() -> None:
    torch.manual_seed(0)
    wide = GPTConfig(vocab_size=5, d_model=4096, num_layers=1, num_heads=1, max_length=4)
    with torch.device("meta"):
        trunk = GPT(wide)
    assert RewardModel(trunk).score.weight.std().item() == pytest.approx(4097**-0.5, rel=0.05)


@torch.no_grad()
def test_policy_and_critic_share_nothing_and_values_start_at_zero() -> None:
    policy = GPT(GPT_CONFIG)
    model = ActorCritic(policy, copy.deepcopy(policy)).eval()
    tokens = ids(2, 5)
    hidden, values = model(tokens)
    assert torch.equal(hidden, policy(tokens))
    assert torch.equal(model.logits(hidden), policy.logits(hidden))
    assert torch.equal(values, torch.zeros(2, 5))
    actor = {parameter.data_ptr() for parameter in model.policy.parameters()}
    assert actor.isdisjoint(parameter.data_ptr() for parameter in model.critic.parameters())
    with pytest.raises(ValueError, match="copy"):
        ActorCritic(policy, policy)


@torch.no_grad()
def test_a_value_has_seen_no_later_token() -> None:
    torch.manual_seed(0)
    model, tokens = ValueModel(GPT(GPT_CONFIG)).eval(), ids(1, 6)
    model.value.weight.normal_()
    changed = tokens.clone()
    changed[0, 4] = 2
    assert ((model(tokens) - model(changed)).abs()[0] > 0).tolist() == [False] * 4 + [True] * 2
