"""Fine-tuning on tags of words: entities, each a span with a type (Devlin et al. 2019, section 5.3)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.artifacts import read_json
from pipeline.config import TrainingConfig
from pipeline.data.batches import TaggingBatch
from pipeline.data.examples.tagging import TaggingExamples, tagging_examples
from pipeline.data.prepared import read_tagged
from pipeline.data.preparing.tasks import TASK
from pipeline.data.records import SPLITS, Tagged
from pipeline.evaluation.frequent_tags import frequent_tags, tag_by_frequency
from pipeline.evaluation.tagging import entities, strict_entities, tagging_score
from pipeline.inference.tagging import best_tags, predict
from pipeline.models.bert import Bert, Pooler
from pipeline.models.heads import TokenClassifier
from pipeline.models.huggingface.bert import token_classifier_to_huggingface
from pipeline.objectives.likelihood import token_cross_entropy
from pipeline.objectives.terms import LossTerms
from pipeline.stages.finetune_task import Answers, Evaluation, by_split
from pipeline.text.tags import iob2_tags, marked
from pipeline.text.tokenizer import Tokenizer
from pipeline.training.base import StageModule

_NUM_SAMPLES = 20


class TagFineTuning(StageModule[TaggingBatch]):
    """The tag of every word by cross entropy."""

    model: TokenClassifier

    def objective(self, batch: TaggingBatch) -> tuple[LossTerms, ...]:
        """One loss with words as targets."""
        scores = self.model(batch.input_ids, batch.token_type_ids, batch.attention_mask)
        return (token_cross_entropy(scores[batch.is_target], batch.labels[batch.is_target]),)


@dataclass(frozen=True)
class TaggingTask:
    """Sentences with tags, encoded; splits by name, train and valid among them."""

    labels: tuple[str, ...]
    """The tags in the order of their numbers."""
    sentences: Mapping[str, Sequence[Tagged]]
    examples: Mapping[str, TaggingExamples]
    pad_id: int

    @property
    def train(self) -> TaggingExamples:
        """What is learned from."""
        return self.examples["train"]

    @property
    def valid(self) -> TaggingExamples:
        """What the loss is watched on."""
        return self.examples["valid"]

    @property
    def counts(self) -> Mapping[str, Any]:
        """Sentences and words of each split, and what did not fit: nothing of it is without a tag."""
        examples = self.examples
        return {
            "num_texts": {split: len(one.num_words) for split, one in examples.items()},
            "num_words": {split: sum(one.num_words) for split, one in examples.items()},
            "num_split": {split: one.num_split for split, one in examples.items()},
            "num_shortened_words": {split: one.num_shortened for split, one in examples.items()},
            "num_unreadable_words": {split: one.num_unreadable for split, one in examples.items()},
        }

    def network(self, encoder: Bert, pooler: Pooler, *, dropout: float) -> TokenClassifier:
        """The state of each token, dropout, one linear layer; the pooler is left behind."""
        return TokenClassifier(encoder, num_labels=len(self.labels), dropout=dropout)

    def module(self, model: TokenClassifier, training: TrainingConfig) -> TagFineTuning:
        """The network with its loss."""
        return TagFineTuning(model, training)

    def export(self, model: TokenClassifier) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        """A `BertForTokenClassification`."""
        return token_classifier_to_huggingface(model, pad_token_id=self.pad_id, labels=self.labels)

    def answer(self, model: TokenClassifier) -> Answers[Sequence[Sequence[str]]]:
        """The tags of every held-out sentence."""
        held_out = [split for split in self.sentences if split != "train"]
        return Answers(
            {split: [best_tags(one, self.labels) for one in predict(model, self.examples[split])] for split in held_out}
        )

    def evaluate(self, answers: Answers[Sequence[Sequence[str]]]) -> Evaluation:
        """Scores test if there is one, otherwise valid, and the other beside it."""
        known = frequent_tags((one.words, one.tags) for one in self.sentences["train"])
        results, files, samples = {}, {}, []
        main = "test" if "test" in answers.by_split else "valid"
        for split, found in answers.by_split.items():
            sentences = self.sentences[split]
            results[split] = {
                "score": _scores(found, sentences),
                "baselines": {
                    "frequent_tag": _scores([tag_by_frequency(known, one.words) for one in sentences], sentences)
                },
            }
            files[f"{split}.conll"] = conll_rows(sentences, found)
            if split == main:
                samples = [
                    {"text": " ".join(one.words), "label": _shown(one, one.tags), "prediction": _shown(one, tags)}
                    for one, tags in zip(sentences[:_NUM_SAMPLES], found, strict=False)
                ]
        return Evaluation(metrics=by_split(results, main), samples=samples, predictions=files)


def open_tagging(folder: Path, tokenizer: Tokenizer, *, max_length: int) -> TaggingTask:
    """Reads and encodes the task that prepare wrote into `folder`; ValueError names file and line of a fault."""
    found = read_json(folder / TASK)
    if not isinstance(found, dict) or found.get("kind") != "tagging":
        raise ValueError(f"{folder / TASK}: expected a task of the kind 'tagging', found {found}")
    labels = iob2_tags(found["types"])
    paths: dict[str, Path] = {split: folder / f"{split}.jsonl" for split in SPLITS}
    sentences: dict[str, Sequence[Tagged]] = {
        split: read_tagged(path) for split, path in paths.items() if split != "test" or path.is_file()
    }
    examples = {}
    for split, rows in sentences.items():
        try:
            examples[split] = tagging_examples(rows, tokenizer, labels=labels, max_length=max_length)
        except ValueError as error:
            raise ValueError(f"{paths[split]}: {error}") from error
    return TaggingTask(labels, sentences, examples, tokenizer.pad_id)


def conll_rows(sentences: Sequence[Tagged], predicted: Sequence[Sequence[str]]) -> str:
    """What conlleval reads: word, true tag and predicted tag, an empty line behind each sentence.

    Columns stand between spaces, so that one within a word is written `_`.
    """
    lines = []
    for sentence, tags in zip(sentences, predicted, strict=True):
        for word, true, found in zip(sentence.words, sentence.tags, tags, strict=True):
            lines.append(f"{'_'.join(word.split()) or '_'} {true} {found}\n")
        lines.append("\n")
    return "".join(lines)


def _scores(predicted: Sequence[Sequence[str]], sentences: Sequence[Tagged]) -> dict[str, Any]:
    """conlleval's figures, and the F1 of seqeval's strict mode."""
    true = [one.tags for one in sentences]
    score = tagging_score(predicted, true)
    strict = tagging_score(predicted, true, read=partial(strict_entities, scheme="iob2"))
    return {
        **asdict(score.total),
        "strict_f1": strict.total.f1,
        "accuracy": score.accuracy,
        # A list: types are what people call them, as G#protein, and not all of that may name a metric.
        "by_type": [{"type": kind, **asdict(one)} for kind, one in score.by_type.items()],
    }


def _shown(sentence: Tagged, tags: Sequence[str]) -> str:
    return marked(sentence.words, sorted(entities(tags), key=lambda one: one.start))
