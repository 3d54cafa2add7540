"""A `.model` file of SentencePiece (Kudo and Richardson 2018), unigram or BPE, as a tokenizer of `tokenizers`.

The file is one message of protocol buffers; the numbers of its fields are those of sentencepiece_model.proto.
"""

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from pipeline.text.tokenizer import Role

_SPACE = "▁"
_MODEL_TYPES: Mapping[int, Literal["unigram", "bpe", "word", "char"]] = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
"""Types of pieces that are no pieces of text."""

_Fields = dict[int, list[int | bytes]]


@dataclass(frozen=True)
class _Piece:
    text: str
    score: float
    kind: int


def read_sentencepiece(file: Path) -> tuple[tokenizers.Tokenizer, dict[Role, str]]:
    """The tokenizer in a `.model` file and its special tokens, with the ids that they have there.

    ValueError names the file, and what is damaged or neither unigram nor BPE.
    """
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    try:
        message = _fields(file.read_bytes())
        pieces = [_piece(_fields(_bytes(value))) for value in message.get(1, [])]
        training, normalisation = (_fields(_bytes(message.get(number, [b""])[-1])) for number in (2, 3))
    except (IndexError, struct.error, UnicodeDecodeError, TypeError) as error:
        raise ValueError(f"{file}: not a model of SentencePiece, or damaged: {error}") from error
    if not pieces:
        raise ValueError(f"{file}: not a model of SentencePiece: it has no pieces")
    kind = _MODEL_TYPES.get(_number(training, 3, 1))
    if kind not in ("unigram", "bpe"):
        raise ValueError(f"{file}: a SentencePiece model of type {kind}; allowed are unigram and bpe")
    if _number(training, 24, 0):
        raise ValueError(
            f"{file}: treat_whitespace_as_suffix is true; allowed is a model whose words begin with {_SPACE}"
        )
    unknown = next((piece.text for piece in pieces if piece.kind == _UNKNOWN), None)
    if unknown is None:
        raise ValueError(f"{file}: no piece of it is the unknown one")
    special: dict[Role, str] = {"unk": unknown}
    roles: tuple[tuple[Role, int, int], ...] = (("bos", 41, 1), ("eos", 42, 2), ("pad", 43, -1))
    for role, field, default in roles:
        number = _number(training, field, default)
        if 0 <= number < len(pieces) and pieces[number].kind == _CONTROL:
            special[role] = pieces[number].text
    byte_fallback = bool(_number(training, 35, 0))
    backend = _backend(kind, pieces, unknown, byte_fallback=byte_fallback)
    _read_text_as_trained(
        backend,
        normalisation,
        by_word=bool(_number(training, 22, 1)),
        byte_fallback=byte_fallback,
        whole=[piece.text for piece in pieces if piece.kind == _USER_DEFINED],
    )
    backend.add_special_tokens(
        [AddedToken(one.text, special=True) for one in pieces if one.kind in (_UNKNOWN, _CONTROL)]
    )
    return backend, special


def _backend(
    kind: Literal["unigram", "bpe"], pieces: Sequence[_Piece], unknown: str, *, byte_fallback: bool
) -> tokenizers.Tokenizer:
    ids = {piece.text: number for number, piece in enumerate(pieces)}
    if kind == "unigram":
        scores = [(piece.text, piece.score) for piece in pieces]
        return tokenizers.Tokenizer(models.Unigram(scores, unk_id=ids[unknown], byte_fallback=byte_fallback))
    model = models.BPE(ids, _merges(pieces), unk_token=unknown, fuse_unk=True, byte_fallback=byte_fallback)
    # No merges lead to a symbol that a user defined.
    model.ignore_merges = any(piece.kind == _USER_DEFINED for piece in pieces)
    return tokenizers.Tokenizer(model)


def _merges(pieces: Sequence[_Piece]) -> list[tuple[str, str]]:
    """The file has no merges: any two pieces merge whose joint text is a piece, that of the highest score first."""
    ids = {piece.text: number for number, piece in enumerate(pieces) if piece.kind == 1}
    merges = []
    for piece in pieces:
        if piece.kind == 1:
            halves = ((piece.text[:border], piece.text[border:]) for border in range(1, len(piece.text)))
            known = [(left, right) for left, right in halves if left in ids and right in ids]
            merges += [(-piece.score, ids[piece.text], ids[left], ids[right], left, right) for left, right in known]
    return [(left, right) for *_, left, right in sorted(merges)]


def _read_text_as_trained(
    backend: tokenizers.Tokenizer,
    normalisation: _Fields,
    *,
    by_word: bool,
    byte_fallback: bool,
    whole: Sequence[str],
) -> None:
    """The file's normalisation, its spaces, and the symbols that stay `whole`, which its user defined."""
    steps: list[normalizers.Normalizer] = []
    if table := _bytes(normalisation.get(2, [b""])[-1]):
        steps.append(normalizers.Precompiled(table))
    if _number(normalisation, 4, 1):
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    backend.normalizer = normalizers.Sequence(steps)
    scheme: Literal["always", "never"] = "always" if _number(normalisation, 3, 1) else "never"
    steps_of_words: list[pre_tokenizers.PreTokenizer] = [pre_tokenizers.Metaspace(prepend_scheme=scheme, split=by_word)]
    if whole:
        symbols = "|".join(re.escape(one) for one in sorted(whole, key=len, reverse=True))
        steps_of_words.append(pre_tokenizers.Split(Regex(symbols), "isolated"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps_of_words)
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace(_SPACE, " "),
            *([decoders.ByteFallback()] if byte_fallback else []),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if scheme == "always" else []),
        ]
    )


def _piece(fields: _Fields) -> _Piece:
    (score,) = struct.unpack("<f", _bytes(fields.get(2, [bytes(4)])[-1]))
    return _Piece(_bytes(fields[1][-1]).decode(), score, _number(fields, 3, 1))


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise TypeError(f"expected bytes, found the number {value}")
    return value


def _number(fields: _Fields, number: int, default: int) -> int:
    """A number, of 32 bits with its sign."""
    value = fields.get(number, [default])[-1]
    if isinstance(value, bytes):
        raise TypeError(f"expected a number in field {number}, found {len(value)} bytes")
    return value - (1 << 64) if value >= 1 << 63 else value


def _fields(data: bytes) -> _Fields:
    """The values of a message by the number of their field: numbers, or bytes of a fixed or a given length."""
    found: _Fields = {}
    for number, value in _values(data):
        found.setdefault(number, []).append(value)
    return found


def _values(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        wire = key & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield key >> 3, value
            continue
        if wire not in (1, 2, 5):
            raise TypeError(f"no field of a message at byte {place}")
        length, place = _varint(data, place) if wire == 2 else ({1: 8, 5: 4}[wire], place)
        if place + length > len(data):
            raise IndexError(f"a field at byte {place} goes beyond the end")
        yield key >> 3, data[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
