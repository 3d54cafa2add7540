"""tokenize: data/PROFILE/prepared -> data/PROFILE/tokens: tokenizers trained on training text, and token arrays.

bpe/, wordpiece/ and translation/ hold tokenizers; text-bpe/ and text-wordpiece/ the running text of each split,
translation/pairs/ the pairs. Documents and pairs are read, and encoded, some at a time.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Literal, assert_never

from pydantic import PositiveInt, model_validator
from tqdm import tqdm

from pipeline.artifacts import publish, write_json
from pipeline.chunks import chunks
from pipeline.config import Config, Fraction, Probability, load
from pipeline.data.pair_arrays import EncodedPairs, write_pair_arrays
from pipeline.data.prepared import read_rated, stream_conversations, stream_documents, stream_pairs
from pipeline.data.records import SPLITS, Document
from pipeline.data.token_arrays import write_token_arrays
from pipeline.layout import Layout
from pipeline.progress import progress
from pipeline.text.bpe_dropout import BpeDropout
from pipeline.text.forms import Side
from pipeline.text.given_tokenizer import translation_tokenizer
from pipeline.text.given_wordpiece import bert_tokenizer
from pipeline.text.sentences import sentences
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.tokenizer_training import (
    CHARACTER_COVERAGE,
    train_byte_bpe,
    train_translation_bpe,
    train_wordpiece,
)
from pipeline.text.unknown import UnknownCounts, text_statistics
from pipeline.training.frame import flat, stage_frame
from pipeline.training.launch import launch

log = logging.getLogger(__name__)

Corpus = Literal["text", "conversations", "rated"]
Encoder = Tokenizer | BpeDropout
_PAIRS_AT_ONCE = 10_000
_CHARACTERS_AT_ONCE = 1_000_000
_SHOWN_CHARACTERS = 20


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


class TranslationTokenizerConfig(Config):
    """A tokenizer of both languages of the translation pairs."""

    vocab_size: PositiveInt
    """Ids, special tokens included."""
    given: str = ""
    """A folder with a tokenizer.json, or a .model file of SentencePiece, to take in place of training one; empty to
    train."""
    character_coverage: Probability = CHARACTER_COVERAGE
    """Share of the occurrences of all characters that get a piece of their own, where there are more than 1,000
    different ones; the others are unknown, and no translation has them."""
    bpe_dropout: Fraction = 0.0
    """Share of the merges that are left out at random where training pairs are segmented (Provilkov et al. 2020)."""
    num_segmentations: PositiveInt = 1
    """Times that each training pair is written, each time segmented anew; an epoch goes through all of them."""

    @model_validator(mode="after")
    def _are_different(self) -> "TranslationTokenizerConfig":
        if self.num_segmentations > 1 and not self.bpe_dropout:
            raise ValueError(
                f"num_segmentations: {self.num_segmentations} equal ones without bpe_dropout; allowed is 1"
            )
        return self


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
        report: dict[str, Mapping[str, int | float | str]] = {}
        jobs = sum(part is not None for part in (config.byte_bpe, config.wordpiece, config.translation))
        with publish(layout.data("tokens")) as folder, tqdm(total=jobs, desc="tokenizers", disable=None) as progress:
            if config.byte_bpe is not None:
                texts = TrainingTexts(prepared, config.byte_bpe.corpora, one_in=config.byte_bpe.one_in)
                tokenizer = train_byte_bpe(texts, vocab_size=config.byte_bpe.vocab_size)
                report["bpe"] = _write(folder, "bpe", tokenizer, prepared, by_sentence=False)
                progress.update()
            if config.wordpiece is not None:
                tokenizer = _wordpiece(config.wordpiece, prepared)
                sources = config.wordpiece.sources
                report["wordpiece"] = _write(
                    folder, "wordpiece", tokenizer, prepared, by_sentence=True, sources=sources
                )
                progress.update()
            if config.translation is not None:
                report["translation"] = _write_translation(
                    folder / "translation", prepared / "translation", config.translation
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


def _wordpiece(config: WordPieceConfig, prepared: Path) -> Tokenizer:
    """Trained, or the user's own; ValueError where that is not as BERT needs it."""
    if not config.given:
        texts = TrainingTexts(prepared, config.corpora, config.sources, config.one_in)
        return train_wordpiece(
            texts,
            vocab_size=config.vocab_size,
            lower_case=config.lower_case,
            character_coverage=config.character_coverage,
        )
    folder, is_told = Path(config.given), "lower_case" in config.model_fields_set
    tokenizer = bert_tokenizer(folder, lower_case=config.lower_case, is_told=is_told)
    if tokenizer.vocab_size != config.vocab_size:
        raise ValueError(
            f"wordpiece.vocab_size: found {config.vocab_size}, the tokenizer in {folder} has {tokenizer.vocab_size}"
        )
    return tokenizer


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


