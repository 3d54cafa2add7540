"""Which conversations are kept, and in which split: those that a user fixes, those that are divided here, repeats."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.preparing.corpus import PrepareConfig, prepare
from pipeline.data.preparing.dialogues import ConversationsConfig, ConversationSplits, prepare_conversations
from pipeline.data.preparing.parallel import Into

Chat = tuple[str, str]
"""A request and its answer."""


def splits_of(raw: Path, chats: Mapping[Into, Sequence[Chat]], **changes: Any) -> ConversationSplits:
    """The splits of files of chats, one for each value of `into`, in this order."""
    (raw / "own").mkdir(parents=True)
    for into, pairs in chats.items():
        rows = (
            {"messages": [{"role": "user", "content": one}, {"role": "assistant", "content": two}]}
            for one, two in pairs
        )
        (raw / f"own/{into}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = [{"kind": "chats", "source": "own", "file": f"{into}.jsonl", "into": into} for into in chats]
    config = ConversationsConfig.model_validate({"sources": sources, **changes})
    return prepare_conversations(config, raw, {"train": [], "valid": [], "test": []})


def texts(result: ConversationSplits) -> dict[str, list[Chat]]:
    return {
        split: [(one.messages[0].content, one.messages[1].content) for one in found]
        for split, found in result.splits.items()
    }


FIXED: dict[Into, list[Chat]] = {
    "train": [("Hello", "Good day"), ("Hello", "How are you?"), ("HELLO :)", "Yes"), ("Bye", "See you"), ("So?", "Ah")],
    "valid": [("Bye!", "Until then"), ("Bye!", "Until then"), ("Hello!", "Welcome")],
    "test": [("Hello!", "One"), ("Hello!", "One"), ("Hello!", "Good day")],
}


@pytest.mark.parametrize("order", [("train", "valid", "test"), ("test", "valid", "train"), ("valid", "train", "test")])
def test_fixed_valid_and_test_chats_stay_whole_and_training_chats_that_begin_alike_go(
    tmp_path: Path, order: tuple[Into, ...]
) -> None:
    result = splits_of(tmp_path, {into: FIXED[into] for into in order})
    assert texts(result) == {"train": [("So?", "Ah")], "valid": FIXED["valid"], "test": FIXED["test"]}
    assert result.dropped == {"in_fixed_test": 4}
    assert result.num_read == 11


def test_what_is_divided_here_takes_no_first_request_of_a_fixed_test_set(tmp_path: Path) -> None:
    own = [(f"Question {chr(97 + number)}?", "answer") for number in range(20)]
    test = [("question c", "another answer")]
    result = splits_of(tmp_path, {"split": own, "test": test}, every=5)
    found = texts(result)
    assert found["test"][0] == test[0]
    assert {split: len(chats) for split, chats in found.items()} == {"train": 11, "valid": 4, "test": 1 + 4}
    assert all(("Question c?", "answer") not in chats for chats in found.values())
    assert result.dropped == {"in_fixed_test": 1}


def test_a_first_request_that_a_source_has_for_training_is_not_divided(tmp_path: Path) -> None:
    own = [(f"Question {chr(97 + number)}?", "answer") for number in range(20)]
    result = splits_of(tmp_path, {"split": own, "train": [(one.upper(), "other") for one, _ in own]}, every=2)
    assert {split: len(chats) for split, chats in texts(result).items()} == {"train": 40, "valid": 0, "test": 0}


def test_length_counts_in_training_and_not_in_a_fixed_test_set(tmp_path: Path) -> None:
    long, longer = ("Why is it", "because of that"), ("Where is it", "over there now")
    result = splits_of(tmp_path, {"train": [long, ("Why", "so")], "test": [longer]}, max_words=3)
    assert texts(result) == {"train": [("Why", "so")], "valid": [], "test": [longer]}
    assert result.dropped == {"too_long": 1}


def test_chats_that_differ_in_digits_or_signs_alone_are_no_repeats(tmp_path: Path) -> None:
    sums = [(f"What is {one} plus {two}?", f"{one + two}") for one in range(30) for two in range(30)]
    signs = [("Is it?", "No."), ("Is it?", "No!"), ("Is it?", "no."), (" Is  it?", "No. ")]
    result = splits_of(tmp_path, {"train": sums + signs})
    assert texts(result)["train"] == sums + signs[:3]
    assert result.dropped == {"duplicate": 1}


def test_sums_of_other_numbers_than_those_of_a_fixed_test_set_are_for_training(tmp_path: Path) -> None:
    train, test = [("What is 1 plus 2?", "3"), ("What is 10 plus 2?", "12")], [("what is 1 plus 2", "3")]
    result = splits_of(tmp_path, {"train": train, "test": test})
    assert texts(result) == {"train": train[1:], "valid": [], "test": test}
    assert result.dropped == {"in_fixed_test": 1}


def test_first_requests_that_differ_in_digits_are_never_divided_between_splits(tmp_path: Path) -> None:
    steps = [(f"Step {number} of {name}", "done") for name in "abcdefghij" for number in range(4)]
    result = splits_of(tmp_path, {"split": steps}, every=3)
    names = {split: {one.rpartition(" ")[2] for one, _ in chats} for split, chats in texts(result).items()}
    assert sum(map(len, names.values())) == 10 and all(names.values())
    assert {split: len(chats) for split, chats in texts(result).items()} == {
        split: 4 * len(found) for split, found in names.items()
    }


def test_training_that_a_fixed_test_set_takes_whole_is_refused_with_the_reason(tmp_path: Path) -> None:
    splits_of(tmp_path, {"train": [("Hello", "a")], "test": [("Hello", "b")]})
    sources = [{"kind": "chats", "source": "own", "file": f"{into}.jsonl", "into": into} for into in ("train", "test")]
    with pytest.raises(
        ValueError,
        match=r"nothing of role conversations is left for training; dropped: {'in_fixed_test': 1}; in_fixed_test are "
        "first requests that valid or test has too: put other conversations there or into train",
    ):
        prepare(PrepareConfig.model_validate({"conversations": {"sources": sources}}), tmp_path, tmp_path / "out")


def instructions(raw: Path, content: Any) -> list[Chat]:
    """The requests and answers of a file of instructions."""
    (raw / "own").mkdir(parents=True)
    (raw / "own/tasks.json").write_text(json.dumps(content))
    sources = [{"kind": "instructions", "source": "own", "file": "tasks.json", "into": "train"}]
    config = ConversationsConfig.model_validate({"sources": sources})
    return texts(prepare_conversations(config, raw, {"train": [], "valid": [], "test": []}))["train"]


def test_an_instruction_is_asked_with_its_input_where_there_is_one(tmp_path: Path) -> None:
    content = [
        {"instruction": "Add", "input": "2 and 2", "output": "4"},
        {"instruction": "Say yes", "input": "", "output": "yes"},
        {"instruction": "Say no", "input": None, "output": "no", "history": []},
        {"instruction": "Sing", "output": "la"},
    ]
    assert instructions(tmp_path, content) == [
        ("Add\n2 and 2", "4"),
        ("Say yes", "yes"),
        ("Say no", "no"),
        ("Sing", "la"),
    ]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"instruction": "2+2?", "output": 4}, "output: expected a text, found 4"),
        ({"instruction": 7, "output": "4"}, "instruction: expected a text, found 7"),
        ({"instruction": "2+2?", "output": " "}, "output: expected a text, found ' '"),
        ({"instruction": "Add", "input": 0, "output": "4"}, "input: expected a text or nothing, found 0"),
        ({"instruction": "Add", "input": ["2"], "output": "4"}, r"input: expected a text or nothing, found \['2'\]"),
        ({"instruction": "2+2?", "answer": "4"}, "no key 'output'; the keys are answer, instruction"),
        ("2+2?", "expected an object with instruction and output, found '2"),
    ],
)
def test_an_instruction_that_is_no_text_is_named_with_its_item(tmp_path: Path, item: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"own/tasks\.json: item 2: {message}"):
        instructions(tmp_path, [{"instruction": "a", "output": "b"}, item])
