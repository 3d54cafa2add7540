import dataclasses
import time
import tracemalloc
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.batches import MaskedBatch, Sizes
from pipeline.data.draws import draw_below, draw_uniform
from pipeline.data.examples import masking
from pipeline.data.examples.masking import MaskedExamples, Vocabulary, vocabulary
from pipeline.data.examples.sentence_pairs import SentencePairs, truncate_pair
from pipeline.data.token_arrays import TokenArrays, in_memory
from pipeline.text.tokenizer import Role, Tokenizer

PAD, CLS, SEP, MASK, FIRST = 0, 2, 3, 4, 5


def corpus(num_documents: int, num_sentences: int, seed: int = 0) -> TokenArrays:
    """Documents whose tokens are numbered through: a token tells its place in the collection.

    The first two have at least two sentences, so that there are pairs.
    """
    random = np.random.default_rng(seed)
    return numbered(
        [
            [
                int(length)
                for length in random.integers(1, 30, max(int(random.integers(1, num_sentences + 1)), 2 * (i < 2)))
            ]
            for i in range(num_documents)
        ]
    )


def numbered(lengths: list[list[int]]) -> TokenArrays:
    """Documents of sentences of these lengths, their tokens numbered through."""
    counter = iter(range(FIRST, 10**7))
    return in_memory([[[next(counter) for _ in range(length)] for length in document] for document in lengths])


def examples(tokens: TokenArrays, max_length: int = 64, short_share: float = 0.1, **changed: object) -> MaskedExamples:
    ids = FIRST + tokens.num_tokens
    known = Vocabulary(PAD, CLS, SEP, MASK, np.arange(FIRST, ids), np.arange(ids) % 3 == 0)
    values: dict[str, object] = {"mask_share": 0.15, "whole_words": False, "seed": 1} | changed
    return MaskedExamples(tokens, known, max_length=max_length, short_share=short_share, **values)  # type: ignore[arg-type]


def everything(found: MaskedExamples, epoch: int = 0) -> tuple[Sizes, MaskedBatch]:
    sizes = found.sizes(epoch)
    return sizes, found.collate(np.arange(len(sizes.lengths)), epoch)


@given(st.integers(2, 12), st.integers(1, 20), st.integers(5, 80), st.integers(0, 3), st.booleans())
def test_rows_are_pairs_of_real_segments_and_sizes_count_what_collate_yields(
    num_documents: int, num_sentences: int, max_length: int, epoch: int, whole_words: bool
) -> None:
    tokens = corpus(num_documents, num_sentences)
    found = examples(tokens, max_length=max_length, short_share=0.3, whole_words=whole_words)
    sizes, batch = everything(found, epoch)
    assert batch.attention_mask.sum(1).tolist() == sizes.lengths.tolist()
    assert sizes.lengths.max() <= max_length
    assert batch.is_masked.sum(1).tolist() == sizes.num_targets["mlm"].tolist()
    assert sizes.num_targets["nsp"].tolist() == batch.is_pair.tolist()
    document = np.searchsorted(tokens.document_starts, np.arange(tokens.num_tokens), side="right") - 1
    sentences_of = np.diff(np.searchsorted(tokens.sentence_starts, tokens.document_starts))
    for row in range(len(sizes.lengths)):
        real = batch.labels[row][batch.attention_mask[row]].tolist()
        second = real.index(SEP)
        a, b = np.array(real[1:second]), np.array(real[second + 1 : -1])
        assert real[0] == CLS and real[-1] == SEP and len(a)
        assert sizes.num_targets["mlm"][row] == max(1, round(0.15 * (len(a) + len(b))))
        if not batch.is_pair[row]:
            assert second == len(real) - 1 and sentences_of[document[a[0] - FIRST]] == 1
            assert (np.diff(a) == 1).all() and batch.next_sentence_labels[row] == 0
            continue
        assert len(b)
        assert (np.diff(a) == 1).all() and (np.diff(b) == 1).all()  # running text
        of_a, of_b = {*document[a - FIRST].tolist()}, {*document[b - FIRST].tolist()}
        assert len(of_a) == len(of_b) == 1
        if batch.next_sentence_labels[row] == 0:
            assert of_a == of_b and b[0] > a[-1]
        else:
            assert of_a != of_b
        kinds = batch.token_type_ids[row][batch.attention_mask[row]].tolist()
        assert kinds == [0] * (second + 1) + [1] * (len(b) + 1)
    special = (batch.labels == CLS) | (batch.labels == SEP) | ~batch.attention_mask
    assert not (batch.is_masked & special).any()
    assert (batch.input_ids == batch.labels)[~batch.is_masked].all()
    assert (batch.labels[~batch.attention_mask] == PAD).all()


