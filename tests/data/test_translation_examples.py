import dataclasses
import tracemalloc
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from pipeline.config import ByTokens
from pipeline.data.examples.translation import TokenRows, TranslationExamples, choose_examples, translation_examples
from pipeline.data.pair_arrays import EncodedPairs, SentenceArray, read_pair_arrays, write_pair_arrays
from pipeline.data.plan import plan_epoch
from pipeline.data.records import Pair
from pipeline.text.tokenizer import Tokenizer

TEXTS = [
    ("the old man", "Die Katze"),
    ("no king may rule", "schläft auf dem Dach und im Garten"),
    ("prices rose and the harbour was empty when they came back", "der Hund"),
    ("door", "Dach"),
]
PAIRS = [Pair(id=str(i), src=src, tgt=tgt, source="t", group=str(i)) for i, (src, tgt) in enumerate(TEXTS)]


def test_the_target_is_shifted_and_both_sides_end_with_eos(translation_bpe: Tokenizer) -> None:
    examples, _ = translation_examples(PAIRS, translation_bpe, max_length=100, too_long="drop")
    batch = examples.collate(np.array([0]), 0)
    src, tgt = (translation_bpe.encode(text) for text in TEXTS[0])
    eos, bos = translation_bpe.eos_id, translation_bpe.bos_id
    assert batch.src.tolist() == [[*src, eos]]
    assert batch.tgt.tolist() == [[bos, *tgt]]
    assert batch.labels.tolist() == [[*tgt, eos]]
    assert batch.is_target.all() and batch.src_mask.all()


def test_sizes_count_what_collate_yields_and_padding_never_counts(translation_bpe: Tokenizer) -> None:
    examples, _ = translation_examples(PAIRS, translation_bpe, max_length=100, too_long="drop")
    sizes, indices = examples.sizes(0), np.array([3, 1, 2])
    batch = examples.collate(indices, 0)
    assert batch.is_target.sum(1).tolist() == sizes.num_targets["loss"][indices].tolist()
    longer = np.maximum(batch.is_target.sum(1).numpy(), batch.src_mask.sum(1).numpy())
    assert longer.tolist() == sizes.lengths[indices].tolist()
    assert (batch.labels[~batch.is_target] == translation_bpe.pad_id).all()
    assert (batch.src[~batch.src_mask] == translation_bpe.pad_id).all()
    ends = batch.labels.gather(1, batch.is_target.sum(1, keepdim=True) - 1)
    assert (ends == translation_bpe.eos_id).all()


def test_a_pair_does_not_depend_on_its_batch(translation_bpe: Tokenizer) -> None:
    examples, _ = translation_examples(PAIRS, translation_bpe, max_length=100, too_long="drop")
    together = examples.collate(np.arange(4), 0)
    for i in range(4):
        alone = examples.collate(np.array([i]), 0)
        for field in dataclasses.fields(alone):
            one = getattr(alone, field.name)
            assert getattr(together, field.name)[i, : one.shape[1]].equal(one[0])


def test_pairs_that_are_too_long_are_counted_and_dropped_or_cut(translation_bpe: Tokenizer) -> None:
    lengths = [[len(translation_bpe.encode(text)) + 1 for text in pair] for pair in TEXTS]
    limit = 14
    too_long = [sum(pair[side] > limit for pair in lengths) for side in (0, 1)]
    assert too_long == [1, 1]
    dropped, report = translation_examples(PAIRS, translation_bpe, max_length=limit, too_long="drop")
    assert (report.num_pairs, report.num_src_too_long, report.num_tgt_too_long) == (2, 1, 1)
    assert dropped.sizes(0).lengths.tolist() == [max(lengths[0]), max(lengths[3])]
    cut, report = translation_examples(PAIRS, translation_bpe, max_length=limit, too_long="cut")
    assert (report.num_pairs, report.num_src_too_long, report.num_tgt_too_long) == (4, 1, 1)
    src, tgt = (side.take(np.arange(4)) for side in (cut.src, cut.tgt))
    assert [len(ids) for ids in src] == [min(pair[0], limit) for pair in lengths]
    assert all(ids[-1] == translation_bpe.eos_id for ids in (*src, *tgt))


def encoded(tokenizer: Tokenizer) -> EncodedPairs:
    return tokenizer.encode_batch([src for src, _ in TEXTS]), tokenizer.encode_batch([tgt for _, tgt in TEXTS])


