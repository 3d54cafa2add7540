"""What target tokens of a translation model spell, in the form of its texts.

Most tokenizers keep the spaces of a text in their tokens, and what they decode is the text. Some keep none, as the
WordPiece of BERT: `a , b` and `a,b` are the same to it, and its decoder puts spaces where it likes. Moses tokens are
what spaces separate, so that they are found anew in such a text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from sacremoses import MosesTokenizer

from pipeline.text.forms import MosesText, PlainText, out_of_form
from pipeline.text.tokenizer import Tokenizer

_JOINED = ((re.compile(r"(?<=\d) ?([.,]) (?=\d)"), r"\1"), (re.compile(r"(?<=\w) - (?=\w)"), "-"))
"""Numbers and compounds, which Moses leaves whole; a dash between two words is rarer than a hyphen."""
_CONTRACTED = (re.compile(r"(?<=\w) ' (?=(?:s|t|d|m|re|ve|ll)\b)", re.IGNORECASE), " '")
"""English: the apostrophe belongs to what is behind it."""
_ELIDED = (re.compile(r"(?:(?<=[b-df-hj-np-tv-xz])|(?<=qu)) ' (?=\w)", re.IGNORECASE), "' ")
"""French, Italian and Irish: to what is before it, a word without its vowel."""
_APOSTROPHES = {"en": (_CONTRACTED,), "fr": (_ELIDED,), "it": (_ELIDED,), "ga": (_ELIDED,)}


@dataclass(frozen=True)
class TargetText:
    """Decodes the targets of a tokenizer."""

    tokenizer: Tokenizer
    form: PlainText | MosesText
    """The form of the text that is spelled."""

    def of(self, ids: Sequence[int]) -> str:
        """The text of some ids; special tokens are left out.

        Where the tokenizer keeps no spaces, Moses tokens are those of the decoded text after it is put together: marks
        apart, numbers, compounds and apostrophes as Moses has them, as far as rules can tell.
        """
        text = self.tokenizer.decode(ids)
        if not isinstance(self.form, MosesText) or not self._has_lost_spaces:
            return text
        for pattern, joined in (*_JOINED, *_APOSTROPHES.get(self.form.tgt, ())):
            text = pattern.sub(joined, text)
        tokens: str = _moses(self.form.tgt).tokenize(out_of_form(text, self.form), escape=False, return_str=True)
        return tokens

    @cached_property
    def _has_lost_spaces(self) -> bool:
        return self.tokenizer.encode("a,b") == self.tokenizer.encode("a , b")


@cache
def _moses(language: str) -> MosesTokenizer:
    return MosesTokenizer(language)
