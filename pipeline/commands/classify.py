"""The command classify: texts, or pairs of texts, as a stream of lines, in order, as many out as in."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch

from pipeline.commands.lines import in_groups
from pipeline.commands.texts import wrong_kind
from pipeline.inference.models import Classifier, open_model

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
    for first, group in in_groups(_texts(lines, pairs, name), _LINES_AT_ONCE, lambda texts: sum(map(len, texts))):
        filled = [place for place, texts in enumerate(group) if texts]
        written = [""] * len(group)
        texts = [group[place][0] for place in filled]
        second = [group[place][1] for place in filled] if pairs else None
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


def _texts(lines: Iterable[str], pairs: bool, name: str) -> Iterator[tuple[str, ...]]:
    """One text of each line or, with `pairs`, its two; none of an empty line. ValueError names one that is no pair."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            yield ()
        elif not pairs:
            yield (line,)
        else:
            texts = tuple(line.split("\t"))
            if len(texts) != 2:
                raise ValueError(
                    f"{name}, line {number}: expected two texts with a tab between them, found {len(texts)}: "
                    f"{line[:60]!r}"
                )
            yield texts
