"""What translations of a test set are worth: scores of the corpus beside their baselines, and samples for people."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.data.records import Pair
from pipeline.evaluation.bleu import CorpusScore, bleu, chrf, moses_bleu, paired_bootstrap, tokenised_bleu
from pipeline.stages.source_weights import attention_map
from pipeline.stages.translation import Translation, Translator
from pipeline.text.forms import Language, MosesText, PlainText, has_no_case, out_of_form


class MosesBleuConfig(Config):
    """The score of papers before sacreBLEU: of plain text after Moses' tokenizer."""

    language: Language
    """Language of the targets, as `de`."""
    split_compounds: bool
    """Split words at their hyphens, as papers on English-German do."""


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
        result["tokenised_bleu"] = tokenised_bleu(texts, [pair.tgt for pair in pairs])
    if moses:
        result["moses_bleu"] = moses_bleu(
            plain, references, language=moses.language, split_compounds=moses.split_compounds
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
    references = [pair.tgt for pair in test]
    result["beam_over_greedy"] = asdict(paired_bootstrap(systems["beam"], systems["greedy"], references, seed=0))
    return result


def samples(
    test: Sequence[Pair],
    found: Sequence[Translation],
    greedily: Sequence[Translation],
    translator: Translator,
    *,
    num_samples: int,
    num_attention_maps: int,
) -> list[dict[str, Any]]:
    """Test sentences spread over the test set with their translations, the first of them with an attention map."""
    step = max(1, len(test) // num_samples)
    rows: list[dict[str, Any]] = []
    for i in range(0, len(test), step)[:num_samples]:
        row: dict[str, Any] = {
            "source": test[i].src,
            "reference": test[i].tgt,
            "beam": found[i].text,
            "greedy": greedily[i].text,
        }
        if len(rows) < num_attention_maps:
            attention = attention_map(translator, test[i].src, found[i])
            row["attention"] = {
                "src_tokens": list(attention.src_tokens),
                "tgt_tokens": list(attention.tgt_tokens),
                "weights": [[round(weight, 4) for weight in weights] for weights in attention.weights.tolist()],
            }
        rows.append(row)
    return rows
