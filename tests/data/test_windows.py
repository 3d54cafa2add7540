import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data import token_arrays
from pipeline.data.batches import CausalBatch, Examples
from pipeline.data.examples.windows import EvaluationWindows, TrainingWindows
from pipeline.data.token_arrays import in_memory, read_token_arrays, write_token_arrays

PAD = 99


def documents(*lengths: int) -> list[list[list[int]]]:
    """Document d holds the tokens 1000 d, 1000 d + 1, ...: a token tells its document and its place."""
    return [[[1000 * d + i for i in range(length)]] for d, length in enumerate(lengths)]


def test_windows_are_laid_out_as_by_hand() -> None:
    examples = EvaluationWindows(in_memory(documents(4, 3, 1, 3)), length=4, num_context=0, pad_id=PAD)
    batch = examples.collate(np.array([0, 1]), 0)
    assert batch.input_ids.tolist() == [[0, 1, 2, 1000], [1001, 3000, 3001, PAD]]
    assert batch.labels.tolist() == [[1, 2, 3, 1001], [1002, 3001, 3002, PAD]]
    assert batch.segment_ids.tolist() == [[0, 0, 0, 1], [0, 1, 1, -1]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0], [0, 0, 1, 0]]
    assert batch.is_target.tolist() == [[True] * 4, [True] * 3 + [False]]


def test_context_is_shown_again_and_never_counted_again() -> None:
    examples = EvaluationWindows(in_memory(documents(8)), length=4, num_context=3, pad_id=PAD)
    batch = examples.collate(np.arange(4), 0)
    assert batch.input_ids.tolist() == [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]]
    assert batch.is_target.sum(1).tolist() == [4, 1, 1, 1]
    assert batch.is_target[1:, -1].all()


_lengths = st.lists(st.integers(1, 20), min_size=1, max_size=8).filter(lambda lengths: max(lengths) > 1)


def all_examples(lengths: list[int], length: int, num_context: int) -> list[Examples[CausalBatch]]:
    tokens = in_memory(documents(*lengths))
    return [
        TrainingWindows(tokens, length=length, seed=3),
        EvaluationWindows(tokens, length=length, num_context=num_context % length, pad_id=PAD),
    ]


