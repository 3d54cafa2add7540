"""Text as every later stage may expect it: Unicode NFC, no control characters, plain spaces; and keys to compare by.

Invisible characters go, but for those that are spelling: U+200C, with which Persian parts a word; U+200D, with which
Indic scripts and emoji join; U+180E before the last vowel of a Mongolian word; variation selectors, the tags of flags,
and what fills the place of a letter that is not written.
"""

import hashlib
import re
import unicodedata
from html import unescape
from html.entities import html5

_ENTITY = re.compile("&(?:#[0-9]+|#[xX][0-9a-fA-F]+|[a-zA-Z][a-zA-Z0-9]*);")
_INVISIBLE = re.compile("[\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe]")
_MONGOLIAN = "\u180b-\u180d\u180f\u1820-\u18aa"
_LONE_SEPARATOR = re.compile(f"(?<![{_MONGOLIAN}])\u180e|\u180e(?![{_MONGOLIAN}])")
_VISIBLE = re.compile(
    "[^\\s\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Any character but spaces, Unicode's Default_Ignorable_Code_Point, the marks of annotations and the empty Braille."""
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
    """NFC, control characters and runs of spaces as one space, lines stripped; those in which nothing is seen go."""
    text = _INVISIBLE.sub("", text)
    if "\u180e" in text:
        text = _LONE_SEPARATOR.sub("", text)
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\u2028", "\n").replace("\u2029", "\n"))
    text = _SPACES.sub(" ", _CONTROL.sub(" ", text))
    return "\n".join(line.strip() for line in text.split("\n") if _VISIBLE.search(line))


def clean_line(text: str) -> str:
    """`clean`, with HTML entities resolved, as a single line."""
    return clean(resolve_entities(text)).replace("\n", " ")


def resolve_entities(text: str) -> str:
    """The characters that HTML entities stand for: `&name;`, `&#n;` and `&#xn;`.

    What has no semicolon stays, as browsers read it in an address: `?a=1&copy=2` has no copyright sign.
    """
    return _ENTITY.sub(_resolved, text) if "&" in text else text


def _resolved(entity: re.Match[str]) -> str:
    found = entity.group()
    return unescape(found) if found[1] == "#" else html5.get(found[1:], found)


def is_blank(text: str) -> bool:
    """Whether nothing of it can be seen, once its entities are resolved."""
    return not clean_line(text)


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
