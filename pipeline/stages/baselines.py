"""What is to be known of the baselines that stand beside the figures of a stage."""

import logging
from collections.abc import Mapping, Sequence

from pipeline.evaluation.bag_of_words import remark

_log = logging.getLogger(__name__)


def notes_on_words(train_texts: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    """`notes` of the metrics on a bag of words, which the log says too; nothing where the texts are as usual."""
    said = remark(train_texts)
    if not said:
        return {}
    _log.warning("bag of words: %s", said)
    return {"notes": {"bag_of_words": said}}
