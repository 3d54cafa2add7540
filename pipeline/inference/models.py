"""Trained model folders at work: texts in, answers out. For the command line and for the model server.

`open_model` reads config.json and returns what the folder is: a `Generator`, `Translator`, `Classifier`, `Tagger`,
`Answerer`, `Scorer`, `GapFiller`, `BothWaysScorer` or `Neighbours`. Each takes many texts at once and needs nothing but
the folder.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from pipeline.artifacts import CONFIG, ModelFolder, load_model, read_json
from pipeline.config import first_problem
from pipeline.data.examples.classification import LabelledText, unlabelled_examples
from pipeline.data.examples.pieces import PieceBatch
from pipeline.data.plan import Step, one_pass
from pipeline.inference.answering import Answerer, open_answerer
from pipeline.inference.both_ways import both_ways_loss
from pipeline.inference.device import CPU
from pipeline.inference.generation import GreedyConfig, SamplingConfig, encode_prompts, generate
from pipeline.inference.handover import open_gpt, open_reward
from pipeline.inference.packed import pack
from pipeline.inference.tagger import Tagger
from pipeline.inference.translator import Translator
from pipeline.inference.translator_folder import open_translator
from pipeline.inference.word_folder import open_words
from pipeline.inference.word_models import GapFiller, Neighbours
from pipeline.kinds import Problem, has_one_answer, kind_of, output_names, problem_of
from pipeline.models.bilm import BidirectionalLM
from pipeline.models.gpt import GPT
from pipeline.models.heads import RewardModel, SequenceClassifier
from pipeline.models.huggingface.bert import masked_words_from_huggingface, token_classifier_from_huggingface
from pipeline.models.huggingface.text_classifiers import bilm_from_huggingface, text_classifier_from_huggingface
from pipeline.text.chat import ChatRole, encode_conversation, encode_turn
from pipeline.text.tokenizer import Tokenizer, load_tokenizer, reading_length
from pipeline.workers import side_by_side

_TOKENS_AT_ONCE = 2048
"""Padded tokens that a classifier computes together."""
_TRUE_ABOVE = 0.5
"""The probability above which a label that does not exclude the others is said of a text."""


@dataclass(frozen=True)
class Turn:
    """One message of a conversation."""

    role: ChatRole
    content: str


class Generator:
    """A GPT that continues texts and answers conversations."""

    def __init__(self, model: GPT, tokenizer: Tokenizer) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer

    def answer(self, conversations: Sequence[Sequence[Turn]], decoding: GreedyConfig | SamplingConfig) -> list[str]:
        """The assistant's next turn in each conversation, which ends with a turn of the user.

        Old turns are left out whole where they do not fit; ValueError names a last turn that does not fit by itself.
        """
        tokens = decoding.max_new_tokens
        prompts = encode_prompts(conversations, self.model, self.tokenizer, max_new_tokens=tokens)
        for turns in conversations:
            # <bos> and <assistant> are around it.
            self._check_fits(turns[-1].content, 2 + len(encode_turn(turns[-1], self.tokenizer)), tokens)
        return [answer.text.strip() for answer in generate(self.model, self.tokenizer, prompts, decoding)]

    def extend(self, texts: Sequence[str], decoding: GreedyConfig | SamplingConfig) -> list[str]:
        """What follows each text; ValueError names a text that does not fit."""
        room = self.model.config.max_length - decoding.max_new_tokens - 1
        if room < 1:
            raise ValueError(
                f"max_new_tokens: found {decoding.max_new_tokens}, allowed is less than the context less one, "
                f"{self.model.config.max_length - 1}"
            )
        encoded = self.tokenizer.encode_batch(texts)
        for text, ids in zip(texts, encoded, strict=True):
            self._check_fits(text, 1 + len(ids), decoding.max_new_tokens)
        prompts = [np.array([self.tokenizer.bos_id, *ids], dtype=np.int64) for ids in encoded]
        return [answer.text for answer in generate(self.model, self.tokenizer, prompts, decoding)]

    def _check_fits(self, text: str, length: int, max_new_tokens: int) -> None:
        """Raises ValueError for a prompt that leaves no room for its answer."""
        longest = self.model.config.max_length - max_new_tokens
        if length > longest:
            shown = repr(text[:60]) + ("..." if len(text) > 60 else "")
            raise ValueError(
                f"a text has {length} tokens, the context of {self.model.config.max_length} leaves {longest} beside "
                f"max_new_tokens {max_new_tokens}: {shown}"
            )


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one text: the likeliest class, all labels that are likelier than not, or its values."""

    labels: tuple[str, ...]
    """Names of classes or labels, the likeliest first, or of all values; empty where no label is likelier than not."""
    values: tuple[float, ...]
    """The probability of each, or the value."""
    is_cut: bool
    """Whether the text was longer than the model reads: only its beginning counted."""

    @property
    def label(self) -> str:
        """The likeliest class, or the name of the one value."""
        return self.labels[0]

    @property
    def value(self) -> float:
        """Its probability, or the one value."""
        return self.values[0]


