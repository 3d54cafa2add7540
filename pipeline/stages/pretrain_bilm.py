"""Pretraining of a bidirectional language model: the next token and the token before (Peters et al. 2018, section 3.1).

The two losses have the same number of targets and are added. Each direction is scored on held-out documents beside the
entropy of the tokens that it predicts, which no model without context goes below.
"""

import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Integer
from pydantic import Field, PositiveInt

from pipeline.artifacts import publish, save_model
from pipeline.config import Config, Fraction, TrainingConfig, load
from pipeline.data.examples.pieces import AHEAD, BACK, DocumentPieces, PieceBatch
from pipeline.data.records import SPLITS
from pipeline.data.token_arrays import TokenArrays, read_token_arrays
from pipeline.evaluation.held_out import EvenlySpaced
from pipeline.evaluation.perplexity import unigram_entropy
from pipeline.inference.both_ways import both_ways_loss
from pipeline.layout import Layout
from pipeline.models.bilm import BidirectionalLM, BiLMConfig
from pipeline.models.huggingface.text_classifiers import bilm_to_huggingface
from pipeline.objectives.terms import LossTerms
from pipeline.text.tokenizer import load_tokenizer
from pipeline.training.base import StageModule
from pipeline.training.fit import batches_alone, fit
from pipeline.training.launch import launch
from pipeline.training.run import stage_run


class BothWaysConfig(Config):
    """Shape of the model; the vocabulary comes from the tokenizer of GPT."""

    d_model: PositiveInt
    """Width of the token vectors and of what each direction hands on."""
    d_hidden: PositiveInt
    """Cells of an LSTM; where there are more than d_model, a projection brings them down to it."""
    num_layers: PositiveInt
    """LSTM layers of each direction."""
    dropout: Fraction
    """Dropout of the token vectors and behind each layer."""


class PretrainBiLMConfig(Config):
    """The stage pretrain_bilm."""

    training: TrainingConfig
    """How it is trained."""
    model: BothWaysConfig
    """What is trained."""
    max_length: Annotated[int, Field(ge=2)]
    """Tokens of a piece of a document; nothing is remembered from one piece to the next."""
    num_valid_pieces: PositiveInt
    """Pieces of the validation documents, spread over them, that are scored during training."""


class BiLMPretraining(StageModule[PieceBatch]):
    """Two losses, one for each direction."""

    model: BidirectionalLM

    def objective(self, batch: PieceBatch) -> tuple[LossTerms, ...]:
        """What each direction says of its neighbours within the piece."""
        return both_ways_loss(self.model, batch)


def main(path: Path) -> None:
    """Trains on the training documents, scores the held-out ones, and hands over the model."""
    config = load(path, PretrainBiLMConfig)
    layout = Layout.of(path)
    inputs = (layout.data("tokens/bpe"), layout.data("tokens/text-bpe"))
    with stage_run(__spec__.name, path, config, seed=config.training.seed, inputs=inputs) as run:
        tokenizer = load_tokenizer(inputs[0])
        tokens = {split: read_token_arrays(inputs[1] / split, tokenizer_hash=tokenizer.hash) for split in SPLITS}
        pieces = {
            split: DocumentPieces(tokens[split], length=config.max_length, pad_id=tokenizer.pad_id) for split in SPLITS
        }
        shape = BiLMConfig(vocab_size=tokenizer.vocab_size, **config.model.model_dump())
        module = BiLMPretraining(BidirectionalLM(shape), config.training)
        fit(run, module, train=pieces["train"], valid=EvenlySpaced(pieces["valid"], config.num_valid_pieces))
        found = module.validate(batches_alone(run, pieces["test"], config.training.batching))
        with publish(run.layout.output) as folder:
            ids = {"pad_token_id": tokenizer.pad_id, "bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
            save_model(folder, *bilm_to_huggingface(module.model, token_ids=ids))
            tokenizer.save(folder)
        run.finish({"test": scores(found, tokens["test"])}, history=module.history)


def scores(found: dict[str, float], tokens: TokenArrays) -> dict[str, Any]:
    """The loss of each direction and its perplexity, beside the entropy of what it predicts; and the mean of both."""
    predicted = predicted_tokens(tokens)
    directions: dict[str, dict[str, float]] = {
        name: {
            "nats_per_token": found[name],
            "perplexity": math.exp(found[name]),
            "accuracy": found[f"{name}/accuracy"],
            "unigram_entropy": unigram_entropy(predicted[name]),
            "num_tokens": len(predicted[name]),
        }
        for name in (AHEAD, BACK)
    }
    means = {key: (directions[AHEAD][key] + directions[BACK][key]) / 2 for key in ("nats_per_token", "unigram_entropy")}
    return {**directions, "mean": {**means, "perplexity": math.exp(means["nats_per_token"])}}


def predicted_tokens(tokens: TokenArrays) -> dict[str, Integer[np.ndarray, "_"]]:
    """The targets of each direction: ahead all tokens but the first of each document, back all but the last."""
    lengths = np.diff(tokens.document_starts)
    starts, ends = (tokens.document_starts[side : len(lengths) + side][lengths > 0] for side in (0, 1))
    is_first, is_last = (np.zeros(tokens.num_tokens, dtype=bool) for _ in range(2))
    is_first[starts], is_last[ends - 1] = True, True
    return {AHEAD: tokens.gather(np.flatnonzero(~is_first)), BACK: tokens.gather(np.flatnonzero(~is_last))}


if __name__ == "__main__":
    launch(main)
