"""A tokenizer: text to ids and back, saved so that `transformers.AutoTokenizer` opens the folder.

Special tokens have roles (pad, bos, eos, ...). Text never yields a special token, whatever it spells: only code that
asks for a role does. How each kind is trained stands in training.py.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import tokenizers

from pipeline.artifacts import CONFIG, read_json, write_json
from pipeline.text.wordpiece import BERT_TOKENS, read_pieces, wordpiece_backend

Role = Literal["pad", "bos", "eos", "unk", "cls", "sep", "mask", "user", "assistant", "system"]

TOKENIZER = "tokenizer.json"
VOCABULARY = "vocab.txt"
"""The pieces of a WordPiece tokenizer, which many a published BERT has in place of it."""
TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS_MAP = "special_tokens_map.json"

CHAT_ROLES: Mapping[Role, str] = {"user": "<user>", "assistant": "<assistant>", "system": "<system>"}
_HUGGING_FACE_ROLES: tuple[Role, ...] = ("pad", "bos", "eos", "unk", "cls", "sep", "mask")
_UNNAMED: Mapping[Role, str] = dict(BERT_TOKENS.items())
"""The special tokens of a WordPiece folder that names none."""
_BERT_TOKENIZERS = ("BertTokenizer", "BertTokenizerFast")
_UNNAMED_GPT2: Mapping[Role, str] = {"bos": "<|endoftext|>", "eos": "<|endoftext|>"}
"""The special tokens of a GPT-2 folder that names none, as the first ones do."""
_GPT2_TOKENIZERS = ("GPT2Tokenizer", "GPT2TokenizerFast")
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
    folder: Path | None = field(default=None, compare=False)
    """Where it was opened, for messages."""

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

    @property
    def is_wordpiece(self) -> bool:
        """Whether its pieces are those of BERT, which begins a text with cls, and not with bos."""
        return isinstance(self.backend.model, tokenizers.models.WordPiece)

    @property
    def continuing_prefix(self) -> str:
        """What the pieces that continue a word begin with; empty where they are no different from others."""
        model = self.backend.model
        return str(model.continuing_subword_prefix) if isinstance(model, tokenizers.models.WordPiece) else ""

    def id_of(self, role: Role) -> int:
        """Id of the special token with a role; ValueError when the tokenizer has none says where it was looked for."""
        if role not in self.special:
            where = "" if self.folder is None else f"{self.folder}: "
            places = f"{role}_token in {TOKENIZER_CONFIG} and {SPECIAL_TOKENS_MAP}"
            if role in CHAT_ROLES:
                places = f"{CHAT_ROLES[role]} among the added tokens of {TOKENIZER}"
            if self.is_wordpiece and role in _UNNAMED:
                places += f", {_UNNAMED[role]} in the vocabulary"
            raise ValueError(
                f"{where}the tokenizer has no '{role}' token; it has {sorted(self.special)}; looked for {places}"
            )
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

    def ids_from(self, first: int) -> frozenset[int]:
        """The ids that are `first` or more."""
        return frozenset(i for i in self.backend.get_vocab(with_added_tokens=True).values() if i >= first)

    def check_fits(self, vocab_size: int, folder: Path) -> None:
        """ValueError when this tokenizer has ids for which the model in `folder` has no row.

        More rows than ids are harmless: published models pad them to a round number, or keep some in reserve.
        """
        num_ids = 1 + max(self.ids_from(0), default=-1)
        if num_ids > vocab_size:
            raise ValueError(
                f"{folder}: the tokenizer does not fit the model: it has {num_ids} ids, "
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
            # BERT tells two texts apart by their types; GPT-2 would add the embeddings of the tokens 0 and 1.
            "model_input_names": ["input_ids", *(["token_type_ids"] if self.is_wordpiece else []), "attention_mask"],
            "clean_up_tokenization_spaces": False,
            **special,
            **({"chat_template": self.chat_template} if self.chat_template else {}),
        }
        write_json(folder / TOKENIZER_CONFIG, settings)


def load_tokenizer(folder: Path, *, pad_may_be_eos: bool = False, lower_case: bool = True) -> Tokenizer:
    """Reads a folder, ours or another's, with a tokenizer.json, or with the vocab.txt of a BERT alone.

    What a WordPiece folder does not say is as in `BertTokenizer`: the names of the special tokens that its vocabulary
    has, and beside a vocab.txt that it is lower-cased, or else `lower_case`; that of a GPT-2 has the begin and end of
    `GPT2Tokenizer`.
    Padding and truncation of a tokenizer.json are switched off.

    Raises ValueError that names the folder for a missing or damaged file, and when pad and eos are one token, unless
    `pad_may_be_eos`: the tokenizer is then one without padding.
    """
    settings: dict[str, Any] = {}
    for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP):
        if (folder / name).is_file():
            settings |= read_json(folder / name)
    special: dict[Role, str] = {}
    for role in _HUGGING_FACE_ROLES:
        value = settings.get(f"{role}_token")
        if value is not None:
            special[role] = value["content"] if isinstance(value, dict) else value
    if (folder / TOKENIZER).is_file():
        backend = _read_backend(folder / TOKENIZER)
    elif (folder / VOCABULARY).is_file():
        backend = _read_vocabulary(folder, settings, special, lower_case=lower_case)
    else:
        raise ValueError(f"{folder}: no tokenizer in this folder: neither {TOKENIZER} nor {VOCABULARY}")
    if isinstance(backend.model, tokenizers.models.WordPiece):
        _normalise_as_told(backend, settings, folder / TOKENIZER_CONFIG)
        # A name of null says that there is no such token.
        unnamed = {role: token for role, token in _UNNAMED.items() if f"{role}_token" not in settings}
        known = {role: token for role, token in unnamed.items() if backend.token_to_id(token) is not None}
        special |= known
        _make_special(backend, known.values())
    elif _is_gpt2(folder, settings):
        unnamed = {role: token for role, token in _UNNAMED_GPT2.items() if f"{role}_token" not in settings}
        special |= {role: token for role, token in unnamed.items() if backend.token_to_id(token) is not None}
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    special |= {role: token for role, token in CHAT_ROLES.items() if token in added}
    if pad_may_be_eos and "pad" in special and special["pad"] == special.get("eos"):
        del special["pad"]
    try:
        return Tokenizer(backend, special, chat_template=settings.get("chat_template") or "", folder=folder)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def load_padded_tokenizer(folder: Path) -> Tokenizer:
    """Reads the folder of a language model, many of which have no padding, or call the end of a text so."""
    return with_padding(load_tokenizer(folder, pad_may_be_eos=True))


def with_padding(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer with a special token for padding behind its other ids, if it has none."""
    if "pad" in tokenizer.special:
        return tokenizer
    taken = tokenizer.backend.get_vocab(with_added_tokens=True)
    name = next(name for name in ("<pad>", *(f"<pad-{i}>" for i in range(len(taken)))) if name not in taken)
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    backend.add_special_tokens([tokenizers.AddedToken(name, special=True, normalized=False)])
    if backend.token_to_id(name) in taken.values():
        where = "" if tokenizer.folder is None else f"{tokenizer.folder}: "
        raise ValueError(f"{where}the ids of the tokenizer have gaps, so that there is no place for a token of padding")
    return replace(tokenizer, backend=backend, special={**tokenizer.special, "pad": name})


