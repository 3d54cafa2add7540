"""Scores of translations, each with the signature that says how it was computed; all are of the whole corpus.

Legend: N sentences, R resamples. `bleu` is the figure to compare across systems: it takes plain, detokenised text. A
published tokenised score is reproduced by `tokenised_bleu` on text that was tokenised as in the paper, or by
`moses_bleu` on plain text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np
from jaxtyping import Integer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER
from sacremoses import MosesPunctNormalizer, MosesTokenizer

from pipeline.text.moses import check_language

_HYPHEN = re.compile(r"(\S)-(\S)")


@dataclass(frozen=True)
class MosesWords:
    """The words of plain text as papers on WMT14 count them: those of Moses' tokenizer.

    A text gets ASCII punctuation (replace-unicode-punctuation.perl) and is tokenised by Moses, escapes included. Since
    Wu et al. (2016), papers on English-German also make every hyphen inside a word a word of its own, `rich-text`
    -> `rich ##AT##-##AT## text` (get_ende_bleu.sh of tensor2tensor), which is higher than `bleu` by about a point: it
    compares with those papers and with nothing else. That script takes the reference as tokenised elsewhere; here
    sacremoses tokenises it too. A sentence whose hyphens share a letter, `a-b-c`, is split where the script does.
    """

    language: str
    """That of the texts, as `de`; ValueError for one that Moses has no rules for."""
    split_compounds: bool
    """Whether words are split at their hyphens."""

    def __post_init__(self) -> None:
        check_language(self.language, "language")

    @property
    def name(self) -> str:
        """What a signature says of them."""
        return f"moses-{self.language}{'-compounds-split' if self.split_compounds else ''}"

    def of(self, texts: Sequence[str]) -> list[str]:
        """The words of each text, with spaces between them."""
        punctuation = MosesPunctNormalizer(lang=self.language)
        tokenizer = MosesTokenizer(lang=self.language)
        words = [tokenizer.tokenize(punctuation.replace_unicode_punct(text), return_str=True) for text in texts]
        return [_HYPHEN.sub(r"\1 ##AT##-##AT## \2", one) for one in words] if self.split_compounds else words


PlainWords = Literal["13a", "zh", "char"]
"""The words of plain text by sacreBLEU's tokenizers: between spaces and punctuation, the same with every Chinese
character a word, or every character."""
BleuKind = Literal["plain", "tokenised"] | PlainWords | MosesWords
"""What the words of BLEU are: those of plain text, by the script of the references or as named, or by Moses; or what
spaces separate."""

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_KANA = "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"
_UNSPACED = re.compile(f"[{_HAN}{_KANA}\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff]")
"""Letters of scripts without spaces between words: Han, kana, Thai, Lao, Tibetan, Burmese and Khmer."""
_CHINESE = re.compile(f"[{_HAN}]")
_EAST_ASIAN = re.compile(f"[{_HAN}{_KANA}]")
"""Letters of Chinese and Japanese: Han and kana."""


@dataclass(frozen=True)
class CorpusScore:
    """A score from 0 to 100 (TER: an error rate that may be larger) and its sacreBLEU signature."""

    value: float
    signature: str


@dataclass(frozen=True)
class PairedBootstrap:
    """How much better in BLEU a system is than a baseline on the same sentences (Koehn 2004)."""

    difference: float
    """BLEU of the system less BLEU of the baseline, on the whole test set."""
    low: float
    """2.5% quantile of the difference over the resamples."""
    high: float
    """97.5% quantile."""
    share_not_better: float
    """Share of the resamples in which the system is not better: a one-sided p-value."""


def plain_words(references: Sequence[str]) -> PlainWords:
    """The tokenizer for the script of these texts: 13a, unless most letters are of a script without spaces.

    That one makes a whole sentence of them one word, and every BLEU about 0. Chinese gets `zh`, as sacreBLEU advises;
    the others `char`, since sacreBLEU's word tokenizer for Japanese needs a dictionary and for the rest there is none.
    """
    text = "".join(references)
    num_unspaced = len(_UNSPACED.findall(text))
    if 2 * num_unspaced <= sum(map(str.isalpha, text)):
        return "13a"
    # A Japanese sentence is hardly ever without kana; a Chinese text may quote some.
    return "zh" if len(_CHINESE.findall(text)) >= 0.8 * num_unspaced else "char"


def bleu(
    hypotheses: Sequence[str], references: Sequence[str], *, lowercase: bool = False, words: PlainWords | None = None
) -> CorpusScore:
    """sacreBLEU (Post 2018) on detokenised text; mixed case unless told otherwise.

    Its tokenizer is 13a, for scripts without spaces another one (`plain_words`), or as asked: the signature names it.
    """
    return _score(_metric(words or plain_words(references), lowercase=lowercase), hypotheses, references)


def tokenised_bleu(
    hypotheses: Sequence[str], references: Sequence[str], *, lowercase: bool = False, tokens: str = "none"
) -> CorpusScore:
    """BLEU (Papineni et al. 2002) on text that is already tokenised: words are what spaces separate.

    `tokens` is what the signature says of who tokenised it.
    """
    score = _score(_metric("tokenised", lowercase=lowercase), hypotheses, references)
    return CorpusScore(score.value, score.signature.replace("tok:none", f"tok:{tokens}"))


def moses_bleu(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    language: str,
    split_compounds: bool,
    lowercase: bool = False,
) -> CorpusScore:
    """BLEU as papers on WMT14 report it: of plain text, after Moses' tokenizer (`MosesWords`).

    Lower case is that of the words, as `multi-bleu.perl -lc` has it: Moses sees the text in mixed case.
    """
    words = MosesWords(language, split_compounds)
    return tokenised_bleu(words.of(hypotheses), words.of(references), lowercase=lowercase, tokens=words.name)


def bleu_of(hypotheses: Sequence[str], references: Sequence[str], *, kind: BleuKind, lowercase: bool) -> CorpusScore:
    """`bleu`, `tokenised_bleu` or `moses_bleu`."""
    match kind:
        case "plain":
            return bleu(hypotheses, references, lowercase=lowercase)
        case "13a" | "zh" | "char":
            return bleu(hypotheses, references, lowercase=lowercase, words=kind)
        case "tokenised":
            return tokenised_bleu(hypotheses, references, lowercase=lowercase)
        case MosesWords():
            return moses_bleu(
                hypotheses,
                references,
                language=kind.language,
                split_compounds=kind.split_compounds,
                lowercase=lowercase,
            )
        case _:
            assert_never(kind)


def chrf(hypotheses: Sequence[str], references: Sequence[str], *, lowercase: bool = False) -> CorpusScore:
    """Character n-gram F-score, chrF2 (Popovic 2015)."""
    return _score(CHRF(lowercase=lowercase), hypotheses, references)


def ter(
    hypotheses: Sequence[str], references: Sequence[str], *, words: Literal["tokenised"] | PlainWords | None = None
) -> CorpusScore:
    """Translation edit rate (Snover et al. 2006): edits and shifts for each reference word; lower is better.

    Its words are what spaces separate; where `plain_words` of the references, or what is asked for, is none of that,
    those of Tercom for Chinese and Japanese (`asian:yes` of the signature), which parts every Han character, and of the
    other scripts without spaces, which Tercom does not part, every character (`tok:char`).
    """
    match words or plain_words(references):
        case "13a" | "tokenised":
            return _score(TER(), hypotheses, references)
        case "char" if not _is_east_asian(references):
            score = _score(TER(), *([" ".join(text) for text in texts] for texts in (hypotheses, references)))
            return CorpusScore(score.value, score.signature.replace("tok:tercom", "tok:char"))
        case "zh" | "char":
            return _score(TER(normalized=True, asian_support=True), hypotheses, references)
        case other:
            assert_never(other)


def paired_bootstrap(
    system: Sequence[str],
    baseline: Sequence[str],
    references: Sequence[str],
    *,
    seed: int,
    num_resamples: int = 1000,
    kind: BleuKind = "plain",
    lowercase: bool = False,
) -> PairedBootstrap:
    """Draws test sets of N sentences with replacement and scores both systems with `bleu_of` on each."""
    if isinstance(kind, MosesWords):
        system, baseline, references = kind.of(system), kind.of(baseline), kind.of(references)
        kind = "tokenised"
    words = plain_words(references) if kind == "plain" else kind
    ours, theirs = (
        _sentence_statistics(_metric(words, lowercase=lowercase), texts, references) for texts in (system, baseline)
    )
    draws = np.random.default_rng(seed).integers(len(references), size=(num_resamples, len(references)))
    differences = np.array([_bleu_of(ours[rows]) - _bleu_of(theirs[rows]) for rows in draws])
    low, high = np.quantile(differences, [0.025, 0.975])
    return PairedBootstrap(
        difference=_bleu_of(ours) - _bleu_of(theirs),
        low=float(low),
        high=float(high),
        share_not_better=float((differences <= 0).mean()),
    )


def _is_east_asian(texts: Sequence[str]) -> bool:
    """Whether most letters of the scripts without spaces are Chinese or Japanese ones."""
    text = "".join(texts)
    return 2 * len(_EAST_ASIAN.findall(text)) > len(_UNSPACED.findall(text))


def _score(metric: BLEU | CHRF | TER, hypotheses: Sequence[str], references: Sequence[str]) -> CorpusScore:
    _check(hypotheses, references)
    value = metric.corpus_score(list(hypotheses), [list(references)]).score
    return CorpusScore(value=float(value), signature=str(metric.get_signature()))


def _metric(words: Literal["tokenised"] | PlainWords, *, lowercase: bool) -> BLEU:
    match words:
        case "13a" | "zh" | "char":
            return BLEU(tokenize=words, lowercase=lowercase)
        case "tokenised":
            return BLEU(tokenize="none", lowercase=lowercase, force=True)
        case _:
            assert_never(words)


def _sentence_statistics(
    metric: BLEU, hypotheses: Sequence[str], references: Sequence[str]
) -> Integer[np.ndarray, "N 10"]:
    """Of each sentence: both lengths, and for n-grams of one to four words the matches and the total."""
    _check(hypotheses, references)
    metric.effective_order = True  # which is what a single sentence needs; the counts are the same
    scores = (metric.sentence_score(ours, [theirs]) for ours, theirs in zip(hypotheses, references, strict=True))
    return np.array([[score.sys_len, score.ref_len, *score.counts, *score.totals] for score in scores])


def _bleu_of(statistics: Integer[np.ndarray, "N 10"]) -> float:
    """Corpus BLEU of the sentences, from their sums."""
    sums = statistics.sum(axis=0).tolist()
    score = BLEU.compute_bleu(sums[2:6], sums[6:], sums[0], sums[1], smooth_method="exp")
    return float(score.score)


def _check(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if len(hypotheses) != len(references) or not references:
        raise ValueError(
            f"as many hypotheses as references are scored, at least one: found {len(hypotheses)} and {len(references)}"
        )
