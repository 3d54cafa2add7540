"""Translation scores worked by hand, and the bootstrap against them."""

import math

import pytest
from sacrebleu.metrics.ter import TER

from pipeline.evaluation.bleu import (
    MosesWords,
    bleu,
    bleu_of,
    chrf,
    moses_bleu,
    paired_bootstrap,
    plain_words,
    ter,
    tokenised_bleu,
)

REFERENCES = ["The cat sat on the mat.", "A dog barks at night.", "It is raining in the old town today."] * 8
CLOSE = ["The cat sat on a mat.", "A dog barks at night.", "It is raining in the town today."] * 8
FAR = ["The cat lay there.", "A dog at night.", "Rain is in the old town."] * 8


def test_corpus_bleu_is_the_geometric_mean_of_summed_precisions_times_the_brevity_penalty() -> None:
    # Sentence 1: 4 of 4 words match, 3/3, 2/2, 1/1. Sentence 2: a b x d of a b c d e: 3/4, 1/3, 0/2, 0/1.
    # Sums: 7/8, 4/6, 2/4, 1/2; lengths 8 and 9.
    hypotheses, references = ["a b c d", "a b x d"], ["a b c d", "a b c d e"]
    precisions = 7 / 8 * 4 / 6 * 2 / 4 * 1 / 2
    expected = 100 * precisions**0.25 * math.exp(1 - 9 / 8)
    assert tokenised_bleu(hypotheses, references).value == pytest.approx(expected)


def test_corpus_bleu_is_not_the_mean_over_sentences() -> None:
    whole = bleu(CLOSE, REFERENCES).value
    mean = sum(bleu([ours], [theirs]).value for ours, theirs in zip(CLOSE, REFERENCES, strict=True)) / len(CLOSE)
    assert abs(whole - mean) > 1.0


def test_tokenised_and_detokenised_scores_differ_by_their_words_and_say_so() -> None:
    hypotheses, references = ["the cat , sat here now ."], ["the cat, sat here now."]
    assert bleu(hypotheses, references).value == pytest.approx(100.0)
    assert tokenised_bleu(hypotheses, references).value < 50.0
    assert "tok:13a" in bleu(hypotheses, references).signature
    assert "tok:none" in tokenised_bleu(hypotheses, references).signature


def test_moses_bleu_scores_the_tokens_of_moses_and_splits_compounds_between_two_characters() -> None:
    """Perl's `s{(\\S)-(\\S)}{$1 ##AT##-##AT## $2}g` splits every second hyphen of a-b-c: the b is used up."""
    plain = (["Das U-Boot (neu) taucht, a-b-c!"], ["Das U-Boot (alt) taucht, a-b-d!"])
    tokens = (["Das U-Boot ( neu ) taucht , a-b-c !"], ["Das U-Boot ( alt ) taucht , a-b-d !"])
    compounds = tuple(
        [side[0].replace("U-Boot", "U ##AT##-##AT## Boot").replace("a-b", "a ##AT##-##AT## b")] for side in tokens
    )
    whole = moses_bleu(*plain, language="de", split_compounds=False)
    split = moses_bleu(*plain, language="de", split_compounds=True)
    assert whole.value == tokenised_bleu(*tokens).value
    assert "tok:moses-de|" in whole.signature
    assert split.value == tokenised_bleu(*compounds).value
    assert split.value > whole.value


UNSPACED = {
    "zh": ("我喜欢吃红色的苹果、但是他不喜欢。", "我喜欢吃红苹果、但是他不喜欢。"),
    "char": ("私は赤いりんごが好きですが、彼は嫌いです。", "私は赤いりんごが好きだが、彼は嫌いです。"),
}


@pytest.mark.parametrize("words", UNSPACED)
def test_a_script_without_spaces_is_scored_by_its_characters_since_a_sentence_is_one_word_of_13a(words: str) -> None:
    reference, hypothesis = UNSPACED[words]
    found = bleu([hypothesis], [reference])
    assert f"tok:{words}|" in found.signature
    assert 50.0 < found.value < 100.0
    assert bleu([hypothesis], [reference], words="13a").value < 10.0
    assert paired_bootstrap([reference], [hypothesis], [reference], seed=0, num_resamples=2).difference == (
        pytest.approx(100.0 - found.value)
    )


