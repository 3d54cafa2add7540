"""The parts of the page about BERT, GPT and translation."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.report.attention import attention_chart
from pipeline.report.blocks import (
    Block,
    Figures,
    Said,
    Samples,
    Section,
    Table,
    at,
    figures,
    loss_chart,
    number,
    percent,
)
from pipeline.report.charts import Line, line_chart
from pipeline.report.inputs import RunFiles
from pipeline.report.rows import (
    NETWORKS,
    RANDOM,
    TRANSLATORS,
    further_conventions,
    num_cut_sources,
    usual_first,
)

_DIRECTIONS = ("ahead", "back")


def bert_section(run: RunFiles) -> Section:
    """Both losses of pretraining, and the tasks beside their baselines."""
    columns = {"train/mlm": "training", "valid/mlm": "validation"}
    pretraining = figures(
        loss_chart(run, "pretrain_bert", "Masked words", columns, y_label="nats a masked token"),
        loss_chart(
            run,
            "pretrain_bert",
            "Next sentence",
            {"train/nsp": "training", "valid/nsp": "validation"},
            y_label="nats a pair",
        ),
    )
    tuning = figures(
        *(
            loss_chart(
                run,
                f"finetune/{item}",
                f"Fine-tuning, {item.replace('-', ', ')}",
                {"train/total": "training", "valid/total": "validation"},
                y_label="loss",
            )
            for item in run.items("finetune")
        )
    )
    return Section(
        title="BERT",
        text="An encoder that learns from hidden words and from what follows what, then a task from labelled examples.",
        stages=("pretrain_bert", "finetune"),
        blocks=[*pretraining, *_tasks(run), *tuning],
    )


def _tasks(run: RunFiles) -> list[Block]:
    rows = []
    for item in run.items("finetune"):
        metrics = run.metrics[f"finetune/{item}"]
        task, learner = _task_and_learner(item)
        rows.append((f"{task}, {learner}", _scores(metrics["score"])))
        if task == item:
            for name, scores in sorted(metrics["baselines"].items()):
                rows.append((f"{item}, {name.replace('_', ' ')}", _scores(scores)))
    return [Table("Fine-tuned, scores on held-out examples", ("Task", "Scores"), rows)] if rows else []


def _task_and_learner(item: str) -> tuple[str, str]:
    """The task of a fine-tuning, whose name alone stands for the pretrained BERT, and what learns it."""
    for end, name in ((RANDOM, "random weights"), *NETWORKS.items()):
        if item.endswith(end):
            return item.removesuffix(end), name
    return item, "pretrained"


def _scores(scores: Mapping[str, Any]) -> str:
    """The numbers of a score by name, counts without decimals; the list by type stays in the metrics."""
    return ", ".join(
        f"{name} {number(float(value), 0 if isinstance(value, int) else 3)}" for name, value in _numbers(scores)
    )


def _numbers(scores: Mapping[str, Any], part: str = "") -> Iterator[tuple[str, float]]:
    """Every number, one of a part behind the name of the part; of a part without questions there is none."""
    for name, value in sorted(scores.items()):
        shown = f"{part}{name.replace('_', ' ')}"
        match value:
            case Mapping():
                yield from _numbers(value, f"{shown}: ")
            case int() | float():
                yield shown, value


def gpt_section(run: RunFiles) -> Section:
    """The loss of pretraining, and held-out text by source."""
    columns = {"train/loss": "training", "valid/loss": "validation"}
    curve = figures(loss_chart(run, "pretrain_gpt", "GPT pretraining", columns, y_label="nats a token"))
    return Section(
        title="GPT",
        text="A decoder that predicts the next token. Bits per byte is what it would need to store the held-out text.",
        stages=("pretrain_gpt",),
        blocks=[*curve, *_by_source(run), *_few_shot(run)],
    )


def bilm_section(run: RunFiles) -> Section:
    """The losses of both directions, and held-out text."""
    columns = {
        f"{split}/{direction}": f"{name}, {direction}"
        for direction in _DIRECTIONS
        for split, name in (("train", "training"), ("valid", "validation"))
    }
    curve = figures(loss_chart(run, "pretrain_bilm", "Both directions", columns, y_label="nats a token"))
    return Section(
        title="Bidirectional language model",
        text="Two LSTM stacks that predict the next token and the token before. Classifiers read their states.",
        stages=("pretrain_bilm",),
        blocks=[*curve, *_directions(run)],
    )


def _directions(run: RunFiles) -> list[Block]:
    if "pretrain_bilm" not in run.metrics:
        return []
    test = run.metrics["pretrain_bilm"]["test"]
    keys = ("nats_per_token", "unigram_entropy", "perplexity")
    rows = [(name, *(number(test[name][key], 2) for key in keys)) for name in (*_DIRECTIONS, "mean")]
    return [Table("Held-out text, by direction", ("", "nats a token", "unigram entropy", "perplexity"), rows)]


def _by_source(run: RunFiles) -> list[Block]:
    if "pretrain_gpt" not in run.metrics:
        return []
    test = run.metrics["pretrain_gpt"]["test"]
    systems = {"model": "GPT", "kneser_ney": "Kneser-Ney", "xz": "xz -9e, primed"}
    sources = sorted(test["model"]["by_source"])
    rows = []
    for key, name in systems.items():
        values = [test[key]["bits_per_byte"], *(test[key]["by_source"][one]["bits_per_byte"] for one in sources)]
        rows.append((name, *(number(value, 3) for value in values)))
    return [Table("Bits per byte of held-out text", ("", "all", *sources), rows)]


def _few_shot(run: RunFiles) -> list[Block]:
    tasks: Mapping[str, Any] = run.metrics.get("pretrain_gpt", {}).get("few_shot", {})
    rows = [
        (
            f"{task.replace('_', ' ')}, {shots.replace('_shot', '')} examples",
            f"{percent(score['accuracy'])} ± {percent(score['standard_error'])}",
            percent(score["chance"]),
        )
        for task, by_shots in sorted(tasks.items())
        for shots, score in sorted(by_shots.items(), key=lambda item: int(item[0].partition("_")[0]))
    ]
    return [Table("Without training for it", ("Task", "Right", "Chance"), rows)] if rows else []


def translation_section(run: RunFiles, *, num_samples: int) -> Section:
    """Losses, scores with their signatures, translations side by side, and where a model looked."""
    items = usual_first(TRANSLATORS, run.items("translate"))
    curves = figures(
        *(
            loss_chart(
                run,
                f"translate/{item}",
                TRANSLATORS.get(item, item),
                {"train/loss": "training, smoothed labels", "valid/loss": "validation"},
                y_label="nats a token",
            )
            for item in items
        )
    )
    return Section(
        title="Translation",
        text="Two networks learn from the same pairs, whose sources and targets stand below.",
        stages=("translate",),
        blocks=[
            *curves,
            *_corpus_scores(run, items),
            *_translations(run, items, num_samples),
            *_attention(run, items),
            *_gradients(run, items),
        ],
    )


def _corpus_scores(run: RunFiles, items: Sequence[str]) -> list[Block]:
    """Every BLEU and chrF with their signatures, and how many sources lost their ends."""
    found = {TRANSLATORS.get(item, item): run.metrics.get(f"translate/{item}") for item in items}
    scored = {name: metrics for name, metrics in found.items() if metrics is not None}
    if not scored:
        return []
    further = further_conventions(list(scored.values()))
    columns = {
        "BLEU, beam": "bleu.beam",
        "BLEU, greedy": "bleu.greedy",
        "BLEU, source copied": "bleu.copy",
        **{f"{name}, beam": f"{key}.beam" for key, name in further.items()},
        "chrF, beam": "chrf.beam",
    }
    rows = [
        (name, *(number(at(metrics, path) if path.split(".")[0] in metrics else None, 1) for path in columns.values()))
        for name, metrics in scored.items()
    ]
    signatures = {
        str(at(metrics, f"{score}.signature"))
        for metrics in scored.values()
        for score in ("bleu", *further, "chrf")
        if score in metrics
    }
    cut = [
        f"{name}: {count} of {at(metrics, 'test.num_pairs')} sources are longer than the model reads, and were cut"
        for name, metrics in scored.items()
        if (count := num_cut_sources(metrics))
    ]
    note = "; ".join([*sorted(signatures), *cut])
    return [Table("Corpus scores on the test set", ("Model", *columns), rows, note=note)]


def _translations(run: RunFiles, items: Sequence[str], num_samples: int) -> list[Block]:
    groups: dict[str, list[Said]] = {}
    for item in items:
        for sample in run.samples.get(f"translate/{item}", []):
            said = groups.setdefault(str(sample["source"]), [Said("reference", str(sample["reference"]))])
            said.append(Said(TRANSLATORS.get(item, item), str(sample["beam"])))
    chosen = list(groups.items())[:num_samples]
    return [Samples("Translations of test sentences, not picked", chosen)] if chosen else []


def _attention(run: RunFiles, items: Sequence[str]) -> list[Block]:
    blocks: list[Block] = []
    for item in items:
        maps = [sample["attention"] for sample in run.samples.get(f"translate/{item}", []) if "attention" in sample]
        if maps:
            one = max(maps, key=lambda attention: len(attention["src_tokens"]))
            drawing = attention_chart(one["src_tokens"], one["tgt_tokens"], one["weights"])
            note = f"{TRANSLATORS.get(item, item)}: attention of each token it wrote (rows) to the source (columns)."
            blocks.append(Figures([drawing], note, is_wide=True))
    return blocks


def _gradients(run: RunFiles, items: Sequence[str]) -> list[Block]:
    """How the gradient fades on its way back through each recurrent decoder, beside that at its start."""
    found = {item: run.metrics.get(f"translate/{item}", {}).get("gradient_by_distance", []) for item in items}
    lines = [
        Line(TRANSLATORS.get(item, item), range(len(norms)), [one / norms[0] for one in norms], "dots", 1 + place % 8)
        for place, (item, norms) in enumerate((item, norms) for item, norms in found.items() if norms and norms[0] > 0)
    ]
    if not lines:
        return []
    drawing = line_chart(
        "Reach of the gradient", lines, x_label="target tokens back", y_label="gradient, of that at 0", y_scale="log"
    )
    note = f"Mean norm of d loss / d decoder state over validation sentences: {', '.join(line.name for line in lines)}."
    return [Figures([drawing], note)]
