"""The parts of the page about instructions, the reward model and alignment."""

from collections.abc import Mapping
from typing import Any

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
from pipeline.report.charts import Line, Point, calibration_chart, line_chart
from pipeline.report.inputs import RunFiles
from pipeline.report.rows import ALIGNMENTS

_COLOURS = {"dpo": 2, "ppo": 1}
_PPO_CHARTS = (
    ("reward of sampled answers", "reward model's score", "reward"),
    ("KL from the model before", "nats an answer", "kl"),
    ("length of answers", "tokens", "length"),
)
"""What is measured on training and on held-out requests: title, unit, name in the columns."""
_PPO_CURVES = (
    ("entropy of the policy", "nats a token", "train/entropy/entropy"),
    ("clipped policy ratios", "share of tokens", "train/policy/clip_fraction"),
    ("value loss", "squared error", "train/value"),
)
"""What is measured in each optimizer step: title, unit, column."""


def sft_section(run: RunFiles, *, num_samples: int) -> Section:
    """The loss on responses, and greedy answers before and after."""
    columns = {"train/loss": "training", "valid/loss": "validation"}
    curve = figures(loss_chart(run, "sft", "Supervised fine-tuning", columns, y_label="nats a response token"))
    blocks: list[Block] = [*curve]
    if "sft" in run.metrics:
        response = run.metrics["sft"]["response"]
        sources = sorted(response["sft"]["by_source"])
        rows = [
            (name, *(number(response[key]["by_source"][one]["perplexity"], 1) for one in sources))
            for key, name in (("base", "before"), ("sft", "after"))
        ]
        blocks.append(Table("Perplexity of held-out responses, by source", ("", *sources), rows))
    groups = [
        (
            str(sample["prompt"]),
            [
                Said("before", str(sample["before"])),
                Said("after", str(sample["after"]) + ("" if sample["after_ended"] else " … (cut off)")),
                Said("in the data", str(sample["data"])),
            ],
        )
        for sample in run.samples.get("sft", [])[:num_samples]
    ]
    if groups:
        blocks.append(Samples("Greedy answers to held-out requests, not picked", groups))
    return Section(
        title="Instructions",
        text="The GPT learns to answer instead of continuing, and to stop. The loss counts responses alone.",
        stages=("sft",),
        blocks=blocks,
    )


def reward_section(run: RunFiles) -> Section:
    """Loss, calibration and the agreement of the people whose ratings made the pairs."""
    columns = {"train/loss": "training", "valid/loss": "validation"}
    charts = [loss_chart(run, "reward", "Reward model", columns, y_label="nats a pair")]
    blocks: list[Block] = []
    if "reward" in run.metrics:
        metrics = run.metrics["reward"]
        bins = metrics["calibration"]["bins"]
        values = {key: [one[key] for one in bins] for key in ("confidence", "accuracy", "count")}
        chart = calibration_chart("Calibration on test pairs", **values)
        error = percent(metrics["calibration"]["expected_error"])
        agreement = percent(at(metrics, "pairs.test.annotator_agreement"))
        note = (
            f"Expected calibration error {error}; larger dots hold more pairs. The annotators of a test pair agree "
            f"with its order {agreement} of the time."
        )
        blocks = figures(*charts, [chart], note=note)
    return Section(
        title="Reward model",
        text="Which of two texts did people rate higher? Bradley-Terry on pairs made from human ratings.",
        stages=("reward",),
        blocks=blocks,
    )


