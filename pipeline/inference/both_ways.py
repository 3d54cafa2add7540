"""The loss of a bidirectional language model (Peters et al. 2018, section 3.1), for training and for people.

Nothing of a training is imported: a model server runs this too.
"""

from pipeline.data.examples.pieces import AHEAD, BACK, PieceBatch
from pipeline.models.bilm import BidirectionalLM
from pipeline.objectives.likelihood import token_cross_entropy
from pipeline.objectives.terms import LossTerms


def both_ways_loss(model: BidirectionalLM, batch: PieceBatch) -> tuple[LossTerms, LossTerms]:
    """The next token and the token before: of neighbours t and t + 1, each is predicted by the state at the other."""
    mask, ids = batch.attention_mask, batch.input_ids
    ahead, back = model(ids, mask)[-1].chunk(2, dim=2)
    exists = mask[:, 1:]
    after, before = ids[:, 1:][exists], ids[:, :-1][exists]
    return (
        token_cross_entropy(model.logits(ahead[:, :-1][exists]), after, name=AHEAD),
        token_cross_entropy(model.logits(back[:, 1:][exists]), before, name=BACK),
    )