@given(_lengths, st.integers(1, 12), st.integers(0, 11), st.integers(0, 3))
def test_nothing_is_predicted_or_attended_across_a_border_and_sizes_count_what_collate_yields(
    lengths: list[int], length: int, num_context: int, epoch: int
) -> None:
    for examples in all_examples(lengths, length, num_context):
        sizes = examples.sizes(epoch)
        indices = np.random.default_rng(0).permutation(len(sizes.lengths))
        batch = examples.collate(indices, epoch)
        real = batch.segment_ids >= 0
        assert (batch.labels == batch.input_ids + 1)[real].all()  # the next token of the same document
        assert (batch.labels // 1000 == batch.input_ids // 1000)[real].all()
        assert not (batch.is_target & ~real).any()
        assert (batch.input_ids[~real] == PAD).all()
        assert real.sum(1).tolist() == sizes.lengths[indices].tolist()
        assert batch.is_target.sum(1).tolist() == sizes.num_targets["loss"][indices].tolist()
        assert batch.input_ids.shape[1] == sizes.lengths.max()
        for ids, segments, positions in zip(batch.input_ids, batch.segment_ids, batch.position_ids, strict=True):
            for segment in set(segments.tolist()) - {-1}:
                here = ids[segments == segment]
                assert (here == here[0] + torch.arange(len(here))).all()  # consecutive tokens of one document
                assert positions[segments == segment].tolist() == list(range(len(here)))


@given(_lengths, st.integers(1, 12), st.integers(0, 11))
def test_every_place_is_a_target_exactly_once(lengths: list[int], length: int, num_context: int) -> None:
    expected = sorted(1000 * d + i for d, n in enumerate(lengths) for i in range(n - 1))
    training, held_out = all_examples(lengths, length, num_context)
    batch = held_out.collate(np.arange(len(held_out.sizes(0).lengths)), 0)
    assert sorted(batch.input_ids[batch.is_target].tolist()) == expected
    sizes = training.sizes(0)
    batch = training.collate(np.arange(len(sizes.lengths)), 0)
    shown = batch.input_ids.flatten().tolist()
    assert len(set(shown)) == len(shown)  # never twice; fewer than a window are left out
    assert len(expected) - len(shown) < sizes.lengths[0]


@given(_lengths, st.integers(1, 12), st.integers(0, 11))
def test_a_window_does_not_depend_on_its_batch(lengths: list[int], length: int, num_context: int) -> None:
    for examples in all_examples(lengths, length, num_context):
        indices = np.arange(len(examples.sizes(1).lengths))
        together = examples.collate(indices, 1)
        for i in indices:
            alone = examples.collate(np.array([i]), 1)
            for field in dataclasses.fields(alone):
                one = getattr(alone, field.name)
                assert getattr(together, field.name)[i, : one.shape[1]].equal(one[0])


def test_training_windows_begin_elsewhere_in_each_epoch_and_in_the_same_place_for_the_same_seed() -> None:
    tokens = in_memory(documents(500, 300))
    first, same, other = (TrainingWindows(tokens, length=16, seed=seed) for seed in (1, 1, 2))
    begin = {
        name: examples.collate(np.array([0]), epoch).input_ids[0, 0].item()
        for name, examples, epoch in (("first", first, 0), ("same", same, 0), ("other", other, 0), ("next", first, 1))
    }
    assert begin["first"] == begin["same"]
    assert len({begin["first"], begin["other"], begin["next"]}) == 3


def test_token_arrays_on_disk_hold_what_was_written_and_their_bytes_repeat(tmp_path: Path) -> None:
    written = [[[d, d + 1], [d + 2]] * (d % 4) for d in range(2500)]  # more than one record batch
    for name in ("a", "b"):
        write_token_arrays(tmp_path / name, [str(d) for d in range(2500)], written, tokenizer_hash="f" * 64)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
    read, expected = read_token_arrays(tmp_path / "a", tokenizer_hash="f" * 64), in_memory(written)
    assert len(read.parts) > 1
    assert not read.parts[0].flags.owndata and not read.parts[0].flags.writeable
    assert read.document_starts.tolist() == expected.document_starts.tolist()
    assert read.sentence_starts.tolist() == expected.sentence_starts.tolist()
    positions = np.random.default_rng(0).integers(read.num_tokens, size=(7, 300))
    assert (read.gather(positions) == expected.gather(positions)).all()


def test_missing_and_empty_token_arrays_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no token arrays"):
        read_token_arrays(tmp_path, tokenizer_hash="f" * 64)
    write_token_arrays(tmp_path / "empty", ["d"], [[]], tokenizer_hash="f" * 64)
    with pytest.raises(ValueError, match="empty: the documents have no tokens"):
        read_token_arrays(tmp_path / "empty", tokenizer_hash="f" * 64)
    with pytest.raises(ValueError, match="made with the tokenizer ffffffffffff, expected eeeeeeeeeeee"):
        read_token_arrays(tmp_path / "empty", tokenizer_hash="e" * 64)
    with pytest.raises(ValueError, match="none of 2 documents has two tokens"):
        TrainingWindows(in_memory(documents(1, 1)), length=4, seed=1).sizes(0)


def test_the_borders_of_documents_and_sentences_are_mapped_and_not_built_by_each_rank(tmp_path: Path) -> None:
    written: list[list[list[int]]] = [[[1, 2], [], [3]], [], [[4]], [[], []], [[5], [6, 7, 8]]]
    write_token_arrays(tmp_path / "a", [str(n) for n in range(5)], written, tokenizer_hash="f" * 64)
    read = read_token_arrays(tmp_path / "a", tokenizer_hash="f" * 64)
    borders = (read.document_starts, read.first_sentences, read.sentence_starts)
    assert all(isinstance(border.base, np.memmap) for border in borders)
    assert [border.tolist() for border in borders] == [[0, 3, 3, 4, 4, 8], [0, 2, 2, 3, 3, 5], [0, 2, 3, 4, 5, 8]]


def test_chunks_of_few_tokens_give_the_same_arrays_as_one_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = [[list(range(n % 5)), list(range(n % 3))] for n in range(40)]
    names = [str(n) for n in range(40)]
    write_token_arrays(tmp_path / "one", names, written, tokenizer_hash="f" * 64)
    monkeypatch.setattr(token_arrays, "_TOKENS_AT_ONCE", 7)
    write_token_arrays(tmp_path / "many", names, written, tokenizer_hash="f" * 64)
    one, many = (read_token_arrays(tmp_path / name, tokenizer_hash="f" * 64) for name in ("one", "many"))
    assert len(one.parts) == 1 < len(many.parts)
    places = np.arange(one.num_tokens)
    assert one.gather(places).tolist() == many.gather(places).tolist()
    for border in ("document_starts", "first_sentences", "sentence_starts"):
        assert getattr(one, border).tolist() == getattr(many, border).tolist()
        assert (tmp_path / "one" / f"{border}.bin").read_bytes() == (tmp_path / "many" / f"{border}.bin").read_bytes()


@pytest.mark.parametrize("border", ["document_starts", "first_sentences", "sentence_starts"])
def test_borders_that_are_missing_or_do_not_fit_the_tokens_are_refused(tmp_path: Path, border: str) -> None:
    write_token_arrays(tmp_path / "a", ["d"], [[[1, 2], [3]]], tokenizer_hash="f" * 64)
    path = tmp_path / "a" / f"{border}.bin"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="the borders do not fit the tokens; run the stage tokenize again"):
        read_token_arrays(tmp_path / "a", tokenizer_hash="f" * 64)
    path.unlink()
    with pytest.raises(ValueError, match=rf"{border}\.bin: missing or empty; run the stage tokenize again"):
        read_token_arrays(tmp_path / "a", tokenizer_hash="f" * 64)
