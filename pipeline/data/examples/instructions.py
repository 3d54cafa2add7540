"""Conversations -> InstructionBatch: next-token prediction on the responses only.

B batch, T tokens of a conversation without its last, which is predicted but predicts nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int

from pipeline.data.batches import InstructionBatch, Sizes
from pipeline.data.examples.padding import pad_ids, pad_mask
from pipeline.data.records import Conversation
from pipeline.text.chat import EncodedConversation, encode_conversation
from pipeline.text.tokenizer import Tokenizer

TooLong = Literal["drop", "raise"]
"""What happens to an example whose response alone does not fit: it is left out and counted, or it is an error."""


@dataclass(frozen=True)
class InstructionReport:
    """What became of the conversations."""

    num_examples: int
    num_shortened: int
    """Prompts that lost tokens on the left."""
    num_dropped: int
    """Conversations whose last response alone is too long."""
    eos_target_share: float
    """Share of the examples of which the last <eos> is a target."""


@dataclass(frozen=True)
class InstructionExamples:
    """Conversations, one an example; the same in every epoch."""

    conversations: tuple[EncodedConversation, ...]
    pad_id: int

    def sizes(self, epoch: int) -> Sizes:
        """Input lengths and counted response tokens."""
        return Sizes(
            lengths=np.array([len(one.ids) - 1 for one in self.conversations]),
            num_targets={"loss": np.array([int(one.is_response[1:].sum()) for one in self.conversations])},
        )

    def collate(self, indices: Int[np.ndarray, "B"], epoch: int) -> InstructionBatch:
        """The right-padded batch of some conversations."""
        chosen = [self.conversations[i] for i in indices]
        return InstructionBatch(
            input_ids=pad_ids([one.ids[:-1] for one in chosen], self.pad_id),
            labels=pad_ids([one.ids[1:] for one in chosen], self.pad_id),
            is_response=pad_mask([one.is_response[1:] for one in chosen]),
        )


def instruction_examples(
    conversations: Sequence[Conversation], tokenizer: Tokenizer, *, max_length: int, too_long: TooLong
) -> tuple[InstructionExamples, InstructionReport]:
    """Encodes conversations in at most `max_length` tokens, <eos> included, and reports what did not fit.

    Raises ValueError with the conversation's id when a response is too long and `too_long` is "raise".
    """
    encoded: list[EncodedConversation] = []
    for conversation in conversations:
        one = encode_conversation(conversation.messages, tokenizer, max_length=max_length)
        if one is not None:
            encoded.append(one)
        elif too_long == "raise":
            raise ValueError(f"conversation {conversation.id}: its last response does not fit into {max_length} tokens")
    ends = [one.ids[-1] == tokenizer.eos_id and bool(one.is_response[-1]) for one in encoded]
    report = InstructionReport(
        num_examples=len(encoded),
        num_shortened=sum(one.is_shortened for one in encoded),
        num_dropped=len(conversations) - len(encoded),
        eos_target_share=sum(ends) / max(1, len(ends)),
    )
    return InstructionExamples(conversations=tuple(encoded), pad_id=tokenizer.pad_id), report
