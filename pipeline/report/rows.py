"""The rows of the results, in the order of the chain: which number of which stage, and what stands beside it."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report.inputs import RunFiles
from pipeline.report.results import ResultSpec, Source

METHODS = {"svd": "Counts + SVD", "cbow": "CBOW", "skipgram": "Skip-gram", "glove": "GloVe", "fasttext": "fastText"}
TRANSLATORS = {"transformer": "Transformer", "gru": "GRU with attention"}
CONVENTIONS = {"bleu": "sacreBLEU", "tokenised_bleu": "BLEU of the tokens", "moses_bleu": "Moses BLEU"}
"""What each BLEU that a translation may have in its metrics is called; the first stands in every one of them."""
ALIGNMENTS = {"dpo": "DPO", "ppo": "PPO"}
RANDOM = "-random"
"""Ends the name of the fine-tuning of the same network from random weights."""
NETWORKS = {
    "-bilstm": "BiLSTM",
    "-bilstm-attention": "BiLSTM with attention",
    "-bilm": "BiLSTM over a language model",
    "-gpt": "GPT fine-tuned",
}
"""How the name of the same task learned by another network than BERT ends, and what the network is called."""

FINETUNED = tuple(f"{task}{end}" for task in ("polarity", "rating") for end in ("", RANDOM, *NETWORKS))
"""The fine-tunings of the chain; what else a run has is a task of the user's own."""


def result_specs(run: RunFiles) -> list[ResultSpec]:
    """All rows; the items of a matrix that the run has beside the usual ones come behind those."""
    return [
        *(_words(item, METHODS.get(item, item)) for item in usual_first(METHODS, run.items("word_vectors"))),
        *_bert(),
        *(_own_task(item, run.metrics[f"finetune/{item}"]) for item in run.items("finetune") if item not in FINETUNED),
        *_gpt(),
        _bilm(),
        *(
            _translation(item, TRANSLATORS.get(item, item), run.metrics.get(f"translate/{item}", {}))
            for item in usual_first(TRANSLATORS, run.items("translate"))
        ),
        *_sft(),
        _reward(),
        *(row for stage, name in ALIGNMENTS.items() for row in _alignment(stage, name)),
    ]


def usual_first(usual: Mapping[str, str], found: Sequence[str]) -> list[str]:
    """The items that every run has, then those that this one has beside them."""
    return [*usual, *(item for item in found if item not in usual)]


def _words(item: str, name: str) -> ResultSpec:
    return ResultSpec(
        id=f"words_{item}",
        stage=f"word_vectors/{item}",
        title=f"Word vectors, {name}",
        measure="Spearman correlation on WordSim-353",
        path="wordsim353.spearman",
        better="higher",
    )


def _bert() -> list[ResultSpec]:
    tasks = (("polarity", "accuracy", "percent"), ("rating", "pearson", "number"))
    measures = {
        "polarity": "accuracy",
        "rating": "Pearson correlation",
    }
    rows = [
        ResultSpec(
            id="bert_words",
            stage="pretrain_bert",
            title="BERT, masked words",
            measure="nats a masked token, held-out text",
            path="mlm.nats",
            better="lower",
            baselines={"unigram entropy": Source("pretrain_bert", "baselines.unigram_entropy")},
        ),
        ResultSpec(
            id="bert_next_sentence",
            stage="pretrain_bert",
            title="BERT, next sentence",
            measure="accuracy, held-out text",
            path="nsp.accuracy",
            better="higher",
            baselines={"majority": Source("pretrain_bert", "baselines.nsp_majority")},
            style="percent",
            decimals=1,
        ),
    ]
    for task, score, style in tasks:
        stage = f"finetune/{task}"
        baselines = {
            "random weights": Source(f"{stage}{RANDOM}", f"score.{score}"),
            "bag of words": Source(stage, f"baselines.bag_of_words.{score}"),
        }
        if task == "polarity":
            baselines |= {name: Source(f"{stage}{end}", f"score.{score}") for end, name in NETWORKS.items()}
            baselines["majority"] = Source(stage, f"baselines.majority.{score}")
        rows.append(
            ResultSpec(
                id=f"finetune_{task}",
                stage=stage,
                title=f"BERT fine-tuned, {task}",
                measure=measures[task],
                path=f"score.{score}",
                better="higher",
                baselines=baselines,
                style="percent" if style == "percent" else "number",
                decimals=1 if style == "percent" else 3,
            )
        )
    return rows


def _own_task(item: str, metrics: Mapping[str, Any]) -> ResultSpec:
    """A task that no other run has, by the number that stands for one of its kind."""
    key, measure = _own_measure(metrics["score"])
    stage, split = f"finetune/{item}", str(metrics["split"])
    is_glue = key == "glue"
    # The figure of the stage is the mean of the sets that the benchmark counts: MNLI has two.
    sets = [split, *(other for other in metrics["others"] if is_glue and other.startswith(split))]
    baselines = "glue_baselines.{}" if is_glue else f"baselines.{{}}.{key}"
    return ResultSpec(
        id=f"finetune_{item}",
        stage=stage,
        title=f"Fine-tuned, {item}",
        measure=f"{measure}, {'mean of ' if len(sets) > 1 else ''}{' and '.join(sets)}",
        path=key if is_glue else f"score.{key}",
        better="higher",
        baselines={name.replace("_", " "): Source(stage, baselines.format(name)) for name in metrics["baselines"]},
        decimals=1 if is_glue else 3,
        command=f"dvc repro tasks@{item}",
    )