@dataclass(frozen=True)
class PairTexts:
    """Both texts of each pair of a file, read anew in each pass."""

    file: Path

    def __iter__(self) -> Iterator[str]:
        for pair in progress(stream_pairs(self.file), name="tokenizer: reading", unit="pairs"):
            yield pair.src
            yield pair.tgt


def _write_translation(
    folder: Path, prepared: Path, config: TranslationTokenizerConfig
) -> Mapping[str, int | float | str]:
    """Saves the tokenizer of the pairs and the pairs of every split in its ids; returns its statistics."""
    if config.given:
        tokenizer = _given(Path(config.given), config.vocab_size)
    else:
        tokenizer = train_translation_bpe(
            PairTexts(prepared / "train.jsonl"),
            vocab_size=config.vocab_size,
            character_coverage=config.character_coverage,
        )
    folder.mkdir()
    tokenizer.save(folder)
    training: Encoder = tokenizer
    if config.bpe_dropout:
        training = BpeDropout(tokenizer, dropout=config.bpe_dropout, seed=0)
    unknown = encode_pairs(prepared, folder / "pairs", tokenizer, [training] * config.num_segmentations)
    _warn_of_unknown(unknown["train"])
    rates = {f"unknown_rate_{split}_{side}": one.rate for split, both in unknown.items() for side, one in both.items()}
    held_out = PairTexts(prepared / "test.jsonl")
    return {**text_statistics(tokenizer, held_out, size_at_once=_CHARACTERS_AT_ONCE), **rates}


def _warn_of_unknown(training: Mapping[Side, UnknownCounts]) -> None:
    for side, unknown in training.items():
        if unknown.rate:
            characters = unknown.characters()
            log.warning(
                "translation: %.3g%% of the %s tokens of training are unknown to the tokenizer, for %d characters, "
                "most often %s: nothing is learnt of them; more character_coverage, up to 1.0, or a larger vocab_size "
                "leaves out fewer",
                100 * unknown.rate,
                {"src": "source", "tgt": "target"}[side],
                len(characters),
                " ".join(characters[:_SHOWN_CHARACTERS]),
            )


def _given(given: Path, vocab_size: int) -> Tokenizer:
    """The user's own tokenizer; ValueError where it has another size."""
    tokenizer = translation_tokenizer(given)
    if tokenizer.vocab_size != vocab_size:
        raise ValueError(
            f"translation.vocab_size: found {vocab_size}, the tokenizer in {given} has {tokenizer.vocab_size}, with "
            f"{tokenizer.special['eos']}, {tokenizer.special['unk']} and {tokenizer.special['pad']}"
        )
    return tokenizer


def encode_pairs(
    prepared: Path, folder: Path, tokenizer: Tokenizer, training: Sequence[Encoder] = ()
) -> dict[str, dict[Side, UnknownCounts]]:
    """Writes the prepared pairs of every split in the ids of their tokenizer; returns what it does not know of them.

    Those of training are written once by each encoder of `training`, or by the tokenizer.
    """
    unknown: dict[str, dict[Side, UnknownCounts]] = {}
    for split in SPLITS:
        encoders = training if training and split == "train" else [tokenizer]
        counts = unknown[split] = {"src": UnknownCounts(tokenizer), "tgt": UnknownCounts(tokenizer)}
        encoded = chain.from_iterable(_encoded(prepared / f"{split}.jsonl", encoder, counts) for encoder in encoders)
        write_pair_arrays(folder / split, encoded, vocab_size=tokenizer.vocab_size, tokenizer_hash=tokenizer.hash)
    return unknown


def _encoded(file: Path, encoder: Encoder, unknown: Mapping[Side, UnknownCounts]) -> Iterator[EncodedPairs]:
    pairs = progress(stream_pairs(file), name=f"encoding: {file.stem}", unit="pairs")
    while chunk := list(islice(pairs, _PAIRS_AT_ONCE)):
        src, tgt = [pair.src for pair in chunk], [pair.tgt for pair in chunk]
        encoded = encoder.encode_batch(src), encoder.encode_batch(tgt)
        unknown["src"].add(src, encoded[0])
        unknown["tgt"].add(tgt, encoded[1])
        yield encoded


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
