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
_HAN_AND_KANA = "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_NO_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
"""Thai, Lao, Burmese and Khmer, whose words are several characters long."""
_LETTERS_OF_A_WORD = 5
_CHARACTER = re.compile(f"[{_HAN_AND_KANA}]")
_UNSPACED = re.compile(f"[{_HAN_AND_KANA}{_NO_SPACES}]")
_UNSPACED_WORDS = re.compile(
    f"[{_HAN_AND_KANA}]|[{_NO_SPACES}]{{1,{_LETTERS_OF_A_WORD}}}"
    f"|[^\\s\u3000-\u3004\u3008-\u303f\uff00-\uff0f\uff1a-\uff1f{_HAN_AND_KANA}{_NO_SPACES}]+"
)
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


def num_words(text: str) -> int:
    """How long a text is in words: what stands between spaces.

    Where a script has no spaces, each Chinese or Japanese character counts as one, and each five of Thai, Lao, Burmese
    or Khmer; full-width punctuation does not.
    """
    return len(_UNSPACED_WORDS.findall(text) if _UNSPACED.search(text) else text.split())


def num_letters(text: str) -> int:
    """How long a text is in characters of an alphabet: a Chinese or Japanese one says as much as three of them."""
    return len(text) + 2 * len(_CHARACTER.findall(text))


def key_of(*texts: str) -> bytes:
    """Equal for texts that differ in case, punctuation, digits, spacing or compatible characters only."""
    folded = (" ".join(words_of(re.sub(r"\d", "0", unicodedata.normalize("NFKC", text)))) for text in texts)
    return hashlib.blake2b("\n".join(folded).encode(), digest_size=12).digest()


def order_of(name: str) -> bytes:
    """A fixed random order of names: sorting by it shuffles them the same way everywhere."""
    return hashlib.blake2b(name.encode(), digest_size=12).digest()
