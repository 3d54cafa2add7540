"""A trained tagger at work on sentences, for the scores of the stage finetune and for people.

Nothing of a training is imported: a model server runs this too. W words of a sentence, K tags.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from pipeline.data.examples.tagging import TaggingExamples
from pipeline.data.plan import one_pass
from pipeline.evaluation.held_out import in_view
from pipeline.models.heads import TokenClassifier

_TOKENS_PER_BATCH = 8192


@torch.no_grad()
def predict(model: TokenClassifier, data: TaggingExamples, *, is_shown: bool = True) -> list[Float[np.ndarray, "W K"]]:
    """The probabilities of the tags of every word, a sentence an array of W words and K tags.

    Progress is shown where it takes a while, unless not `is_shown`.
    """
    device = next(model.parameters()).device
    found = [np.zeros((num_words, model.classifier.out_features), dtype=np.float32) for num_words in data.num_words]
    if not data.windows:
        return found
    sizes = data.sizes(0)
    was_training = model.training
    model.eval()
    steps = one_pass(sizes, tokens_per_batch=_TOKENS_PER_BATCH)
    for step in in_view(steps, name="tagging") if is_shown else steps:
        batch = data.collate(step.indices, 0).to(device)
        scores = model(batch.input_ids, batch.token_type_ids, batch.attention_mask)[batch.is_target]
        rows = scores.float().softmax(-1).cpu().numpy()
        for i in step.indices:
            window = data.windows[i]
            num_asked = window.stop - window.start
            found[window.sentence][window.start : window.stop], rows = rows[:num_asked], rows[num_asked:]
    model.train(was_training)
    return found


def best_tags(probabilities: Float[np.ndarray, "W K"], labels: Sequence[str]) -> list[str]:
    """The likeliest tag of each word, chosen without looking at the others."""
    return [labels[number] for number in probabilities.argmax(-1)]
