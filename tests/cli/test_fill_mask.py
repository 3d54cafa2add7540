"""`pipeline fill-mask` on BERTs as `transformers` publishes them: with the head of masked words alone, or with both."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertForPreTraining, BertPreTrainedModel

from pipeline.inference.models import open_model
from pipeline.inference.word_models import GapFiller
from pipeline.text.tokenizer_training import train_wordpiece
from tests.cli.conftest import TEXTS
from tests.cli.test_cli import run
from tests.parity.hf import spread

WORDS = train_wordpiece(TEXTS, vocab_size=80)


def published(folder: Path, theirs: type[BertPreTrainedModel], *, spare_rows: int = 0) -> Any:
    """The model in `folder`, beside a vocab.txt alone."""
    shape = BertConfig(
        vocab_size=WORDS.vocab_size + spare_rows,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    torch.manual_seed(0)
    model: Any = theirs(shape)
    spread(model.eval())
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS.tokens(range(WORDS.vocab_size))) + "\n", encoding="utf-8")
    return model


@torch.no_grad()
@pytest.mark.parametrize("theirs", [BertForMaskedLM, BertForPreTraining])
def test_a_gap_has_the_probabilities_of_transformers_among_the_ordinary_tokens(
    theirs: type[BertPreTrainedModel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = published(tmp_path, theirs)
    ids = [WORDS.id_of("cls"), *WORDS.encode("the"), WORDS.id_of("mask"), *WORDS.encode("sat"), WORDS.id_of("sep")]
    scores = model(input_ids=torch.tensor([ids]))[0][0, ids.index(WORDS.id_of("mask"))]
    scores[sorted(WORDS.special_ids)] = -torch.inf
    expected = scores.softmax(0)
    opened = open_model(tmp_path)
    assert isinstance(opened, GapFiller)
    (found,) = opened.fill(["the [MASK] sat"], num_candidates=WORDS.vocab_size - 5)
    for token, probability in found.candidates[0]:
        assert probability == pytest.approx(float(expected[WORDS.backend.token_to_id(token)]), abs=1e-4)
    capsys.readouterr()
    best = WORDS.tokens([int(expected.argmax())])[0]
    code, lines, _ = run(capsys, "fill-mask", "--model", str(tmp_path), "--num", "1", "the [MASK] sat")
    assert (code, lines) == (0, [f"{best} {float(expected.max()):.4f}"])


def test_rows_of_the_embeddings_that_stand_for_no_token_fill_no_gap(tmp_path: Path) -> None:
    """Published models pad their vocabularies to a round number."""
    model = published(tmp_path, BertForMaskedLM, spare_rows=9)
    with torch.no_grad():
        model.cls.predictions.bias[WORDS.vocab_size :] = 99.0
    model.save_pretrained(tmp_path)
    opened = open_model(tmp_path)
    assert isinstance(opened, GapFiller)
    num_words = WORDS.vocab_size - 5
    (found,) = opened.fill(["the [MASK] sat"], num_candidates=num_words)
    assert {token for token, _ in found.candidates[0]} == set(WORDS.tokens(range(WORDS.vocab_size))) - set(
        WORDS.special.values()
    )
    with pytest.raises(ValueError, match=f"allowed are 1 to {num_words}$"):
        opened.fill(["the [MASK] sat"], num_candidates=num_words + 1)


def test_a_folder_without_the_head_or_without_a_mask_is_named_with_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published(tmp_path, BertForMaskedLM)
    state = load_file(tmp_path / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in state.items() if "transform" not in name}, tmp_path / "model.safetensors"
    )
    capsys.readouterr()
    code, lines, error = run(capsys, "fill-mask", "--model", str(tmp_path), "the [MASK] sat")
    assert (code, lines) == (2, []) and error.count("\n") == 1
    assert error.startswith(
        f"error: {tmp_path}: the weights do not fit the configuration: missing cls.predictions.tran"
    )
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"mask_token": None}))
    code, _, error = run(capsys, "fill-mask", "--model", str(tmp_path), "the [MASK] sat")
    assert code == 2 and error.startswith(f"error: {tmp_path}: the tokenizer has no 'mask' token; it has")
