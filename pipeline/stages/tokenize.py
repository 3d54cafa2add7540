"""tokenize: data/PROFILE/prepared -> data/PROFILE/tokens: tokenizers trained on training text, and token arrays.

bpe/, wordpiece/ and translation/ hold tokenizers; text-bpe/ and text-wordpiece/ the running text of each split,
translation/pairs/ the pairs. Documents and pairs are read, and encoded, some at a time.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, assert_never

from pydantic import PositiveInt
from tqdm import tqdm

from pipeline.artifacts import publish, write_json
from pipeline.chunks import chunks
from pipeline.config import Config, Probability, load
from pipeline.data.prepared import read_rated, stream_conversations, stream_documents
from pipeline.data.records import SPLITS, Document
from pipeline.data.token_arrays import write_token_arrays
from pipeline.layout import Layout
from pipeline.progress import progress
from pipeline.stages.translation_tokens import TranslationTokenizerConfig, given_translation, write_translation
from pipeline.text.given_wordpiece import bert_tokenizer
from pipeline.text.sentences import sentences
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.tokenizer_training import CHARACTER_COVERAGE, train_byte_bpe, train_wordpiece
from pipeline.text.unknown import text_statistics
from pipeline.training.frame import flat, stage_frame
from pipeline.training.launch import launch

log = logging.getLogger(__name__)

Corpus = Literal["text", "conversations", "rated"]
_CHARACTERS_AT_ONCE = 1_000_000


class TextTokenizerConfig(Config):
    """A tokenizer of running text."""

    vocab_size: PositiveInt
    """Ids, special tokens included."""
    corpora: tuple[Corpus, ...]
    """Whose training texts it is trained on; texts that a later evaluation must not have seen do not belong here."""
    one_in: PositiveInt = 1
    """Of so many documents of running text it is trained on one, all through the corpus: the training holds every
    different word and where its pieces stand, which of billions of words is more than most machines have."""

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles of prepare.yaml that it reads; running text is what it encodes, whatever it is trained on."""
        return tuple(dict.fromkeys(("text", *self.corpora)))


class WordPieceConfig(TextTokenizerConfig):
    """The tokenizer of the BERT."""

    lower_case: bool = True
    """Whether it is uncased: lower-cases and strips accents. A given folder says so itself; of a vocab.txt with no word
    on it beside it this says so."""
    given: str = ""
    """A folder with a tokenizer.json, or with a vocab.txt alone, to take in place of training one; empty to train."""
    character_coverage: Probability = CHARACTER_COVERAGE
    """Share of the occurrences of all characters that get pieces of their own, where there are more than 1,000
    different ones; words with another character are unknown."""
    sources: tuple[str, ...] = ()
    """Sources of prepare.yaml whose running text the BERT, and the training of its tokenizer, take; empty for all."""

    @property
    def roles(self) -> tuple[str, ...]:
        """A given one is not trained on anything."""
        return ("text",) if self.given else super().roles


class TokenizeConfig(Config):
    """Which tokenizers are trained; one that is left out is not."""

    byte_bpe: TextTokenizerConfig | None = None
    """Byte-level BPE of the GPT."""
    wordpiece: WordPieceConfig | None = None
    """WordPiece of the BERT."""
    translation: TranslationTokenizerConfig | None = None
    """Joint BPE of the translation models."""