@pytest.mark.parametrize("too_long", ["drop", "cut"])
@pytest.mark.parametrize("vocab_size", [120, 70_000], ids=["two-bytes", "four-bytes"])
def test_examples_of_files_are_those_of_pairs_in_memory(
    too_long: Literal["drop", "cut"], vocab_size: int, translation_bpe: Tokenizer, tmp_path: Path
) -> None:
    src, tgt = encoded(translation_bpe)
    chunks = [(src[:3], tgt[:3]), (src[3:], tgt[3:])]
    assert write_pair_arrays(tmp_path / "pairs", chunks, vocab_size=vocab_size, tokenizer_hash="h") == len(TEXTS)
    arrays = read_pair_arrays(tmp_path / "pairs", tokenizer_hash="h")
    assert arrays.src.tokens.itemsize == (2 if vocab_size == 120 else 4)
    found, report = choose_examples(arrays, translation_bpe, max_length=14, too_long=too_long)
    expected, expected_report = translation_examples(PAIRS, translation_bpe, max_length=14, too_long=too_long)
    assert report == expected_report
    sizes, expected_sizes = found.sizes(0), expected.sizes(0)
    assert sizes.lengths.tolist() == expected_sizes.lengths.tolist()
    assert sizes.num_targets["loss"].tolist() == expected_sizes.num_targets["loss"].tolist()
    indices = np.arange(report.num_pairs)[::-1]
    one, other = found.collate(indices, 0), expected.collate(indices, 0)
    for field in dataclasses.fields(one):
        assert getattr(one, field.name).equal(getattr(other, field.name))


def test_the_bytes_of_pair_arrays_do_not_depend_on_how_the_pairs_came(
    translation_bpe: Tokenizer, tmp_path: Path
) -> None:
    src, tgt = encoded(translation_bpe)
    one_by_one = [(src[i : i + 1], tgt[i : i + 1]) for i in range(len(src))]
    for name, chunks in (("whole", [(src, tgt)]), ("single", one_by_one)):
        write_pair_arrays(tmp_path / name, chunks, vocab_size=120, tokenizer_hash="h")
    files = [sorted((tmp_path / name).iterdir()) for name in ("whole", "single")]
    assert len(files[0]) == 5
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


def test_pairs_of_another_tokenizer_and_damaged_pairs_are_refused(translation_bpe: Tokenizer, tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    with pytest.raises(ValueError, match="no encoded pairs; run the stage tokenize"):
        read_pair_arrays(folder, tokenizer_hash="a")
    write_pair_arrays(folder, [encoded(translation_bpe)], vocab_size=120, tokenizer_hash="a")
    with pytest.raises(ValueError, match="encoded with the tokenizer a, expected b"):
        read_pair_arrays(folder, tokenizer_hash="b")
    whole = (folder / "tgt.tokens").read_bytes()
    (folder / "tgt.tokens").write_bytes(whole[:-2])
    with pytest.raises(ValueError, match="files of tgt do not fit each other"):
        read_pair_arrays(folder, tokenizer_hash="a")
    (folder / "tgt.tokens").write_bytes(b"")
    with pytest.raises(ValueError, match=r"tgt\.tokens: missing or empty"):
        read_pair_arrays(folder, tokenizer_hash="a")


def test_planning_an_epoch_holds_no_more_bytes_a_pair_than_docs_say() -> None:
    """Every process of a training plans for itself: of 36 million pairs on 8 GPUs each byte is 0.3 GB."""
    number = 50_000
    lengths = np.random.default_rng(0).integers(1, 60, size=(2, number))
    sides = [SentenceArray(np.zeros(0, np.uint16), np.concatenate([[0], np.cumsum(side)])) for side in lengths]
    rows = np.arange(number, dtype=np.int32)
    tracemalloc.start()
    try:
        src, tgt = (TokenRows(side, rows, 256, 0) for side in sides)
        examples = TranslationExamples(src, tgt, pad_id=1, bos_id=1)
        batching = ByTokens(kind="tokens", tokens_per_step=26_000)
        steps = plan_epoch(examples.sizes(0), batching, seed=1, epoch=0)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(len(step.indices) for step in steps) == number
    # The rows are 4 bytes more.
    assert held / number + 4 < 22 and peak / number + 4 < 50
