"""Words with tags -> TaggingBatch: [CLS], the pieces of the words, [SEP], right-padded.

A word is read at its first piece (Devlin et al. 2019, section 5.3); its other pieces and special tokens are in no loss.

Every word is asked for in exactly one row, so none is ever without a tag:
- A word of which the tokenizer leaves nothing (a control character, a no-break space) is the unknown token.
- A word that has more pieces than a row has room keeps the first ones.
- A sentence that is longer than a row becomes several rows with common words. Each word is asked for where it has
  context on both sides; in the other rows it is context itself.

Legend: B rows, T the longest row, N sentences, W words of a sentence, R tokens that are read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from pipeline.data.batches import Sizes, TaggingBatch
from pipeline.data.examples.padding import pad_ids, pad_mask
from pipeline.data.records import Tagged
from pipeline.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Window:
    """Words `begin` to `end` (exclusive) of a sentence in one row, of which `start` to `stop` are asked for."""

    sentence: int
    begin: int
    start: int
    stop: int
    end: int


@dataclass(frozen=True)
class TaggingExamples:
    """Rows of token ids, one a window; the same in every epoch."""

    windows: tuple[Window, ...]
    input_ids: tuple[Int[np.ndarray, "_"], ...]
    asked: tuple[Int[np.ndarray, "_"], ...]
    """Positions in its row of the first pieces of the words that a window asks for."""
    labels: tuple[Int[np.ndarray, "_"], ...]
    """Numbers of the tags of these words."""
    pad_id: int
    num_words: tuple[int, ...]
    """Of each sentence."""
    num_split: int
    """Sentences that became several rows."""
    num_unreadable: int
    """Words of which the tokenizer left nothing."""
    num_shortened: int
    """Words that lost pieces to fit a row."""

    def token_ids(self) -> Int[np.ndarray, "R"]:
        """Every token of a batch, padding too, once and in order."""
        return np.unique(np.concatenate((*self.input_ids, [self.pad_id])))

    def sizes(self, epoch: int) -> Sizes:
        """Row lengths; the targets are the words asked for."""
        lengths = np.array([len(row) for row in self.input_ids], dtype=np.int64)
        return Sizes(lengths=lengths, num_targets={"loss": np.array([len(one) for one in self.asked], dtype=np.int64)})

    def collate(self, indices: Int[np.ndarray, "B"], epoch: int) -> TaggingBatch:
        """The right-padded batch of some rows."""
        rows = [self.input_ids[i] for i in indices]
        labels, is_target = [np.zeros_like(row) for row in rows], [np.zeros(len(row), dtype=bool) for row in rows]
        for place, i in enumerate(indices):
            labels[place][self.asked[i]] = self.labels[i]
            is_target[place][self.asked[i]] = True
        input_ids = pad_ids(rows, self.pad_id)
        return TaggingBatch(
            input_ids=input_ids,
            token_type_ids=input_ids.new_zeros(input_ids.shape),
            attention_mask=pad_mask([np.ones(len(row), dtype=bool) for row in rows]),
            labels=pad_ids(labels, 0),
            is_target=pad_mask(is_target),
        )


def tagging_examples(
    sentences: Sequence[Tagged], tokenizer: Tokenizer, *, labels: Sequence[str], max_length: int
) -> TaggingExamples:
    """Examples whose label is the number of the word's tag in `labels`; ValueError names a tag that is not there."""
    number = {tag: i for i, tag in enumerate(labels)}
    for sentence in sentences:
        for position, tag in enumerate(sentence.tags):
            if tag not in number:
                raise ValueError(
                    f"{sentence.id}, word {position + 1}: tag {tag!r} is not allowed; allowed are {', '.join(labels)}"
                )
    numbers = [[number[tag] for tag in sentence.tags] for sentence in sentences]
    return _examples([sentence.words for sentence in sentences], numbers, tokenizer, max_length)


def untagged_examples(sentences: Sequence[Sequence[str]], tokenizer: Tokenizer, *, max_length: int) -> TaggingExamples:
    """Sentences whose tags are not known: their labels stand for nothing. A sentence without words has no row."""
    return _examples(sentences, [[0] * len(words) for words in sentences], tokenizer, max_length)


def _examples(
    sentences: Sequence[Sequence[str]], labels: Sequence[Sequence[int]], tokenizer: Tokenizer, max_length: int
) -> TaggingExamples:
    room = max_length - 2
    if room < 1:
        raise ValueError(f"max_length: found {max_length}, [CLS], a word and [SEP] need 3")
    cls, sep = tokenizer.id_of("cls"), tokenizer.id_of("sep")
    vocabulary = list(dict.fromkeys(word for words in sentences for word in words))
    whole = dict(zip(vocabulary, tokenizer.encode_batch(vocabulary), strict=True))
    pieces = {word: (ids or [tokenizer.id_of("unk")])[:room] for word, ids in whole.items()}
    windows: list[Window] = []
    rows, asked = [], []
    for i, words in enumerate(sentences):
        lengths = np.array([len(pieces[word]) for word in words], dtype=np.int64)
        for window in split_sentence(i, lengths, room=room):
            ids = [piece for word in words[window.begin : window.end] for piece in pieces[word]]
            rows.append(np.array([cls, *ids, sep], dtype=np.int64))
            # Behind [CLS] and behind all pieces of the words before.
            ends = 1 + np.cumsum(lengths[window.begin : window.stop])
            firsts = ends - lengths[window.begin : window.stop]
            asked.append(firsts[window.start - window.begin :])
            windows.append(window)
    return TaggingExamples(
        windows=tuple(windows),
        input_ids=tuple(rows),
        asked=tuple(asked),
        labels=tuple(np.array(labels[one.sentence][one.start : one.stop], dtype=np.int64) for one in windows),
        pad_id=tokenizer.pad_id,
        num_words=tuple(len(words) for words in sentences),
        num_split=len({one.sentence for one in windows if one.start > 0}),
        num_unreadable=sum(not whole[word] for words in sentences for word in words),
        num_shortened=sum(len(whole[word]) > room for words in sentences for word in words),
    )


def split_sentence(sentence: int, lengths: Int[np.ndarray, "W"], *, room: int) -> Iterator[Window]:
    """The rows of a sentence whose words have `lengths` pieces, of which a row holds `room` and no word has more.

    A quarter of a row, as far as whole words allow, is context before the words asked for, and a quarter behind them.
    The last row reaches back as far as it has room.
    """
    ends = np.concatenate(([0], np.cumsum(lengths)))  # pieces before each word, and of all words
    num_words, context = len(lengths), room // 4

    def first_within(num_pieces: int, stop: int) -> int:
        """The first word from which the pieces up to word `stop` are no more than so many."""
        return int(np.searchsorted(ends, ends[stop] - num_pieces))

    start = 0
    while start < num_words:
        # Word `start` has to fit behind its context.
        begin = max(first_within(context, start), first_within(room, start + 1))
        end = int(np.searchsorted(ends, ends[begin] + room, side="right")) - 1
        stop = num_words if end == num_words else max(start + 1, first_within(context, end))
        if end == num_words:
            begin = first_within(room, end)
        yield Window(sentence, begin, start, stop, end)
        start = stop
