"""BERT's WordPiece (Devlin et al. 2019) over a given vocabulary, as `BertTokenizer` of `transformers` makes it.

Its special tokens go by the same names everywhere, so that published folders often do not name them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from pipeline.text.lines import numbered_lines

BertRole = Literal["pad", "unk", "cls", "sep", "mask"]

BERT_TOKENS: Mapping[BertRole, str] = {
    "pad": "[PAD]",
    "unk": "[UNK]",
    "cls": "[CLS]",
    "sep": "[SEP]",
    "mask": "[MASK]",
}
"""The special tokens of `BertTokenizer` where a folder names no others."""
CONTINUES = "##"
"""What a piece begins with that does not begin a word."""


def wordpiece_backend(
    ids: Mapping[str, int], *, lower_case: bool, tokens: Mapping[BertRole, str] = BERT_TOKENS
) -> tokenizers.Tokenizer:
    """The tokenizer with these pieces, special tokens among them; lower-casing it strips accents too."""
    backend = tokenizers.Tokenizer(models.WordPiece(dict(ids), unk_token=tokens["unk"]))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix=CONTINUES)
    backend.add_special_tokens([AddedToken(token, special=True) for token in tokens.values()])
    cls, sep = tokens["cls"], tokens["sep"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, backend.token_to_id(token)) for token in (cls, sep)],
    )
    return backend


def read_pieces(file: Path, tokens: Mapping[BertRole, str] = BERT_TOKENS) -> dict[str, int]:
    """The pieces of a vocab.txt, one a line, whose ids are the numbers of the lines from 0.

    ValueError names the file, and the line of a piece that is empty or stands twice, or the special token that is not
    there.
    """
    ids: dict[str, int] = {}
    with file.open("rb") as stream:
        for number, piece in numbered_lines(stream, lambda number, error: f"{file}: line {number}: {error}"):
            if not piece or piece in ids:
                found = f"{piece!r} also stands in line {ids[piece] + 1}" if piece else "it is empty"
                raise ValueError(f"{file}: line {number}: {found}; expected one piece a line")
            ids[piece] = number - 1
    missing = [token for token in tokens.values() if token not in ids]
    if missing:
        raise ValueError(f"{file}: no {' and no '.join(missing)}; a vocabulary of BERT has {list(tokens.values())}")
    return ids
