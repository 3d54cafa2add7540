"""A tokenizer that a user has, for a BERT that begins from random weights: taken as it is, by its own settings."""

from pathlib import Path

from tokenizers import normalizers

from pipeline.text.tokenizer import Tokenizer, load_tokenizer
from pipeline.text.wordpiece import BERT_TOKENS


def bert_tokenizer(given: Path, *, lower_case: bool, is_told: bool) -> Tokenizer:
    """The tokenizer of a folder, read as fine-tuning reads the same folder.

    `lower_case` is for a vocab.txt with no word on it beside it; where the user told it, the folder may not say
    otherwise. ValueError names that, or the special tokens of BERT that are not there.
    """
    tokenizer = load_tokenizer(given, lower_case=lower_case)
    normalizer = tokenizer.backend.normalizer
    if is_told and isinstance(normalizer, normalizers.BertNormalizer) and normalizer.lowercase != lower_case:
        found, other = str(lower_case).lower(), str(not lower_case).lower()
        raise ValueError(
            f"wordpiece.lower_case: found {found}, the tokenizer in {given} says {other}; leave lower_case out"
        )
    missing = [role for role in BERT_TOKENS if role not in tokenizer.special]
    if missing:
        raise ValueError(
            f"{given}: a tokenizer of BERT has the special tokens {', '.join(BERT_TOKENS)}; no {', '.join(missing)}"
        )
    return tokenizer
