"""prepare: raw sources -> data/PROFILE/prepared: cleaned, deduplicated, split by document or template."""

import logging
from pathlib import Path

from pipeline.artifacts import publish, write_json
from pipeline.config import load
from pipeline.data.corpus import PrepareConfig, prepare
from pipeline.layout import Layout
from pipeline.stages.frame import flat, stage_frame
from pipeline.stages.launch import launch

log = logging.getLogger(__name__)


def main(path: Path) -> None:
    """Prepares every role of the profile, or leaves everything as it was."""
    config = load(path, PrepareConfig)
    layout = Layout.of(path)
    with stage_frame(__spec__.name, path, config, inputs=(layout.data("raw"),)) as tracker:
        with publish(layout.data("prepared")) as folder:
            counts, overlap = prepare(config, layout.data("raw"), folder)
            write_json(folder / "overlap.json", overlap)
        metrics = {"counts": counts, "overlap": overlap}
        write_json(layout.metrics, metrics)
        tracker.metrics(flat(metrics), 0)
        for role, parts in counts.items():
            sizes = ", ".join(
                f"{name} {part['records']:,}" for name, part in parts.items() if name in ("train", "valid", "test")
            )
            log.info("%s: %s", role, sizes or parts)


if __name__ == "__main__":
    launch(main)