class Classifier:
    """A network that classifies texts, or predicts numbers for each."""

    def __init__(
        self,
        model: SequenceClassifier,
        tokenizer: Tokenizer,
        *,
        labels: Sequence[str],
        problem: Problem,
        max_length: int,
    ) -> None:
        """`labels` name the outputs, `problem` says what they are; a text is read as far as `max_length` tokens."""
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.labels = tuple(labels)
        self.problem = problem
        self.max_length = max_length

    @property
    def has_one_answer(self) -> bool:
        """Whether every prediction is one class, or one value."""
        return has_one_answer(self.problem, len(self.labels))

    def classify(self, texts: Sequence[str], second: Sequence[str] | None = None) -> list[Prediction]:
        """One prediction for each text, or for each pair where the second texts are given too.

        Of what is longer than the model reads only the beginning counts, of a pair those of both. Texts of like length
        are computed together.
        """
        if not texts:
            return []
        others = [None] * len(texts) if second is None else second
        labelled = [LabelledText(one, other, label="", where="") for one, other in zip(texts, others, strict=True)]
        examples = unlabelled_examples(labelled, self.tokenizer, max_length=self.max_length)
        sizes = examples.sizes(0)
        steps = one_pass(sizes, tokens_per_batch=_TOKENS_AT_ONCE)
        device = next(self.model.parameters()).device

        @torch.inference_mode()
        def scored(step: Step) -> Tensor:
            batch = examples.collate(step.indices, 0).to(device)
            scores: Tensor = self.model(batch.input_ids, batch.token_type_ids, batch.attention_mask)
            return scores.cpu()

        found: list[Prediction | None] = [None] * len(texts)
        computed = side_by_side(scored, steps) if device == CPU else map(scored, steps)
        for step, scores in zip(steps, computed, strict=True):
            for place, row in zip(step.indices.tolist(), scores, strict=True):
                found[place] = self._prediction(row, is_cut=bool(examples.is_shortened[place]))
        return [one for one in found if one is not None]

    def _prediction(self, scores: Tensor, *, is_cut: bool) -> Prediction:
        match self.problem:
            case "single_label_classification":
                values, chosen = scores.softmax(0), [int(scores.argmax())]
            case "multi_label_classification":
                values = scores.sigmoid()
                chosen = [i for i in values.argsort(descending=True, stable=True).tolist() if values[i] > _TRUE_ABOVE]
            case "regression":
                values, chosen = scores, list(range(len(self.labels)))
            case _:
                assert_never(self.problem)
        return Prediction(tuple(self.labels[i] for i in chosen), tuple(values[chosen].tolist()), is_cut)


class Scorer:
    """A reward model: how good an answer is."""

    def __init__(self, model: RewardModel, tokenizer: Tokenizer) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer

    @torch.inference_mode()
    def score(self, conversations: Sequence[Sequence[Turn]]) -> list[float]:
        """The reward of each conversation, which ends with a turn of the assistant."""
        longest, device = self.model.trunk.config.max_length, next(self.model.parameters()).device
        results: list[float] = []
        for turns in conversations:
            encoded = encode_conversation(turns, self.tokenizer, max_length=longest)
            if encoded is None:
                raise ValueError(f"a conversation does not fit into {longest} tokens: {turns[-1].content[:60]!r}...")
            ids = torch.from_numpy(encoded.ids)[None].to(device)
            results.append(float(self.model(ids, torch.tensor([ids.shape[1] - 1], device=device))))
        return results


