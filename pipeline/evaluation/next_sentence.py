"""Multiple choice out of running text: which of several sentences comes next?

A question is a sentence of a held-out document; the right answer is the sentence behind it in its paragraph, the wrong
ones come from other held-out documents. A solved example is a line with two neighbouring sentences. Chance is one over
the number of candidates, for sentences of similar length are drawn for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.data.records import Document
from pipeline.evaluation.few_shot import Choice
from pipeline.text.sentences import sentences
from pipeline.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Neighbours:
    """Two sentences that stand behind each other."""

    document: int
    first: str
    second: str


@dataclass(frozen=True)
class Question:
    """A sentence, and candidates for the next one."""

    first: str
    candidates: tuple[str, ...]
    answer: int


def neighbours(documents: Sequence[Document], *, min_words: int, max_words: int) -> list[Neighbours]:
    """Every pair of neighbouring sentences of one paragraph, both of an allowed length."""
    found: list[Neighbours] = []
    for number, document in enumerate(documents):
        for paragraph in document.text.split("\n"):
            parts = sentences(paragraph)
            found += [
                Neighbours(number, first, second)
                for first, second in pairwise(parts)
                if all(min_words <= len(one.split()) <= max_words for one in (first, second))
            ]
    return found


def ask(pairs: Sequence[Neighbours], *, num_questions: int, num_candidates: int, seed: int) -> list[Question]:
    """At most `num_questions` of the pairs as questions; a wrong candidate is about as long as the right one.

    Raises ValueError when there are no pairs, or too few documents to take wrong candidates from.
    """
    if not pairs or len({pair.document for pair in pairs}) < 2:
        raise ValueError(f"questions need neighbouring sentences of at least two documents, found {len(pairs)} pairs")
    random = np.random.default_rng(seed)
    lengths = np.array([len(pair.second.split()) for pair in pairs])
    documents = np.array([pair.document for pair in pairs])
    questions: list[Question] = []
    for number in random.permutation(len(pairs))[:num_questions]:
        pair = pairs[number]
        others = np.flatnonzero(documents != pair.document)
        # Of the sentences of other documents, those closest in length; ties in a random order.
        shuffled = random.permutation(others)
        near = shuffled[np.argsort(np.abs(lengths[shuffled] - lengths[number]), kind="stable")]
        wrong = list(dict.fromkeys(pairs[i].second for i in near if pairs[i].second != pair.second))
        answer = int(random.integers(num_candidates))
        candidates = wrong[: num_candidates - 1]
        questions.append(Question(pair.first, (*candidates[:answer], pair.second, *candidates[answer:]), answer))
    if any(len(question.candidates) < num_candidates for question in questions):
        raise ValueError(f"too few different sentences in other documents for {num_candidates} candidates")
    return questions


def as_choices(
    questions: Sequence[Question],
    examples: Sequence[Neighbours],
    tokenizer: Tokenizer,
    *,
    num_shots: int,
    max_length: int,
    seed: int,
) -> list[Choice]:
    """The questions as tokens, each behind `num_shots` examples of its own, shortened from the left where too long."""
    if num_shots > len(examples):
        raise ValueError(f"num_shots: found {num_shots}, there are {len(examples)} examples")
    random = np.random.default_rng((seed, num_shots))
    choices: list[Choice] = []
    for question in questions:
        shown = [examples[i] for i in random.choice(len(examples), size=num_shots, replace=False)]
        lines = "".join(f"{example.first} {example.second}\n" for example in shown)
        candidates = [tokenizer.encode(f" {candidate}") for candidate in question.candidates]
        room = max_length - 1 - max(len(candidate) for candidate in candidates)
        if room < 1:
            raise ValueError(f"a candidate of {max_length - 1 - room} tokens does not fit the context of {max_length}")
        prompt = tokenizer.encode(lines + question.first)[-room:]
        choices.append(Choice([tokenizer.bos_id, *prompt], candidates, question.answer))
    return choices
