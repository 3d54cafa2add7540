"""Sentence pairs for next-sentence prediction (Devlin et al. 2019, section 3.1): where A and B lie in the documents.

An example begins at a sentence: the sentences from there that fill the row are cut at random into A and B, or B is
replaced by sentences of another document. What tells the two apart shall be the text. So both candidates for B are
found for every row, and have the length of the shorter one, whichever is taken: lengths tell nothing. Where the row is
filled, both fill it; where its document ends before, both are the last sentences of a document, the same number of
them. Neither begins a document. A document of one sentence has no next one: it is a row without B, and gives no random
B. Every draw is a function of (seed, epoch, index), for all examples at once.
What stays in memory grows with the documents; the sentences are on disk.
B batch, S1 number of sentences + 1, D1 number of documents + 1.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

from pipeline.data.draws import draw_below, draw_uniform
from pipeline.data.token_arrays import TokenArrays

(_OFFSET, _SHORT, _TARGET, _CUT, _RANDOM, _OTHER, _FRONT_A, _FRONT_B, _PLACE, _SHARE) = range(10)
"""Purposes of the draws: two draws of one example are independent because their purposes differ."""
_ATTEMPTS = 4
"""How often a document that offers enough for B is looked for."""
_GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, without their whole parts, lie evenly between 0 and 1 however many there are."""


@dataclass(frozen=True)
class Segments:
    """Where A and B of some examples lie in the token arrays."""

    a_begin: Int[np.ndarray, "B"]
    a_length: Int[np.ndarray, "B"]
    b_begin: Int[np.ndarray, "B"]
    b_length: Int[np.ndarray, "B"]
    """0 where the document of A has one sentence only."""
    is_random: Int[np.ndarray, "B"]
    """1 where B comes from another document."""


@dataclass(frozen=True)
class _Wanted:
    """What the second segments of some examples should have."""

    num_tokens: Int[np.ndarray, "B"]
    """Tokens that fill the row."""
    num_sentences: Int[np.ndarray, "B"]
    """Sentences that follow A in its own row."""
    is_rest: Bool[np.ndarray, "B"]
    """Whether these are the last ones of their document and leave the row unfilled: another B is then as many, and the
    last ones too. Elsewhere it is as many as fill the row, from any place."""


