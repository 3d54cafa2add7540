import dataclasses

import numpy as np
import pytest

from pipeline.data.examples.classification import LabelledText, classification_examples, regression_examples
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.tokenizer_training import train_byte_bpe

TEXTS = [
    LabelledText("the old man", None, "good", "a.tsv:1"),
    LabelledText("no king may rule", "prices rose", "bad", "a.tsv:2"),
    LabelledText(
        "our ships sailed on the third of june", "the harbour was empty when they came back", "good", "a.tsv:3"
    ),
]
CLASSES = ("bad", "good")


def test_texts_and_pairs_are_laid_out_as_bert_reads_them(wordpiece: Tokenizer) -> None:
    examples = classification_examples(TEXTS, wordpiece, classes=CLASSES, max_length=100)
    a, b, c = (wordpiece.encode(text) for text in ("the old man", "no king may rule", "prices rose"))
    batch = examples.collate(np.array([1, 0]), 0)
    pair, single = [2, *b, 3, *c, 3], [2, *a, 3]
    rest = [0] * (len(pair) - len(single))
    assert batch.input_ids.tolist() == [pair, single + rest]
    assert batch.token_type_ids.tolist() == [[0] * (len(b) + 2) + [1] * (len(c) + 1), [0] * len(pair)]
    assert batch.attention_mask.sum(1).tolist() == [len(pair), len(single)]
    assert batch.labels.tolist() == [0, 1]


def test_a_tokenizer_of_language_models_begins_with_bos_and_ends_each_text_with_eos() -> None:
    bpe = train_byte_bpe([text.text for text in TEXTS], vocab_size=300)
    examples = classification_examples(TEXTS, bpe, classes=CLASSES, max_length=100)
    a, b, c = (bpe.encode(text) for text in ("the old man", "no king may rule", "prices rose"))
    assert examples.input_ids[0].tolist() == [1, *a, 2]
    assert examples.input_ids[1].tolist() == [1, *b, 2, *c, 2]
    short = classification_examples(TEXTS, bpe, classes=CLASSES, max_length=12)
    assert [len(row) for row in short.input_ids[1:]] == [12, 12]
    assert all(row[-1] == 2 for row in short.input_ids)  # what is read at the last token is never cut off


def test_sizes_count_what_collate_yields_and_a_row_does_not_depend_on_its_batch(wordpiece: Tokenizer) -> None:
    examples = classification_examples(TEXTS, wordpiece, classes=CLASSES, max_length=30)
    sizes, together = examples.sizes(0), examples.collate(np.arange(3), 0)
    assert together.attention_mask.sum(1).tolist() == sizes.lengths.tolist()
    assert sizes.num_targets["loss"].tolist() == [1, 1, 1]
    for i in range(3):
        alone = examples.collate(np.array([i]), 0)
        for field in dataclasses.fields(alone):
            one, row = getattr(alone, field.name), getattr(together, field.name)[i]
            assert (row[: one.shape[1]] if one.ndim == 2 else row).equal(one[0])


def test_a_pair_that_is_too_long_loses_the_ends_of_both_texts_and_is_counted(wordpiece: Tokenizer) -> None:
    examples = classification_examples(TEXTS, wordpiece, classes=CLASSES, max_length=21)
    a, b = wordpiece.encode(TEXTS[2].text), wordpiece.encode(TEXTS[2].second or "")
    assert examples.input_ids[2].tolist() == [2, *a[:9], 3, *b[:9], 3]
    assert examples.num_shortened == sum(
        len(wordpiece.encode(t.text)) + len(wordpiece.encode(t.second or "")) + 2 + (t.second is not None) > 21
        for t in TEXTS
    )


@pytest.mark.parametrize("max_length", range(7))
def test_no_row_is_longer_than_asked_and_a_length_without_room_for_the_texts_is_refused(
    max_length: int, wordpiece: Tokenizer
) -> None:
    for texts, shortest in ((TEXTS[:1], 3), (TEXTS, 5)):
        if max_length >= shortest:
            examples = classification_examples(texts, wordpiece, classes=CLASSES, max_length=max_length)
            assert max(len(row) for row in examples.input_ids) == max_length
        else:
            with pytest.raises(ValueError, match=f"max_length: found {max_length}, allowed is {shortest} or more"):
                classification_examples(texts, wordpiece, classes=CLASSES, max_length=max_length)


def test_a_label_outside_its_set_is_named_with_its_place(wordpiece: Tokenizer) -> None:
    texts = [*TEXTS, LabelledText("x", None, "fair", "a.tsv:4")]
    with pytest.raises(ValueError, match=r"a.tsv:4: label 'fair' is not allowed; allowed are \['bad', 'good'\]"):
        classification_examples(texts, wordpiece, classes=CLASSES, max_length=30)


@pytest.mark.parametrize("label", ["", "high", "nan", "inf"])
def test_a_regression_label_must_be_a_finite_number(label: str, wordpiece: Tokenizer) -> None:
    good = LabelledText("x", None, "-1.25", "b.tsv:1")
    assert regression_examples([good], wordpiece, max_length=9).collate(np.array([0]), 0).labels.tolist() == [-1.25]
    with pytest.raises(ValueError, match=r"b.tsv:2: label"):
        regression_examples([good, LabelledText("x", None, label, "b.tsv:2")], wordpiece, max_length=9)
