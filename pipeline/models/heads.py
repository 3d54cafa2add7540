"""What stands on a pretrained model: classifiers on encoders of text; reward and value on GPT.

Legend: B batch, T length, D model size, K classes.
Masks are boolean; True counts. Each class takes over the modules that it is given, weights included.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pipeline.models.bert import Bert, Pooler
from pipeline.models.dropout import Dropout
from pipeline.models.gpt import GPT
from pipeline.models.text_encoders import TextEncoder, TextPooler
from pipeline.models.transformer import initialise


class SequenceClassifier(nn.Module):
    """Classes of a text or a pair of texts; with one label, a regression.

    `encoder` and `pooler` are what text_encoders.py describes.
    """

    def __init__(
        self, encoder: TextEncoder, pooler: TextPooler, *, num_labels: int, dropout: float, has_bias: bool = True
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooler = pooler
        self.dropout = Dropout(dropout)
        self.classifier = nn.Linear(encoder.config.d_model, num_labels, bias=has_bias)
        initialise(self.classifier)

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        token_type_ids: Int[Tensor, "B T"],
        attention_mask: Bool[Tensor, "B T"],
    ) -> Float[Tensor, "B K"]:
        """Scores of the classes, or one real value."""
        if isinstance(self.encoder, Bert) and isinstance(self.pooler, Pooler):
            pooled = self.pooler(self.encoder.first_states(input_ids, token_type_ids, attention_mask).unsqueeze(1))
        else:
            pooled = self.pooler(self.encoder(input_ids, token_type_ids, attention_mask), attention_mask)
        scores: Tensor = self.classifier(self.dropout(pooled))
        return scores


class TokenClassifier(nn.Module):
    """A class for each token: tagging."""

    def __init__(self, encoder: Bert, *, num_labels: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = Dropout(dropout)
        self.classifier = nn.Linear(encoder.config.d_model, num_labels)
        initialise(self.classifier)

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        token_type_ids: Int[Tensor, "B T"],
        attention_mask: Bool[Tensor, "B T"],
    ) -> Float[Tensor, "B T K"]:
        """Scores of the classes at each token."""
        scores: Tensor = self.classifier(self.dropout(self.encoder(input_ids, token_type_ids, attention_mask)))
        return scores


class SpanScores(NamedTuple):
    """Scores of each position as the first and as the last token of the answer."""

    start: Float[Tensor, "B T"]
    end: Float[Tensor, "B T"]


class SpanHead(nn.Module):
    """The answer to a question as a span of the passage (Devlin et al. 2019, section 4.2)."""

    def __init__(self, encoder: Bert) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.config.d_model, 2)
        initialise(self.classifier)

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        token_type_ids: Int[Tensor, "B T"],
        attention_mask: Bool[Tensor, "B T"],
    ) -> SpanScores:
        """Scores over all positions; which of them may hold an answer is for the caller to say."""
        start, end = self.classifier(self.encoder(input_ids, token_type_ids, attention_mask)).unbind(-1)
        return SpanScores(start, end)


class RewardModel(nn.Module):
    """One number for a conversation, read at its last token.

    The head starts from N(0, 1/sqrt(D + 1)), so that first rewards of normalised states have about unit variance
    (Stiennon et al. 2020; Huang et al. 2024, "The N+ implementation details of RLHF").
    """

    def __init__(self, trunk: GPT) -> None:
        super().__init__()
        self.trunk = trunk
        d_model = trunk.config.d_model
        self.score = nn.Linear(d_model, 1, bias=False)
        nn.init.normal_(self.score.weight, std=(d_model + 1) ** -0.5)

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        last: Int[Tensor, "B"],
        segment_ids: Int[Tensor, "B T"] | None = None,
        position_ids: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B"]:
        """The reward at position `last` of each row, its true last token."""
        hidden = self.trunk(input_ids, segment_ids, position_ids)
        rows = torch.arange(len(last), device=last.device)
        rewards: Tensor = self.score(hidden[rows, last]).squeeze(-1)
        return rewards


class ValueModel(nn.Module):
    """The expected return at every token."""

    def __init__(self, trunk: GPT) -> None:
        super().__init__()
        self.trunk = trunk
        self.value = nn.Linear(trunk.config.d_model, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        segment_ids: Int[Tensor, "B T"] | None = None,
        position_ids: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T"]:
        """Value t has seen tokens 0 to t; 0 everywhere before training."""
        values: Tensor = self.value(self.trunk(input_ids, segment_ids, position_ids)).squeeze(-1)
        return values


class ActorCriticOutput(NamedTuple):
    """Hidden states of the policy, to be projected where they count, and values of the critic."""

    hidden: Float[Tensor, "B T D"]
    values: Float[Tensor, "B T"]


class ActorCritic(nn.Module):
    """Policy and critic as one module with one optimizer; they share no parameters.

    `policy` and `critic_trunk` are two GPTs, usually the fine-tuned model and a copy of it or of the reward model's
    trunk. The policy alone generates: `policy.start`, `policy.step`.
    """

    def __init__(self, policy: GPT, critic_trunk: GPT) -> None:
        super().__init__()
        if policy is critic_trunk:
            raise ValueError("policy and critic_trunk are the same module; give the critic a copy")
        self.policy = policy
        self.critic = ValueModel(critic_trunk)

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        segment_ids: Int[Tensor, "B T"] | None = None,
        position_ids: Int[Tensor, "B T"] | None = None,
    ) -> ActorCriticOutput:
        """Both passes over the same tokens."""
        hidden = self.policy(input_ids, segment_ids, position_ids)
        return ActorCriticOutput(hidden, self.critic(input_ids, segment_ids, position_ids))

    def logits(self, hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """The policy's scores of the next token."""
        return self.policy.logits(hidden)
