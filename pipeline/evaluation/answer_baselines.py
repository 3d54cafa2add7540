"""What answers questions without having learned anything, beside which a trained model is shown."""

from collections import Counter

from pipeline.data.cleaning import words_of
from pipeline.text.sentences import sentences


def nearest_sentence(question: str, passage: str) -> str:
    """The sentence of the passage that has the most words in common with the question, the first of several.

    It is the overlap by which the sliding-window baseline of Rajpurkar et al. (2016, section 5.1) chooses a sentence;
    there a parser names the candidates within it, here the whole sentence is the answer.
    """
    asked = Counter(words_of(question))
    return max(
        sentences(passage),
        key=lambda sentence: (asked & Counter(words_of(sentence))).total(),
        default="",
    )
