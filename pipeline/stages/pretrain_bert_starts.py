"""What the pretraining of BERT starts from: random weights, counts of the training text, or a BERT that there is."""

import logging
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import PositiveInt

from pipeline.artifacts import load_model
from pipeline.config import Config
from pipeline.data.examples.cooccurrence import count_in_passages
from pipeline.data.token_arrays import TokenArrays
from pipeline.models.bert import BertConfig, BertForPretraining
from pipeline.models.count_vectors import topic_vectors
from pipeline.models.huggingface.bert import pretraining_from_huggingface
from pipeline.text.tokenizer import Tokenizer, load_tokenizer

log = logging.getLogger(__name__)

_PROBE = "A naïve PROBE of 1,024 Cafés, re-read: 語彙!"
"""Which case, accents, punctuation and characters without spaces are cut by."""
_SHOWN = 3
_SIZES = {"d_model", "num_layers", "num_heads", "d_ff"}
_NAMES = {
    "bert.pooler.": "pooler",
    "cls.predictions.": "head of masked words",
    "cls.seq_relationship.": "head of next sentences",
}
"""What the prefixes of Hugging Face stand for."""


class RandomStart(Config):
    """All first weights are random, as published."""

    kind: Literal["random"]


class CountedStart(Config):
    """Token embeddings and the bias of the masked-word head begin where counting the training text leaves off.

    Embeddings by latent semantic analysis already tell what a passage is about; learning that from masked words alone
    takes most of a short training, and whether two segments belong together is not learned before.
    """

    kind: Literal["counts"]
    passage_length: PositiveInt
    """Tokens of a passage: tokens that stand in the same passages begin alike."""


class PretrainedStart(Config):
    """All weights are those of a BERT in the layout of Hugging Face, a published one or one of this stage.

    A head that it does not have begins from random weights, with a warning. The tokens have to be made with its
    tokenizer (`wordpiece.given` of tokenize.yaml).
    """

    kind: Literal["pretrained"]
    folder: str
    """Its folder, with its tokenizer. `model` has to have its sizes, and may have rows that are shorter than its
    positions, all of which are kept."""


def start_from_counts(model: BertForPretraining, tokens: TokenArrays, start: CountedStart, *, seed: int) -> None:
    """Sets the token embeddings to topic vectors, and the bias of the masked-word head to log frequencies."""
    shape = model.config
    counts = count_in_passages(tokens, num_tokens=shape.vocab_size, length=start.passage_length)
    totals = np.asarray(counts.sum(axis=1)).ravel() + 1.0
    with torch.no_grad():
        vectors = topic_vectors(counts, d_model=shape.d_model, seed=seed)
        model.encoder.token_embedding.weight.copy_(torch.from_numpy(vectors))
        model.masked_word.decoder.bias.copy_(torch.from_numpy(np.log(totals / totals.sum())))


def open_pretrained(folder: Path, shape: BertConfig, tokenizer: Tokenizer) -> BertForPretraining:
    """The BERT of a folder with the dropouts of `shape`; it keeps its positions, its norms and its activation.

    Raises ValueError that names the folder where its vocabulary is not that of `tokenizer`, by which the tokens were
    made, and where its sizes are not those of `shape`.
    """
    _check_tokenizer(folder, tokenizer)
    found = load_model(folder)
    ours = {
        "hidden_dropout_prob": shape.dropout,
        "attention_probs_dropout_prob": shape.attention_dropout,
        "initializer_range": shape.initial_std,
    }
    try:
        model, absent = pretraining_from_huggingface({**found.config, **ours}, found.state)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    theirs = model.config
    tokenizer.check_fits(theirs.vocab_size, folder)
    asked, there = (one.model_dump(include=_SIZES) for one in (shape, theirs))
    if asked != there:
        raise ValueError(f"model: found {asked}, {folder} has {there}")
    if shape.max_length > theirs.max_length:
        raise ValueError(
            f"model.max_length: found {shape.max_length}, allowed is up to {theirs.max_length}, as {folder} has it"
        )
    if theirs.num_token_types < shape.num_token_types:
        raise ValueError(
            f"{folder}: type_vocab_size is {theirs.num_token_types}, two segments need {shape.num_token_types}"
        )
    if absent:
        log.warning(
            "%s: the weights have no %s: what is missing begins from the seed",
            folder,
            ", no ".join(f"{_NAMES[prefix]} ({prefix}*)" for prefix in absent),
        )
    return model


def _check_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """ValueError where the tokenizer in `folder` gives other ids than the one that made the tokens."""
    given = load_tokenizer(folder)
    advice = f"tokenize with it: wordpiece.given of tokenize.yaml: {folder}"
    theirs, ours = (one.backend.get_vocab(with_added_tokens=True) for one in (given, tokenizer))
    differing = [token for token in sorted(theirs.keys() | ours.keys()) if theirs.get(token) != ours.get(token)]
    if differing:
        shown = ", ".join(
            f"{token!r} is {theirs.get(token, 'missing')} there and {ours.get(token, 'missing')} here"
            for token in differing[:_SHOWN]
        )
        raise ValueError(
            f"{folder}: its vocabulary of {len(theirs)} differs from that of the tokens, of {len(ours)}, in "
            f"{len(differing)} tokens: {shown}; {advice}"
        )
    cut = [one.tokens(one.encode(_PROBE)) for one in (given, tokenizer)]
    if cut[0] != cut[1]:
        raise ValueError(
            f"{folder}: its tokenizer cuts {_PROBE!r} into {cut[0]}, that of the tokens into {cut[1]}, although they "
            f"have one vocabulary: they differ in case or accents; see lower_case, or {advice}"
        )
