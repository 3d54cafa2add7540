"""One chat template: <bos><user>...<assistant>...<eos><user>...<assistant>...<eos>.

Conversations become ids message by message, so the border between prompt and response is a token border by
construction, and the loss mask is made of spans, never of searches for a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int

from pipeline.text.tokenizer import Tokenizer

ChatRole = Literal["system", "user", "assistant"]

SHORTEST_PROMPT = 4
"""Tokens of the shortest one: <bos>, a role, one token, <assistant>."""
CHAT_TEMPLATE = (
    "{{ '<bos>' }}{% for message in messages %}{{ '<' + message['role'] + '>' + (message['content'] | trim) }}"
    "{% if message['role'] == 'assistant' %}{{ '<eos>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
"""The same template for `transformers`' apply_chat_template."""


@runtime_checkable
class Message(Protocol):
    """One turn of a conversation: a record of the data has this form."""

    @property
    def role(self) -> ChatRole:
        """Who speaks."""

    @property
    def content(self) -> str:
        """What is said."""


@dataclass(frozen=True)
class EncodedConversation:
    """The ids of a conversation and which of them are responses."""

    ids: Int[np.ndarray, "T"]
    is_response: Bool[np.ndarray, "T"]
    """True at the tokens that the assistant writes and at the <eos> that ends each of its turns."""
    is_shortened: bool
    """True when tokens were taken away to fit the length."""


def encode_turn(message: Message, tokenizer: Tokenizer) -> list[int]:
    """Ids of one message: its role, its text and, for the assistant, <eos>."""
    end = [tokenizer.eos_id] if message.role == "assistant" else []
    return [tokenizer.id_of(message.role), *tokenizer.encode(message.content.strip()), *end]


def encode_conversation(
    messages: Sequence[Message], tokenizer: Tokenizer, *, max_length: int
) -> EncodedConversation | None:
    """A conversation that ends with a response, in at most `max_length` tokens.

    What does not fit is taken from the left: the oldest turns whole, then the beginning of the last prompt, behind
    its role. Responses are never cut. None when the last response alone does not fit.
    """
    if not messages or messages[-1].role != "assistant":
        raise ValueError(f"expected a conversation that ends with an assistant message, found {_order(messages)}")
    prompt = messages[:-1]
    if not prompt or prompt[-1].role == "assistant":
        raise ValueError(f"expected a prompt before the last response, found {_order(messages)}")
    answer = encode_turn(messages[-1], tokenizer)
    turns = [encode_turn(message, tokenizer) for message in prompt]
    first, last_prompt = _fit(prompt, turns, max_length - 1 - len(answer))
    if not last_prompt:
        return None
    kept = [*turns[first:-1], last_prompt, answer]
    spans = [
        np.full(len(turn), message.role == "assistant") for message, turn in zip(messages[first:], kept, strict=True)
    ]
    for span in spans:
        span[0] = False  # the role token is given, not written
    return EncodedConversation(
        ids=np.array([tokenizer.bos_id, *(token for turn in kept for token in turn)], dtype=np.int64),
        is_response=np.concatenate([np.zeros(1, dtype=bool), *spans]),
        is_shortened=first > 0 or len(last_prompt) < len(turns[-1]),
    )


def encode_prompt(messages: Sequence[Message], tokenizer: Tokenizer, *, max_length: int) -> Int[np.ndarray, "T"]:
    """Ids of a prompt that ends with the <assistant> token, at most `max_length` of them, shortened from the left.

    Raises ValueError when `max_length` leaves no room for a prompt.
    """
    if not messages or messages[-1].role == "assistant":
        raise ValueError(f"expected a prompt that does not end with an assistant message, found {_order(messages)}")
    turns = [encode_turn(message, tokenizer) for message in messages]
    first, last_prompt = _fit(messages, turns, max_length - 2)
    if not last_prompt:
        raise ValueError(f"max_length: a prompt needs at least 4 tokens, found {max_length}")
    kept = [token for turn in [*turns[first:-1], last_prompt] for token in turn]
    return np.array([tokenizer.bos_id, *kept, tokenizer.id_of("assistant")], dtype=np.int64)


def encode_response(text: str, tokenizer: Tokenizer) -> Int[np.ndarray, "T"]:
    """Ids of a response behind a prompt: its text and <eos>."""
    return np.array([*tokenizer.encode(text.strip()), tokenizer.eos_id], dtype=np.int64)


def _fit(messages: Sequence[Message], turns: Sequence[list[int]], room: int) -> tuple[int, list[int]]:
    """The first turn that is kept and the last one, shortened; the latter is empty when there is no room.

    The kept part never begins with a response, whose prompt would be missing.
    """
    last = turns[-1]
    if len(last) > room:
        return len(turns) - 1, [last[0], *last[len(last) - room + 1 :]] if room >= 2 else []
    first, size = len(turns) - 1, len(last)
    for begin in range(len(turns) - 2, -1, -1):
        size += len(turns[begin])
        if size > room:
            break
        if messages[begin].role != "assistant":
            first = begin
    return first, last


def _order(messages: Sequence[Message]) -> str:
    return " ".join(message.role for message in messages) or "no messages"
