"""Labelled texts and text pairs -> SequenceBatch: [CLS] A [SEP] or [CLS] A [SEP] B [SEP], right-padded.

A tokenizer of language models, which has neither, lays them out as <bos> A <eos> or <bos> A <eos> B <eos> (Radford et
al. 2018, section 3.3, who add a delimiter to the vocabulary).

B batch, T the longest row, R tokens that are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from pipeline.data.batches import SequenceBatch, Sizes
from pipeline.data.examples.padding import pad_ids, pad_mask
from pipeline.data.examples.sentence_pairs import truncate_pair
from pipeline.text.tokenizer import Role, Tokenizer


@dataclass(frozen=True)
class LabelledText:
    """One example as it stands in a file."""

    text: str
    second: str | None
    """The second text of a pair; None for a single text."""
    label: str
    """The class by its name, or the decimal number of a regression."""
    where: str
    """File and line, for messages."""
    id: str = ""
    """Its id among the prepared examples; empty where it has none."""


@dataclass(frozen=True)
class SequenceExamples:
    """Labelled rows of token ids, one an example; the same in every epoch."""

    input_ids: tuple[Int[np.ndarray, "_"], ...]
    token_type_ids: tuple[Int[np.ndarray, "_"], ...]
    labels: Int[np.ndarray, "N"] | Float[np.ndarray, "N"]
    pad_id: int
    is_shortened: Bool[np.ndarray, "N"]
    """Whether an example lost tokens to fit the length."""

    @property
    def num_shortened(self) -> int:
        """Examples that lost tokens."""
        return int(self.is_shortened.sum())

    def token_ids(self) -> Int[np.ndarray, "R"]:
        """Every token of a batch, padding too, once and in order."""
        return np.unique(np.concatenate((*self.input_ids, [self.pad_id])))

    def sizes(self, epoch: int) -> Sizes:
        """Row lengths; one target each."""
        lengths = np.array([len(row) for row in self.input_ids], dtype=np.int64)
        return Sizes(lengths=lengths, num_targets={"loss": np.ones_like(lengths)})

    def collate(self, indices: Int[np.ndarray, "B"], epoch: int) -> SequenceBatch:
        """The right-padded batch of some examples."""
        rows = [self.input_ids[i] for i in indices]
        return SequenceBatch(
            input_ids=pad_ids(rows, self.pad_id),
            token_type_ids=pad_ids([self.token_type_ids[i] for i in indices], 0),
            attention_mask=pad_mask([np.ones(len(row), dtype=bool) for row in rows]),
            labels=torch.from_numpy(self.labels[indices]),
        )


def classification_examples(
    texts: Sequence[LabelledText], tokenizer: Tokenizer, *, classes: Sequence[str], max_length: int
) -> SequenceExamples:
    """Examples whose label is the number of their class in `classes`.

    Raises ValueError that names the place of a label that is not a class, and a `max_length` without room for a text.
    """
    number = {name: i for i, name in enumerate(classes)}
    for text in texts:
        if text.label not in number:
            raise ValueError(f"{text.where}: label {text.label!r} is not allowed; allowed are {list(classes)}")
    return _examples(texts, tokenizer, np.array([number[text.label] for text in texts], dtype=np.int64), max_length)


def regression_examples(texts: Sequence[LabelledText], tokenizer: Tokenizer, *, max_length: int) -> SequenceExamples:
    """Examples whose label is a finite number; ValueError names the place of one that is not."""
    return _examples(texts, tokenizer, np.array([_finite_number(text) for text in texts], dtype=np.float32), max_length)


def unlabelled_examples(texts: Sequence[LabelledText], tokenizer: Tokenizer, *, max_length: int) -> SequenceExamples:
    """Examples to answer, whose labels nobody knows: they are 0 here, and not looked at in the texts."""
    return _examples(texts, tokenizer, np.zeros(len(texts), dtype=np.int64), max_length)


def text_marks(tokenizer: Tokenizer) -> tuple[Role, Role]:
    """The roles of the tokens before the first text and behind each text."""
    return ("cls", "sep") if "cls" in tokenizer.special or tokenizer.is_wordpiece else ("bos", "eos")


def _finite_number(text: LabelledText) -> float:
    try:
        value = float(text.label)
    except ValueError as error:
        raise ValueError(f"{text.where}: label {text.label!r} is not a number") from error
    if not np.isfinite(value):
        raise ValueError(f"{text.where}: label {text.label!r} is not a finite number")
    return value


def _examples(
    texts: Sequence[LabelledText],
    tokenizer: Tokenizer,
    labels: Int[np.ndarray, "N"] | Float[np.ndarray, "N"],
    max_length: int,
) -> SequenceExamples:
    begin, end = (tokenizer.id_of(role) for role in text_marks(tokenizer))
    is_pair = np.array([text.second is not None for text in texts], dtype=bool)
    shortest = 5 if is_pair.any() else 3
    if max_length < shortest:
        raise ValueError(
            f"max_length: found {max_length}, allowed is {shortest} or more: a token of each text and the marks around"
        )
    first = tokenizer.encode_batch([text.text for text in texts])
    second = tokenizer.encode_batch([text.second or "" for text in texts])
    a = np.array([len(ids) for ids in first], dtype=np.int64)
    b = np.array([len(ids) for ids in second], dtype=np.int64)
    a_kept, b_kept = truncate_pair(a, b, max_length - 2 - is_pair)
    ids, types = [], []
    for i in range(len(texts)):
        row = [begin, *first[i][: a_kept[i]], end]
        rest = [*second[i][: b_kept[i]], end] if is_pair[i] else []
        ids.append(np.array([*row, *rest], dtype=np.int64))
        types.append(np.array([0] * len(row) + [1] * len(rest), dtype=np.int64))
    return SequenceExamples(
        input_ids=tuple(ids),
        token_type_ids=tuple(types),
        labels=labels,
        pad_id=tokenizer.pad_id,
        is_shortened=a_kept + b_kept < a + b,
    )
