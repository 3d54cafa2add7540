"""prepare: raw sources -> data/PROFILE/prepared: cleaned, deduplicated, split by document or template."""

import logging
from collections.abc import Mapping
from pathlib import Path

from pipeline.artifacts import publish, write_json
from pipeline.config import load
from pipeline.data.preparing.corpus import PrepareConfig, prepare
from pipeline.data.preparing.pairs import PairsConfig
from pipeline.layout import Layout
from pipeline.training.frame import flat, stage_frame
from pipeline.training.launch import launch

log = logging.getLogger(__name__)

_MANY_DROPPED = 0.1
"""Share of the pairs whose loss is explained."""


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
        if "translation" in counts:
            _explain_dropped(counts["translation"]["dropped"], counts["translation"]["read"], config.translation)


def _explain_dropped(dropped: Mapping[str, int], num_read: int, config: PairsConfig) -> None:
    """Warns where a good part of the pairs is left out, with each reason and the setting behind it."""
    if sum(dropped.values()) < _MANY_DROPPED * num_read:
        return
    settings = {
        "duplicate": f"repeats: {config.repeats}",
        "length_ratio": f"max_ratio: {config.max_ratio:g}",
        "too_short": f"min_words: {config.min_words}",
        "too_long": f"max_words: {config.max_words}",
        "not_scored": f"min_words_held_out: {config.min_words_held_out}, num_valid, num_test",
    }
    reasons = [
        f"{why} {count:,}" + (f" ({settings[why]})" if why in settings else "") for why, count in dropped.items()
    ]
    log.warning(
        "translation: %d of %d pairs read are left out: %s", sum(dropped.values()), num_read, ", ".join(reasons)
    )


if __name__ == "__main__":
    launch(main)
