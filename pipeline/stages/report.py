"""report: every stage's metrics -> reports/PROFILE: metrics.json, headline.json, and index.html for people.

Two runs on the same metrics give the same bytes, but for the costs on the page: they are measured, not computed.
"""

import logging
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt

from pipeline.artifacts import write_json, write_text
from pipeline.config import Config, load
from pipeline.layout import Layout
from pipeline.report.inputs import RunFiles, read_run
from pipeline.report.page import render
from pipeline.report.results import Floor, Result, evaluate
from pipeline.report.rows import result_specs
from pipeline.report.table import HEADLINE, METRICS, PAGE
from pipeline.training.frame import stage_frame
from pipeline.training.launch import launch

log = logging.getLogger(__name__)


class ReportConfig(Config):
    """The stage report."""

    floors: dict[str, Floor]
    """What results must reach, by the id of the result; a missed floor is shown as missed."""
    num_samples: NonNegativeInt
    """Samples of each kind that are shown."""


def main(path: Path) -> None:
    """Writes the report on what has run; a stage that has not is shown as not run."""
    config = load(path, ReportConfig)
    layout = Layout.of(path)
    card = layout.data("raw/card.json")
    inputs = (layout.metrics.parent, *([card] if card.is_file() else []))
    with stage_frame(__spec__.name, path, config, inputs=inputs) as tracker:
        run = read_run(layout)
        results = evaluate(result_specs(run), config.floors, run)
        headline = {result.spec.id: result.value for result in results if result.value is not None}
        page = render(run, results, num_samples=config.num_samples)
        write_json(layout.reports / METRICS, combined(run, results))
        write_json(layout.reports / HEADLINE, headline)
        write_text(layout.reports / PAGE, page)
        tracker.metrics(headline, 0)
        tracker.artifact(layout.reports)
        for result in results:
            if result.reached is False:
                log.warning("floor missed: %s: %s, %s", result.spec.id, result.shown_value, result.verdict)


def combined(run: RunFiles, results: list[Result]) -> dict[str, Any]:
    """The results with their baselines and floors, and the metrics of every stage."""
    return {
        "profile": run.profile,
        "results": {result.spec.id: {**result.as_json(), "order": order} for order, result in enumerate(results)},
        "stages": dict(run.metrics),
    }


if __name__ == "__main__":
    launch(main)
