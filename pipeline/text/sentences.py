"""Sentences of running text, for models that read sentence by sentence."""

import re

_ABBREVIATION = r"(?<!\b[A-Z]\.)" + "".join(
    rf"(?<!\b{word}\.)"
    for word in ("Mr", "Mrs", "Ms", "Dr", "St", "No", "Gen", "Gov", "Hon", "vs", "Jr", "Sr", "Messrs")
)
_OPENING, _CLOSING = "\"'(\\[\u201c\u2018", "\"')\\]\u201d\u2019"
_NEXT = rf"(?=[{_OPENING}]?[A-Z0-9])"
_BORDER = re.compile(rf"(?<=[.!?]){_ABBREVIATION}\s+{_NEXT}|(?<=[.!?][{_CLOSING}])\s+{_NEXT}")
"""White space behind . ! ? (and a closing quotation mark) and before a capital letter or a digit; not behind an initial
or a common English abbreviation."""


def sentences(text: str) -> list[str]:
    """The sentences of a text whose paragraphs are lines; a rule for English, with no model behind it."""
    return [sentence for line in text.split("\n") for sentence in _BORDER.split(line.strip()) if sentence]
