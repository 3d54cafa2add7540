"""Conversations: instructions, dialogues, own chats, and review writing made from rated texts.

A review is asked for in one of several ways, often with the words that it begins with; the rated text is the answer.
The request never tells the rating, so that alignment has something to change.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, assert_never, get_args

import yaml
from pydantic import Field, PositiveInt

from pipeline.config import Config, Fraction
from pipeline.data.cleaning import clean, key_of, order_of
from pipeline.data.preparing.parallel import Into
from pipeline.data.preparing.wording import wording_of
from pipeline.data.records import (
    SPLITS,
    Conversation,
    Message,
    Rated,
    Role,
    files_below,
    read_rows,
    read_text,
    read_value,
)
from pipeline.progress import progress

REQUESTS: dict[str, tuple[str, ...]] = {
    "movie": ("Write a short movie review.", "Review a movie in one sentence.", "What do you think of the movie?"),
    "product": (
        "Write a short product review.",
        "Review a product in one sentence.",
        "What do you think of the product?",
    ),
    "tweet": ("Write a tweet.", "Post a short message about your day.", "What is on your mind?"),
    "news": ("Write a sentence of a newspaper editorial.", "Comment on the news.", "What does the editorial say?"),
}
OPENINGS = ('Begin with "{}".', 'Start with the words "{}".', 'The first words are "{}".')


class ChatSource(Config):
    """What every kind of source of conversations has."""

    source: str
    """Folder below raw/."""
    into: Into = "split"
    """A fixed split, or `split`: divided here by first request. Fixed as valid or test, all stay that have no empty
    turn."""


class Instructions(ChatSource):
    """A JSON list of instruction, input and output."""

    kind: Literal["instructions"]
    file: str
    """Pattern of the file name, at any depth."""


class Dialogues(ChatSource):
    """YAML files with a list `conversations` of lists of turns."""

    kind: Literal["dialogues"]
    files: str
    """Pattern of the file names, at any depth."""


class Chats(ChatSource):
    """JSON lines with `messages`, each a role and its content."""

    kind: Literal["chats"]
    file: str
    """Pattern of the file name, at any depth."""


AnyChat = Annotated[Instructions | Dialogues | Chats, Field(discriminator="kind")]


class ReviewWriting(Config):
    """Requests for a short text of a domain, answered by the rated texts of the same split."""

    opening_share: Fraction = 0.5
    """Share of the requests that give the opening words."""
    min_words: PositiveInt = 5
    """Fewest words of a rated text that serves as an answer."""
    max_words: PositiveInt = 40
    """Most words of a rated text that serves as an answer."""


class ConversationsConfig(Config):
    """Conversations and how they are split."""

    sources: tuple[AnyChat, ...] = ()
    """Sources of conversations."""
    reviews: ReviewWriting | Literal["none"] = "none"
    """Review writing from the rated texts, or none."""
    max_words: PositiveInt = 200
    """Most words of a conversation; longer ones are dropped, never cut, but stay where valid or test is fixed."""
    every: PositiveInt = 20
    """Of so many distinct first requests, one goes to test and one to valid."""


@dataclass
class ConversationSplits:
    """The conversations of each split, and why others were dropped."""

    splits: dict[str, list[Conversation]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    dropped: Counter[str] = field(default_factory=Counter)
    num_read: int = 0


def prepare_conversations(
    config: ConversationsConfig, raw: Path, rated: Mapping[str, Sequence[Rated]]
) -> ConversationSplits:
    """Reads, deduplicates and splits all sources by first request, and adds review writing to each split.

    What a source fixes as valid or test is scored as it stands, so a first request that it has is left out of training.
    """
    result = ConversationSplits()
    seen: set[tuple[Message, ...]] = set()
    others: list[tuple[Conversation, Into]] = []
    held_out: set[str] = set()
    for source in config.sources:
        found = progress(read_conversations(source, raw), name=f"conversations: {source.source}", unit="conversations")
        for conversation in found:
            result.num_read += 1
            if not all(message.content for message in conversation.messages):
                result.dropped["empty_turn"] += 1
            elif source.into in ("valid", "test"):
                result.splits[source.into].append(conversation)
                held_out.add(wording_of(_first_request(conversation.messages)))
            elif sum(len(message.content.split()) for message in conversation.messages) > config.max_words:
                result.dropped["too_long"] += 1
            elif conversation.messages in seen:
                result.dropped["duplicate"] += 1
            else:
                seen.add(conversation.messages)
                others.append((conversation, source.into))
    kept = [one for one in others if wording_of(_first_request(one[0].messages)) not in held_out]
    result.dropped += Counter(in_fixed_test=len(others) - len(kept))
    _divide(kept, config.every, result)
    if config.reviews != "none":
        for split in SPLITS:
            for record in rated[split]:
                num_words = len(record.text.split())
                if config.reviews.min_words <= num_words <= config.reviews.max_words:
                    result.splits[split].append(review_request(record, opening_share=config.reviews.opening_share))
    return result


def _divide(conversations: Sequence[tuple[Conversation, Into]], every: int, result: ConversationSplits) -> None:
    """Sends whole groups to test and valid in a fixed random order, and those that a source has for train to train."""
    of_train = {one.group for one, into in conversations if into == "train"}
    divided = sorted({one.group for one, _ in conversations} - of_train, key=order_of)
    split_of = dict.fromkeys(of_train, "train")
    for place, group in enumerate(divided):
        split_of[group] = "test" if place % every == 0 else "valid" if place % every == 1 else "train"
    for conversation, _ in conversations:
        result.splits[split_of[conversation.group]].append(conversation)


def review_request(record: Rated, *, opening_share: float) -> Conversation:
    """A request that the rated text answers. Wording and opening are a fixed function of the record's name."""
    draws = order_of(f"request {record.id}")
    requests = REQUESTS.get(record.domain, (f"Write a short text: {record.domain}.",))
    request = requests[draws[0] % len(requests)]
    words = record.text.split()
    if int.from_bytes(draws[1:3], "big") < opening_share * 65536:
        opening = " ".join(words[: 2 + draws[3] % 3])
        request = f"{request} {OPENINGS[draws[4] % len(OPENINGS)].format(opening)}"
    messages = (Message("user", request), Message("assistant", record.text))
    return Conversation(f"review-{record.id}", f"review-{record.domain}", messages, record.group)


