"""The networks that a text task can be learned by, each built from its configuration and its folder.

BERT and GPT come from the folder whole, or as random weights of the same shape. The LSTM over a bidirectional language
model takes that model from the folder, and begins at random itself. The other LSTM takes a tokenizer alone.
"""

import logging
from pathlib import Path
from typing import Literal, assert_never

import torch
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor

from pipeline.artifacts import load_model
from pipeline.config import Config
from pipeline.data.examples.classification import text_marks
from pipeline.inference.handover import read_gpt
from pipeline.inference.word_folder import OpenedWords, open_words
from pipeline.models.bilstm import BiLSTM, BiLSTMConfig, PoolingKind
from pipeline.models.gpt import GPT
from pipeline.models.huggingface.text_classifiers import bilm_from_huggingface
from pipeline.models.text_encoders import BiLMEncoder, BiLMEncoderConfig, GPTEncoder
from pipeline.text.tokenizer import Tokenizer, load_padded_tokenizer, load_tokenizer, with_marks

_log = logging.getLogger(__name__)

Start = Literal["pretrained", "random"]


class BertNetwork(Config):
    """BERT with its pooler (Devlin et al. 2019)."""

    kind: Literal["bert"]


class GPTNetwork(Config):
    """A GPT read at the last token of the text (Radford et al. 2018, section 3.2), without their second loss."""

    kind: Literal["gpt"]


class BiLSTMNetwork(Config):
    """An LSTM that reads both ways, from random weights, over the tokens of the folder's tokenizer."""

    kind: Literal["bilstm"]
    d_embedding: PositiveInt
    """Width of the token vectors."""
    d_hidden: PositiveInt
    """Width of the state of one direction."""
    num_layers: PositiveInt
    """Stacked layers."""
    pooling: PoolingKind
    """How one vector is made of the states: max, last or attention."""
    vectors: str = ""
    """Folder of word vectors as wide as d_embedding, where tokens that are among its words begin; empty for none."""


class BiLMNetwork(Config):
    """The same over the mixed layers of a bidirectional language model that stays as it is (Peters et al. 2018)."""

    kind: Literal["bilm"]
    d_hidden: PositiveInt
    """Width of the state of one direction."""
    num_layers: PositiveInt
    """Stacked layers."""
    pooling: PoolingKind
    """How one vector is made of the states: max, last or attention."""


Network = BertNetwork | GPTNetwork | BiLSTMNetwork | BiLMNetwork


def pretraining_stage(network: Network) -> str:
    """The stage whose folder a network starts from where no other is named; its tokenizer is the network's."""
    match network:
        case BertNetwork() | BiLSTMNetwork():
            return "pretrain_bert"
        case GPTNetwork():
            return "pretrain_gpt"
        case BiLMNetwork():
            return "pretrain_bilm"
        case _:
            assert_never(network)


def open_tokenizer(network: Network, folder: Path) -> Tokenizer:
    """The tokenizer of a folder as a network needs it.

    That of a GPT is given padding where it has none, and the marks around a text, so that `transformers` reads texts
    by the saved folder as they were learned.
    """
    if not isinstance(network, GPTNetwork):
        return load_tokenizer(folder)
    tokenizer = load_padded_tokenizer(folder)
    return with_marks(tokenizer, *text_marks(tokenizer))


def gpt_encoder(
    folder: Path, tokenizer: Tokenizer, *, start: Start, dropout: float, attention_dropout: float, max_length: int
) -> GPTEncoder:
    """The GPT of a folder, or one of its shape from random weights; ValueError names a folder that does not fit.

    It has a row for the padding of `tokenizer`, whether the folder has one or not.
    """
    dropouts = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": attention_dropout}
    gpt = read_gpt(folder, tokenizer, dropouts)
    check_length(max_length, gpt.config.max_length, folder)
    return GPTEncoder(GPT(gpt.config) if start == "random" else gpt)


def bilstm_encoder(network: BiLSTMNetwork, tokenizer: Tokenizer, *, dropout: float, max_length: int) -> BiLSTM:
    """An LSTM from random weights, with the word vectors that the configuration asks for."""
    shape = BiLSTMConfig(
        vocab_size=tokenizer.vocab_size,
        d_embedding=network.d_embedding,
        d_hidden=network.d_hidden,
        num_layers=network.num_layers,
        max_length=max_length,
        dropout=dropout,
    )
    encoder = BiLSTM(shape)
    if network.vectors:
        count = start_from_vectors(encoder.token_embedding.weight, tokenizer, Path(network.vectors))
        _log.info("%d of %d tokens begin with the vectors of %s", count, tokenizer.vocab_size, network.vectors)
    return encoder


def bilm_encoder(network: BiLMNetwork, folder: Path, *, start: Start, dropout: float, max_length: int) -> BiLMEncoder:
    """An LSTM over the language model of a folder, or over one of its shape from random weights."""
    found = load_model(folder)
    try:
        model = bilm_from_huggingface(found.config, found.state)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    shape = BiLMEncoderConfig(
        language_model=model.config,
        d_hidden=network.d_hidden,
        num_layers=network.num_layers,
        max_length=max_length,
        dropout=dropout,
    )
    encoder = BiLMEncoder(shape)
    if start == "pretrained":
        encoder.language_model.load_state_dict(model.state_dict())
    return encoder


def check_length(max_length: int, longest: int, folder: Path) -> None:
    """ValueError for texts longer than the positions of the model in `folder`."""
    if max_length > longest:
        raise ValueError(f"max_length: {max_length} is longer than the {longest} positions of {folder}")


@torch.no_grad()
def start_from_vectors(table: Float[Tensor, "V E"], tokenizer: Tokenizer, folder: Path) -> int:
    """Sets the rows of tokens that are words of a folder of word vectors; returns how many.

    The vectors are scaled together to unit variance, as the random rows of all other tokens have it. ValueError for
    vectors of another width, and when no token is among the words.
    """
    opened = open_words(folder)
    if opened.matrix.shape[1] != table.size(1):
        raise ValueError(f"d_embedding: found {table.size(1)}, the vectors of {folder} have {opened.matrix.shape[1]}")
    rows = word_rows(opened, tokenizer)
    if not rows:
        raise ValueError(f"{folder}: none of its {len(opened.words)} words is a token of the tokenizer")
    known = torch.from_numpy(opened.matrix[list(rows.values())]).float()
    table[list(rows)] = known / known.square().mean().sqrt()
    return len(rows)


def word_rows(opened: OpenedWords, tokenizer: Tokenizer) -> dict[int, int]:
    """The tokens that are whole words, and the row of each among the word vectors."""
    number = {word: row for row, word in enumerate(opened.words)}
    tokens = tokenizer.tokens(range(tokenizer.vocab_size))
    return {i: number[token] for i, token in enumerate(tokens) if token in number and i not in tokenizer.special_ids}
