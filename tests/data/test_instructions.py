import dataclasses

import numpy as np
import pytest

from pipeline.data.examples.instructions import instruction_examples
from pipeline.data.records import Conversation, Message
from pipeline.text.tokenizer import Tokenizer


def talk(number: int, *texts: str) -> Conversation:
    messages = tuple(Message(role="assistant" if i % 2 else "user", content=text) for i, text in enumerate(texts))
    return Conversation(id=f"c{number}", source="test", messages=messages, group=f"c{number}")


TALKS = (
    talk(0, "who rules?", "no king"),
    talk(1, "a free people can govern itself", "yes", "and prices?", "they rose"),
    talk(2, "one two three four five six seven eight nine ten eleven twelve", "short"),
    talk(3, "x", "an answer that is far too long for the length, whatever becomes of its prompt, and more"),
)


def test_each_output_predicts_the_next_token_and_only_responses_count(byte_bpe: Tokenizer) -> None:
    examples, _ = instruction_examples(TALKS[:1], byte_bpe, max_length=64, too_long="raise")
    batch = examples.collate(np.array([0]), 0)
    question, answer = byte_bpe.encode("who rules?"), byte_bpe.encode("no king")
    ids = [1, 3, *question, 4, *answer, 2]
    assert batch.input_ids.tolist() == [ids[:-1]]
    assert batch.labels.tolist() == [ids[1:]]
    assert batch.labels[batch.is_response].tolist() == [*answer, 2]


def test_sizes_count_what_collate_yields_and_padding_never_counts(byte_bpe: Tokenizer) -> None:
    examples, _ = instruction_examples(TALKS, byte_bpe, max_length=40, too_long="drop")
    sizes = examples.sizes(0)
    indices = np.array([2, 0, 1])
    batch = examples.collate(indices, 0)
    assert batch.is_response.sum(1).tolist() == sizes.num_targets["loss"][indices].tolist()
    assert batch.input_ids.shape[1] == sizes.lengths[indices].max()
    for row, length in enumerate(sizes.lengths[indices]):
        assert not batch.is_response[row, length:].any()
        assert (batch.input_ids[row, length:] == byte_bpe.pad_id).all()


def test_a_row_does_not_depend_on_its_batch(byte_bpe: Tokenizer) -> None:
    examples, _ = instruction_examples(TALKS, byte_bpe, max_length=40, too_long="drop")
    together = examples.collate(np.array([0, 1, 2]), 0)
    for i in range(3):
        alone = examples.collate(np.array([i]), 0)
        for field in dataclasses.fields(alone):
            one = getattr(alone, field.name)
            assert getattr(together, field.name)[i, : one.shape[1]].equal(one[0])


def test_shortened_and_dropped_conversations_are_counted(byte_bpe: Tokenizer) -> None:
    examples, report = instruction_examples(TALKS, byte_bpe, max_length=40, too_long="drop")
    assert (report.num_examples, report.num_shortened, report.num_dropped) == (3, 2, 1)
    assert report.eos_target_share == 1.0
    assert max(len(one.ids) for one in examples.conversations) <= 40


def test_a_response_that_does_not_fit_is_named_where_it_is_an_error(byte_bpe: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"conversation c3.*40 tokens"):
        instruction_examples(TALKS, byte_bpe, max_length=40, too_long="raise")
