"""The languages of Moses (Koehn et al. 2007), as sacremoses has them.

sacremoses takes any name for a language and treats one that it does not know like English in part: with the
abbreviations of English, and with every apostrophe as a word. Such a text would have a form of nobody's, and its
score would compare with nothing.
"""

from typing import Annotated

from pydantic import AfterValidator
from sacremoses.corpus import NonbreakingPrefixes

LANGUAGES = tuple(sorted({*NonbreakingPrefixes().available_langs.values(), "ja", "ko"}))
"""Those with abbreviations of their own, and two whose characters the tokenizer knows as letters."""
ALLOWED = f"allowed are the languages that Moses has rules for: {', '.join(LANGUAGES)}"


def check_language(language: str, key: str) -> None:
    """ValueError that names the key for a language without rules."""
    if language not in LANGUAGES:
        raise ValueError(f"{key}: found {language!r}, {ALLOWED}")


def _known(language: str) -> str:
    """The same for a configuration, whose reader adds the key and what was found."""
    if language not in LANGUAGES:
        raise ValueError(ALLOWED)
    return language


Language = Annotated[str, AfterValidator(_known)]
"""The code of a language that Moses has rules for, as `en`."""
