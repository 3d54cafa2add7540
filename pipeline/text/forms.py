"""The form in which a translation model reads and writes text: plain, or as Moses tokenises it, with or without case.

Published scores on older benchmarks are those of lower-cased Moses tokens. A model trained on such text gets every text
in this form, and what it writes is put together again for people.
"""

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, assert_never

from pydantic import Field
from sacremoses import MosesDetokenizer, MosesPunctNormalizer, MosesTokenizer

from pipeline.artifacts import write_json
from pipeline.config import Config, load
from pipeline.text.moses import Language

Side = Literal["src", "tgt"]


class PlainText(Config):
    """Text as people write it."""

    kind: Literal["plain"] = "plain"
    """Which form this is."""


class MosesText(Config):
    """Punctuation normalised, words and punctuation apart by spaces (Koehn et al. 2007), as sacremoses does it.

    Moses writes some characters as HTML entities; here they stay what they are, which changes no score. But for these,
    93,014 of the 93,042 raw lines of Multi30k (train, val and test_2016_flickr in de, en and fr) become those of its
    `lc.norm.tok` files. Of the other 28, 12 end with a stop and a quotation mark, which the Perl script exchanges, and
    in 16 it takes a ’ before a letter beyond ASCII, or after a space, for a quotation mark.
    """

    kind: Literal["moses"]
    """Which form this is."""
    src: Language
    """Language of the sources, as `en`."""
    tgt: Language
    """Language of the targets."""
    lowercase: bool
    """Whether everything is in lower case, from before it is tokenised: `bart.` is then a word and its stop, where
    `Bart.` is an abbreviation of German, and a stop that a small letter follows ends no sentence."""


PLAIN = PlainText()
TextForm = Annotated[PlainText | MosesText, Field(discriminator="kind")]
_BEHIND_DASH = re.compile(r"li$|mail", re.IGNORECASE)
"""What detokenizer.perl joins in Czech with a dash before it."""
FORM = "text.json"
"""The file that notes the form of a folder's texts."""


def save_form(folder: Path, form: PlainText | MosesText) -> None:
    """Notes the form of the texts in a folder, or that its model reads; plain text needs no note."""
    if not isinstance(form, PlainText):
        write_json(folder / FORM, form.model_dump())


def load_form(folder: Path) -> PlainText | MosesText:
    """The form that is noted in a folder; ValueError names the file and the key at fault."""
    return load(folder / FORM, MosesText) if (folder / FORM).is_file() else PLAIN


def has_no_case(form: PlainText | MosesText) -> bool:
    """Whether everything in this form is in lower case."""
    return isinstance(form, MosesText) and form.lowercase


def into_form(text: str, form: PlainText | MosesText, side: Side) -> str:
    """A text as the model reads it."""
    match form:
        case PlainText():
            return text
        case MosesText():
            language = form.src if side == "src" else form.tgt
            normalised = _normalizer(language).normalize(text.lower() if form.lowercase else text)
            tokenised: str = _tokenizer(language).tokenize(normalised, escape=False, return_str=True)
            return tokenised
        case _:
            assert_never(form)


def out_of_form(text: str, form: PlainText | MosesText) -> str:
    """A target as people write it; lower case stays lower case."""
    match form:
        case PlainText():
            return text
        case MosesText():
            words = _czech_words(text) if form.tgt == "cs" else text.split(" ")
            joined: str = _detokenizer(form.tgt).detokenize(words, unescape=False)
            return joined
        case _:
            assert_never(form)


def _czech_words(text: str) -> list[str]:
    """Tokens of Czech, where a word with an apostrophe, a dash and `li` or `mail...` behind it are one word.

    detokenizer.perl joins them so; where sacremoses 0.2.0 comes to them it ends in a TypeError.
    """
    words: list[str] = []
    # sacremoses joins these hyphens before it looks for the others.
    for word in f" {text} ".replace(" @-@ ", "-").split():
        is_behind_dash = _BEHIND_DASH.match(word) and len(words) > 1 and words[-1] in ("-", "\u2013")
        if is_behind_dash and MosesDetokenizer.IS_FRENCH_CONRTACTION.search(words[-2]):
            words[-2:] = ["".join([*words[-2:], word])]
        else:
            words.append(word)
    return words


@cache
def _normalizer(language: str) -> MosesPunctNormalizer:
    return MosesPunctNormalizer(language)


@cache
def _tokenizer(language: str) -> MosesTokenizer:
    return MosesTokenizer(language)


@cache
def _detokenizer(language: str) -> MosesDetokenizer:
    return MosesDetokenizer(language)