def alignment_section(run: RunFiles, *, num_samples: int) -> Section:
    """Reward against KL for both methods, the course of each, and answers before and after with the judge's scores."""
    course = [
        loss_chart(run, "ppo", f"PPO: {title}", _on_both(name), y_label=unit) for title, unit, name in _PPO_CHARTS
    ] + [loss_chart(run, "ppo", f"PPO: {title}", {column: title}, y_label=unit) for title, unit, column in _PPO_CURVES]
    dpo = loss_chart(
        run, "dpo", "DPO: loss of pairs", {"train/loss": "training", "valid/loss": "validation"}, y_label="nats a pair"
    )
    return Section(
        title="Alignment",
        text="PPO and DPO move the fine-tuned model towards texts that people rate higher. The judge is VADER, a list "
        "of rules that no training has seen: -1 is negative, +1 positive.",
        stages=("reference", "dpo", "ppo"),
        blocks=[*_frontier(run), *_comparison(run), *_answers(run, num_samples), *figures(dpo, *course)],
    )


def _on_both(name: str) -> dict[str, str]:
    return {f"rollout/{name}": "training requests", f"valid/{name}": "held-out requests"}


def _frontier(run: RunFiles) -> list[Block]:
    """How much reward each method bought with how much KL."""
    done = [stage for stage in ALIGNMENTS if stage in run.metrics]
    if not done:
        return []
    starts = {run.metrics[stage]["before"]["reward"]: f"before {ALIGNMENTS[stage]}" for stage in done}
    # Answers to the same requests by the same draws are one start.
    names = ["before"] if len(starts) == 1 else list(starts.values())
    points = [Point(name, 0.0, reward, colour=3) for name, reward in zip(names, starts, strict=True)]
    for stage in done:
        metrics = run.metrics[stage]
        error, after = metrics["kl_standard_error"], metrics["after"]["reward"]
        points.append(Point(ALIGNMENTS[stage], metrics["kl"], after, x_error=error, colour=_COLOURS[stage]))
    curves = run.curves.get("ppo", {})
    lines = []
    if "rollout/kl" in curves and "rollout/reward" in curves:
        kl, reward = curves["rollout/kl"].values, curves["rollout/reward"].values
        lines = [Line("PPO while training", kl, reward, kind="dashed", colour=_COLOURS["ppo"])]
    chart = line_chart(
        "Reward against KL",
        lines,
        x_label="KL from the model before, nats an answer",
        y_label="reward model's mean score",
        points=points,
    )
    note = (
        "Points: held-out requests, with the standard error of the KL. Dashed: PPO on its training requests. "
        "Higher and further left is better."
    )
    return [Figures([chart], note)]


def _comparison(run: RunFiles) -> list[Block]:
    """Each method under its own start, whose answers are cut to other lengths and may be to other requests."""
    rows: list[tuple[str, ...]] = []
    for stage, name in ALIGNMENTS.items():
        if stage in run.metrics:
            metrics = run.metrics[stage]
            rows.append((f"before {name}", *_side(metrics["before"]), "0.00"))
            rows.append((name, *_side(metrics["after"]), number(metrics["kl"])))
    head = ("Model", "Judge", "Reward", "distinct-2", "Tokens", "Ended", "KL")
    note = "distinct-2 counts as many words of each answer as the method and the model before it have both said."
    return [Table("Sampled answers to held-out requests", head, rows, note)] if rows else []


def _side(side: Mapping[str, Any]) -> tuple[str, ...]:
    numbers = (number(side[key], places) for key, places in (("judge", 3), ("reward", 2), ("distinct_2", 3)))
    return (*numbers, number(side["length"], 1), percent(side["ended"]))


def _answers(run: RunFiles, num_samples: int) -> list[Block]:
    """Both methods answer the same requests with the same draws, so that their answers stand under one request."""
    groups: dict[tuple[str, str], list[Said]] = {}
    for stage, name in ALIGNMENTS.items():
        for sample in run.samples.get(stage, []):
            before = str(sample["before"])
            said = groups.setdefault((str(sample["prompt"]), before), [Said("before", before, sample["judge_before"])])
            said.append(Said(name, str(sample["after"]), float(sample["judge_after"])))
    chosen = [(prompt, said) for (prompt, _), said in groups.items()][:num_samples]
    note = "The number behind an answer is the judge's score."
    return [Samples("Answers before and after alignment, not picked", chosen, note)] if chosen else []
