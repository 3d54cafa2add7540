"""A trained translation model in other engines: `transformers` and CTranslate2 translate as we do."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import ctranslate2
import pytest
import torch
from ctranslate2.converters import TransformersConverter
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, MarianMTModel

from pipeline.data.examples.translation import translation_examples
from pipeline.data.plan import one_pass
from pipeline.data.records import Pair
from pipeline.inference.translator import Translation, Translator
from pipeline.inference.translator_folder import save_translator
from pipeline.models.seq2seq import Seq2Seq
from pipeline.text.given_tokenizer import translation_tokenizer
from pipeline.text.tokenizer import Role, Tokenizer
from pipeline.text.tokenizer_training import train_byte_bpe, train_wordpiece
from tests.stages import grammar
from tests.stages.test_translate import tokenizer, translator

TIED = ("all", "decoder", "none")
NUM_SENTENCES = 1000
NUM_STEPS = 150


@cache
def trained(tied: str) -> Translator:
    """A small model after some steps on sentences of one to nine words of the circle and their translations."""
    one = translator("transformer", tied_embeddings=tied)
    assert isinstance(one.model, Seq2Seq)
    words, choose = grammar.WORDS, random.Random(2)
    pairs = []
    for number in range(400):
        places = [choose.randrange(len(words)) for _ in range(choose.randint(1, 9))]
        src, tgt = (" ".join(words[(place + shift) % len(words)] for place in places) for shift in (0, 1))
        pairs.append(Pair(id=str(number), src=src, tgt=tgt, source="circle", group=str(number)))
    examples, _ = translation_examples(pairs, one.tokenizer, max_length=48, too_long="drop")
    steps = list(one_pass(examples.sizes(0), tokens_per_batch=800))
    optimizer = torch.optim.Adam(one.model.parameters(), lr=3e-3)
    for number in range(NUM_STEPS):
        batch = examples.collate(steps[number % len(steps)].indices, 0)
        logits = one.model.logits(one.model(batch.src, batch.src_mask, batch.tgt)[batch.is_target])
        optimizer.zero_grad()
        cross_entropy(logits, batch.labels[batch.is_target]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    one.model.eval()
    return one


@cache
def translated(tied: str) -> tuple[list[str], list[Translation]]:
    """Sentences and their translations, which say something and often come to an end."""
    choose = random.Random(1)
    texts = [" ".join(choose.choices(grammar.WORDS, k=choose.randint(1, 9))) for _ in range(NUM_SENTENCES)]
    one = trained(tied)
    ours = replace(one, search=one.search.greedy).translate(texts)
    assert sum(one.at_limit for one in ours) < NUM_SENTENCES * 3 / 4
    assert len({one.text for one in ours}) > NUM_SENTENCES / 2
    assert sum(len(set(one.tokens)) for one in ours) > 3 * NUM_SENTENCES
    return texts, ours


@pytest.mark.parametrize("tied", TIED)
def test_transformers_translates_a_thousand_sentences_alike_in_padded_batches(tied: str, tmp_path: Path) -> None:
    texts, ours = translated(tied)
    save_translator(tmp_path, trained(tied))
    theirs: Any = MarianMTModel.from_pretrained(tmp_path)
    tokens = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.generation_config.num_beams == trained(tied).search.beam_size > 1
    for first in range(0, NUM_SENTENCES, 100):
        batch = slice(first, first + 100)
        inputs = tokens(texts[batch], padding=True, return_tensors="pt", return_token_type_ids=False)
        lengths = inputs["attention_mask"].sum(1)
        assert lengths.min() < lengths.max() / 3, "some rows are mostly padding"
        found = theirs.generate(**inputs, num_beams=1, max_length=48)
        for row, translation in zip(found.tolist(), ours[batch], strict=True):
            expected = [tokens.pad_token_id, *translation.tokens]
            assert row[: len(expected)] == expected
            # At the longest length ours may only end; theirs goes on.
            if not translation.at_limit:
                rest = row[len(expected) :]
                assert rest[0] == tokens.eos_token_id and set(rest[1:]) <= {tokens.pad_token_id}
                assert tokens.decode(row, skip_special_tokens=True) == translation.text


@pytest.mark.parametrize("tied", TIED)
def test_ctranslate2_converts_the_folder_and_translates_a_thousand_sentences_alike(tied: str, tmp_path: Path) -> None:
    texts, ours = translated(tied)
    save_translator(tmp_path / "model", trained(tied))
    TransformersConverter(str(tmp_path / "model")).convert(str(tmp_path / "converted"))
    engine = ctranslate2.Translator(str(tmp_path / "converted"), device="cpu", compute_type="float32", intra_threads=1)
    backend = tokenizer().backend
    sources = [tokenizer().tokens(source.tolist()) for source in trained(tied).encode(texts, too_long="cut")]
    # At least one token is its default; ours may be empty.
    found = engine.translate_batch(
        sources, beam_size=1, max_batch_size=64, min_decoding_length=0, max_decoding_length=47
    )
    for one, translation in zip(found, ours, strict=True):
        ids = [backend.token_to_id(token) for token in one.hypotheses[0]]
        expected = list(translation.tokens)
        assert (ids[: len(expected)] if translation.at_limit else ids) == expected


GIVEN: dict[str, Callable[[Sequence[str]], Tokenizer]] = {
    "WordPiece": lambda texts: train_wordpiece(texts, vocab_size=120),
    "byte-level BPE": lambda texts: train_byte_bpe(texts, vocab_size=300),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_a_model_of_a_given_tokenizer_is_opened_by_both_and_translates_alike(kind: str, tmp_path: Path) -> None:
    """A [PAD] and a vocabulary without an unknown token are what CTranslate2 does not convert."""
    choose = random.Random(3)
    texts = [" ".join(choose.choices(grammar.WORDS, k=choose.randint(1, 9))) for _ in range(50)]
    GIVEN[kind](texts).save(tmp_path)
    given = translation_tokenizer(tmp_path)
    one = replace(translator("transformer", vocab_size=given.vocab_size), tokenizer=given)
    one = replace(one, search=one.search.greedy)
    ours = one.translate(texts)
    assert len({one.text for one in ours}) > len(texts) / 2
    save_translator(tmp_path / "model", one)

    theirs: Any = MarianMTModel.from_pretrained(tmp_path / "model")
    tokens = AutoTokenizer.from_pretrained(tmp_path / "model")
    inputs = tokens(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    for row, translation in zip(theirs.generate(**inputs, max_length=48).tolist(), ours, strict=True):
        assert row[: 1 + len(translation.tokens)] == [tokens.pad_token_id, *translation.tokens]

    TransformersConverter(str(tmp_path / "model")).convert(str(tmp_path / "converted"))
    engine = ctranslate2.Translator(str(tmp_path / "converted"), device="cpu", compute_type="float32", intra_threads=1)
    sources = [given.tokens(source.tolist()) for source in one.encode(texts, too_long="cut")]
    found = engine.translate_batch(
        sources, beam_size=1, min_decoding_length=0, max_decoding_length=47, disable_unk=True
    )
    for result, translation in zip(found, ours, strict=True):
        ids = [given.backend.token_to_id(token) for token in result.hypotheses[0]]
        assert ids[: len(translation.tokens)] == list(translation.tokens)


def test_a_model_that_ctranslate2_does_not_convert_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = translator("transformer")
    special: dict[Role, str] = {role: token for role, token in one.tokenizer.special.items() if role != "unk"}
    save_translator(tmp_path / "model", replace(one, tokenizer=replace(one.tokenizer, special=special)))
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "CTranslate2 does not convert" in record.message
    assert str(tmp_path / "model") in record.message
