"""What a translator is worth: scores of whole corpora beside their baselines, and samples for people."""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.data.records import Pair
from pipeline.evaluation.bleu import CorpusScore, bleu, chrf, moses_bleu, paired_bootstrap, tokenised_bleu
from pipeline.inference.attention_map import attention_map
from pipeline.inference.translator import Translation, Translator
from pipeline.text.forms import MosesText, PlainText, has_no_case, out_of_form
from pipeline.text.moses import Language

_log = logging.getLogger(__name__)


class MosesBleuConfig(Config):
    """The score of papers before sacreBLEU: of plain text after Moses' tokenizer."""

    language: Language
    """Language of the targets, as `de`."""
    split_compounds: bool
    """Split words at their hyphens, as papers on English-German do."""


@dataclass(frozen=True)
class Evaluation:
    """What was found."""

    metrics: dict[str, Any]
    """Scores of the test set by name, where there is one, and under `valid` those of the validation set."""
    samples: list[dict[str, Any]]
    """Sentences with their translations, of the test set where there is one."""
    tokens_per_second: float
    """Tokens of the targets that the search found in a second, EOS counted."""


def evaluate(
    translator: Translator,
    *,
    valid: Sequence[Pair],
    test: Sequence[Pair] | None,
    moses: MosesBleuConfig | None,
    num_samples: int,
    num_attention_maps: int,
) -> Evaluation:
    """Translates the validation set, and the test set, of which no sentence is left out: long ones lose their ends."""
    pairs = valid if test is None else test
    found, seconds = _timed(translator, pairs)
    greedily, _ = _timed(replace(translator, search=translator.search.greedy), pairs)
    on_valid, metrics = found, dict[str, Any]()
    if test is not None:
        on_valid, _ = _timed(translator, valid)
        metrics = scores(test, found, greedily, translator.form, moses)
        lengths = translator.lengths([pair.src for pair in test])
        num_too_long = sum(length > translator.longest_text for length in lengths)
        if num_too_long:
            _log.warning(
                "%d of %d test sources have more than the %d tokens that the model reads: their ends are cut off",
                num_too_long,
                len(test),
                translator.longest_text,
            )
        num_at_limit = sum(one.at_limit for one in found)
        if num_at_limit:
            _log.warning(
                "%d of %d test translations are as long as allowed, and may lack their ends", num_at_limit, len(test)
            )
        metrics["test"] = {"num_pairs": len(test), "num_src_too_long": num_too_long, "num_at_limit": num_at_limit}
    texts = [one.text for one in on_valid]
    metrics["valid"] = {name: score.value for name, score in scored(texts, valid, translator.form).items()}
    return Evaluation(
        metrics=metrics,
        samples=samples(
            pairs, found, greedily, translator, num_samples=num_samples, num_attention_maps=num_attention_maps
        ),
        tokens_per_second=sum(len(one.tokens) + 1 for one in found) / seconds,
    )


def _timed(translator: Translator, pairs: Sequence[Pair]) -> tuple[list[Translation], float]:
    started = time.monotonic()
    found = translator.translate([pair.src for pair in pairs], too_long="cut")
    return found, time.monotonic() - started


def refuse_empty_references(test: Sequence[Pair], file: Path) -> None:
    """ValueError names the first test pair without a target: nothing could be compared with it."""
    for number, pair in enumerate(test, start=1):
        if not pair.tgt.strip():
            raise ValueError(f"{file}:{number}: the target is empty: a translation is compared with it")


def as_plain(texts: Sequence[str], pairs: Sequence[Pair], form: PlainText | MosesText) -> tuple[list[str], list[str]]:
    """Translations put together again, and the references as people wrote them."""
    plain = [out_of_form(text, form) for text in texts]
    return plain, [pair.reference or out_of_form(pair.tgt, form) for pair in pairs]


def scored(
    texts: Sequence[str],
    pairs: Sequence[Pair],
    form: PlainText | MosesText,
    moses: MosesBleuConfig | None = None,
) -> dict[str, CorpusScore]:
    """Corpus scores of translations: of plain text, and where the model writes Moses tokens, of these as well.

    The tokens are compared with the tokenised references, as in the papers that report them; the text put together
    again with the references as people wrote them, without case where the model has none.
    """
    plain, references = as_plain(texts, pairs, form)
    lowercase = has_no_case(form)
    result = {
        "bleu": bleu(plain, references, lowercase=lowercase),
        "chrf": chrf(plain, references, lowercase=lowercase),
    }
    if isinstance(form, MosesText):
        result["tokenised_bleu"] = tokenised_bleu(
            texts, [pair.tgt for pair in pairs], lowercase=lowercase, tokens=f"moses-{form.tgt}"
        )
    if moses:
        result["moses_bleu"] = moses_bleu(
            plain,
            references,
            language=moses.language,
            split_compounds=moses.split_compounds,
            lowercase=lowercase,
        )
    return result


def scores(
    test: Sequence[Pair],
    found: Sequence[Translation],
    greedily: Sequence[Translation],
    form: PlainText | MosesText,
    moses: MosesBleuConfig | None,
) -> dict[str, Any]:
    """Corpus scores of the search, of greedy search, and of leaving the source as it is, with their signatures."""
    systems = {
        "beam": [one.text for one in found],
        "greedy": [one.text for one in greedily],
        "copy": [pair.src for pair in test],
    }
    by_system = {system: scored(texts, test, form, moses) for system, texts in systems.items()}
    result: dict[str, Any] = {
        name: {
            **{system: by_name[name].value for system, by_name in by_system.items()},
            "signature": by_system["beam"][name].signature,
        }
        for name in by_system["beam"]
    }
    (beam, references), (greedy, _) = (as_plain(systems[name], test, form) for name in ("beam", "greedy"))
    result["beam_over_greedy"] = asdict(paired_bootstrap(beam, greedy, references, seed=0, lowercase=has_no_case(form)))
    return result


def samples(
    pairs: Sequence[Pair],
    found: Sequence[Translation],
    greedily: Sequence[Translation],
    translator: Translator,
    *,
    num_samples: int,
    num_attention_maps: int,
) -> list[dict[str, Any]]:
    """Sentences spread over all with their translations, the first of them with an attention map."""
    rows: list[dict[str, Any]] = []
    for i in range(0, len(pairs), max(1, len(pairs) // num_samples))[:num_samples]:
        row: dict[str, Any] = {
            "source": pairs[i].src,
            "reference": pairs[i].tgt,
            "beam": found[i].text,
            "greedy": greedily[i].text,
        }
        if len(rows) < num_attention_maps:
            attention = attention_map(translator, pairs[i].src, found[i])
            row["attention"] = {
                "src_tokens": list(attention.src_tokens),
                "tgt_tokens": list(attention.tgt_tokens),
                "weights": [[round(weight, 4) for weight in weights] for weights in attention.weights.tolist()],
            }
        rows.append(row)
    return rows
