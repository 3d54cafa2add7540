"""The command translate: lines as a stream, in order, as many out as in, and nothing shortened unseen.

Lines are read in groups and sorted by length inside of one, so a text of any size takes the memory of a group.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from pipeline.artifacts import CONFIG, read_json
from pipeline.commands.lines import in_groups, one_line, replacing
from pipeline.commands.texts import wrong_kind
from pipeline.inference.attention_map import attention_map, has_attention
from pipeline.inference.models import open_model, put_on
from pipeline.inference.translator import DrawConfig, SearchConfig, Translation, Translator
from pipeline.inference.translator_folder import open_ensemble
from pipeline.kinds import kind_of
from pipeline.progress import progress
from pipeline.report.attention_picture import FORMATS, Panel, save_attention_picture
from pipeline.text.forms import out_of_form
from pipeline.text.unknown import has_unknown, shown_parts, unknown_kind, unknown_parts

_log = logging.getLogger(__name__)
_MOST_PANELS = 16
_SHOWN_PARTS = 10


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

    def check_beam(self, beam_size: int) -> None:
        """ValueError for more translations of a line than a search of this width has; of draws there are any number."""
        if self.draw is None and self.num_best > beam_size:
            raise ValueError(
                f"--n-best: found {self.num_best}, allowed is at most the width of the search, {beam_size}: a larger "
                "--beam finds more"
            )


@dataclass
class Tally:
    """What was met on the way; line numbers begin with 1."""

    num_lines: int = 0
    cut: list[int] = field(default_factory=list)
    """Lines whose ends were not translated."""
    at_limit: list[int] = field(default_factory=list)
    """Lines with a translation that may lack its end."""
    empty: list[int] = field(default_factory=list)
    """Lines with a text whose translation is empty."""
    unknown: list[int] = field(default_factory=list)
    """Lines with words or characters that the tokenizer does not know: the model reads none of them."""
    unknown_parts: dict[str, None] = field(default_factory=dict)
    """These words or characters, in the order of their lines."""
    examples: list[tuple[str, Translation]] = field(default_factory=list)
    """The first texts and their best translations: what a picture shows."""
    num_undrawn: int = 0
    """Texts with a translation behind those."""

    def notes(self, translator: Translator) -> list[str]:
        """Sentences for people; none where all went well."""
        found = []
        if self.cut:
            found.append(
                f"cut: {len(self.cut)} of {self.num_lines} lines had more than the {translator.longest_text} tokens "
                f"that the model reads and were translated without their ends, first line {self.cut[0]}"
            )
        if self.unknown:
            parts = list(self.unknown_parts)
            more = ", ..." if len(parts) > _SHOWN_PARTS else ""
            named = f": {shown_parts(parts, most=_SHOWN_PARTS)}{more}" if parts else ""
            found.append(
                f"unknown: {len(self.unknown)} of {self.num_lines} lines have {unknown_kind(translator.tokenizer)} "
                f"that the model does not know, first line {self.unknown[0]}{named}"
            )
        if self.empty:
            found.append(
                f"empty: {len(self.empty)} of {self.num_lines} lines have a text and no translation, "
                f"first line {self.empty[0]}"
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
        for name in ("length_penalty", "normalisation", "stop"):
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
    """Translates lines until there are no more, and writes those of a group when the group is done.

    ValueError names a line that is refused; those before it are translated and written.
    """

    def groups() -> Iterator[int]:
        for _, written in in_groups(lines, wish.lines_at_once, len):
            group = [translator.as_source(line) for line in written]
            too_long = _too_long(translator, group)
            fault = None
            if too_long and wish.too_long == "refuse":
                fault = _refusal(translator, group[too_long[0]], tally.num_lines + too_long[0] + 1, wish)
                group = group[: too_long[0]]
            else:
                tally.cut += [tally.num_lines + place + 1 for place in too_long]
            found: dict[int, list[Translation]] = {}
            for finished in _translated(translator, group, wish, tally):
                found.update(finished)
                yield len(finished)
            places = range(len(group))
            plain = [[replace(one, text=out_of_form(one.text, translator.form)) for one in found[i]] for i in places]
            if group:
                write([line for place in places for line in _form(tally.num_lines + place, plain[place], wish)])
            _count(tally, group, found)
            if fault:
                raise fault

    for _ in progress(groups(), name="translating", unit="lines", total=total, size=lambda n: n, is_shown=is_shown):
        pass


def check_lengths(translator: Translator, lines: Iterable[str], wish: Wish) -> None:
    """ValueError names the first line that `translate_lines` would refuse, before anything is translated."""
    for first, written in in_groups(lines, wish.lines_at_once, len):
        group = [translator.as_source(line) for line in written]
        for place in _too_long(translator, group):
            raise _refusal(translator, group[place], first + place, wish)


def check_attention(path: Path, translator: Translator) -> None:
    """ValueError for a model that attends to nothing: said before anything is translated."""
    if not all(has_attention(model) for model in translator.models):
        raise ValueError(f"{path}: a model without attention gives its sources no weights, so there is nothing to draw")


def drawable(path: Path, translator: Translator, lines: Iterable[str]) -> list[str]:
    """All lines; ValueError, before anything is translated, where more have a text than a picture shows, or none."""
    found, num_texts = list[str](), 0
    for line in lines:
        found.append(line)
        num_texts += bool(translator.as_source(line))
        if num_texts > _MOST_PANELS:
            raise ValueError(f"{path}: attention is drawn for at most {_MOST_PANELS} lines, found more")
    if not num_texts:
        raise ValueError(f"{path}: no line with a text, so there is no attention to draw")
    return found


def draw_attention(path: Path, translator: Translator, tally: Tally) -> None:
    """The attention behind the best translation of each of the first lines, the mean over the models of an ensemble.

    ValueError where no line has a translation.
    """
    if not tally.examples:
        raise ValueError(f"{path}: no line has a translation, so there is no attention to draw")
    if tally.num_undrawn:
        # Only of what was typed at a prompt is the number not known before.
        _log.warning("%s: shows the first %d lines, and not %d more", path, _MOST_PANELS, tally.num_undrawn)
    panels = []
    for text, translation in tally.examples:
        found = attention_map(translator, text, translation)
        panels.append(Panel(found.src_tokens, found.tgt_tokens, found.weights.numpy()))
    with replacing(path) as temporary:
        save_attention_picture(temporary, panels, name=path)


def check_picture(path: Path) -> None:
    """ValueError for a picture that cannot be written: said before anything is translated."""
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: a picture of attention ends in {' or '.join(FORMATS)}")


def _translated(
    translator: Translator, group: Sequence[str], wish: Wish, tally: Tally
) -> Iterator[list[tuple[int, list[Translation]]]]:
    sources = translator.encode(group, too_long="cut")
    for number, (text, ids) in enumerate(zip(group, sources, strict=True), start=tally.num_lines + 1):
        # Its last id is EOS.
        if has_unknown(ids[:-1].tolist(), translator.tokenizer):
            tally.unknown.append(number)
            found = unknown_parts(text, translator.tokenizer, num_tokens=len(ids) - 1)
            tally.unknown_parts |= dict.fromkeys(found)
    if wish.draw is None:
        return translator.searched(sources, num_best=max(1, wish.num_best))
    numbers = range(tally.num_lines, tally.num_lines + len(group))
    return translator.drawn(sources, numbers, wish.draw, num_draws=max(1, wish.num_best))


def _too_long(translator: Translator, group: Sequence[str]) -> list[int]:
    """The places of the texts that are longer than the model reads."""
    return [place for place, length in enumerate(translator.lengths(group)) if length > translator.longest_text]


def _refusal(translator: Translator, text: str, number: int, wish: Wish) -> ValueError:
    """The fault of a line that is too long."""
    (length,) = translator.lengths([text])
    return ValueError(
        f"{wish.name}, line {number}: {length} tokens, the model reads at most {translator.longest_text}: "
        f"{text[:60]!r}...; --long cut translates the beginning"
    )


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
        if text and not found[place][0].tokens:
            tally.empty.append(tally.num_lines)
        if found[place][0].tokens and len(tally.examples) == _MOST_PANELS:
            tally.num_undrawn += 1
        elif found[place][0].tokens:
            tally.examples.append((text, found[place][0]))
