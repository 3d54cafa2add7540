"""The page holds everything it shows, says what was missed, and is the same for the same metrics."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline.artifacts import read_json, write_json
from pipeline.report.graph import EDGES, PLACES
from pipeline.stages.report import main
from tests.project.dvc_file import STAGES, items, paths
from tests.report.fabricated import metrics, write_run

CONFIG = Path("conf/cpu/report.yaml")
FLOORS = """\
floors:
  bert_next_sentence: {kind: absolute, bound: 0.65}
  ppo_judge: {kind: absolute, bound: 0.0, strict: true}
  translate_transformer: {kind: absolute, bound: 15.0}
num_samples: 4
"""


class Page(HTMLParser):
    """The text, the anchors and everything that a page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.links += [values["href"] or ""] if tag == "a" else []
        self.loaded += [values[key] or "" for key in ("src", "data", "srcset", "poster") if key in values]
        self.loaded += [values["href"] or ""] if tag == "link" else []

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the configuration and the code of the report, as the stage finds them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipeline").symlink_to(Path(__file__).parents[2] / "pipeline")
    CONFIG.parent.mkdir(parents=True)
    CONFIG.write_text(FLOORS)
    return tmp_path


def report(folder: Path) -> Page:
    main(CONFIG)
    return Page((folder / "reports/cpu/index.html").read_text(encoding="utf-8"))


def test_the_page_needs_no_network_and_no_other_file(folder: Path) -> None:
    write_run(folder)
    page = report(folder)
    text = (folder / "reports/cpu/index.html").read_text(encoding="utf-8")
    assert page.loaded == []
    assert "script" not in page.tags and "@import" not in text
    assert set(re.findall(r"url\(([^)]*)\)", text)) <= {f"#{name}" for name in page.ids}
    assert set(re.findall(r"https?://[^\"'\s<]*", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_every_box_of_the_graph_leads_somewhere_on_the_page(folder: Path) -> None:
    write_run(folder)
    page = report(folder)
    assert [link for link in page.links if link.startswith("#")] == [f"#{stage}" for stage in PLACES]
    assert {link[1:] for link in page.links} <= set(page.ids)


def test_a_missed_floor_stands_at_the_top_with_the_amount(folder: Path) -> None:
    write_run(folder)
    text = report(folder).text
    assert "1 of 3 floors reached." in text
    assert "BERT, next sentence, accuracy, held-out text: 61.0%, missed by 4.0 points." in text
    assert "+0.200 [-0.020, +0.350], missed by 0.020." in text


def test_results_stand_beside_their_baselines_and_samples_are_text_not_markup(folder: Path) -> None:
    write_run(folder)
    page = report(folder)
    assert "bag of words 83.0%" in page.text and "random weights 70.0%" in page.text
    assert "Write a <b>review</b>." in page.text
    for shown in ("Änderungen speichern", "A great, great film.", "CC0-1.0", "3.82%", "nrefs:1|tok:13a", "An animal."):
        assert shown in page.text


def test_every_bleu_of_a_translation_stands_beside_sacrebleu_with_its_signature(folder: Path) -> None:
    write_run(folder)
    assert "Model BLEU, beam BLEU, greedy BLEU, source copied chrF, beam" in (text := report(folder).text)
    assert "longer than the model reads" not in text
    moses = {"moses_bleu": {"beam": 22.4, "greedy": 21.0, "copy": 1.0, "signature": "nrefs:1|tok:moses-de"}}
    cut = {"test": {"num_pairs": 1000, "num_src_too_long": 3}}
    whole = {"test": {"num_pairs": 1000, "num_src_too_long": 0}}
    found = metrics()
    found["translate/transformer"] |= {**moses, **cut}
    found["translate/gru"] |= whole
    write_run(folder, stages=found)
    text = report(folder).text
    assert "BLEU, source copied Moses BLEU, beam chrF, beam" in text
    assert "Transformer 21.0 20.0 3.0 22.4 42.0" in text and "GRU with attention 14.0 13.0 3.0 - 28.0" in text
    assert (
        "nrefs:1|tok:13a; nrefs:1|tok:moses-de; Transformer: 3 of 1000 sources are longer than the model reads" in text
    )
    assert text.count("longer than the model reads") == 1


def test_the_reach_of_the_gradient_is_drawn_for_recurrent_models_and_only_for_them(folder: Path) -> None:
    write_run(folder)
    assert "Reach of the gradient" in (text := report(folder).text)
    assert "d decoder state over validation sentences: GRU with attention." in text
    write_run(folder, stages={name: one for name, one in metrics().items() if name != "translate/gru"})
    (folder / "metrics/cpu/translate/gru.json").unlink()
    assert "Reach of the gradient" not in report(folder).text


def test_a_partial_run_is_a_report_with_stages_that_have_not_run(folder: Path) -> None:
    chosen = {stage: values for stage, values in metrics().items() if stage in ("fetch", "prepare", "pretrain_gpt")}
    write_run(folder, stages=chosen)
    page = report(folder)
    assert page.text.count("not run") > 10
    assert "1.700" in page.text and "0 of 3 floors reached." in page.text
    results = read_json(folder / "reports/cpu/metrics.json")["results"]
    assert results["gpt_bits_per_byte"]["value"] == 1.7
    assert results["dpo_judge"]["value"] is None
    assert read_json(folder / "reports/cpu/headline.json") == {"gpt_bits_per_byte": 1.7, "gpt_perplexity": 20.0}


def test_the_same_metrics_give_the_same_bytes_and_costs_change_nothing_but_the_page(folder: Path) -> None:
    write_run(folder)
    names = ("index.html", "metrics.json", "headline.json")

    def contents() -> dict[str, bytes]:
        main(CONFIG)
        return {name: (folder / "reports/cpu" / name).read_bytes() for name in names}

    costs = folder / ".pipeline/costs/cpu"

    def forget() -> None:
        for path in costs.rglob("*.json"):
            path.unlink()

    forget()
    first = contents()
    forget()  # the report's own costs
    assert contents() == first
    forget()
    write_json(costs / "sft.json", {"seconds": 12.5, "peak_bytes": 2_000_000_000})
    second = contents()
    assert {name for name in names if second[name] != first[name]} == {"index.html"}
    assert b"12.5" in second["index.html"] and b"2.00 GB" in second["index.html"]


def test_all_metrics_of_all_stages_are_in_one_file(folder: Path) -> None:
    write_run(folder)
    main(CONFIG)
    assert read_json(folder / "reports/cpu/metrics.json")["stages"] == metrics()


def test_the_drawn_graph_is_a_part_of_the_real_one() -> None:
    import networkx

    assert set(PLACES) == set(STAGES)
    found = {
        key: {stage: {one for item in items(stage) for one in paths(stage, key, "cpu", item)} for stage in STAGES}
        for key in ("deps", "outs", "metrics")
    }
    real = networkx.DiGraph(
        (maker, stage)
        for stage in STAGES
        for dep in found["deps"][stage]
        for maker in STAGES
        for out in found["outs"][maker] | found["metrics"][maker]
        if f"{dep}/".startswith(f"{out}/") or f"{out}/".startswith(f"{dep}/")
    )
    assert [edge for edge in EDGES if not networkx.has_path(real, *edge)] == []