@pytest.mark.parametrize(
    ("references", "words"),
    [
        (["Ein Wort.", "北京 heißt Peking."], "13a"),
        (["Привет, мир", "नमस्ते दुनिया", "안녕 세상"], "13a"),
        (["ภาษาไทยไม่มีช่องว่าง"], "char"),
        (["他说“ありがとう”、然后离开了这个安静的小城市、再也没有回来过、我们都很想念他、每天都在等他的消息。"], "zh"),
        (["12 + 3 = 15"], "13a"),
    ],
)
def test_the_words_of_plain_text_are_chosen_by_the_script_of_the_references(references: list[str], words: str) -> None:
    assert plain_words(references) == words


def test_case_counts_unless_lowercased() -> None:
    assert tokenised_bleu(["a b c D"], ["a b c d"]).value < 100.0
    lowered = tokenised_bleu(["a b c D"], ["a b c d"], lowercase=True)
    assert lowered.value == pytest.approx(100.0)
    assert "case:lc" in lowered.signature


def test_compounds_are_split_at_hyphens_between_words_after_moses_and_before_bleu() -> None:
    # What get_ende_bleu.sh makes of them, by hand: the quotes become ASCII and then &quot;, the comma stands alone,
    # and a-b-c is split once, since the letter between its hyphens belongs to the first match.
    hypothesis, reference = "Ein „E-Mail-Text“, rich-text a-b-c", "Ein E-Mail Text, rich-text a-b-c"
    split_hypothesis = (
        "Ein &quot; E ##AT##-##AT## Mail ##AT##-##AT## Text &quot; , rich ##AT##-##AT## text a ##AT##-##AT## b-c"
    )
    split_reference = "Ein E ##AT##-##AT## Mail Text , rich ##AT##-##AT## text a ##AT##-##AT## b-c"
    found = moses_bleu([hypothesis], [reference], language="de", split_compounds=True)
    assert found.value == pytest.approx(tokenised_bleu([split_hypothesis], [split_reference]).value)
    assert found.value != pytest.approx(tokenised_bleu([hypothesis], [reference]).value)
    assert "tok:moses-de-compounds-split" in found.signature and "tok:none" not in found.signature


def test_splitting_compounds_raises_the_score_of_a_compound_that_is_half_right() -> None:
    hypotheses, references = ["a b c d well-made e f"], ["a b c d well-done e f"]
    # Whole: 6 of 7 words, 4/6, 2/5, 1/4. Split, 9 words: 8/9, 6/8, 4/7, 3/6.
    assert tokenised_bleu(hypotheses, references).value == pytest.approx(100 * (6 / 7 * 4 / 6 * 2 / 5 * 1 / 4) ** 0.25)
    assert moses_bleu(hypotheses, references, language="en", split_compounds=True).value == pytest.approx(
        100 * (8 / 9 * 6 / 8 * 4 / 7 * 3 / 6) ** 0.25
    )


def test_lower_case_is_that_of_the_words_which_moses_found_in_mixed_case() -> None:
    # In German "Bart." is an abbreviation that keeps its stop, and "bart ." a word and the end of the sentence.
    hypotheses, references = ["Sie sah einen Bart."], ["sie sah einen bart."]
    words = ["Sie sah einen Bart."], ["sie sah einen bart ."]
    scored = moses_bleu(hypotheses, references, language="de", split_compounds=False)
    lowered = moses_bleu(hypotheses, references, language="de", split_compounds=False, lowercase=True)
    assert scored.value == tokenised_bleu(*words).value
    assert lowered.value == tokenised_bleu(*words, lowercase=True).value
    assert scored.value < lowered.value < 90.0
    assert "case:mixed" in scored.signature and "case:lc" in lowered.signature and "tok:moses-de|" in lowered.signature


def test_moses_bleu_of_a_language_without_rules_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^language: found 'da', allowed are .*: as, bn, .*, de, .*, zh$"):
        moses_bleu(["En hund."], ["En hund."], language="da", split_compounds=False)


def test_each_kind_of_words_has_its_bleu() -> None:
    hypotheses, references = ["A well-made cat, now."] * 2, ["A well-done cat, now."] * 2
    assert bleu_of(hypotheses, references, kind="plain", lowercase=False) == bleu(hypotheses, references)
    assert bleu_of(hypotheses, references, kind="char", lowercase=True) == bleu(
        hypotheses, references, lowercase=True, words="char"
    )
    assert bleu_of(hypotheses, references, kind="tokenised", lowercase=True) == tokenised_bleu(
        hypotheses, references, lowercase=True
    )
    assert bleu_of(hypotheses, references, kind=MosesWords("en", True), lowercase=True) == moses_bleu(
        hypotheses, references, language="en", split_compounds=True, lowercase=True
    )


