"""How well a GPT predicts held-out documents, source by source, beside what counting and compression achieve.

The predicted tokens are those of the text and the <eos> behind each document; <bos> is given. All figures of a source
divide by the same bytes: its documents, each with one byte for its end.
"""

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer
from pydantic import NonNegativeInt, PositiveInt

from pipeline.config import Config
from pipeline.data.batches import CausalBatch
from pipeline.data.examples.windows import EvaluationWindows
from pipeline.data.records import Document, read_rows
from pipeline.data.token_arrays import TokenArrays, in_memory
from pipeline.evaluation.held_out import HeldOutLoss, held_out_loss
from pipeline.evaluation.kneser_ney import KneserNey, train_kneser_ney
from pipeline.evaluation.perplexity import language_model_score, primed_xz_bits_per_byte, unigram_entropy
from pipeline.models.gpt import GPT
from pipeline.objectives.likelihood import token_cross_entropy
from pipeline.objectives.terms import LossTerms
from pipeline.text.tokenizer import Tokenizer

_log = logging.getLogger(__name__)
_TOKENS_PER_BATCH = 8192


class LanguageModelEvaluation(Config):
    """How held-out text is scored, and what stands beside it."""

    num_context: NonNegativeInt
    """Tokens of each window that are only context for those behind them; below the context of the model."""
    ngram_order: PositiveInt
    """Order of the Kneser-Ney model."""
    ngram_tokens: PositiveInt
    """Training tokens that it counts at most, the last ones."""
    prime_bytes: PositiveInt
    """Bytes of training text of the same source that xz has read before, the last ones."""


@dataclass(frozen=True)
class HeldOutText:
    """The held-out documents of one source."""

    tokens: TokenArrays
    text: bytes


def causal_loss(model: GPT, batch: CausalBatch) -> LossTerms:
    """Cross entropy of the targets; documents in a row do not see each other."""
    hidden = model(batch.input_ids, batch.segment_ids, batch.position_ids)
    return token_cross_entropy(model.logits(hidden[batch.is_target]), batch.labels[batch.is_target])


def texts_by_source(tokens: TokenArrays, documents: Sequence[Document]) -> dict[str, HeldOutText]:
    """Token arrays and the documents that they were made of, by source; ValueError when they do not belong together."""
    if tokens.num_documents != len(documents):
        raise ValueError(f"found token arrays of {tokens.num_documents} documents for {len(documents)} documents")
    spans = [np.arange(*tokens.document_starts[number : number + 2]) for number in range(len(documents))]
    found: dict[str, HeldOutText] = {}
    for source in sorted({document.source for document in documents}):
        chosen = [number for number, document in enumerate(documents) if document.source == source]
        found[source] = HeldOutText(
            tokens=in_memory([[tokens.gather(spans[number]).tolist()] for number in chosen]),
            text="".join(documents[number].text + "\n" for number in chosen).encode(),
        )
    return found


def model_loss(model: GPT, text: HeldOutText, *, num_context: int, pad_id: int) -> HeldOutLoss:
    """The loss on every token once, in windows of the model's context that overlap by `num_context`."""
    windows = EvaluationWindows(text.tokens, length=model.config.max_length, num_context=num_context, pad_id=pad_id)
    return held_out_loss(model, windows, lambda batch: causal_loss(model, batch), tokens_per_batch=_TOKENS_PER_BATCH)


def ngram_loss(model: KneserNey, text: HeldOutText, *, bos_id: int) -> HeldOutLoss:
    """The loss of the n-gram model on the same tokens."""
    tokens = all_tokens(text.tokens)
    log_probs = model.log_probs(tokens)[tokens != bos_id]
    return HeldOutLoss(-float(log_probs.sum()), len(log_probs))


def evaluate_language_model(
    model: GPT,
    tokenizer: Tokenizer,
    texts: Mapping[str, HeldOutText],
    train: TokenArrays,
    train_documents: Path,
    config: LanguageModelEvaluation,
) -> dict[str, Any]:
    """Scores of the model and of its baselines, over all and by source."""
    _log.info("evaluating: Kneser-Ney counts %s tokens", f"{min(train.num_tokens, config.ngram_tokens):,}")
    counted = np.arange(max(0, train.num_tokens - config.ngram_tokens), train.num_tokens)
    ngram = train_kneser_ney(train.gather(counted), vocab_size=tokenizer.vocab_size, order=config.ngram_order)
    primes = last_bytes(train_documents, config.prime_bytes)
    losses: dict[str, dict[str, HeldOutLoss]] = {"model": {}, "kneser_ney": {}}
    xz_bits: dict[str, float] = {}
    for source, text in texts.items():
        _log.info("evaluating: %s, %s bytes, by the model, Kneser-Ney and xz", source, f"{len(text.text):,}")
        losses["model"][source] = model_loss(model, text, num_context=config.num_context, pad_id=tokenizer.pad_id)
        losses["kneser_ney"][source] = ngram_loss(ngram, text, bos_id=tokenizer.bos_id)
        xz = primed_xz_bits_per_byte(primes.get(source, b""), text.text, num_prime_bytes=config.prime_bytes)
        xz_bits[source] = xz * len(text.text)
    sizes = {source: len(text.text) for source, text in texts.items()}
    num_bytes = sum(sizes.values())
    every_token = np.concatenate([all_tokens(text.tokens) for text in texts.values()])
    return {
        **{
            name: {
                **_score(sum(found.values(), HeldOutLoss(0.0, 0)), num_bytes),
                "by_source": {source: _score(loss, sizes[source]) for source, loss in found.items()},
            }
            for name, found in losses.items()
        },
        "xz": {
            "bits_per_byte": sum(xz_bits.values()) / num_bytes,
            "by_source": {source: {"bits_per_byte": bits / sizes[source]} for source, bits in xz_bits.items()},
        },
        "unigram": {"nats_per_token": unigram_entropy(every_token[every_token != tokenizer.bos_id])},
        "num_bytes": num_bytes,
    }


def last_bytes(documents: Path, count: int) -> dict[str, bytes]:
    """The last `count` bytes of the text of each source in a file of documents, which is read as a stream."""
    kept: dict[str, deque[bytes]] = {}
    sizes: dict[str, int] = {}
    for row in read_rows(documents):
        source, text = row["source"], (row["text"] + "\n").encode()
        texts = kept.setdefault(source, deque())
        texts.append(text)
        sizes[source] = sizes.get(source, 0) + len(text)
        while sizes[source] - len(texts[0]) >= count:
            sizes[source] -= len(texts.popleft())
    return {source: b"".join(texts)[-count:] for source, texts in kept.items()}


def all_tokens(tokens: TokenArrays) -> Integer[np.ndarray, "_"]:
    """Every token of some token arrays."""
    return tokens.gather(np.arange(tokens.num_tokens))


def _score(loss: HeldOutLoss, num_bytes: int) -> dict[str, float]:
    score = language_model_score(nll_sum=loss.loss_sum, num_tokens=loss.num_targets, num_bytes=num_bytes)
    return {**asdict(score), "num_tokens": loss.num_targets}