def with_marks(tokenizer: Tokenizer, begin: Role, end: Role) -> Tokenizer:
    """The same tokenizer, whose saved form makes `transformers` put these roles before the first and behind each text.

    `encode` puts nothing around a text, as before.
    """
    marks = [
        {"id": name, "ids": [tokenizer.id_of(role)], "tokens": [tokenizer.special[role]]}
        for name, role in (("begin", begin), ("end", end))
    ]
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="begin $A end", pair="begin $A end $B end", special_tokens=marks
    )
    return replace(tokenizer, backend=backend)


def _is_gpt2(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether `transformers` reads the folder by `GPT2Tokenizer`: as its settings say, or else its model."""
    named = settings.get("tokenizer_class")
    model = read_json(folder / CONFIG) if named is None and (folder / CONFIG).is_file() else {}
    return named in _GPT2_TOKENIZERS or model.get("model_type") == "gpt2"


def _read_backend(path: Path) -> tokenizers.Tokenizer:
    content = read_json(path)
    # The library reports damage as a bare Exception, so the shape of the file is checked first.
    if not isinstance(content, dict) or "model" not in content:
        raise ValueError(f"{path}: expected a tokenizer with a 'model', found {str(content)[:80]!r}")
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(content))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_vocabulary(
    folder: Path, settings: Mapping[str, Any], special: Mapping[Role, str], *, lower_case: bool
) -> tokenizers.Tokenizer:
    """The WordPiece of a vocab.txt by the settings beside it; ValueError for the vocab.txt of another tokenizer."""
    model = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    for file, values in ((TOKENIZER_CONFIG, settings), (CONFIG, model)):
        found = values.get("tokenizer_class") or _BERT_TOKENIZERS[0]
        if found not in _BERT_TOKENIZERS:
            raise ValueError(
                f"{folder / file}: tokenizer_class is {found!r}; a folder with {VOCABULARY} and no {TOKENIZER} is read "
                f"for {' or '.join(_BERT_TOKENIZERS)} alone"
            )
    tokens = {role: special.get(role, token) for role, token in BERT_TOKENS.items()}
    return wordpiece_backend(read_pieces(folder / VOCABULARY, tokens), lower_case=lower_case, tokens=tokens)


def _normalise_as_told(backend: tokenizers.Tokenizer, settings: Mapping[str, Any], path: Path) -> None:
    """Changes what `path` says otherwise of lower-casing, accents and Chinese, as `BertTokenizer` lets it decide."""
    normalizer = backend.normalizer
    is_bert = (settings.get("tokenizer_class") or _BERT_TOKENIZERS[0]) in _BERT_TOKENIZERS
    if not isinstance(normalizer, tokenizers.normalizers.BertNormalizer) or not is_bert:
        return
    told = {key: settings.get(key) for key in ("do_lower_case", "strip_accents", "tokenize_chinese_chars")}
    for key, value in told.items():
        if value is not None and not isinstance(value, bool):
            raise ValueError(f"{path}: {key} is {value!r}, allowed are true and false")
    if told["do_lower_case"] is not None:
        normalizer.lowercase = told["do_lower_case"]
    if told["strip_accents"] is not None:
        normalizer.strip_accents = told["strip_accents"]
    if told["tokenize_chinese_chars"] is not None:
        normalizer.handle_chinese_chars = told["tokenize_chinese_chars"]


def _make_special(backend: tokenizers.Tokenizer, tokens: Iterable[str]) -> None:
    """Marks tokens of the vocabulary as special where the file does not: they are no text when ids are decoded."""
    already = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    backend.add_special_tokens([tokenizers.AddedToken(one, special=True) for one in tokens if one not in already])


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