def test_perfect_translations_have_full_chrf_and_no_edits() -> None:
    assert chrf(REFERENCES, REFERENCES).value == pytest.approx(100.0)
    assert ter(REFERENCES, REFERENCES).value == 0.0
    assert chrf(CLOSE, REFERENCES).value > chrf(FAR, REFERENCES).value


def test_translation_edit_rate_counts_edits_for_each_reference_word() -> None:
    assert ter(["a b x d"], ["a b c d"]).value == pytest.approx(25.0)


@pytest.mark.parametrize("words", UNSPACED)
def test_the_edit_rate_of_chinese_and_japanese_counts_their_characters_as_tercom_parts_them(words: str) -> None:
    reference, hypothesis = UNSPACED[words]
    found = ter([hypothesis], [reference])
    theirs = TER(normalized=True, asian_support=True)
    assert found.value == pytest.approx(theirs.corpus_score([hypothesis], [[reference]]).score)
    assert found.signature == str(theirs.get_signature()) and "norm:yes" in found.signature
    assert "asian:yes" in found.signature
    # Between spaces a sentence is one word, and every change of it an edit of all.
    assert 0.0 < found.value < 50.0 and ter([hypothesis], [reference], words="13a").value == 100.0


def test_the_edit_rate_of_chinese_is_worked_by_hand() -> None:
    # Six characters and the stop; one is left out, one exchanged.
    assert ter(["我喜红苹菓。"], ["我喜欢红苹果。"]).value == pytest.approx(100 * 2 / 7)


def test_a_script_without_spaces_that_tercom_does_not_part_has_the_edit_rate_of_its_characters() -> None:
    reference, hypothesis = "ภาษาไทยไม่มีช่องว่าง", "ภาษาไทยมีช่องว่าง"
    found = ter([hypothesis], [reference])
    assert found.value == pytest.approx(100 * 3 / len(reference))
    assert "tok:char" in found.signature and "asian:no" in found.signature


def test_the_words_of_the_edit_rate_are_those_that_were_asked_for() -> None:
    hypotheses, references = ["Ein Wort"], ["Ein Ort"]
    assert ter(hypotheses, references).value == ter(hypotheses, references, words="tokenised").value == 50.0
    assert ter(hypotheses, references, words="char").value == pytest.approx(100 / 6)
    assert "asian:yes" in ter(hypotheses, references, words="zh").signature
    assert "asian:no" in ter(["我 喜欢"], ["我 喜欢"], words="tokenised").signature


def test_bootstrap_of_a_clearly_better_system_excludes_zero_and_contains_the_difference() -> None:
    result = paired_bootstrap(CLOSE, FAR, REFERENCES, seed=0, num_resamples=200)
    assert result.difference == pytest.approx(bleu(CLOSE, REFERENCES).value - bleu(FAR, REFERENCES).value)
    assert 0.0 < result.low < result.difference < result.high
    assert result.share_not_better == 0.0


def test_bootstrap_of_the_words_of_moses_is_that_of_the_text_tokenised_by_hand() -> None:
    ours, theirs, references = (
        ["A well-made cat, now."] * 4,
        ["A well-made cat now."] * 4,
        ["A well-done cat, now."] * 4,
    )
    found = paired_bootstrap(ours, theirs, references, seed=0, num_resamples=20, kind=MosesWords("en", True))
    split = [
        [text.replace("-", " ##AT##-##AT## ").replace(",", " ,").replace("now.", "now .") for text in texts]
        for texts in (ours, theirs, references)
    ]
    assert found == paired_bootstrap(*split, seed=0, num_resamples=20, kind="tokenised")
    assert found.difference == pytest.approx(
        tokenised_bleu(split[0], split[2]).value - tokenised_bleu(split[1], split[2]).value
    )
    assert found.difference > 0


def test_bootstrap_of_a_system_against_itself_finds_no_difference() -> None:
    result = paired_bootstrap(CLOSE, CLOSE, REFERENCES, seed=0, num_resamples=50)
    assert (result.difference, result.low, result.high, result.share_not_better) == (0.0, 0.0, 0.0, 1.0)


def test_bootstrap_is_a_function_of_its_seed() -> None:
    first, again, other = (paired_bootstrap(CLOSE, FAR, REFERENCES, seed=seed, num_resamples=50) for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize(("hypotheses", "references"), [(["a"], ["a", "b"]), ([], [])])
def test_files_that_do_not_align_are_refused(hypotheses: list[str], references: list[str]) -> None:
    with pytest.raises(ValueError, match="as many hypotheses as references"):
        bleu(hypotheses, references)
