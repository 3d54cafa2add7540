"""The translation Transformer: padding, order, cached steps, and the convention around <pad>."""

import math
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.models.seq2seq import Seq2Seq, TransformerConfig
from pipeline.models.transformer import Layers, NormPlacement, sinusoidal_positions
from pipeline.models.translation import TiedEmbeddings, pad_id

V, PAD = 23, 22


def tiny(
    norm: NormPlacement = "post",
    positions: Literal["sinusoidal", "learned"] = "sinusoidal",
    tied: TiedEmbeddings = "all",
) -> Seq2Seq:
    torch.manual_seed(0)
    config = TransformerConfig(
        kind="transformer",
        vocab_size=V,
        d_model=16,
        num_encoder_layers=2,
        num_decoder_layers=2,
        num_heads=2,
        d_ff=24,
        max_length=12,
        norm=norm,
        positions=positions,
        tied_embeddings=tied,
    )
    return Seq2Seq(config).eval()


def ids(*shape: int) -> Tensor:
    return torch.randint(0, V - 1, shape, generator=torch.Generator().manual_seed(1))


VARIANTS = [("post", "sinusoidal", "all"), ("pre", "learned", "decoder"), ("pre", "sinusoidal", "none")]


@torch.no_grad()
@pytest.mark.parametrize(("norm", "positions", "tied"), VARIANTS)
def test_padding_of_source_and_target_does_not_change_the_logits(
    norm: NormPlacement, positions: Literal["sinusoidal", "learned"], tied: TiedEmbeddings
) -> None:
    model, src, tgt = tiny(norm, positions, tied), ids(2, 5), ids(2, 4)
    alone = model.logits(model(src, torch.ones_like(src).bool(), tgt))
    padded_src = torch.cat([src, torch.full((2, 3), PAD)], dim=1)
    padded_tgt = torch.cat([tgt, torch.full((2, 2), PAD)], dim=1)
    padded = model.logits(model(padded_src, padded_src != PAD, padded_tgt))
    assert_close(padded[:, :4], alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_what_stands_in_masked_source_positions_is_never_read() -> None:
    model, src, tgt = tiny(), ids(2, 6), ids(2, 4)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]]).bool()
    other = torch.where(mask, src, (src + 1) % (V - 1))
    assert torch.equal(model(src, mask, tgt), model(other, mask, tgt))


@torch.no_grad()
def test_hidden_states_do_not_depend_on_later_target_tokens() -> None:
    model, src, tgt = tiny(), ids(2, 5), ids(2, 6)
    mask = torch.ones_like(src).bool()
    changed = tgt.clone()
    changed[:, 3:] = (changed[:, 3:] + 1) % (V - 1)
    assert torch.equal(model(src, mask, tgt)[:, :3], model(src, mask, changed)[:, :3])


