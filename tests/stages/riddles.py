"""A toy language of questions whose answers can be learned: which colour, or which animal, does the passage name?

Passages are of many lengths, most longer than a window; an answer has one or two words. Upper case, punctuation and
accents are lost in tokens, and have to come back in the answers.
"""

from typing import Any

import numpy as np

from pipeline.text.tokenizer import Tokenizer
from pipeline.text.tokenizer_training import train_wordpiece

KINDS = {
    "colour": (("Dark", "pale"), ("red", "Blue", "gréen")),
    "animal": (("Young", "old"), ("dog", "Cat", "hórse")),
}
"""First words, which may be missing, and last words of each kind of answer."""
FILLERS = ("it", "was", "there", "and", "so", "went", "by", "on", "again", "then")


def answer(random: np.random.Generator, kind: str) -> str:
    """One or two words."""
    first, last = ([*words] for words in KINDS[kind])
    words = [random.choice(first)] if random.random() < 0.5 else []
    return " ".join([*words, random.choice(last)])


def squad(seed: int, num_articles: int, *, unanswerable: bool) -> dict[str, Any]:
    """The official layout with one paragraph an article and a question for each kind.

    With `unanswerable`, half of the answers are missing from their passages.
    """
    random = np.random.default_rng(seed)
    articles = []
    for number in range(num_articles):
        named = {kind: answer(random, kind) for kind in KINDS if not unanswerable or random.random() < 0.5}
        parts = [" ".join(random.choice(FILLERS, random.integers(1, 9))) for _ in range(len(named) + 1)]
        passage, starts = parts[0], {}
        for kind, part in zip(random.permutation(list(named)).tolist(), parts[1:], strict=True):
            passage += ", "
            starts[kind] = len(passage)
            passage += f"{named[kind]}! {part}"
        questions = [
            {
                "id": f"{seed}-{number}-{kind}",
                "question": f"Which {kind} was there?",
                "answers": [{"text": named[kind], "answer_start": starts[kind]}] if kind in named else [],
            }
            for kind in KINDS
        ]
        articles.append({"title": str(number), "paragraphs": [{"context": passage + ".", "qas": questions}]})
    return {"version": "v2.0" if unanswerable else "1.1", "data": articles}


def tokenizer() -> Tokenizer:
    """WordPiece in which every word is one token."""
    words = [word for first, last in KINDS.values() for word in (*first, *last)]
    return train_wordpiece([" ".join([*words, *KINDS, *FILLERS, "which", "? ! , ."])] * 9, vocab_size=200)
