import dataclasses

import numpy as np

from pipeline.data.records import Pair
from pipeline.data.translation import translation_examples
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
    assert [len(ids) for ids in cut.src] == [min(pair[0], limit) for pair in lengths]
    assert all(ids[-1] == translation_bpe.eos_id for ids in (*cut.src, *cut.tgt))