def test_a_segment_that_follows_continues_where_the_first_ends_unless_it_was_shortened() -> None:
    found = examples(corpus(10, 60), max_length=4000, short_share=0.0)  # nothing needs to be shortened
    _, batch = everything(found)
    checked = 0
    for epoch in range(20):
        _, batch = everything(found, epoch)
        for row in torch.nonzero((batch.next_sentence_labels == 0) & batch.is_pair).flatten().tolist():
            real = batch.labels[row][batch.attention_mask[row]].tolist()
            second = real.index(SEP)
            assert real[second + 1] == real[second - 1] + 1
            checked += 1
    assert checked > 5


def test_half_of_the_second_segments_come_from_another_document_and_rows_are_full() -> None:
    found = examples(corpus(40, 300), max_length=128, short_share=0.0)
    sizes, batch = everything(found)
    assert len(sizes.lengths) > 500
    assert abs(batch.next_sentence_labels[batch.is_pair].float().mean().item() - 0.5) < 0.05
    assert (sizes.lengths == 128).mean() > 0.95


def test_half_of_the_pairs_are_random_where_every_sentence_is_longer_than_a_row() -> None:
    found = examples(numbered([[30, 40]] * 400 + [[50]] * 400), max_length=23, short_share=0.0)
    _, batch = everything(found)
    assert 0.45 < batch.is_pair.float().mean() < 0.75
    assert abs(batch.next_sentence_labels[batch.is_pair].float().mean().item() - 0.5) < 0.05


def test_documents_of_one_sentence_make_rows_without_a_pair_and_are_no_random_segments() -> None:
    tokens = numbered([[5, 6, 7]] * 30 + [[8]] * 100)
    single = 30 * 18 + FIRST
    for epoch in range(5):
        _, batch = everything(examples(tokens, max_length=64), epoch)
        of_single = ((batch.labels >= single) & batch.attention_mask).any(1)
        assert (of_single == ~batch.is_pair).all()
        assert of_single.sum() == 100


def test_every_short_document_begins_one_row_an_epoch_and_a_long_one_as_many_as_it_fills() -> None:
    tokens = numbered([[10, 10], [7] * 100, [3], [5, 5, 5], [9]])
    found = examples(tokens, max_length=53, short_share=0.0)
    document = np.searchsorted(tokens.document_starts, np.arange(tokens.num_tokens), side="right") - 1
    for epoch in range(10):
        _, batch = everything(found, epoch)
        rows = np.bincount(document[batch.labels[:, 1].numpy() - FIRST], minlength=5)
        assert rows.tolist() == [1, 14, 1, 1, 1]


def test_short_share_makes_that_share_of_rows_shorter() -> None:
    sizes, _ = everything(examples(corpus(40, 300), max_length=128, short_share=0.3))
    assert 0.22 < (sizes.lengths < 128).mean() < 0.4


@pytest.mark.parametrize("whole_words", [False, True])
def test_of_the_chosen_tokens_eighty_percent_are_masked_ten_random_ten_kept(whole_words: bool) -> None:
    _, batch = everything(examples(corpus(40, 300), max_length=128, whole_words=whole_words))
    chosen, shown = batch.labels[batch.is_masked], batch.input_ids[batch.is_masked]
    masked, kept = (shown == MASK).float().mean().item(), (shown == chosen).float().mean().item()
    assert len(chosen) > 5000
    assert abs(masked - 0.8) < 0.02
    assert abs(kept - 0.1) < 0.015
    assert (shown[shown != MASK] >= FIRST).all()


