"""The command classify: texts, or pairs of texts, as a stream of lines, in order, as many out as in."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch

from pipeline.cli_commands import wrong_kind
from pipeline.cli_lines import in_groups
from pipeline.inference import Classifier, open_model

_LINES_AT_ONCE = 512
"""Lines of a stream that are read together: those of like length are then computed together."""


def opened(folder: Path, device: torch.device) -> Classifier:
    """The model of a folder on a device; ValueError where it holds another kind."""
    model = open_model(folder, device)
    if not isinstance(model, Classifier):
        raise wrong_kind(folder, "a classifier", model)
    return model


def classify_lines(
    model: Classifier, lines: Iterable[str], *, pairs: bool, name: str, write: Callable[[Sequence[str]], None]
) -> list[int]:
    """Writes `label TAB probability`, or the value of a regression, for each line; an empty line stays empty.

    Several labels that are all true, or several values, stand one behind the other with a tab between them; where no
    label is likelier than not, the line is empty.

    With `pairs` a line is two texts with a tab between them. `name` is what the lines come from, for messages. Returns
    the numbers, from 1, of the lines that were too long to be read to their end. ValueError names a line that is no
    pair.
    """
    cut: list[int] = []
    for first, group in in_groups(_pairs(lines, name) if pairs else lines, _LINES_AT_ONCE):
        filled = [place for place, line in enumerate(group) if line.strip()]
        written = [""] * len(group)
        texts, second = [group[place] for place in filled], None
        if pairs:
            both = [_pair(group[place], f"{name}, line {first + place}") for place in filled]
            texts, second = [one for one, _ in both], [other for _, other in both]
        for place, found in zip(filled, model.classify(texts, second), strict=True):
            said = zip(found.labels, found.values, strict=True)
            written[place] = "\t".join(f"{label}\t{value:.4f}" for label, value in said)
            if found.is_cut:
                cut.append(first + place)
        write(written)
    return cut


def note_on(cut: Sequence[int], model: Classifier) -> str:
    """A sentence on the lines that `classify_lines` returned; empty where there were none."""
    if not cut:
        return ""
    return (
        f"cut: {len(cut)} line(s) had more than the {model.max_length} tokens that the model reads and were labelled "
        f"without their ends, first line {cut[0]}"
    )


def _pairs(lines: Iterable[str], name: str) -> Iterator[str]:
    """The lines as they are; ValueError names the first that is neither empty nor a pair."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            _pair(line, f"{name}, line {number}")
        yield line


def _pair(line: str, where: str) -> tuple[str, str]:
    parts = line.split("\t")
    if len(parts) != 2:
        raise ValueError(f"{where}: expected two texts with a tab between them, found {len(parts)}: {line[:60]!r}")
    return parts[0], parts[1]
