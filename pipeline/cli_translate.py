"""The command translate: lines as a stream, in order, as many out as in, and nothing shortened unseen.

Lines are read in groups and sorted by length inside of one, so a text of any size takes the memory of a group.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from pipeline.artifacts import CONFIG, read_json
from pipeline.cli_commands import wrong_kind
from pipeline.cli_lines import in_groups, one_line, replacing
from pipeline.inference import open_model, put_on
from pipeline.kinds import kind_of
from pipeline.progress import progress
from pipeline.report.attention_picture import FORMATS, Panel, save_attention_picture
from pipeline.stages.source_weights import attention_map
from pipeline.stages.translation import DrawConfig, SearchConfig, Translation, Translator, open_ensemble
from pipeline.text.forms import out_of_form

_MOST_PANELS = 16


@dataclass(frozen=True)
class Wish:
    """What is wanted of each line."""

    num_best: int
    """Translations of each line in the form of Moses; 0: the best one as plain text."""
    draw: DrawConfig | None
    """Set where translations are drawn, not searched."""
    too_long: Literal["refuse", "cut"]
    lines_at_once: int
    name: str
    """What the lines come from, for messages."""

    def __post_init__(self) -> None:
        if self.num_best < 0:
            raise ValueError(f"--n-best: found {self.num_best}, allowed is 1 or more")
        if self.lines_at_once < 1:
            raise ValueError(f"--lines-at-once: found {self.lines_at_once}, allowed is 1 or more")


@dataclass
class Tally:
    """What was met on the way; line numbers begin with 1."""

    num_lines: int = 0
    cut: list[int] = field(default_factory=list)
    """Lines whose ends were not translated."""
    at_limit: list[int] = field(default_factory=list)
    """Lines with a translation that may lack its end."""
    examples: list[tuple[str, Translation]] = field(default_factory=list)
    """The first texts and their best translations: what a picture shows."""

    def notes(self, translator: Translator) -> list[str]:
        """Sentences for people; none where all went well."""
        found = []
        if self.cut:
            found.append(
                f"cut: {len(self.cut)} of {self.num_lines} lines had more than the {translator.longest_text} tokens "
                f"that the model reads and were translated without their ends, first line {self.cut[0]}"
            )
        if self.at_limit:
            found.append(
                f"at the limit: {len(self.at_limit)} of {self.num_lines} lines have a translation as long as allowed, "
                f"which may lack its end, first line {self.at_limit[0]}"
            )
        return found


def opened(
    folders: Sequence[Path],
    device: torch.device,
    changes: Mapping[str, int | float | str | None],
    *,
    batch_tokens: int | None,
) -> Translator:
    """The translator of one folder, or an ensemble of several, with the settings of the first but for `changes`.

    These are settings of the search; None stands for no change. ValueError for what greedy search would ignore.
    """
    for folder in folders:
        if kind_of(read_json(folder / CONFIG) if folder.is_dir() else {}, folder) != "translator":
            raise wrong_kind(folder, "a translation model", open_model(folder))
    translator = open_ensemble(folders)
    put_on(translator, device)
    changed = translator.search.model_dump() | {name: value for name, value in changes.items() if value is not None}
    search = SearchConfig.model_validate(changed)
    if search.beam_size == 1:
        for name in ("length_penalty", "stop"):
            if changes.get(name) is not None:
                option = f"--{name.replace('_', '-')}"
                raise ValueError(f"{option} is for --beam of 2 or more: found a beam of 1, which is greedy search")
    if batch_tokens is not None and batch_tokens < 1:
        raise ValueError(f"--batch-tokens: found {batch_tokens}, allowed is 1 or more")
    return replace(translator, search=search, tokens_at_once=batch_tokens or translator.tokens_at_once)


def translate_lines(
    translator: Translator,
    lines: Iterable[str],
    wish: Wish,
    write: Callable[[Sequence[str]], None],
    *,
    tally: Tally,
    total: int | None = None,
    is_shown: bool = False,
) -> None:
    """Translates lines until there are no more, and writes those of a group when the group is done."""

    def groups() -> Iterator[int]:
        for _, written in in_groups(lines, wish.lines_at_once):
            group = [translator.as_source(line) for line in written]
            found: dict[int, list[Translation]] = {}
            for finished in _translated(translator, group, wish, tally):
                found.update(finished)
                yield len(finished)
            places = range(len(group))
            plain = [[replace(one, text=out_of_form(one.text, translator.form)) for one in found[i]] for i in places]
            write([line for place in places for line in _form(tally.num_lines + place, plain[place], wish)])
            _count(tally, group, found)

    for _ in progress(groups(), name="translating", unit="lines", total=total, size=lambda n: n, is_shown=is_shown):
        pass


def draw_attention(path: Path, translator: Translator, tally: Tally) -> None:
    """The attention behind the best translation of each line, the mean over the models of an ensemble."""
    check_picture(path)
    if not tally.examples:
        raise ValueError(f"{path}: no line with a text, so there is no attention to draw")
    if len(tally.examples) > _MOST_PANELS:
        raise ValueError(f"{path}: attention is drawn for at most {_MOST_PANELS} lines, found more")
    panels = []
    for text, translation in tally.examples:
        models = (translator.model, *translator.others)
        maps = [attention_map(replace(translator, model=one, others=()), text, translation) for one in models]
        mean = torch.stack([one.weights for one in maps]).mean(0)
        panels.append(Panel(maps[0].src_tokens, maps[0].tgt_tokens, mean.numpy()))
    with replacing(path) as temporary:
        save_attention_picture(temporary, panels)


def check_picture(path: Path) -> None:
    """ValueError for a picture that cannot be written: said before anything is translated."""
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: a picture of attention ends in {' or '.join(FORMATS)}")


def _translated(
    translator: Translator, group: Sequence[str], wish: Wish, tally: Tally
) -> Iterator[list[tuple[int, list[Translation]]]]:
    for place, length in enumerate(translator.lengths(group)):
        if length > translator.longest_text:
            if wish.too_long == "refuse":
                raise ValueError(
                    f"{wish.name}, line {tally.num_lines + place + 1}: {length} tokens, the model reads at most "
                    f"{translator.longest_text}: {group[place][:60]!r}...; --long cut translates the beginning"
                )
            tally.cut.append(tally.num_lines + place + 1)
    sources = translator.encode(group, too_long="cut")
    if wish.draw is None:
        return translator.searched(sources, num_best=max(1, wish.num_best))
    numbers = range(tally.num_lines, tally.num_lines + len(group))
    return translator.drawn(sources, numbers, wish.draw, num_draws=max(1, wish.num_best))


def _form(number: int, found: Sequence[Translation], wish: Wish) -> list[str]:
    """The output of a line: as plain text, or `number ||| text ||| log-probability ||| score` for each translation."""
    if not wish.num_best:
        return [one_line(found[0].text)]
    return [f"{number} ||| {one_line(one.text)} ||| {one.log_prob:.4f} ||| {one.score:.4f}" for one in found]


def _count(tally: Tally, group: Sequence[str], found: dict[int, list[Translation]]) -> None:
    for place, text in enumerate(group):
        tally.num_lines += 1
        if any(one.at_limit for one in found[place]):
            tally.at_limit.append(tally.num_lines)
        if found[place][0].tokens and len(tally.examples) <= _MOST_PANELS:
            tally.examples.append((text, found[place][0]))
