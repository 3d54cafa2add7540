"""The translation Transformer computes what `MarianMTModel` computes, in both directions."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import MarianConfig, MarianMTModel

from pipeline.models.huggingface.marian import (
    marian_generation_settings,
    translation_from_huggingface,
    translation_to_huggingface,
)
from pipeline.models.recurrent import Recurrent, RecurrentConfig
from pipeline.models.seq2seq import Seq2Seq, TransformerConfig
from pipeline.models.translation import TiedEmbeddings
from tests.parity.hf import assert_same, open_theirs, save_theirs, spread

V, PAD = 37, 36

CONFIG = TransformerConfig(
    kind="transformer",
    vocab_size=V,
    d_model=24,
    num_encoder_layers=2,
    num_decoder_layers=3,
    num_heads=3,
    d_ff=40,
    max_length=16,
)


def our_model(**changes: str) -> Seq2Seq:
    torch.manual_seed(0)
    model = Seq2Seq(TransformerConfig.model_validate(CONFIG.model_dump() | changes))
    spread(model, keep_zero=PAD)
    with torch.no_grad():
        model.embeddings.output.bias[PAD] = 0.0
    return model.eval()


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Sources, their mask and targets, right-padded."""
    generator = torch.Generator().manual_seed(1)
    src, tgt = torch.randint(2, PAD, (2, 8), generator=generator), torch.randint(2, PAD, (2, 6), generator=generator)
    src[1, 5:] = PAD
    tgt[:, 0] = PAD
    return src, src != PAD, tgt


def assert_same_logits(ours: Seq2Seq, theirs: MarianMTModel) -> None:
    src, src_mask, tgt = inputs()
    expected = theirs(input_ids=src, attention_mask=src_mask.long(), decoder_input_ids=tgt).logits
    found = ours.logits(ours(src, src_mask, tgt))
    assert_same(found[..., :PAD], expected[..., :PAD])
    assert bool((found[..., PAD] == -torch.inf).all())


@torch.no_grad()
@pytest.mark.parametrize("tied", ["all", "decoder", "none"])
def test_transformers_opens_our_translation_model_and_gives_our_probabilities(tied: str, tmp_path: Path) -> None:
    ours = our_model(tied_embeddings=tied)
    theirs = open_theirs(tmp_path, MarianMTModel, translation_to_huggingface(ours))
    assert_same_logits(ours, theirs)
    src, src_mask, tgt = inputs()
    expected = theirs(input_ids=src, attention_mask=src_mask.long(), decoder_input_ids=tgt).logits.log_softmax(-1)
    assert_same(ours.logits(ours(src, src_mask, tgt)).log_softmax(-1)[..., :PAD], expected[..., :PAD])


@torch.no_grad()
@pytest.mark.parametrize("activation", ["gelu", "swish"])
@pytest.mark.parametrize("tied", ["all", "decoder"])
def test_we_open_a_marian_model_of_transformers_and_give_its_logits(
    tied: TiedEmbeddings, activation: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = MarianConfig(
        vocab_size=V,
        d_model=24,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=3,
        decoder_attention_heads=3,
        encoder_ffn_dim=40,
        decoder_ffn_dim=40,
        max_position_embeddings=16,
        activation_function=activation,
        pad_token_id=PAD,
        decoder_start_token_id=PAD,
        eos_token_id=0,
        scale_embedding=True,
        share_encoder_decoder_embeddings=tied == "all",
    )
    theirs: Any = MarianMTModel(config)
    spread(theirs.eval(), keep_zero=PAD)
    theirs.final_logits_bias.normal_()
    ours = translation_from_huggingface(*save_theirs(tmp_path, theirs))
    assert isinstance(ours, Seq2Seq) and ours.config.tied_embeddings == tied
    assert_same_logits(ours.eval(), theirs)


@torch.no_grad()
def test_greedy_generation_agrees_under_padding(tmp_path: Path) -> None:
    ours = our_model()
    (tmp_path / "generation_config.json").write_text(
        json.dumps(marian_generation_settings(CONFIG, num_beams=1, normalisation="length", length_penalty=1.0))
    )
    theirs = open_theirs(tmp_path, MarianMTModel, translation_to_huggingface(ours))
    assert theirs.generation_config.bad_words_ids == [[PAD]]
    src, src_mask, _ = inputs()
    expected = theirs.generate(src, attention_mask=src_mask.long(), do_sample=False, max_new_tokens=8)
    state, tokens = ours.start(src, src_mask), torch.full((2,), PAD)
    rows = [tokens]
    is_done = torch.zeros(2, dtype=torch.bool)
    for _ in range(expected.size(1) - 1):
        logits, state = ours.step(tokens, state)
        tokens = torch.where(is_done, PAD, logits.argmax(-1))
        is_done |= tokens == 0
        rows.append(tokens)
    assert torch.equal(torch.stack(rows, dim=1), expected)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{"norm": "pre"}, {"positions": "learned"}])
def test_other_variants_get_a_type_of_our_own_and_come_back_equal(changes: dict[str, str]) -> None:
    ours = our_model(**changes)
    config, state = translation_to_huggingface(ours)
    assert config["model_type"] == "pipeline-transformer"
    again = translation_from_huggingface(json.loads(json.dumps(config)), state)
    src, src_mask, tgt = inputs()
    assert torch.equal(again.eval()(src, src_mask, tgt), ours(src, src_mask, tgt))


@torch.no_grad()
def test_recurrent_models_come_back_equal() -> None:
    torch.manual_seed(0)
    config = RecurrentConfig(kind="recurrent", cell="gru", vocab_size=V, d_embedding=8, d_hidden=12, max_length=16)
    ours = Recurrent(config).eval()
    exported, state = translation_to_huggingface(ours)
    again = translation_from_huggingface(json.loads(json.dumps(exported)), state)
    src, src_mask, tgt = inputs()
    assert torch.equal(again.eval()(src, src_mask, tgt), ours(src, src_mask, tgt))


def test_export_and_import_are_inverse() -> None:
    ours = our_model()
    again = translation_from_huggingface(*translation_to_huggingface(ours))
    assert again.config == ours.config
    for (name, parameter), (_, other) in zip(ours.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(parameter, other), name


def test_models_that_break_the_convention_are_refused() -> None:
    config, state = translation_to_huggingface(our_model())
    with pytest.raises(ValueError, match="decoder_start_token_id is 5, only 36 is supported"):
        translation_from_huggingface(config | {"decoder_start_token_id": 5}, state)
    with pytest.raises(ValueError, match="model_type is 'bart', allowed for translation: marian"):
        translation_from_huggingface(config | {"model_type": "bart"}, state)
    state["model.shared.weight"][PAD] = 1.0
    with pytest.raises(ValueError, match="row 36, is not zero"):
        translation_from_huggingface(config, state)
