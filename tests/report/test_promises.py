"""Everything that the page promises stands on it, in its section, under its title, and says what it should."""

import os
import re
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline.artifacts import write_json
from pipeline.report.blocks import Figures
from pipeline.report.graph import PLACES
from pipeline.report.inputs import RunFiles
from pipeline.report.rows import METHODS, NETWORKS
from pipeline.report.sections_alignment import alignment_section
from pipeline.stages.report import main
from tests.report.fabricated import metrics, write_run

CURVE = ("training", "validation", "optimizer step")
BOTH = ("training requests", "held-out requests", "optimizer step")

PROMISES: list[tuple[str, str, tuple[str, ...]]] = [
    ("The chain", "drawing: Graph of the pipeline", tuple(PLACES)),
    (
        "Results",
        "",
        (
            "Ours",
            "Beside it",
            "Floor",
            "bag of words 83.0%",
            "random weights 70.0%",
            "BiLSTM over a language model 73.0%",
            "source copied 3.0",
        ),
    ),
    ("Data", "table: Data card", ("speeches", "CC0-1.0", "12.0 MB")),
    ("Data", "table: After cleaning and splitting", ("running text", "too short 7")),
    (
        "Data",
        "table: Overlap of test sets with training sets",
        ("tasks.films text tasks.films.valid test 4.57% 1.00% text test 1.23% 3.82%",),
    ),
    ("Data", "table: Tokenizers, on held-out text", ("WordPiece (BERT)", "4,096")),
    ("Word vectors", "table: Against human judgement", (*METHODS.values(), "unknown words composed")),
    *[("Word vectors", f"drawing: {name}: loss", CURVE) for item, name in METHODS.items() if item != "svd"],
    ("Word vectors", "drawing: Counts + SVD: what is explained", ("dimensions", "share")),
    ("Word vectors", "drawing: Frequent words in two dimensions (Skip-gram)", ("word0", "word59")),
    ("Word vectors", "table: k-means clusters (Skip-gram)", ("word0, word8",)),
    ("Word vectors", "table: Nearest words", ("near, by", "Skip-gram")),
    ("BERT", "drawing: Masked words", CURVE),
    ("BERT", "drawing: Next sentence", CURVE),
    ("BERT", "drawing: Fine-tuning, polarity", CURVE),
    ("BERT", "drawing: Fine-tuning, polarity, random", CURVE),
    *[("BERT", f"drawing: Fine-tuning, polarity{end.replace('-', ', ')}", CURVE) for end in NETWORKS],
    ("BERT", "drawing: Fine-tuning, rating", CURVE),
    ("BERT", "drawing: Fine-tuning, rating, random", CURVE),
    ("BERT", "table: Fine-tuned, scores on held-out examples", ("bag of words", "random", "0.81")),
    (
        "BERT",
        "table: Fine-tuned, scores on held-out examples",
        ("polarity, BiLSTM accuracy 0.710", "polarity, BiLSTM over a language model accuracy 0.730", "GPT fine-tuned"),
    ),
    ("Bidirectional language model", "drawing: Both directions", ("training, ahead", "validation, back")),
    ("Bidirectional language model", "table: Held-out text, by direction", ("ahead 4.50 6.50 90.02", "mean 4.40")),
    ("GPT", "drawing: GPT pretraining", CURVE),
    ("GPT", "table: Bits per byte of held-out text", ("GPT", "Kneser-Ney", "xz -9e, primed", "speeches", "wiki")),
    ("GPT", "table: Without training for it", ("next sentence, 16 examples", "25.0%")),
    ("Translation", "drawing: Transformer", ("training, smoothed labels", "validation")),
    ("Translation", "drawing: GRU with attention", ("training, smoothed labels", "validation")),
    ("Translation", "table: Corpus scores on the test set", ("Transformer", "GRU with attention", "nrefs:1|tok:13a")),
    (
        "Translation",
        "samples: Translations of test sentences, not picked",
        ("Save changes", "reference", "Änderungen speichern", "Transformer", "GRU with attention", "Ändern"),
    ),
    ("Translation", "drawing: Attention to the source", ("changes", "speichern", "changes → Änderungen: 0.80")),
    ("Translation", "drawing: Reach of the gradient", ("target tokens back", "gradient, of that at 0")),
    ("Instructions", "drawing: Supervised fine-tuning", CURVE),
    ("Instructions", "table: Perplexity of held-out responses, by source", ("before", "after", "80.0", "40.0")),
    (
        "Instructions",
        "samples: Greedy answers to held-out requests, not picked",
        ("What is a cow?", "before cow cow", "after An animal.", "in the data A farm animal."),
    ),
    ("Reward model", "drawing: Reward model", CURVE),
    ("Reward model", "drawing: Calibration on test pairs", ("calibrated",)),
    # The three points and the course of PPO in one drawing.
    ("Alignment", "drawing: Reward against KL", ("before", "DPO", "PPO", "KL from the model before")),
    ("Alignment", "table: Sampled answers to held-out requests", ("distinct-2", "as many words")),
    (
        "Alignment",
        "samples: Answers before and after alignment, not picked",
        ("before It was a film.", "DPO A good film. +0.44", "PPO A great, great film. +0.84"),
    ),
    ("Alignment", "drawing: DPO: loss of pairs", CURVE),
    ("Alignment", "drawing: PPO: reward of sampled answers", BOTH),
    ("Alignment", "drawing: PPO: KL from the model before", BOTH),
    ("Alignment", "drawing: PPO: length of answers", BOTH),
    ("Alignment", "drawing: PPO: entropy of the policy", ("nats a token",)),
    ("Alignment", "drawing: PPO: clipped policy ratios", ("share of tokens",)),
    ("Alignment", "drawing: PPO: value loss", ("squared error",)),
    ("Costs", "", ("sft", "12.5", "2.00 GB")),
]


