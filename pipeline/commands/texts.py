"""What the commands for people do with texts: a model folder becomes a function from texts to one-line answers.

Each function answers as many texts as it is given, in their order. The command line owns input and output.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.inference import answering
from pipeline.inference.generation import GreedyConfig, SamplingConfig
from pipeline.inference.models import BothWaysScorer, Classifier, Generator, Scorer, Turn, open_model
from pipeline.inference.tagger import Tagger
from pipeline.inference.translator import Translator
from pipeline.inference.word_folder import open_words
from pipeline.inference.word_models import GapFiller, Neighbours

Answerer = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True)
class Draw:
    """How a GPT is asked; temperature 0 takes the likeliest token."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    seed: int

    @property
    def decoding(self) -> GreedyConfig | SamplingConfig:
        """The same as a configuration; ValueError for a value that is not allowed."""
        if self.temperature == 0.0:
            return GreedyConfig(kind="greedy", max_new_tokens=self.max_new_tokens)
        return SamplingConfig(
            kind="sampling",
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            seed=self.seed,
        )


def continuing(folder: Path, device: torch.device, draw: Draw) -> Answerer:
    """What the GPT writes behind each text."""
    model = _generator(folder, device)
    decoding = draw.decoding
    return lambda texts: model.extend(texts, decoding)


def chatting(folder: Path, device: torch.device, draw: Draw) -> Answerer:
    """One conversation, in which each text is the next turn of the user."""
    model = _generator(folder, device)
    decoding = draw.decoding
    turns: list[Turn] = []

    def answer(texts: Sequence[str]) -> list[str]:
        found = []
        for text in texts:
            (reply,) = model.answer([[*turns, Turn("user", text)]], decoding)
            turns.extend((Turn("user", text), Turn("assistant", reply)))
            found.append(reply)
        return found

    return answer


def scoring(folder: Path, device: torch.device) -> Answerer:
    """The reward of each `request TAB answer`."""
    model = open_model(folder, device)
    if not isinstance(model, Scorer):
        raise wrong_kind(folder, "a reward model", model)

    def score(texts: Sequence[str]) -> list[str]:
        conversations = []
        for text in texts:
            request, tab, answer = text.partition("\t")
            if not tab:
                raise ValueError(f"expected a request, a tab and an answer, found {text[:60]!r}")
            conversations.append([Turn("user", request), Turn("assistant", answer)])
        return [f"{reward:.4f}" for reward in model.score(conversations)]

    return score


def filling(folder: Path, device: torch.device, num_candidates: int) -> Answerer:
    """Each text with its gaps filled and the probability of that behind a tab; or the likeliest tokens of each gap."""
    model = open_model(folder, device)
    if not isinstance(model, GapFiller):
        raise wrong_kind(folder, "a pretrained BERT", model)
    if num_candidates < 0:
        raise ValueError(f"--num: found {num_candidates}, allowed is 0 or more")

    def fill(texts: Sequence[str]) -> list[str]:
        found = model.fill(texts, num_candidates=max(1, num_candidates))
        if not num_candidates:
            return [f"{one.text}\t{one.probability:.4f}" for one in found]
        return [
            " | ".join(", ".join(f"{token} {value:.4f}" for token, value in gap) for gap in one.candidates)
            for one in found
        ]

    return fill


def neighbouring(folder: Path, num_neighbours: int) -> Answerer:
    """The nearest words of each word, with their cosines."""
    model = Neighbours(open_words(folder))
    return lambda words: [
        ", ".join(f"{near} {cosine:.2f}" for near, cosine in found)
        for found in model.nearest(words, num_neighbours=num_neighbours)
    ]


def _generator(folder: Path, device: torch.device) -> Generator:
    model = open_model(folder, device)
    if not isinstance(model, Generator):
        raise wrong_kind(folder, "a GPT", model)
    return model


def wrong_kind(folder: Path, wanted: str, found: object) -> ValueError:
    """The fault of a folder that holds another kind of model than the command is for."""
    kinds = {
        answering.Answerer: "a model that answers questions",
        BothWaysScorer: "a bidirectional language model",
        Classifier: "a classifier",
        GapFiller: "a pretrained BERT",
        Generator: "a GPT",
        Neighbours: "word vectors",
        Scorer: "a reward model",
        Tagger: "a tagger",
        Translator: "a translation model",
    }
    return ValueError(f"{folder}: expected {wanted}, this folder holds {kinds[type(found)]}")
