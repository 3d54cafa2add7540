"""The words of running text, where they stand: for models that were trained on text cut into words."""

import re
from typing import NamedTuple

_OPENING, _CLOSING = "([{<\"'`\u00ab\u201c\u2018\u201e\u00bf\u00a1", ")]}>\"'`\u00bb\u201d\u2019,;:!?\u2026"
_WORD = re.compile(rf"([{re.escape(_OPENING)}]*)(.*?)([{re.escape(_CLOSING)}.]*)", re.DOTALL)


class Span(NamedTuple):
    """Characters `start` to `stop` (exclusive) of a text."""

    start: int
    stop: int


def word_spans(text: str, *, tokenised: bool = False) -> list[Span]:
    """The words of a text; white space separates them.

    Brackets, quotation marks and the marks behind a word are words of their own, each of them. A full stop is one at
    the end of a word that has no other, as `Paris.` but not `U.S.`; apostrophes and hyphens within a word separate
    nothing. If the text is `tokenised`, white space alone does.
    """
    spans: list[Span] = []
    for match in re.finditer(r"\S+", text):
        if tokenised:
            spans.append(Span(*match.span()))
            continue
        parts = _WORD.fullmatch(match.group())
        assert parts
        before, word, behind = (len(part) for part in parts.groups())
        if word and behind and parts.group(3).startswith(".") and "." in parts.group(2):
            word, behind = word + 1, behind - 1
        start = match.start()
        spans += [Span(start + i, start + i + 1) for i in range(before)]
        start += before
        if word:
            spans.append(Span(start, start + word))
        start += word
        spans += [Span(start + i, start + i + 1) for i in range(behind)]
    return spans
