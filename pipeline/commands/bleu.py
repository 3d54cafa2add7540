"""The command bleu: a translation of a test set, or two of them, against the reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.commands.lines import lines_of
from pipeline.evaluation.bleu import (
    BleuKind,
    CorpusScore,
    MosesWords,
    PlainWords,
    bleu_of,
    chrf,
    paired_bootstrap,
    ter,
)
from pipeline.text.moses import check_language


@dataclass(frozen=True)
class ScoreWish:
    """How the command scores."""

    tokenised: bool
    """Whether the words of the texts are what spaces separate; else the texts are plain."""
    words: PlainWords | None
    """The tokenizer of plain texts, where it is not the script of the references that says which."""
    moses: str | None
    """The language of a second BLEU of plain texts, after Moses' tokenizer, where that is wanted too."""
    split_compounds: bool
    """Whether Moses' words are split at their hyphens."""
    lowercase: bool
    seed: int
    num_resamples: int

    def __post_init__(self) -> None:
        if self.split_compounds and self.moses is None:
            raise ValueError("--split-compounds is for --moses")
        if self.tokenised and self.moses is not None:
            raise ValueError("--moses tokenises plain text, --tokenised takes text that is tokenised: found both")
        if self.tokenised and self.words is not None:
            raise ValueError("--words tokenises plain text, --tokenised takes text that is tokenised: found both")
        if self.moses is not None:
            check_language(self.moses, "--moses")
        if self.num_resamples < 1:
            raise ValueError(f"--resamples: found {self.num_resamples}, allowed is 1 or more")
        if self.seed < 0:
            raise ValueError(f"--seed: found {self.seed}, allowed is 0 or more")

    @property
    def kinds(self) -> dict[str, BleuKind]:
        """Each BLEU that is shown, by its name in the table."""
        found: dict[str, BleuKind] = {"BLEU": "tokenised" if self.tokenised else self.words or "plain"}
        if self.moses is not None:
            found["Moses BLEU"] = MosesWords(self.moses, self.split_compounds)
        return found


def score_files(reference: Path, systems: Sequence[Path], wish: ScoreWish) -> list[str]:
    """The lines of a table of scores; with two systems also how much better the first is, by each BLEU shown.

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
        found = {
            name: bleu_of(lines, references, kind=kind, lowercase=wish.lowercase) for name, kind in wish.kinds.items()
        }
        found["chrF2"] = chrf(lines, references, lowercase=wish.lowercase)
        found["TER"] = ter(lines, references, words="tokenised" if wish.tokenised else wish.words)
        table += _rows(found)
    if len(systems) == 2:
        first, second = texts
        for name, kind in wish.kinds.items():
            table.append(f"{name} of {systems[0]} less that of {systems[1]}")
            table.append(_difference(first, second, references, kind=kind, wish=wish))
    return table


def _rows(scores: Mapping[str, CorpusScore]) -> list[str]:
    width = max(len(name) for name in scores)
    return [f"  {name:<{width}} {score.value:6.2f}  {score.signature}" for name, score in scores.items()]


def _difference(
    system: Sequence[str], baseline: Sequence[str], references: Sequence[str], *, kind: BleuKind, wish: ScoreWish
) -> str:
    """How much better a system is than the baseline, and how surely."""
    found = paired_bootstrap(
        system,
        baseline,
        references,
        seed=wish.seed,
        num_resamples=wish.num_resamples,
        kind=kind,
        lowercase=wish.lowercase,
    )
    p = found.share_not_better
    shown = f"p = {p:.4f}" if p else f"p < {1 / wish.num_resamples:.4f}"
    return (
        f"  {found.difference:+.2f}, 95% interval [{found.low:+.2f}, {found.high:+.2f}], {shown} (share of "
        f"{wish.num_resamples} paired bootstrap resamples in which the first is not better; seed {wish.seed})"
    )
