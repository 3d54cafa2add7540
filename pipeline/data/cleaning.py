"""Text as every later stage may expect it: Unicode NFC, no control characters, plain spaces; and keys to compare by."""

import hashlib
import html
import re
import unicodedata

_JOINERS = "\u200c\u200d"
"""Invisible, but spelling: Persian parts a word with the first, Indic scripts and emoji join with the second."""
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\ufeff\ufffe]")
_SPACES = re.compile(r"[^\S\n]+")
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_WORDS = re.compile(r"\w+")
_MARKS = frozenset(sign for sign in map(chr, range(0x300, 0x20000)) if unicodedata.category(sign).startswith("M"))
"""Accents, and the vowels of Indic scripts, Thai and others: no letters, yet a part of the word."""
_MARKED_WORDS = re.compile(rf"\w+(?:[{''.join(sorted(_MARKS))}]+\w*)*")


def clean(text: str) -> str:
    """NFC, control characters and runs of spaces as one space, lines stripped, empty lines dropped."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\u2028", "\n").replace("\u2029", "\n"))
    text = _SPACES.sub(" ", _CONTROL.sub(" ", _INVISIBLE.sub("", text)))
    return "\n".join(line for line in (line.strip() for line in text.split("\n")) if line)


def clean_line(text: str) -> str:
    """`clean`, with HTML entities resolved, as a single line."""
    return clean(html.unescape(text)).replace("\n", " ")


def is_blank(text: str) -> bool:
    """Whether `clean_line` leaves nothing of it that can be seen."""
    return not clean_line(text).strip(_JOINERS + " ")


def words_of(text: str) -> list[str]:
    """The words of a text for counting and comparing: runs of letters, with their marks, and digits in lower case."""
    text = text.casefold()
    return (_WORDS if _MARKS.isdisjoint(text) else _MARKED_WORDS).findall(text)


def key_of(*texts: str) -> bytes:
    """Equal for texts that differ in case, punctuation, digits, spacing or compatible characters only."""
    folded = (" ".join(words_of(re.sub(r"\d", "0", unicodedata.normalize("NFKC", text)))) for text in texts)
    return hashlib.blake2b("\n".join(folded).encode(), digest_size=12).digest()


def order_of(name: str) -> bytes:
    """A fixed random order of names: sorting by it shuffles them the same way everywhere."""
    return hashlib.blake2b(name.encode(), digest_size=12).digest()