def _own_measure(scores: Mapping[str, Any]) -> tuple[str, str]:
    """The key of the score by which tasks of its kind are compared, and what it is called."""
    match scores:
        case {"glue": _}:
            return "glue", "figure of GLUE"
        case {"pearson": _}:
            return "pearson", "Pearson correlation"
        case {"matthews": _}:
            return "accuracy", "accuracy"
        case _:  # of tags and of answers
            return "f1", "F1"


def _gpt() -> list[ResultSpec]:
    def row(name: str, measure: str, key: str, others: dict[str, str], decimals: int) -> ResultSpec:
        return ResultSpec(
            id=name,
            stage="pretrain_gpt",
            title="GPT, held-out text",
            measure=measure,
            path=f"test.model.{key}",
            better="lower",
            baselines={label: Source("pretrain_gpt", f"test.{part}.{key}") for label, part in others.items()},
            decimals=decimals,
        )

    counting = {"Kneser-Ney": "kneser_ney"}
    return [
        row("gpt_bits_per_byte", "bits per byte", "bits_per_byte", {"xz, primed": "xz", **counting}, 3),
        row("gpt_perplexity", "perplexity of a token", "perplexity", counting, 1),
    ]


def _bilm() -> ResultSpec:
    return ResultSpec(
        id="bilm",
        stage="pretrain_bilm",
        title="Bidirectional LSTM language model, held-out text",
        measure="nats a token, mean of both directions",
        path="test.mean.nats_per_token",
        better="lower",
        baselines={"unigram entropy": Source("pretrain_bilm", "test.mean.unigram_entropy")},
    )


def _translation(item: str, name: str, metrics: Mapping[str, Any]) -> ResultSpec:
    stage = f"translate/{item}"
    others = {called: Source(stage, f"{key}.beam") for key, called in further_conventions([metrics]).items()}
    cut = num_cut_sources(metrics)
    return ResultSpec(
        id=f"translate_{item}",
        stage=stage,
        title=f"Translation, {name}",
        measure=f"sacreBLEU, beam search{f', sources cut at their ends: {cut}' if cut else ''}",
        path="bleu.beam",
        better="higher",
        baselines={"source copied": Source(stage, "bleu.copy"), "greedy": Source(stage, "bleu.greedy"), **others},
        decimals=1,
    )


def further_conventions(translations: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The names of the BLEU beside sacreBLEU that the metrics of some translation have, by their keys there."""
    return {
        key: name
        for key, name in CONVENTIONS.items()
        if key != "bleu" and any(key in metrics for metrics in translations)
    }


def num_cut_sources(metrics: Mapping[str, Any]) -> int:
    """Sources of the test set that are longer than the model reads: they were translated without their ends."""
    return int(metrics.get("test", {}).get("num_src_too_long", 0))


def _sft() -> list[ResultSpec]:
    def row(name: str, measure: str, path: str, better: str) -> ResultSpec:
        return ResultSpec(
            id=name,
            stage="sft",
            title="Instructions (SFT)",
            measure=measure,
            path=path.format("sft"),
            better="higher" if better == "higher" else "lower",
            baselines={"before SFT": Source("sft", path.format("base"))},
            style="percent" if better == "higher" else "number",
            decimals=1,
        )

    return [
        row("sft_perplexity", "perplexity of held-out responses", "response.{}.perplexity", "lower"),
        row("sft_ended", "greedy answers that end by themselves", "greedy.{}.ended", "higher"),
    ]


def _reward() -> ResultSpec:
    others = {"bag of words": "bag_of_words", "VADER": "judge", "longer text": "longer"}
    return ResultSpec(
        id="reward_accuracy",
        stage="reward",
        title="Reward model",
        measure="accuracy on pairs of unseen texts",
        path="accuracy",
        better="higher",
        baselines={name: Source("reward", f"baselines.{key}") for name, key in others.items()},
        style="percent",
        decimals=1,
    )


def _alignment(stage: str, name: str) -> list[ResultSpec]:
    def row(what: str, measure: str, key: str, decimals: int) -> ResultSpec:
        return ResultSpec(
            id=f"{stage}_{what}",
            stage=stage,
            title=f"Alignment, {name}",
            measure=measure,
            path=f"after.{key}",
            better="higher",
            baselines={"before": Source(stage, f"before.{key}")},
            decimals=decimals,
        )

    return [
        ResultSpec(
            id=f"{stage}_judge",
            stage=stage,
            title=f"Alignment, {name}",
            measure="change of the judge's mean score",
            path="judge_change.mean",
            better="higher",
            low="judge_change.low",
            high="judge_change.high",
            decimals=3,
        ),
        row("reward", "reward model's mean score", "reward", 2),
        row("distinct", "distinct-2, share of different word pairs, of as many words", "distinct_2", 3),
        row("ended", "share of the drawn answers that end by themselves", "ended", 3),
        row("length", "tokens of an answer", "length", 1),
        ResultSpec(
            id=f"{stage}_kl",
            stage=stage,
            title=f"Alignment, {name}",
            measure="KL in nats an answer",
            path="kl",
            better="lower",
        ),
    ]
