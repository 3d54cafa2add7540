"""The command bleu: a translation of a test set, or two of them, against the reference."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.cli_lines import lines_of
from pipeline.evaluation.bleu import BleuKind, CorpusScore, bleu_of, chrf, paired_bootstrap, ter


@dataclass(frozen=True)
class ScoreWish:
    """How the command scores."""

    kind: BleuKind
    lowercase: bool
    seed: int
    num_resamples: int

    def __post_init__(self) -> None:
        if self.num_resamples < 1:
            raise ValueError(f"--resamples: found {self.num_resamples}, allowed is 1 or more")
        if self.seed < 0:
            raise ValueError(f"--seed: found {self.seed}, allowed is 0 or more")


def score_files(reference: Path, systems: Sequence[Path], wish: ScoreWish) -> list[str]:
    """The lines of a table of scores; with two systems also how much better the first is, by BLEU.

    ValueError for files of different lengths, and for a reference without a text.
    """
    references = list(lines_of(reference))
    for number, line in enumerate(references, start=1):
        if not line.strip():
            raise ValueError(f"{reference}, line {number}: an empty reference, which no translation can match")
    if not references:
        raise ValueError(f"{reference}: no lines")
    texts = [list(lines_of(system)) for system in systems]
    for system, lines in zip(systems, texts, strict=True):
        if len(lines) != len(references):
            raise ValueError(f"{system} has {len(lines)} lines, {reference} has {len(references)}")
    table = []
    for system, lines in zip(systems, texts, strict=True):
        empty = sum(not line.strip() for line in lines)
        table.append(f"{system}: {len(lines)} lines" + (f", {empty} of them empty" if empty else ""))
        table += [
            _row("BLEU", bleu_of(lines, references, kind=wish.kind, lowercase=wish.lowercase)),
            _row("chrF2", chrf(lines, references, lowercase=wish.lowercase)),
            _row("TER", ter(lines, references)),
        ]
    if len(systems) == 2:
        first, second = texts
        found = paired_bootstrap(
            first,
            second,
            references,
            seed=wish.seed,
            num_resamples=wish.num_resamples,
            kind=wish.kind,
            lowercase=wish.lowercase,
        )
        p = found.share_not_better
        shown = f"p = {p:.4f}" if p else f"p < {1 / wish.num_resamples:.4f}"
        table += [
            f"BLEU of {systems[0]} less that of {systems[1]}",
            f"  {found.difference:+.2f}, 95% interval [{found.low:+.2f}, {found.high:+.2f}], {shown} (share of "
            f"{wish.num_resamples} paired bootstrap resamples in which the first is not better; seed {wish.seed})",
        ]
    return table


def _row(name: str, score: CorpusScore) -> str:
    return f"  {name:<5} {score.value:6.2f}  {score.signature}"
