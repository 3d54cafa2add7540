"""The words of a text with its digits, where `key_of` takes all digits for one: two sums are not the same question."""

import unicodedata

from pipeline.data.cleaning import words_of


def wording_of(text: str) -> str:
    """Equal for texts that differ in case, punctuation, spacing or compatible characters only.

    A text without a word, such as a smiley, stands for itself.
    """
    return " ".join(words_of(unicodedata.normalize("NFKC", text))) or text
