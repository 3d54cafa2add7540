"""What translations of a test set are worth, in both conventions."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.data.records import Pair
from pipeline.decoding.beam import Hypothesis
from pipeline.evaluation.bleu import bleu, tokenised_bleu
from pipeline.inference.translator import Finished, Translation, Translator
from pipeline.stages.translation_scores import MosesBleuConfig, evaluate, scored, scores
from pipeline.stages.validation_bleu import ValidationBleu
from pipeline.text.forms import PLAIN, MosesText, PlainText, into_form
from pipeline.text.given_tokenizer import translation_tokenizer
from pipeline.text.tokenizer_training import train_wordpiece
from tests.stages.test_translate import pairs as circle
from tests.stages.test_translate import translator

MOSES = MosesText(kind="moses", src="en", tgt="de", lowercase=True)
TOKENS = ["ein mann , der läuft .", "zwei hunde & quot ; spielen am strand .", "eine frau im roten kleid ."]
PLAIN_TEXT = ["Ein Mann, der läuft.", 'Zwei Hunde " spielen am Strand.', "Eine Frau im roten Kleid."]
BEAM = ["ein mann , der läuft .", "zwei hunde spielen am strand .", "eine frau im kleid ."]
GREEDY = ["ein mann läuft .", "hunde spielen am strand .", "eine frau im roten kleid"]


def found(texts: list[str]) -> list[Translation]:
    return [Translation(text=text, tokens=(1,), log_prob=-1.0, score=-1.0) for text in texts]


def pairs(form: PlainText | MosesText) -> list[Pair]:
    """Three pairs, in Moses tokens with the untouched references beside them, or plain."""
    rows = zip(TOKENS, PLAIN_TEXT, strict=True)
    if isinstance(form, MosesText):
        return [Pair(tokens, "a source", tokens, "own", tokens, plain) for tokens, plain in rows]
    return [Pair(plain, "a source", plain, "own", plain) for _, plain in rows]


def test_tokens_are_compared_with_tokens_and_plain_text_with_what_people_wrote() -> None:
    result = scores(pairs(MOSES), found(BEAM), found(GREEDY), MOSES, None)
    assert result["tokenised_bleu"]["beam"] == tokenised_bleu(BEAM, TOKENS).value
    plain = ["ein mann, der läuft.", "zwei hunde spielen am strand.", "eine frau im kleid."]
    assert result["bleu"]["beam"] == bleu(plain, PLAIN_TEXT, lowercase=True).value


def test_the_signature_says_whose_tokens_they_are_and_that_case_is_gone() -> None:
    result = scores(pairs(MOSES), found(BEAM), found(GREEDY), MOSES, None)
    assert "case:lc" in result["tokenised_bleu"]["signature"]
    assert "tok:moses-de" in result["tokenised_bleu"]["signature"]
    assert "tok:13a" in result["bleu"]["signature"] and "case:lc" in result["bleu"]["signature"]
    cased = MOSES.model_copy(update={"lowercase": False})
    assert "case:mixed" in scores(pairs(cased), found(BEAM), found(GREEDY), cased, None)["tokenised_bleu"]["signature"]


def test_a_perfect_translation_of_a_model_without_case_has_the_best_of_every_score() -> None:
    rows = ["ein mann , der läuft .", "zwei hunde spielen am strand .", "eine frau im roten kleid ."]
    people = ["Ein Mann, der läuft.", "Zwei Hunde spielen am Strand.", "Eine Frau im roten Kleid."]
    both = zip(rows, people, strict=True)
    wanted = [Pair(tokens, "a source", tokens, "own", tokens, plain) for tokens, plain in both]
    moses = MosesBleuConfig(language="de", split_compounds=True)
    found = scored(rows, wanted, MOSES, moses)
    assert {name: round(score.value, 6) for name, score in found.items()} == dict.fromkeys(
        ("bleu", "chrf", "tokenised_bleu", "moses_bleu"), 100.0
    )
    assert "case:lc" in found["moses_bleu"].signature
    cased = scored(rows, wanted, MOSES.model_copy(update={"lowercase": False}), moses)
    assert cased["moses_bleu"].value < 50.0 and "case:mixed" in cased["moses_bleu"].signature


@pytest.mark.parametrize("form", [PLAIN, MOSES])
def test_the_bootstrap_compares_the_two_bleu_that_stand_beside_it(form: PlainText | MosesText) -> None:
    result = scores(pairs(form), found(BEAM), found(GREEDY), form, None)
    bleu = result["bleu"]
    assert bleu["beam"] != bleu["greedy"]
    assert result["beam_over_greedy"]["difference"] == pytest.approx(bleu["beam"] - bleu["greedy"])


@pytest.mark.parametrize("preference", [2.0, 6.0])
def test_test_translations_as_long_as_allowed_are_counted_and_told(
    preference: float, caplog: pytest.LogCaptureFixture
) -> None:
    """The more it prefers to end, the fewer sentences of this model with random weights go on and on."""
    one = translator("transformer")
    with torch.no_grad():
        one.model.embeddings.output.bias[one.tokenizer.eos_id] = preference
    test = circle(range(90, 110))
    expected = sum(each.at_limit for each in one.translate([pair.src for pair in test]))
    assert expected == 0 if preference > 2 else 0 < expected < 20
    metrics = evaluate(one, valid=test[:3], test=test, moses=None, num_samples=1, num_attention_maps=0).metrics
    assert metrics["test"] == {"num_pairs": 20, "num_src_too_long": 0, "num_at_limit": expected}
    told = f"{expected} of 20 test translations are as long as allowed, and may lack their ends"
    assert (told in caplog.text) is (expected > 0)


def test_a_perfect_translation_of_a_wordpiece_has_the_best_scores_of_moses_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokens that the search finds are those of the references; its decoder writes `mann, der` for `mann , der`."""
    people = ["Ein Mann, der 2-jährig ist, läuft.", 'Er sagt: "Hallo!"', "Ein T-Shirt kostet 3,5 Euro."]
    wanted = [Pair(one, "a man", into_form(one, MOSES, "tgt"), "own", one, one) for one in people]
    train_wordpiece([pair.tgt for pair in wanted], vocab_size=120, lower_case=False).save(tmp_path)
    one = translator("transformer")
    given = translation_tokenizer(tmp_path)
    one = replace(one, tokenizer=given, form=MOSES, search=one.search.model_copy(update={"beam_size": 1}))
    targets = iter(given.encode_batch([pair.tgt for pair in wanted]) * 3)

    def found(self: Translator, sources: Sequence[object], *, num_best: int) -> Iterator[Finished]:
        hypotheses = [Hypothesis(tuple(next(targets)), -1.0, -1.0) for _ in sources]
        yield [(place, [self._translation(each, 100)]) for place, each in enumerate(hypotheses)]

    monkeypatch.setattr(Translator, "searched", found)
    metrics = evaluate(one, valid=wanted, test=wanted, moses=None, num_samples=1, num_attention_maps=0).metrics
    best = {"bleu", "chrf", "tokenised_bleu"}
    assert {name: metrics[name]["beam"] for name in best} == pytest.approx(dict.fromkeys(best, 100.0))
    assert metrics["valid"] == pytest.approx(dict.fromkeys(best, 100.0))
    assert "tok:moses-de" in metrics["tokenised_bleu"]["signature"]
    targets = iter(given.encode_batch([pair.tgt for pair in wanted]))
    assert ValidationBleu(one, wanted)(one.model.state_dict(), torch.device("cpu")) == pytest.approx(100.0)
