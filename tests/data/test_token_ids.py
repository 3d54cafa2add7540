"""What a data set says of its tokens is what its batches hold."""

from typing import Any

import numpy as np
import pytest

from pipeline.data.batches import TokenExamples
from pipeline.data.examples.classification import LabelledText, classification_examples
from pipeline.data.examples.questions import WindowsConfig, question_examples
from pipeline.data.examples.tagging import tagging_examples
from pipeline.data.question_records import Answer, Question
from pipeline.data.records import Tagged
from pipeline.text.tokenizer import Tokenizer

FIRST, SECOND = "the old man of the harbour", "no king may rule, prices rose in june"


def examples(kind: str, tokenizer: Tokenizer) -> TokenExamples[Any]:
    """Two rows of different length, so that one is padded."""
    match kind:
        case "texts":
            texts = [LabelledText(FIRST, None, "a", "1"), LabelledText(SECOND, "a ship sailed", "a", "2")]
            return classification_examples(texts, tokenizer, classes=("a",), max_length=100)
        case "tags":
            rows = [Tagged(text, words, ("O",) * len(words)) for text in (FIRST, SECOND) if (words := (*text.split(),))]
            return tagging_examples(rows, tokenizer, labels=("O",), max_length=100)
        case _:
            asked = [Question(text, "who", text, (Answer(text[:3], 0),)) for text in (FIRST, SECOND, FIRST)]
            return question_examples(asked, tokenizer, WindowsConfig(max_length=18, stride=4, max_question_tokens=6))


@pytest.mark.parametrize("kind", ["texts", "tags", "questions"])
def test_the_tokens_of_a_data_set_are_those_of_all_its_batches(kind: str, wordpiece: Tokenizer) -> None:
    found = examples(kind, wordpiece)
    assert isinstance(found, TokenExamples)
    count = len(found.sizes(0).lengths)
    batch = found.collate(np.arange(count), 0)
    assert wordpiece.pad_id in batch.input_ids
    assert found.token_ids().tolist() == np.unique(batch.input_ids.numpy()).tolist()