class Contents(HTMLParser):
    """What stands under each title of each section: `drawing: NAME`, `table: CAPTION`, `samples: HEADING`, or ``."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self.section, self.title, self.reading = "", "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        match tag:
            case "section":
                self.section = self.title = ""
            case "svg":
                self.title = f"drawing: {dict(attrs).get('aria-label')}"
                self.found[self.section, self.title].append("")
            case "h2" | "caption" | "h3":
                self.reading, self.title = tag, ""

    def handle_endtag(self, tag: str) -> None:
        if tag == self.reading:
            self.reading = ""
        if tag == "svg":
            self.title = ""

    def handle_data(self, data: str) -> None:
        match self.reading:
            case "h2":
                self.section += data
            case "caption":
                self.title = f"table: {data}"
            case "h3":
                self.title = f"samples: {data}"
            case _:
                self.found[self.section, self.title].append(data)

    def text(self, section: str, title: str) -> str:
        """The words under a title, one space apart."""
        return re.sub(r"\s+", " ", " ".join(self.found[section, title]))


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    """The page of a run in which every stage ran."""
    folder, before = tmp_path_factory.mktemp("run"), Path.cwd()
    os.chdir(folder)
    try:
        (folder / "pipeline").symlink_to(Path(__file__).parents[2] / "pipeline")
        config = Path("conf/cpu/report.yaml")
        config.parent.mkdir(parents=True)
        config.write_text("floors: {}\nnum_samples: 4\n")
        write_run(folder)
        write_json(folder / ".pipeline/costs/cpu/sft.json", {"seconds": 12.5, "peak_bytes": 2_000_000_000})
        main(config)
        return Contents((folder / "reports/cpu/index.html").read_text(encoding="utf-8"))
    finally:
        os.chdir(before)


@pytest.mark.parametrize(("section", "title", "words"), PROMISES, ids=lambda value: str(value)[:60])
def test_what_is_promised_is_on_the_page(contents: Contents, section: str, title: str, words: tuple[str, ...]) -> None:
    assert (section, title) in contents.found, f"{section}: found {[key[1] for key in contents.found]}"
    text = contents.text(section, title)
    assert [word for word in words if word not in text] == [], text


def test_start_dpo_and_ppo_are_points_of_one_drawing(contents: Contents) -> None:
    texts = {text.strip() for text in contents.found["Alignment", "drawing: Reward against KL"]}
    assert {"before", "DPO", "PPO"} <= texts


def test_each_method_stands_under_its_own_start(contents: Contents) -> None:
    """The answers before are cut to the lengths of the other model's for distinct-2: 0.8 beside DPO, 0.9 beside PPO."""
    text = contents.text("Alignment", "table: Sampled answers to held-out requests")
    before = "before DPO 0.100 0.20 0.800 20.0 90.0% 0.00 DPO 0.300 0.60 0.700 20.0 90.0% 4.50"
    after = "before PPO 0.100 0.20 0.900 20.0 90.0% 0.00 PPO 0.300 0.60 0.350 20.0 90.0% 4.50"
    assert f"{before} {after}" in text


def test_the_starts_of_methods_that_are_judged_on_other_requests_are_two_points() -> None:
    stages = metrics()
    stages["ppo"]["before"]["reward"] = 0.7
    run = RunFiles(profile="cpu", metrics=stages, curves={}, samples={}, costs={}, sources={})
    frontier = alignment_section(run, num_samples=0).blocks[0]
    assert isinstance(frontier, Figures)
    labels = set(re.findall(r">\s*(before[^<]*?)\s*<", frontier.drawings[0]))
    assert labels == {"before DPO", "before PPO"}


def test_the_promises_are_complete(contents: Contents) -> None:
    named = {key for key in contents.found if key[1]}
    assert named - {(section, title) for section, title, _ in PROMISES} == set()