class BothWaysScorer:
    """A bidirectional language model: how surprising a text is to each of its directions."""

    def __init__(self, model: BidirectionalLM, tokenizer: Tokenizer) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer

    @torch.inference_mode()
    def score(self, texts: Sequence[str]) -> list[tuple[float, float]]:
        """Nats a token of each text: ahead, its end among the tokens, and back, its beginning among them."""
        device = next(self.model.parameters()).device
        results: list[tuple[float, float]] = []
        for encoded in self.tokenizer.encode_batch(texts):
            ids = torch.tensor([[self.tokenizer.bos_id, *encoded, self.tokenizer.eos_id]], device=device)
            terms = both_ways_loss(self.model, PieceBatch(ids, torch.ones_like(ids).bool()))
            ahead, back = (float(term.loss_sum) / term.num_targets for term in terms)
            results.append((ahead, back))
        return results


Model = Generator | Translator | Classifier | Tagger | Answerer | Scorer | GapFiller | BothWaysScorer | Neighbours


def open_model(folder: Path, device: torch.device = CPU) -> Model:
    """What a model folder holds, ready to use on a device; ValueError names a folder that is none of these kinds."""
    model = _opened(folder)
    put_on(model, device)
    return model


def put_on(model: Model, device: torch.device) -> None:
    """Moves a model to a device, where it computes from then on; word vectors stay with the CPU.

    On the CPU its large layers are laid out for that and cannot be moved again.
    """
    match model:
        case Neighbours():
            networks: tuple[nn.Module, ...] = ()
        case Translator():
            networks = (model.model, *model.others)
        case _:
            networks = (model.model,)
    for network in networks:
        network.to(device)
        if device == CPU:
            pack(network)


def _opened(folder: Path) -> Model:
    match kind_of(read_json(folder / CONFIG) if folder.is_dir() else {}, folder):
        case "gpt":
            gpt = open_gpt(folder)
            return Generator(gpt.model, gpt.tokenizer)
        case "reward":
            reward = open_reward(folder)
            return Scorer(reward.model, reward.tokenizer)
        case "bert":
            return _open_gap_filler(folder, load_model(folder))
        case "bilm":
            return _open_both_ways(folder, load_model(folder))
        case "classifier":
            return _open_classifier(folder, load_model(folder))
        case "tagger":
            return _open_tagger(folder, load_model(folder))
        case "answerer":
            return open_answerer(folder)
        case "translator":
            return open_translator(folder)
        case "word_vectors":
            return Neighbours(open_words(folder))


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Puts the folder before what is wrong with it."""
    try:
        yield
    except ValidationError as error:
        raise ValueError(f"{folder}: config.json: {first_problem(error)}") from error
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def _open_gap_filler(folder: Path, found: ModelFolder) -> GapFiller:
    with _named(folder):
        model = masked_words_from_huggingface(found.config, found.state)
    tokenizer = load_tokenizer(folder)
    tokenizer.check_fits(model.config.vocab_size, folder)
    return GapFiller(model, tokenizer)


def _open_both_ways(folder: Path, found: ModelFolder) -> BothWaysScorer:
    with _named(folder):
        model = bilm_from_huggingface(found.config, found.state)
    tokenizer = load_tokenizer(folder)
    tokenizer.check_fits(model.config.vocab_size, folder)
    return BothWaysScorer(model, tokenizer)


def _open_classifier(folder: Path, found: ModelFolder) -> Classifier:
    with _named(folder):
        model = text_classifier_from_huggingface(found.config, found.state)
        labels = output_names(found.config)
        problem = problem_of(found.config)
    tokenizer = load_tokenizer(folder)
    shape = model.encoder.config
    tokenizer.check_fits(shape.vocab_size, folder)
    length = reading_length(folder, positions=shape.max_length)
    return Classifier(model, tokenizer, labels=labels, problem=problem, max_length=length)


def _open_tagger(folder: Path, found: ModelFolder) -> Tagger:
    tokenizer = load_tokenizer(folder)
    with _named(folder):
        if not found.config.get("id2label"):
            raise ValueError("config.json: no id2label, so that nobody knows the tags of the model")
        labels = output_names(found.config)
        model = token_classifier_from_huggingface(found.config, found.state)
    shape = model.encoder.config
    length = reading_length(folder, positions=shape.max_length)
    with _named(folder):
        tagger = Tagger(model, tokenizer, labels=labels, max_length=length)
    tokenizer.check_fits(shape.vocab_size, folder)
    return tagger