def main(path: Path) -> None:
    """Trains the tokenizers of the profile and encodes its running text, or leaves everything as it was."""
    config = load(path, TokenizeConfig)
    layout = Layout.of(path)
    prepared = layout.data("prepared")
    with stage_frame(__spec__.name, path, config, inputs=(prepared,)) as tracker:
        _refuse_missing(config, path, prepared)
        _refuse_empty(config, prepared)
        given = GivenTokenizers.of(config)
        report: dict[str, Mapping[str, int | float | str]] = {}
        jobs = sum(part is not None for part in (config.byte_bpe, config.wordpiece, config.translation))
        with publish(layout.data("tokens")) as folder, tqdm(total=jobs, desc="tokenizers", disable=None) as progress:
            if config.byte_bpe is not None:
                texts = TrainingTexts(prepared, config.byte_bpe.corpora, one_in=config.byte_bpe.one_in)
                tokenizer = train_byte_bpe(texts, vocab_size=config.byte_bpe.vocab_size)
                report["bpe"] = _write(folder, "bpe", tokenizer, prepared, by_sentence=False)
                progress.update()
            if config.wordpiece is not None:
                tokenizer = given.wordpiece or _trained_wordpiece(config.wordpiece, prepared)
                sources = config.wordpiece.sources
                report["wordpiece"] = _write(
                    folder, "wordpiece", tokenizer, prepared, by_sentence=True, sources=sources
                )
                progress.update()
            if config.translation is not None:
                report["translation"] = write_translation(
                    folder / "translation", prepared / "translation", config.translation, given.translation
                )
                progress.update()
            write_json(folder / "report.json", report)
        write_json(layout.metrics, report)
        tracker.metrics(flat(report), 0)
        tracker.params({"tokenizer": {name: {"hash": values["hash"]} for name, values in report.items()}})
        for name, values in report.items():
            log.info("%s: %s ids, %.2f bytes a token", name, values["vocab_size"], values["bytes_per_token"])


def _refuse_missing(config: TokenizeConfig, path: Path, prepared: Path) -> None:
    """ValueError names the keys whose texts or pairs prepare.yaml has no source of, and what can be done."""
    readers: dict[str, list[str]] = {"translation": ["translation"]} if config.translation is not None else {}
    for name, part in (("byte_bpe", config.byte_bpe), ("wordpiece", config.wordpiece)):
        if part is not None:
            for role in part.roles:
                readers.setdefault(role, []).append(f"{name}.corpora: {role}" if role in part.corpora else name)
    for role, keys in readers.items():
        if not (prepared / role).is_dir():
            parts = [key.split(".")[0] if role == "text" else key for key in keys]
            raise ValueError(
                f"{path}: {' and '.join(keys)}: prepare.yaml made no {role}, there is no {prepared / role}; "
                f"leave {' and '.join(parts)} out of {path.name}, or add a source under {role} of prepare.yaml"
            )


def _refuse_empty(config: TokenizeConfig, prepared: Path) -> None:
    """ValueError names the split that has no text or no pairs for a tokenizer, and the keys that give it some.

    Before the first training: that of a large corpus and its encoding take hours.
    """
    has_text = config.byte_bpe is not None or config.wordpiece is not None
    sources = config.wordpiece.sources if config.wordpiece is not None else ()
    for split in SPLITS:
        text, pairs = (prepared / role / f"{split}.jsonl" for role in ("text", "translation"))
        if has_text and (_is_empty(text) or next(_documents(text, sources), None) is None):
            of = f" of {' or '.join(sources)}" if sources else ""
            wanted = f"a source with into: {split}, or with into: split and enough documents"
            raise ValueError(f"{text}: no documents{of}; text of prepare.yaml needs {wanted}")
        if config.translation is not None and _is_empty(pairs):
            wanted = f"a source with into: {split}" + ("" if split == "train" else f", or num_{split}")
            raise ValueError(f"{pairs}: no pairs; translation of prepare.yaml needs {wanted}")


def _is_empty(file: Path) -> bool:
    return file.is_file() and not file.stat().st_size


@dataclass(frozen=True)
class GivenTokenizers:
    """What the user gives in place of a training; None where one is trained."""

    wordpiece: Tokenizer | None
    translation: Tokenizer | None

    @classmethod
    def of(cls, config: TokenizeConfig) -> "GivenTokenizers":
        """Opens them; ValueError for one that does not do, before the first training, as `_refuse_empty`."""
        return cls(
            wordpiece=_given_wordpiece(config.wordpiece) if config.wordpiece is not None else None,
            translation=given_translation(config.translation) if config.translation is not None else None,
        )


def _given_wordpiece(config: WordPieceConfig) -> Tokenizer | None:
    """The user's own, None where one is trained; ValueError where it is not as BERT needs it, or has another size."""
    if not config.given:
        return None
    folder, is_told = Path(config.given), "lower_case" in config.model_fields_set
    tokenizer = bert_tokenizer(folder, lower_case=config.lower_case, is_told=is_told)
    if tokenizer.vocab_size != config.vocab_size:
        raise ValueError(
            f"wordpiece.vocab_size: found {config.vocab_size}, the tokenizer in {folder} has {tokenizer.vocab_size}"
        )
    return tokenizer