def read_conversations(source: Instructions | Dialogues | Chats, raw: Path) -> Iterator[Conversation]:
    """The conversations of a source, in order. ValueError names file and place of a fault."""
    folder = raw / source.source
    match source:
        case Instructions():
            for path in files_below(folder, source.file):
                for number, row in enumerate(_json_list(path), start=1):
                    request = "\n".join(part for part in (row["instruction"], row.get("input")) if part)
                    yield _conversation(source.source, f"{number}", [request, row["output"]])
        case Dialogues():
            for path in files_below(folder, source.files):
                for number, turns in enumerate(_yaml_list(path), start=1):
                    texts = [str(turn or "") for turn in turns]
                    # The last word is the assistant's: a trailing request has no answer.
                    texts = texts[: len(texts) // 2 * 2]
                    if texts:
                        name = f"{path.stem}-{number}"
                        yield _conversation(source.source, name, texts)
        case Chats():
            for path in files_below(folder, source.file):
                for number, row in enumerate(read_rows(path), start=1):
                    messages = _messages(row, f"{path}:{number}")
                    group = key_of(_first_request(messages)).hex()
                    yield Conversation(f"{source.source}-{number}", source.source, messages, group)
        case _:
            assert_never(source)


def _first_request(messages: Sequence[Message]) -> str:
    return next(message.content for message in messages if message.role == "user")


def _conversation(source: str, name: str, turns: Sequence[str]) -> Conversation:
    """Turns of a user and an assistant by turns; the group is the first request."""
    roles: tuple[Role, Role] = ("user", "assistant")
    messages = tuple(Message(roles[place % 2], clean(turn)) for place, turn in enumerate(turns))
    return Conversation(f"{source}-{name}", source, messages, key_of(messages[0].content).hex())


def _messages(row: Mapping[str, Any], where: str) -> tuple[Message, ...]:
    """The messages of one row: known roles, at least one user, the assistant last."""
    turns = row.get("messages")
    if not isinstance(turns, list) or not turns:
        raise ValueError(f"{where}: expected a list 'messages', found the keys {', '.join(sorted(row))}")
    roles: dict[Any, Role] = {role: role for role in get_args(Role)}
    messages: list[Message] = []
    for turn in turns:
        name, content = (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
        role = roles.get(name)
        if role is None:
            raise ValueError(f"{where}: role {name!r} is none of {', '.join(roles)}")
        if not isinstance(content, str) or not clean(content):
            raise ValueError(f"{where}: a message of {role} has no content")
        messages.append(Message(role, clean(content)))
    if messages[-1].role != "assistant" or all(message.role != "user" for message in messages):
        raise ValueError(f"{where}: a conversation needs a user and ends with the assistant")
    if len(messages) > 1 and messages[-2].role == "assistant":
        raise ValueError(f"{where}: the last two messages are the assistant's, nothing asks for the last one")
    return tuple(messages)


def _json_list(path: Path) -> list[dict[str, str]]:
    """A JSON list of objects with instruction and output."""
    rows = read_value(path)
    if not isinstance(rows, list):
        raise ValueError(f"{path}: expected a list, found {type(rows).__name__}")
    for number, row in enumerate(rows, start=1):
        where = f"{path}: item {number}"
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected an object with instruction and output, found {repr(row)[:60]}")
        for key in ("instruction", "output"):
            if key not in row:
                raise ValueError(f"{where}: no key {key!r}; the keys are {', '.join(sorted(row)) or 'none'}")
            if not isinstance(row[key], str) or not clean(row[key]):
                raise ValueError(f"{where}: {key}: expected a text, found {repr(row[key])[:60]}")
        if not isinstance(row.get("input"), str | None):
            raise ValueError(f"{where}: input: expected a text or nothing, found {repr(row['input'])[:60]}")
    return rows


def _yaml_list(path: Path) -> list[list[Any]]:
    """The list `conversations` of a YAML file."""
    try:
        content = yaml.load(read_text(path), Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("conversations"), list):
        raise ValueError(f"{path}: expected a list 'conversations'")
    return list(content["conversations"])
