"""The parts of the page about data, tokenizers and word vectors."""

from collections.abc import Mapping
from typing import Any

from pipeline.report.blocks import Block, Figures, Section, Table, figures, loss_chart, number, percent
from pipeline.report.charts import word_map
from pipeline.report.inputs import RunFiles
from pipeline.report.rows import METHODS, usual_first

_SPLITS = ("train", "valid", "test")
_ROLES = {
    "text": "running text",
    "translation": "translation pairs",
    "rated": "rated texts",
    "conversations": "conversations",
}
_TOKENIZERS = {"bpe": "byte-level BPE (GPT)", "wordpiece": "WordPiece (BERT)", "translation": "joint BPE (translation)"}
_LOSSES = {
    "cbow": "nats a word",
    "skipgram": "nats a pair",
    "fasttext": "nats a pair",
    "glove": "weighted squared error",
}
"""Units of what each method of word vectors learns by."""
_NUM_WORDS = 8
"""Words whose neighbours are shown."""


def data_section(run: RunFiles) -> Section:
    """Sources with their licences, counts, overlap of tests with training, and what the tokenizers make of it."""
    return Section(
        title="Data",
        text="Where the text comes from, how it was split, and how much of each test set the training has seen.",
        stages=("fetch", "prepare", "tokenize"),
        blocks=[*_sources(run), *_counts(run), *_overlap(run), *_tokenizers(run)],
    )


def _sources(run: RunFiles) -> list[Block]:
    rows = []
    for name, card in sorted(run.sources.items()):
        where = [str(card[key]) for key in ("package", "dataset", "path", "version") if card.get(key)]
        counts = card["counts"]
        size = f"{counts['bytes'] / 1e6:,.1f} MB in {counts['files']:,} files"
        rows.append((name, " ".join(where) or str(card["kind"]), str(card["licence"]), size))
    head = ("Source", "From", "Licence", "Size")
    return [Table("Data card", head, rows, note="The licences bind whoever passes data or models on.")] if rows else []


def _counts(run: RunFiles) -> list[Block]:
    counts: Mapping[str, Any] = run.metrics.get("prepare", {}).get("counts", {})
    rows = []
    for role, name in _ROLES.items():
        if role in counts:
            sizes = (counts[role][split] for split in _SPLITS)
            kept = [f"{size['records']:,} ({size['words']:,} words)" for size in sizes]
            dropped = ", ".join(f"{why.replace('_', ' ')} {count:,}" for why, count in counts[role]["dropped"].items())
            rows.append((name, *kept, dropped or "nothing"))
    return [Table("After cleaning and splitting", ("Role", *_SPLITS, "Left out"), rows)] if rows else []


def _overlap(run: RunFiles) -> list[Block]:
    table: Mapping[str, Mapping[str, float]] = run.metrics.get("prepare", {}).get("overlap", {})
    trains = sorted({name for row in table.values() for name in row} - {"num_ngrams"})
    rows = [(f"{test} test", *(percent(table[test].get(train), 2) for train in trains)) for test in sorted(table)]
    note = "Share of the word n-grams of a test set (row) that stand in a training set (column)."
    return [Table("Overlap of test sets with training sets", ("", *trains), rows, note=note)] if rows else []


def _tokenizers(run: RunFiles) -> list[Block]:
    found = run.metrics.get("tokenize", {})
    rows = [
        (
            name,
            f"{found[key]['vocab_size']:,}",
            number(found[key]["bytes_per_token"]),
            percent(found[key]["unknown_rate"], 3),
        )
        for key, name in _TOKENIZERS.items()
        if key in found
    ]
    head = ("Tokenizer", "Ids", "Bytes a token", "Unknown")
    return [Table("Tokenizers, on held-out text", head, rows)] if rows else []


def words_section(run: RunFiles) -> Section:
    """Word vectors of all methods beside each other, how each was learned, and one of them as a map."""
    items = [item for item in usual_first(METHODS, run.items("word_vectors")) if f"word_vectors/{item}" in run.metrics]
    rows = []
    for item in items:
        metrics = run.metrics[f"word_vectors/{item}"]
        analogies = metrics["analogies"]["total"]
        right = f"{percent(analogies['accuracy'])} ({analogies['num_covered']:,} of {analogies['num_questions']:,})"
        rows.append((METHODS.get(item, item), *_similarities(metrics), right))
        if "composed" in metrics:
            rows.append(
                (f"{METHODS.get(item, item)}, unknown words composed", *_similarities(metrics["composed"]), "-")
            )
    head = ("Method", "WordSim-353", "SimLex-999", "Analogies")
    note = "Spearman correlation with human judgement, and share of right analogies; in brackets what is covered."
    table = [Table("Against human judgement", head, rows, note=note)] if rows else []
    return Section(
        title="Word vectors",
        text="Five ways to give a word a place, trained on the same text.",
        stages=("word_vectors",),
        blocks=[*table, *_learning(run), *_map(run), *_nearest(run)],
    )


def _similarities(metrics: Mapping[str, Any]) -> tuple[str, str]:
    def shown(name: str) -> str:
        score = metrics[name]
        return f"{number(score['spearman'], 3)} ({score['num_covered']} of {score['num_pairs']})"

    return shown("wordsim353"), shown("simlex999")


def _learning(run: RunFiles) -> list[Block]:
    """The course of each training, and for the decomposition what each further dimension explains."""
    losses = {"train/total": "training", "valid/total": "validation"}
    charts = []
    for item in usual_first(METHODS, run.items("word_vectors")):
        stage, name = f"word_vectors/{item}", METHODS.get(item, item)
        charts.append(loss_chart(run, stage, f"{name}: loss", losses, y_label=_LOSSES.get(item, "loss")))
        share = {"train/explained_share": "of the decomposed matrix's squared sum"}
        charts.append(
            loss_chart(run, stage, f"{name}: what is explained", share, x_label="dimensions", y_label="share")
        )
    return figures(*charts)


def _map(run: RunFiles) -> list[Block]:
    """The map of the first method that left one, and its clusters."""
    for item in ("skipgram", *usual_first(METHODS, run.items("word_vectors"))):
        words = run.samples.get(f"word_vectors/{item}", [])
        if words:
            name = METHODS.get(item, item)
            clusters: dict[int, list[str]] = {}
            for word in words:
                clusters.setdefault(int(word["cluster"]), []).append(str(word["word"]))
            drawing = word_map(
                f"Frequent words in two dimensions ({name})",
                [str(word["word"]) for word in words],
                [float(word["x"]) for word in words],
                [float(word["y"]) for word in words],
                [int(word["cluster"]) for word in words],
            )
            rows = [(str(cluster + 1), ", ".join(members)) for cluster, members in sorted(clusters.items())]
            return [
                Figures([drawing], is_wide=True, note="Colours are the clusters below."),
                Table(f"k-means clusters ({name})", ("Cluster", "Words"), rows),
            ]
    return []


def _nearest(run: RunFiles) -> list[Block]:
    """The nearest words of some frequent words, by every method."""
    found = {
        item: {str(word["word"]): ", ".join(word["nearest"]) for word in words}
        for item in usual_first(METHODS, run.items("word_vectors"))
        if (words := run.samples.get(f"word_vectors/{item}", []))
    }
    if not found:
        return []
    shared = [word for word in next(iter(found.values())) if all(word in words for words in found.values())]
    chosen = shared[:: max(1, len(shared) // _NUM_WORDS)][:_NUM_WORDS]
    rows = [(word, *(words[word] for words in found.values())) for word in chosen]
    return [Table("Nearest words", ("", *(METHODS.get(item, item) for item in found)), rows)]