def test_a_random_token_is_any_ordinary_one_with_equal_chance() -> None:
    tokens = corpus(40, 300)
    found = examples(tokens, max_length=128)
    drawn = []
    for epoch in range(4):
        _, batch = everything(found, epoch)
        replaced = batch.is_masked & (batch.input_ids != MASK) & (batch.input_ids != batch.labels)
        drawn.append((batch.input_ids[replaced].double() - FIRST) / tokens.num_tokens)
    places = torch.cat(drawn).sort().values
    assert len(places) > 2000
    # Kolmogorov and Smirnov: below 1.63 / sqrt(n) at one in a hundred.
    expected = (torch.arange(len(places)) + 0.5) / len(places)
    assert (places - expected).abs().max() < 1.63 / len(places) ** 0.5


def test_every_position_is_equally_likely_to_be_chosen() -> None:
    found = examples(corpus(40, 300), max_length=23, short_share=0.0)
    sizes, batch = everything(found)
    full = torch.from_numpy(sizes.lengths == 23)
    ordinary = ((batch.labels != CLS) & (batch.labels != SEP))[full]
    share = batch.is_masked[full].float().sum(0) / ordinary.float().sum(0).clamp(min=1)
    assert ((share[1:-1] - 3 / 20).abs() < 0.03).all()


def test_whole_words_are_chosen_together_but_for_the_last_one_that_fills_the_count() -> None:
    found = examples(corpus(20, 100), max_length=128, whole_words=True, mask_share=0.3)
    _, batch = everything(found)
    long_words = 0
    for row in range(len(batch.labels)):
        words: list[list[bool]] = []
        before = SEP
        for token, is_chosen in zip(batch.labels[row].tolist(), batch.is_masked[row].tolist(), strict=True):
            if token % 3 == 0 and token >= FIRST and before >= FIRST:
                words[-1].append(is_chosen)
            else:
                words.append([is_chosen])
            before = token
        partial = [word for word in words if any(word) and not all(word)]
        assert partial in ([], [[True, False]])
        long_words += sum(all(word) for word in words if len(word) > 1)
    assert long_words > 1000


def test_masks_and_pairs_change_with_epoch_and_seed_and_repeat_for_the_same() -> None:
    tokens = corpus(10, 60)
    first, same, other = examples(tokens), examples(tokens), examples(tokens, seed=2)
    (_, a), (_, b), (_, c), (_, d) = everything(first), everything(same), everything(other), everything(first, 1)
    assert all(getattr(a, f.name).equal(getattr(b, f.name)) for f in dataclasses.fields(a))
    for changed in (c, d):
        width = min(a.labels.shape[1], changed.labels.shape[1])
        assert (a.labels[:, :width] != changed.labels[:, :width]).any()
        assert (a.is_masked[:, :width] != changed.is_masked[:, :width]).any()


@pytest.mark.parametrize("whole_words", [False, True])
def test_a_row_does_not_depend_on_its_batch(whole_words: bool) -> None:
    found = examples(corpus(6, 30), whole_words=whole_words, short_share=0.5)
    _, together = everything(found, 2)
    for i in range(len(together.labels)):
        alone = found.collate(np.array([i]), 2)
        for field in dataclasses.fields(alone):
            one = getattr(alone, field.name)
            row = getattr(together, field.name)[i]
            assert (row[: one.shape[1]] if one.ndim == 2 else row).equal(one[0])


@given(st.integers(1, 60), st.integers(1, 60), st.integers(2, 50))
def test_truncation_equals_taking_tokens_one_by_one_from_the_longer_segment(a: int, b: int, room: int) -> None:
    x, y = a, b
    while x + y > room:
        x, y = (x - 1, y) if x > y else (x, y - 1)
    found = truncate_pair(np.array([a]), np.array([b]), np.array([room]))
    assert (found[0].item(), found[1].item()) == (x, y)