@torch.no_grad()
@pytest.mark.parametrize(("norm", "positions", "tied"), VARIANTS)
def test_steps_equal_teacher_forcing_also_after_rows_are_selected(
    norm: NormPlacement, positions: Literal["sinusoidal", "learned"], tied: TiedEmbeddings
) -> None:
    model, src, tgt = tiny(norm, positions, tied), ids(3, 5), ids(3, 6)
    tgt[:, 0] = pad_id(V)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]).bool()
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
@pytest.mark.parametrize(
    "choices",
    [
        [[0, 0, 1, 1, 2, 2], [1, 0, 3, 3, 4, 5]],  # beams of two, re-ordered within their sources
        [[0, 0, 1, 1, 2, 2], [0, 0, 5, 4]],  # the second source is done
        [[0, 0, 1, 1, 2, 2], [3, 0, 1, 2, 2]],  # rows of one source that are not neighbours
        [[2, 2, 2], [1], [0, 0]],
    ],
)
def test_rows_that_share_a_source_or_not_are_continued_as_teacher_forcing_says(choices: list[list[int]]) -> None:
    model, src, tgt = tiny(), ids(3, 5), ids(3, 8)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]).bool()
    state, prefix, sources = model.start(src, mask), tgt[:, :0], torch.arange(3)
    for t, choice in enumerate(choices):
        rows = torch.tensor(choice)
        state, prefix, sources = state.select(rows), prefix[rows], sources[rows]
        for _ in range(2):
            # A token of each row's own, so that no two hypotheses are alike.
            tokens = (torch.arange(len(rows)) * 5 + 2 * t + prefix.size(1)) % PAD
            prefix = torch.cat([prefix, tokens[:, None]], dim=1)
            logits, state = model.step(tokens, state)
            expected = model.logits(model(src[sources], mask[sources], prefix))[:, -1]
            assert_close(logits, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_beam_reads_one_memory_that_is_not_copied_while_its_source_is_open() -> None:
    model, src = tiny(), ids(3, 5)
    state = model.start(src, torch.ones_like(src).bool())
    beams = state.select(torch.arange(3).repeat_interleave(4)).select(
        torch.tensor([3, 2, 1, 0] * 3) + torch.arange(12) // 4 * 4
    )
    assert all(one is other for one, other in zip(beams.memories, state.memories, strict=True))
    assert [len(memory.keys) for memory in beams.select(torch.arange(4, 8)).memories] == [1, 1]


def test_without_positions_the_encoder_would_not_know_the_order() -> None:
    model, src = tiny(), ids(1, 5)
    order = torch.tensor([3, 1, 4, 0, 2])
    mask = torch.ones_like(src).bool()
    assert not torch.allclose(model.encode(src, mask)[:, order], model.encode(src[:, order], mask), atol=1e-2)
    model.source_positions.get_buffer("fixed").zero_()
    assert_close(model.encode(src, mask)[:, order], model.encode(src[:, order], mask), atol=1e-5, rtol=0)


def test_sinusoids_are_sines_then_cosines_of_geometric_wavelengths() -> None:
    table = sinusoidal_positions(7, 6)
    for position in range(7):
        for i in range(3):
            angle = position / 10_000 ** (2 * i / 6)
            assert table[position, i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[position, 3 + i].item() == pytest.approx(math.cos(angle), abs=1e-6)


@pytest.mark.parametrize("tied", ["all", "decoder", "none"])
def test_pad_has_a_zero_row_without_gradient_and_no_score(tied: TiedEmbeddings) -> None:
    model, src, tgt = tiny(tied=tied), ids(2, 5), ids(2, 4)
    src[1, 3:] = PAD
    tgt[:, 0] = PAD
    logits = model.logits(model(src, src != PAD, tgt))
    assert bool((logits[..., PAD] == -torch.inf).all()) and bool(logits[..., :PAD].isfinite().all())
    torch.autograd.backward(logits.logsumexp(-1).sum())
    for weight in (model.embeddings.source.weight, model.embeddings.target.weight, model.embeddings.output.weight):
        assert weight.grad is not None
        assert weight[PAD].abs().sum() == 0 and weight.grad[PAD].abs().sum() == 0
        assert weight.grad.abs().sum() > 0


def test_tying_decides_which_matrices_are_one() -> None:
    distinct = {}
    for tied in ("all", "decoder", "none"):
        parts = tiny(tied=tied).embeddings
        distinct[tied] = len({id(part.weight) for part in (parts.source, parts.target, parts.output)})
    assert distinct == {"all": 1, "decoder": 2, "none": 3}


def test_a_source_longer_than_the_model_is_refused_with_both_numbers() -> None:
    src = ids(1, 13)
    with pytest.raises(ValueError, match="13 tokens exceed the longest sequence of this model, 12"):
        tiny().encode(src, src != PAD)


@pytest.mark.parametrize(("d_model", "d_ff", "num_heads", "millions"), [(512, 2048, 8, 63), (1024, 4096, 16, 214)])
def test_base_and_big_have_their_published_sizes(d_model: int, d_ff: int, num_heads: int, millions: int) -> None:
    with torch.device("meta"):
        model = Seq2Seq(
            TransformerConfig(
                kind="transformer",
                vocab_size=37_000,
                d_model=d_model,
                num_encoder_layers=6,
                num_decoder_layers=6,
                num_heads=num_heads,
                d_ff=d_ff,
                max_length=256,
            )
        )
    # 65 and 213 million in the paper's table 3, whose vocabulary of "about 37000" it does not give exactly.
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6) == millions


@torch.no_grad()
def test_word_dropout_drops_whole_tokens_of_source_and_target_in_training_alone() -> None:
    plain = tiny()
    config = plain.config.model_copy(update={"word_dropout": 0.5, "dropout": 0.0})
    model = Seq2Seq(config).eval()
    model.load_state_dict(plain.state_dict())
    src, tgt = ids(1, 8), ids(1, 8)
    mask = torch.ones_like(src).bool()
    assert torch.equal(model(src, mask, tgt), plain(src, mask, tgt))
    model.train()
    model.encoder, model.decoder = Layers(), Layers()
    embedded = model.encode(src, mask)[0]
    positions = model.source_positions(0, 8)
    scaled = 2 * model.embeddings.source(src[0]) * config.d_model**0.5
    is_dropped = (embedded - positions).abs().amax(1) < 1e-6
    assert 0 < is_dropped.sum() < 8
    assert_close(embedded[~is_dropped], (scaled + positions)[~is_dropped])
    assert not torch.equal(model.decode(tgt, embedded[None], mask), model.decode(tgt, embedded[None], mask))