@dataclass(frozen=True)
class SentencePairs:
    """Pairs of segments, drawn anew in every epoch; their number does not change."""

    tokens: TokenArrays
    room: int
    """Tokens of A and B together."""
    short_share: float
    """Share of the pairs that aim at a random shorter length (short_seq_prob)."""
    seed: int

    def __post_init__(self) -> None:
        if self.room < 2:
            raise ValueError(f"a pair of segments needs room for at least 2 tokens, found {self.room}")
        if np.count_nonzero(np.diff(self._followers_before)) < 2:
            raise ValueError("next-sentence prediction needs at least 2 documents of two or more sentences")

    @property
    def _starts(self) -> Int[np.ndarray, "S1"]:
        return self.tokens.sentence_starts

    @property
    def _first_sentence(self) -> Int[np.ndarray, "D1"]:
        return self.tokens.first_sentences

    @cached_property
    def _followers_before(self) -> Int[np.ndarray, "D1"]:
        """How many sentences that follow another stand in the documents before each one, and how many there are."""
        counts = np.diff(self._first_sentence)
        return np.concatenate([[0], np.maximum(counts - 1, 0).cumsum()])

    def _document_of(self, sentences: Int[np.ndarray, "B"]) -> Int[np.ndarray, "B"]:
        return np.asarray(
            np.searchsorted(self.tokens.document_starts, np.asarray(self._starts[sentences]), side="right") - 1
        )

    @cached_property
    def _place_starts(self) -> Int[np.ndarray, "D1"]:
        """Where the places of each document begin: one a token, but as many as a row has for a shorter document.

        Rows begin at every `room`-th place, so every document, but at times the last, makes a row, and a long one as
        many as it fills.
        """
        lengths = np.diff(self.tokens.document_starts)
        return np.concatenate([[0], np.where(lengths > 0, np.maximum(lengths, self.room), 0).cumsum()])

    def __len__(self) -> int:
        return int(self._place_starts[-1]) // self.room

    def draw(self, indices: Int[np.ndarray, "B"], epoch: int) -> Segments:
        """Chooses A and B of some examples; B comes from another document for half of the pairs."""
        key = (self.seed, epoch)
        starts, first = self._starts, self._first_sentence
        begin = self._first_of_row(indices, epoch)
        document = self._document_of(begin)
        is_short = draw_uniform(*key, _SHORT, indices) < self.short_share
        target = np.where(is_short, 2 + draw_below(self.room - 1, *key, _TARGET, indices), self.room)
        # The chunk: sentences until the target is reached or the document ends, two at least where it has them.
        end = np.maximum(np.searchsorted(starts, starts[begin] + target), begin + 2)
        end = np.minimum(end, first[document + 1])
        is_pair = end - begin > 1
        cut = begin + 1 + draw_below(np.maximum(end - begin - 1, 1), *key, _CUT, indices)
        a_length = starts[cut] - starts[begin]
        wanted = _Wanted(
            num_tokens=np.maximum(target - a_length, 1),
            num_sentences=end - cut,
            is_rest=starts[end] - starts[begin] < target,
        )
        other, other_end, offers_enough = self._elsewhere(document, wanted, indices, epoch)
        own_end = np.where(offers_enough, end, np.minimum(end, cut + other_end - other))
        shorter = np.minimum(starts[own_end] - starts[cut], starts[other_end] - starts[other])
        b_length = np.where(is_pair, shorter, 0)
        a_kept, b_kept = truncate_pair(a_length, b_length, target)
        # Nothing above depends on this.
        is_random = is_pair & (draw_uniform(*key, _RANDOM, indices) < 0.5)
        b_begin = starts[np.where(is_random, other, cut)]
        return Segments(
            a_begin=starts[begin] + draw_below(a_length - a_kept + 1, *key, _FRONT_A, indices),
            a_length=a_kept,
            b_begin=b_begin + draw_below(b_length - b_kept + 1, *key, _FRONT_B, indices),
            b_length=b_kept,
            is_random=is_random.astype(np.int64),
        )

    def _first_of_row(self, indices: Int[np.ndarray, "B"], epoch: int) -> Int[np.ndarray, "B"]:
        """The sentence at which each example begins; not the last one of a document that has others.

        The rows of a document are `room` places apart. Where the first one lies differs by document, and over the
        epochs goes evenly through the document.
        """
        places, documents = self._place_starts, self.tokens.document_starts
        place = indices * self.room + draw_below(self.room, self.seed, epoch, _OFFSET, 0)
        document = np.searchsorted(places, place, side="right") - 1
        # Of these documents alone: what a micro-batch costs must not grow with the corpus.
        length = documents[document + 1] - documents[document]
        num_places = places[document + 1] - places[document]
        row = (place - places[document]) // self.room
        share = (draw_uniform(self.seed, _SHARE, document) + epoch * _GOLDEN) % 1.0
        place = (row * self.room + (share * num_places).astype(np.int64)) % num_places
        position = documents[document] + place * length // num_places
        begin = np.searchsorted(self._starts, position, side="right") - 1
        last = self._first_sentence[document + 1] - 1
        return np.asarray(np.maximum(np.minimum(begin, last - 1), self._first_sentence[document]))

    def _elsewhere(
        self, document: Int[np.ndarray, "B"], wanted: _Wanted, indices: Int[np.ndarray, "B"], epoch: int
    ) -> tuple[Int[np.ndarray, "B"], Int[np.ndarray, "B"], Bool[np.ndarray, "B"]]:
        """The first sentence of a B out of another document, the sentence behind it, and whether it is all of `wanted`.

        Where some attempts found no document with enough behind its first sentence, it is what the last one has.
        """
        starts, first = self._starts, self._first_sentence
        home, latest = np.empty_like(document), np.empty_like(document)
        lacking = np.arange(len(document))
        for attempt in range(_ATTEMPTS):
            found = self._other_document(document[lacking], indices[lacking], epoch, attempt)
            behind = first[found + 1]
            by_tokens = np.searchsorted(starts, starts[behind] - wanted.num_tokens[lacking], side="right") - 1
            by_sentences = behind - wanted.num_sentences[lacking]
            home[lacking], latest[lacking] = found, np.where(wanted.is_rest[lacking], by_sentences, by_tokens)
            lacking = lacking[latest[lacking] <= first[found]]
        earliest, behind = first[home] + 1, first[home + 1]
        spare = np.maximum(latest - earliest, 0)
        chosen = np.where(wanted.is_rest, spare, draw_below(spare + 1, self.seed, epoch, _PLACE, indices))
        begin = earliest + chosen
        filled = np.minimum(np.searchsorted(starts, starts[begin] + wanted.num_tokens), behind)
        return begin, np.where(wanted.is_rest, behind, filled), latest >= earliest

    def _other_document(
        self, document: Int[np.ndarray, "B"], indices: Int[np.ndarray, "B"], epoch: int, attempt: int
    ) -> Int[np.ndarray, "B"]:
        """Another document with two or more sentences, drawn by how many of them follow another."""
        before = self._followers_before
        begin, end = before[document], before[document + 1]
        other = draw_below(before[-1] - (end - begin), self.seed, epoch, _OTHER, indices, attempt)
        other = np.where(other >= begin, other + end - begin, other)
        return np.asarray(np.searchsorted(before, other, side="right") - 1)


def truncate_pair(
    a: Int[np.ndarray, "B"], b: Int[np.ndarray, "B"], room: Int[np.ndarray, "B"]
) -> tuple[Int[np.ndarray, "B"], Int[np.ndarray, "B"]]:
    """Lengths after tokens were taken, one at a time, from the longer of two segments until both fit into `room`.

    Of two equally long segments B gives way.
    """
    half = room // 2
    b_kept = np.where(a + b <= room, b, np.minimum(b, np.maximum(half, room - a)))
    a_kept = np.where(a + b <= room, a, np.minimum(a, room - b_kept))
    return a_kept, b_kept