def test_draws_are_uniform_and_independent_of_the_company() -> None:
    index = np.arange(200_000)
    numbers = draw_below(7, 3, 1, index)
    assert np.abs(np.bincount(numbers, minlength=7) / len(index) - 1 / 7).max() < 0.004
    assert draw_below(7, 3, 1, np.array([5, 17])).tolist() == numbers[[5, 17]].tolist()
    uniform = draw_uniform(3, 1, index)
    assert abs(uniform.mean() - 0.5) < 0.003 and uniform.min() >= 0 and uniform.max() < 1
    assert abs(np.corrcoef(uniform[:-1], uniform[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(uniform, draw_uniform(3, 2, index))[0, 1]) < 0.01


def test_sizes_and_labels_are_the_same_however_many_rows_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = examples(corpus(20, 12))
    whole, labels = data.sizes(1), data.next_sentence_labels(1)
    monkeypatch.setattr(masking, "_ROWS_AT_ONCE", 7)
    parts = data.sizes(1)
    assert len(whole.lengths) > 14
    assert parts.lengths.tolist() == whole.lengths.tolist()
    assert {name: counts.tolist() for name, counts in parts.num_targets.items()} == {
        name: counts.tolist() for name, counts in whole.num_targets.items()
    }
    assert data.next_sentence_labels(1).tolist() == labels.tolist()


def test_the_vocabulary_of_a_tokenizer_names_word_continuations_and_ordinary_ids(wordpiece: Tokenizer) -> None:
    found = vocabulary(wordpiece)
    assert found.ordinary_ids.tolist() == list(range(5, wordpiece.vocab_size))
    tokens = wordpiece.tokens(range(wordpiece.vocab_size))
    assert found.continues_word is not None
    assert [tokens[i] for i in np.flatnonzero(found.continues_word)] == [t for t in tokens if t[:2] == "##"]


def test_whole_words_are_refused_where_pieces_do_not_tell_what_continues_a_word(byte_bpe: Tokenizer) -> None:
    """As of a RoBERTa, whose BPE marks what begins a word, but not at the beginning of a sentence."""
    roles: Mapping[Role, str] = {"pad": "<pad>", "cls": "<bos>", "sep": "<eos>", "mask": "<user>"}
    known, tokens = vocabulary(Tokenizer(byte_bpe.backend, roles)), in_memory([[[7, 8], [9]]] * 2)
    settings: dict[str, Any] = {"max_length": 8, "mask_share": 0.15, "short_share": 0.0, "seed": 0}
    assert len(MaskedExamples(tokens, known, whole_words=False, **settings).sizes(0).lengths)
    with pytest.raises(ValueError, match=r"masking.whole_words: found true.*allowed is false"):
        MaskedExamples(tokens, known, whole_words=True, **settings)


def test_a_single_document_or_a_row_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 documents"):
        SentencePairs(in_memory([[[1, 2], [3]], [[]]]), room=8, short_share=0.0, seed=0)
    with pytest.raises(ValueError, match="at least 2 tokens, found 1"):
        SentencePairs(in_memory([[[1, 2]], [[3]]]), room=1, short_share=0.0, seed=0)


def test_three_thousand_rows_of_128_take_less_than_a_second() -> None:
    found = examples(corpus(100, 400), max_length=128, whole_words=False)
    found.sizes(0)
    begin = time.process_time()
    for step in range(30):
        found.collate(np.arange(step * 64, (step + 1) * 64) % 2000, 0)
    assert 30 * 64 / (time.process_time() - begin) > 3000


def test_what_a_micro_batch_needs_does_not_grow_with_the_number_of_documents() -> None:
    num_documents, ids = 300_000, np.arange(FIRST, 100)
    tokens = TokenArrays(
        parts=(np.full(4 * num_documents, FIRST),),
        document_starts=np.arange(num_documents + 1) * 4,
        first_sentences=np.arange(num_documents + 1) * 2,
        sentence_starts=np.arange(2 * num_documents + 1) * 2,
    )
    known = Vocabulary(PAD, CLS, SEP, MASK, ids, np.zeros(100, dtype=bool))
    found = MaskedExamples(tokens, known, max_length=64, mask_share=0.15, short_share=0.1, whole_words=False, seed=1)
    found.collate(np.arange(4), 0)  # which also builds what an epoch keeps of each document
    tracemalloc.start()
    found.collate(np.arange(4, 8), 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < num_documents, f"{peak:,} bytes for 4 of {num_documents:,} documents"
