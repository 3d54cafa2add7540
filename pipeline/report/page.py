"""The page: one HTML file that holds everything it shows, for managers and engineers alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.report.blocks import Section, number
from pipeline.report.graph import PLACES, StageBox, pipeline_graph
from pipeline.report.inputs import Cost, RunFiles
from pipeline.report.results import Result
from pipeline.report.sections_alignment import alignment_section, reward_section, sft_section
from pipeline.report.sections_data import data_section, words_section
from pipeline.report.sections_models import bert_section, bilm_section, gpt_section, translation_section

TEMPLATE, STYLE = "page.html.jinja", "page.css"

_TILES = {
    "finetune_polarity": "BERT tells positive from negative",
    "gpt_bits_per_byte": "GPT, bits per byte of unseen text",
    "translate_transformer": "Translation, BLEU",
    "sft_ended": "Answers that end by themselves",
    "reward_accuracy": "Reward model agrees with people",
    "dpo_judge": "DPO, change of the judge's score",
    "ppo_judge": "PPO, change of the judge's score",
}
"""The results that stand large at the top."""

_IN_BOXES = {
    "word_vectors": ("words_skipgram", "similarity {}"),
    "pretrain_bert": ("bert_words", "{} nats"),
    "finetune": ("finetune_polarity", "{} right"),
    "translate": ("translate_transformer", "{} BLEU"),
    "pretrain_gpt": ("gpt_bits_per_byte", "{} bits/byte"),
    "pretrain_bilm": ("bilm", "{} nats"),
    "sft": ("sft_ended", "{} end"),
    "reward": ("reward_accuracy", "{} right"),
    "dpo": ("dpo_judge", "judge {}"),
    "ppo": ("ppo_judge", "judge {}"),
}
"""The result, and its words, in the box of each stage that has one."""


@dataclass(frozen=True)
class Tile:
    """A result that stands large."""

    title: str
    result: Result


def render(run: RunFiles, results: Sequence[Result], *, num_samples: int) -> str:
    """The whole page."""
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    by_id = {result.spec.id: result for result in results}
    page = environment.get_template(TEMPLATE).render(
        profile=run.profile,
        style=Markup((folder / STYLE).read_text(encoding="utf-8")),
        graph=Markup(pipeline_graph(boxes(run, by_id))),
        tiles=[Tile(title, by_id[name]) for name, title in _TILES.items()],
        results=results,
        num_reached=sum(result.reached is True for result in results),
        missed=[result for result in results if result.reached is False],
        num_floors=sum(result.has_floor for result in results),
        sections=sections(run, num_samples=num_samples),
        costs=cost_rows(run.costs),
        svg=Markup,
    )
    return "\n".join(line.rstrip() for line in page.splitlines()) + "\n"


def sections(run: RunFiles, *, num_samples: int) -> list[Section]:
    """The parts of the page in the order of the chain."""
    return [
        data_section(run),
        words_section(run),
        bert_section(run),
        gpt_section(run),
        bilm_section(run),
        translation_section(run, num_samples=num_samples),
        sft_section(run, num_samples=num_samples),
        reward_section(run),
        alignment_section(run, num_samples=num_samples),
    ]


def boxes(run: RunFiles, results: Mapping[str, Result]) -> dict[str, StageBox]:
    """What the graph says of each stage."""
    found = {}
    for stage in PLACES:
        own = [result for result in results.values() if result.spec.stage.partition("/")[0] == stage]
        has_run = stage in run.metrics or bool(run.items(stage)) or stage == "report"
        state = "not-run" if not has_run else "missed" if any(one.reached is False for one in own) else "ran"
        found[stage] = StageBox(_box_text(stage, run, results) if has_run else "not run", state)
    return found


def _box_text(stage: str, run: RunFiles, results: Mapping[str, Result]) -> str:
    match stage:
        case "fetch":
            return f"{len(run.metrics['fetch'])} sources"
        case "prepare":
            counts = run.metrics["prepare"]["counts"]
            words = sum(counts[role]["train"]["words"] for role in counts if "train" in counts[role])
            return f"{words / 1e6:.1f} M words" if words >= 1e5 else f"{words:,} words"
        case "tokenize":
            return f"{len(run.metrics['tokenize'])} tokenizers"
        case "reference":
            return f"{run.metrics['reference']['pairs']['train']['pairs']:,} pairs"
        case "report":
            return "this page"
    name, words = _IN_BOXES[stage]
    result = results[name]
    return words.format(result.shown_number) if result.value is not None else "ran"


def cost_rows(costs: Mapping[str, Cost]) -> list[tuple[str, str, str, float]]:
    """Stage, seconds, memory, and the share of the longest stage; the sum at the end."""
    if not costs:
        return []
    longest = max(cost.seconds for cost in costs.values()) or 1.0
    rows = [
        (stage, number(cost.seconds, 1), _gigabytes(cost.peak_bytes), cost.seconds / longest)
        for stage, cost in sorted(costs.items(), key=lambda item: (_order(item[0]), item[0]))
    ]
    total = sum(cost.seconds for cost in costs.values())
    most = max(cost.peak_bytes for cost in costs.values())
    return [*rows, (f"all ({total / 60:.1f} minutes)", number(total, 1), f"{_gigabytes(most)} at most", 0.0)]


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


def _order(stage: str) -> int:
    return list(PLACES).index(stage.partition("/")[0]) if stage.partition("/")[0] in PLACES else len(PLACES)
