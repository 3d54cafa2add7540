"""A tokenizer: text to ids and back, saved so that `transformers.AutoTokenizer` opens the folder.

Special tokens have roles (pad, bos, eos, ...). Text never yields a special token, whatever it spells: only code that
asks for a role does. How each kind is trained stands in training.py.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import tokenizers

from pipeline.artifacts import read_json, write_json

Role = Literal["pad", "bos", "eos", "unk", "cls", "sep", "mask", "user", "assistant", "system"]

TOKENIZER = "tokenizer.json"
VOCABULARY = "vocab.txt"
"""The pieces of a WordPiece tokenizer, which the models of 2018 have in place of it."""
TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS_MAP = "special_tokens_map.json"

CHAT_ROLES: Mapping[Role, str] = {"user": "<user>", "assistant": "<assistant>", "system": "<system>"}
_HUGGING_FACE_ROLES: tuple[Role, ...] = ("pad", "bos", "eos", "unk", "cls", "sep", "mask")
_LENGTH = "model_max_length"
_BIND_NOTHING = 1_000_000_000
"""A model_max_length that limits nothing: the length is the model's affair."""
_SHORTEST = 3
"""A token between the two that stand around a text."""


@dataclass(frozen=True)
class PlacedTokens:
    """The ids of a text, each with the characters of the text that it stands for."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    """First character of each token, and the place behind its last one; characters between tokens belong to none."""


@dataclass(frozen=True)
class Tokenizer:
    """A trained tokenizer and the roles of its special tokens."""

    backend: tokenizers.Tokenizer
    special: Mapping[Role, str]
    """The special token of each role that this tokenizer has."""
    chat_template: str = ""
    """Jinja template of conversations for `transformers`; empty where the tokenizer is not for chat."""

    def __post_init__(self) -> None:
        # What a foreign tokenizer.json bakes in would shorten and pad silently, and let text spell special tokens.
        self.backend.no_padding()
        self.backend.no_truncation()
        self.backend.encode_special_tokens = True
        for role, token in self.special.items():
            if self.backend.token_to_id(token) is None:
                raise ValueError(f"special token {token!r} ({role}) is not in the vocabulary of the tokenizer")
        if "pad" in self.special and self.special["pad"] == self.special.get("eos"):
            raise ValueError(
                f"pad and eos are the same token {self.special['pad']!r}: the end of a text would count as padding; "
                "give padding a token of its own"
            )

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of all special tokens."""
        return frozenset(i for i, token in self.backend.get_added_tokens_decoder().items() if token.special)

    def id_of(self, role: Role) -> int:
        """Id of the special token with a role; ValueError when the tokenizer has none."""
        if role not in self.special:
            raise ValueError(f"the tokenizer has no '{role}' token; it has {sorted(self.special)}")
        found = self.backend.token_to_id(self.special[role])
        assert found is not None, "checked when the tokenizer was made"
        return found

    @property
    def pad_id(self) -> int:
        """Id of the padding."""
        return self.id_of("pad")

    @property
    def bos_id(self) -> int:
        """Id of the beginning of a text; for translation the decoder's start."""
        return self.id_of("bos")

    @property
    def eos_id(self) -> int:
        """Id of the end of a text."""
        return self.id_of("eos")

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens around it."""
        return list(self.backend.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, in parallel."""
        return [encoding.ids for encoding in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_placed(self, texts: Sequence[str]) -> list[PlacedTokens]:
        """Ids of each text as `encode_batch` gives them, with their places in the text as it was before it was
        normalised."""
        encodings = self.backend.encode_batch(list(texts), add_special_tokens=False)
        return [PlacedTokens(ids=encoding.ids, offsets=encoding.offsets) for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids; special tokens are left out."""
        return str(self.backend.decode(list(ids), skip_special_tokens=True))

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The piece of text behind each id."""
        return [self.backend.id_to_token(i) or "" for i in ids]

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the tokenizer: the same for the same vocabulary, merges, normalisation and roles."""
        content = json.loads(self.backend.to_str())
        canonical = json.dumps([content, dict(self.special)], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def check_fits(self, vocab_size: int, folder: Path) -> None:
        """ValueError when the model in `folder` has another vocabulary size than this tokenizer."""
        if vocab_size != self.vocab_size:
            raise ValueError(
                f"{folder}: the tokenizer does not fit the model: it has {self.vocab_size} ids, "
                f"the model's vocab_size is {vocab_size}"
            )

    def save(self, folder: Path, *, max_length: int = _BIND_NOTHING) -> None:
        """Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json into an existing folder.

        `max_length` is the longest text, special tokens included, where the model reads fewer than its positions allow.
        """
        write_json(folder / TOKENIZER, json.loads(self.backend.to_str()))
        named = {f"{role}_token": self.special[role] for role in _HUGGING_FACE_ROLES if role in self.special}
        chat = [token for role, token in CHAT_ROLES.items() if role in self.special]
        special = {**named, **({"additional_special_tokens": chat} if chat else {})}
        write_json(folder / SPECIAL_TOKENS_MAP, special)
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            _LENGTH: max_length,
            "clean_up_tokenization_spaces": False,
            **special,
            **({"chat_template": self.chat_template} if self.chat_template else {}),
        }
        write_json(folder / TOKENIZER_CONFIG, settings)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Reads a folder with a tokenizer.json, ours or another's; padding and truncation in it are switched off.

    Raises ValueError that names the folder for a missing or damaged file, and when pad and eos are one token.
    """
    content = read_json(folder / TOKENIZER)
    # The library reports damage as a bare Exception, so the shape of the file is checked first.
    if not isinstance(content, dict) or "model" not in content:
        raise ValueError(f"{folder / TOKENIZER}: expected a tokenizer with a 'model', found {str(content)[:80]!r}")
    settings: dict[str, Any] = {}
    for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP):
        if (folder / name).is_file():
            settings |= read_json(folder / name)
    special: dict[Role, str] = {}
    for role in _HUGGING_FACE_ROLES:
        value = settings.get(f"{role}_token")
        if value is not None:
            special[role] = value["content"] if isinstance(value, dict) else value
    added = {token["content"] for token in content.get("added_tokens", [])}
    special |= {role: token for role, token in CHAT_ROLES.items() if token in added}
    try:
        backend = tokenizers.Tokenizer.from_str(json.dumps(content))
        return Tokenizer(backend=backend, special=special, chat_template=settings.get("chat_template") or "")
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def reading_length(folder: Path, *, positions: int) -> int:
    """The longest text of the model in `folder`, in tokens: what its tokenizer_config.json says, as far as it has
    positions.

    Folders say nothing, or a number beyond all positions, where these alone limit a text. ValueError names the file and
    what is no length.
    """
    path = folder / TOKENIZER_CONFIG
    found = read_json(path).get(_LENGTH) if path.is_file() else None
    if found is None:
        return positions
    if not isinstance(found, int | float) or not found >= _SHORTEST:
        raise ValueError(f"{path}: {_LENGTH}: found {found!r}, allowed is a number of tokens, {_SHORTEST} or more")
    return positions if found > positions else int(found)
