"""The part of tokenize that is for translation: a tokenizer of both languages, and the pairs in its ids."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from pydantic import PositiveInt, model_validator

from pipeline.config import Config, Fraction, Probability
from pipeline.data.pair_arrays import EncodedPairs, write_pair_arrays
from pipeline.data.prepared import stream_pairs
from pipeline.data.records import SPLITS
from pipeline.progress import progress
from pipeline.text.bpe_dropout import BpeDropout
from pipeline.text.forms import Side, load_form
from pipeline.text.given_tokenizer import translation_tokenizer
from pipeline.text.target_text import TargetText
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.tokenizer_training import CHARACTER_COVERAGE, train_translation_bpe
from pipeline.text.unknown import UnknownCounts, shown_parts, text_statistics, unknown_kind

log = logging.getLogger(__name__)

Encoder = Tokenizer | BpeDropout
_PAIRS_AT_ONCE = 10_000
_CHARACTERS_AT_ONCE = 1_000_000
_SHOWN_PARTS = 20


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


@dataclass(frozen=True)
class PairTexts:
    """Both texts of each pair of a file, read anew in each pass."""

    file: Path

    def __iter__(self) -> Iterator[str]:
        for pair in progress(stream_pairs(self.file), name="tokenizer: reading", unit="pairs"):
            yield pair.src
            yield pair.tgt


def given_translation(config: TranslationTokenizerConfig) -> Tokenizer | None:
    """The user's own tokenizer, None where one is trained; ValueError where it has another size, or cannot do what the
    configuration asks for."""
    if not config.given:
        return None
    tokenizer = translation_tokenizer(Path(config.given))
    if tokenizer.vocab_size != config.vocab_size:
        raise ValueError(
            f"translation.vocab_size: found {config.vocab_size}, the tokenizer in {config.given} has "
            f"{tokenizer.vocab_size}, with {tokenizer.special['eos']}, {tokenizer.special['unk']} and "
            f"{tokenizer.special['pad']}"
        )
    _training_encoder(tokenizer, config)
    return tokenizer


def _training_encoder(tokenizer: Tokenizer, config: TranslationTokenizerConfig) -> Encoder:
    """What segments the training pairs; ValueError for a tokenizer that has no BPE-dropout where that is asked for."""
    if not config.bpe_dropout:
        return tokenizer
    try:
        return BpeDropout(tokenizer, dropout=config.bpe_dropout, seed=0)
    except ValueError as error:
        raise ValueError(
            f"translation.bpe_dropout: found {config.bpe_dropout}, with the tokenizer in {config.given} allowed is 0: "
            f"{error}"
        ) from error


def write_translation(
    folder: Path, prepared: Path, config: TranslationTokenizerConfig, given: Tokenizer | None
) -> Mapping[str, int | float | str]:
    """Saves the tokenizer of the pairs, the given one or one trained on them, and the pairs of every split in its ids;
    returns its statistics."""
    tokenizer = given or train_translation_bpe(
        PairTexts(prepared / "train.jsonl"),
        vocab_size=config.vocab_size,
        character_coverage=config.character_coverage,
    )
    folder.mkdir()
    tokenizer.save(folder)
    training = [_training_encoder(tokenizer, config)] * config.num_segmentations
    unknown = encode_pairs(prepared, folder / "pairs", tokenizer, training)
    _warn_of_unknown(unknown["train"], unknown_kind(tokenizer), is_given=given is not None)
    if given is not None:
        _warn_of_losses(prepared, given, config.given)
    rates = {f"unknown_rate_{split}_{side}": one.rate for split, both in unknown.items() for side, one in both.items()}
    held_out = PairTexts(prepared / "test.jsonl")
    return {**text_statistics(tokenizer, held_out, size_at_once=_CHARACTERS_AT_ONCE), **rates}


def _warn_of_unknown(training: Mapping[Side, UnknownCounts], kind: str, *, is_given: bool) -> None:
    fewer = (
        "another tokenizer than the given one"
        if is_given
        else "more character_coverage, up to 1.0, or a larger vocab_size"
    )
    for side, unknown in training.items():
        if unknown.rate:
            parts = unknown.parts()
            named = f", for {len(parts)} {kind if len(parts) > 1 else kind[:-1]}, most often " if parts else ""
            log.warning(
                "translation: %.3g%% of the %s tokens of training are unknown to the tokenizer%s%s: nothing is learnt "
                "of them; %s leaves out fewer",
                100 * unknown.rate,
                {"src": "source", "tgt": "target"}[side],
                named,
                shown_parts(parts, most=_SHOWN_PARTS),
                fewer,
            )


def _warn_of_losses(prepared: Path, tokenizer: Tokenizer, given: str) -> None:
    """Says of how many of the first validation targets the tokenizer loses something, as a model that writes them all
    right would: its tokens spell another text."""
    texts = [pair.tgt for pair in islice(stream_pairs(prepared / "valid.jsonl"), _PAIRS_AT_ONCE)]
    target_text = TargetText(tokenizer, load_form(prepared))
    spelled = (target_text.of(ids) for ids in tokenizer.encode_batch(texts))
    lost = [(text, found) for text, found in zip(texts, spelled, strict=True) if text != found]
    if lost:
        log.warning(
            "translation: of %d validation targets, %.3g%% do not come back from the tokenizer in %s as they were, as "
            "%r, which becomes %r: no model can write them, and a score of 100 is out of reach",
            len(texts),
            100 * len(lost) / len(texts),
            given,
            *lost[0],
        )


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