def _trained_wordpiece(config: WordPieceConfig, prepared: Path) -> Tokenizer:
    return train_wordpiece(
        TrainingTexts(prepared, config.corpora, config.sources, config.one_in),
        vocab_size=config.vocab_size,
        lower_case=config.lower_case,
        character_coverage=config.character_coverage,
    )


@dataclass(frozen=True)
class TrainingTexts:
    """All training texts of some corpora, read anew in each pass."""

    prepared: Path
    corpora: tuple[Corpus, ...]
    sources: tuple[str, ...] = ()
    """Sources of running text; empty for all."""
    one_in: int = 1
    """Of so many documents of running text, one is read."""

    def __iter__(self) -> Iterator[str]:
        for corpus in self.corpora:
            file = self.prepared / corpus / "train.jsonl"
            match corpus:
                case "text":
                    documents = islice(_documents(file, self.sources), 0, None, self.one_in)
                    for document in progress(documents, name="tokenizer: reading", unit="documents"):
                        yield from document.text.split("\n")
                case "conversations":
                    for conversation in stream_conversations(file):
                        yield from (message.content for message in conversation.messages)
                case "rated":
                    yield from (rated.text for rated in read_rated(file))
                case _:
                    assert_never(corpus)


def _write(
    folder: Path,
    name: str,
    tokenizer: Tokenizer,
    prepared: Path,
    *,
    by_sentence: bool,
    sources: tuple[str, ...] = (),
) -> Mapping[str, int | float | str]:
    """Saves a tokenizer and the running text of every split in its ids; returns its statistics."""
    (folder / name).mkdir()
    tokenizer.save(folder / name)
    encode = _by_sentence if by_sentence else _whole
    counts = {}
    for split in SPLITS:
        file = prepared / "text" / f"{split}.jsonl"
        ids = (document.id for document in _documents(file, sources))
        documents = progress(_documents(file, sources), name=f"encoding: text/{split}", unit="documents")
        counts[f"tokens_{split}"] = write_token_arrays(
            folder / f"text-{name}" / split,
            ids,
            _token_ids(documents, tokenizer, encode),
            tokenizer_hash=tokenizer.hash,
        )
    held_out = (document.text for document in _documents(prepared / "text" / "test.jsonl", sources))
    return {**text_statistics(tokenizer, held_out, size_at_once=_CHARACTERS_AT_ONCE), **counts}


def _documents(file: Path, sources: tuple[str, ...]) -> Iterator[Document]:
    """The documents of some sources, or of all; ValueError for a source without a training document."""
    found = set()
    for document in stream_documents(file):
        if not sources or document.source in sources:
            found.add(document.source)
            yield document
    missing = [source for source in sources if source not in found]
    if missing and file.stem == "train":
        raise ValueError(f"wordpiece.sources: {file} has no document of {', '.join(missing)}")


def _token_ids(
    documents: Iterator[Document],
    tokenizer: Tokenizer,
    encode: Callable[[Sequence[Document], Tokenizer], list[list[list[int]]]],
) -> Iterator[list[list[int]]]:
    for chunk in chunks(documents, lambda document: len(document.text), size_at_once=_CHARACTERS_AT_ONCE):
        yield from encode(chunk, tokenizer)


def _whole(documents: Sequence[Document], tokenizer: Tokenizer) -> list[list[list[int]]]:
    """Each document as one piece between <bos> and <eos>."""
    encoded = tokenizer.encode_batch([document.text for document in documents])
    return [[[tokenizer.bos_id, *ids, tokenizer.eos_id]] for ids in encoded]


def _by_sentence(documents: Sequence[Document], tokenizer: Tokenizer) -> list[list[list[int]]]:
    """Each document as its sentences, without special tokens."""
    cut = [sentences(document.text) for document in documents]
    encoded = iter(tokenizer.encode_batch([sentence for document in cut for sentence in document]))
    return [[next(encoded) for _ in document] for document in cut]


if __name__ == "__main__":
    launch(main)
