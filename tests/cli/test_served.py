"""Every kind of model folder answers the requests that its signature describes, and BERT fills gaps by its scores."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from pipeline.inference.mlflow_model import signature
from pipeline.inference.models import open_model
from pipeline.inference.requests import answer
from pipeline.inference.word_models import GapFiller
from tests.cli.conftest import ROOT

STAGES = [
    "pretrain_gpt",
    "reward",
    "pretrain_bert",
    "pretrain_bilm",
    "finetune/polarity",
    "finetune/squad",
    "finetune/polarity-bilstm",
    "finetune/polarity-bilm",
    "finetune/polarity-gpt",
    "finetune/tags",
    "translate/transformer",
    "word_vectors/skipgram",
]
TEXTS = {"pretrain_bert": ["the [MASK] sat", "a [MASK] ran [MASK] the cat"], "word_vectors/skipgram": ["cat", "door"]}


@pytest.mark.parametrize("stage", STAGES)
def test_answers_have_a_row_for_each_request_and_the_columns_of_the_signature(inside: Path, stage: str) -> None:
    folder = inside / "models/tiny" / stage
    described = signature(folder)
    texts = TEXTS.get(stage, ["the cat", "a dog ran"])
    request = pd.DataFrame(dict.fromkeys(described.inputs.input_names(), texts))
    params = {one.name: one.default for one in described.params or []}
    found = answer(open_model(folder), request, params)
    assert list(found.columns) == described.outputs.input_names()
    assert len(found) == 2


def filler(inside: Path) -> GapFiller:
    model = open_model(inside / "models/tiny/pretrain_bert")
    assert isinstance(model, GapFiller)
    return model


def test_a_gap_is_filled_with_the_likeliest_ordinary_token(inside: Path) -> None:
    model = filler(inside)
    tokenizer = model.tokenizer
    before, after = tokenizer.encode("the cat"), tokenizer.encode("on the mat")
    ids = [tokenizer.id_of("cls"), *before, tokenizer.id_of("mask"), *after, tokenizer.id_of("sep")]
    input_ids = torch.tensor([ids])
    with torch.no_grad():
        hidden = model.model(input_ids, torch.zeros_like(input_ids), torch.ones_like(input_ids, dtype=torch.bool))
        scores = model.model.mlm_logits(hidden[0, 1 + len(before)])
    ordinary = [i for i in range(tokenizer.vocab_size) if i not in tokenizer.special_ids]
    best = max(ordinary, key=lambda i: float(scores[i]))
    (found,) = model.fill(["the cat [MASK] on the mat"])
    assert found.text == tokenizer.decode([*before, best, *after])
    assert found.probability == pytest.approx(float(scores[ordinary].softmax(0)[ordinary.index(best)]), rel=1e-5)


def test_around_its_gaps_a_text_stays_as_it_was_written(inside: Path) -> None:
    model = filler(inside)
    (plain,) = model.fill(["The [MASK] Sat,  \u6f22 \U0001f642 [MASK]!"], num_candidates=1)
    first, second = (gap[0][0].removeprefix("##") for gap in plain.candidates)
    # A piece that goes on with a word stands at its end, without the space.
    assert plain.text.replace(f"The{first}", f"The {first}").replace(f"\U0001f642{second}", f"\U0001f642 {second}") == (
        f"The {first} Sat,  \u6f22 \U0001f642 {second}!"
    )


def test_a_piece_that_goes_on_with_a_word_stands_at_its_end(inside: Path) -> None:
    model = filler(inside)
    vocabulary = model.tokenizer.backend.get_vocab()
    whole, part = vocabulary["cat"], next(number for piece, number in vocabulary.items() if piece.startswith("##"))
    piece = model.tokenizer.tokens([part])[0].removeprefix("##")
    assert model._put_together(["the ", " Sat ", "."], [whole, part]) == f"the cat Sat{piece}."


def test_the_candidates_of_a_gap_are_the_likeliest_tokens_in_their_order(inside: Path) -> None:
    model = filler(inside)
    every = model.model.config.vocab_size - len(model.tokenizer.special_ids)
    (found,) = model.fill(["the [MASK] sat [MASK]"], num_candidates=every)
    assert len(found.candidates) == 2
    for gap in found.candidates:
        values = [value for _, value in gap]
        assert values == sorted(values, reverse=True) and sum(values) == pytest.approx(1.0, rel=1e-5)
        assert len({token for token, _ in gap}) == every
    first, second = (gap[0][1] for gap in found.candidates)
    assert found.probability == pytest.approx(first * second, rel=1e-5)
    with pytest.raises(ValueError, match=f"candidates of a gap: found {every + 1}, allowed are 1 to {every}"):
        model.fill(["the [MASK]"], num_candidates=every + 1)


def test_what_fills_a_gap_does_not_depend_on_the_other_texts(inside: Path) -> None:
    model = filler(inside)
    texts = ["the [MASK]", "the dog sat by the [MASK] and a [MASK] ran after the cat"]
    together, alone = model.fill(texts), [model.fill([text])[0] for text in texts]
    assert [one.text for one in together] == [one.text for one in alone]
    assert [one.probability for one in together] == pytest.approx([one.probability for one in alone], rel=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the cat sat", r"expected a text with \[MASK\] in it, found 'the cat sat'"),
        ("the cat " * 40 + "[MASK]", r"the model reads at most 30: 'the cat"),
    ],
)
def test_a_text_that_has_no_gap_or_does_not_fit_is_named(inside: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        filler(inside).fill(["the [MASK]", text])


def test_a_model_opens_where_nothing_to_train_with_is_installed() -> None:
    """A model server installs what the stored code needs, which is none of these."""
    block = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('lightning', 'deepspeed', 'transformers', 'gensim'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "import pipeline.inference.models, pipeline.inference.requests, pipeline.inference.mlflow_model\n"
    )
    ended = subprocess.run([sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
