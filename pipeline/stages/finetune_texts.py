"""Fine-tuning on texts and pairs of texts: classes, or a real value (Devlin et al. 2019, section 4.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from pipeline.config import TrainingConfig
from pipeline.data.batches import SequenceBatch
from pipeline.data.examples.classification import (
    LabelledText,
    SequenceExamples,
    classification_examples,
    regression_examples,
    unlabelled_examples,
)
from pipeline.data.plan import one_pass
from pipeline.data.preparing.glue import (
    GlueName,
    Score,
    index_of,
    is_asked,
    leaderboard_rows,
    predictions_file,
    reported_scores,
)
from pipeline.evaluation.bag_of_words import bag_of_words_classes, bag_of_words_values
from pipeline.evaluation.glue import classification_score, majority_score, regression_score
from pipeline.evaluation.held_out import in_view
from pipeline.models.heads import SequenceClassifier
from pipeline.models.huggingface.text_classifiers import text_classifier_to_huggingface
from pipeline.models.text_encoders import GPTEncoder, TextEncoder, TextPooler
from pipeline.objectives.likelihood import class_cross_entropy, squared_error
from pipeline.objectives.terms import LossTerms
from pipeline.stages.baselines import notes_on_words
from pipeline.stages.finetune_task import Answers, Evaluation, by_split
from pipeline.text.tokenizer import Role, Tokenizer
from pipeline.training.base import StageModule

_TOKENS_PER_BATCH = 8192
_NUM_SAMPLES = 20


class FineTuning(StageModule[SequenceBatch]):
    """Classes by cross entropy, or a real value by squared error."""

    model: SequenceClassifier

    def objective(self, batch: SequenceBatch) -> tuple[LossTerms, ...]:
        """One loss with texts as targets."""
        scores = self.model(batch.input_ids, batch.token_type_ids, batch.attention_mask)
        if batch.labels.is_floating_point():
            return (squared_error(scores.squeeze(-1), batch.labels),)
        return (class_cross_entropy(scores, batch.labels),)


@dataclass(frozen=True)
class Target:
    """What is said of a text."""

    classes: tuple[str, ...]
    """The classes in the order of their numbers; none for a real value."""
    value: str = "value"
    """What the real value is called."""
    glue: GlueName | None = None
    """The task of the benchmark, whose own figure is then given too."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs of the network."""
        return self.classes or (self.value,)


@dataclass(frozen=True)
class TextTask:
    """Texts with classes or values, encoded; splits by name, train and valid among them."""

    target: Target
    texts: Mapping[str, Sequence[LabelledText]]
    examples: Mapping[str, SequenceExamples]
    token_ids: Mapping[str, int]
    """Special tokens as config.json names them."""

    @property
    def train(self) -> SequenceExamples:
        """What is learned from."""
        return self.examples["train"]

    @property
    def valid(self) -> SequenceExamples:
        """What the loss is watched on."""
        return self.examples["valid"]

    @property
    def counts(self) -> Mapping[str, Any]:
        """Texts of each split, and how many of them lost their ends."""
        return {
            "num_texts": {split: len(texts) for split, texts in self.texts.items()},
            "num_shortened": {split: examples.num_shortened for split, examples in self.examples.items()},
        }

    def network(self, encoder: TextEncoder, pooler: TextPooler, *, dropout: float) -> SequenceClassifier:
        """Pooled vector, dropout, one linear layer, which has no bias on a GPT (Radford et al. 2018, eq. 3)."""
        return SequenceClassifier(
            encoder,
            pooler,
            num_labels=len(self.target.labels),
            dropout=dropout,
            has_bias=not isinstance(encoder, GPTEncoder),
        )

    def module(self, model: SequenceClassifier, training: TrainingConfig) -> FineTuning:
        """The network with its loss."""
        return FineTuning(model, training)

    def export(self, model: SequenceClassifier) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        """The class for sequence classification of a BERT or a GPT-2, or a layout of our own."""
        return text_classifier_to_huggingface(model, token_ids=self.token_ids, labels=self.target.labels)

    def answer(self, model: SequenceClassifier) -> Answers[np.ndarray]:
        """Class numbers, or real values, of every held-out text."""
        return Answers({split: predict(model, self.examples[split]) for split in self.texts if split != "train"})

    def evaluate(self, answers: Answers[np.ndarray]) -> Evaluation:
        """Scores test if its labels are known, otherwise valid; other splits with labels come beside it.

        A task of the benchmark is scored on its dev set even so: its test set is what the leaderboard asks for.
        """
        found = answers.by_split
        scored = [split for split in found if is_labelled(self.texts[split])]
        main = "test" if "test" in scored and not self.target.glue else "valid"
        by_words = self._by_words(scored)
        results = {split: self._score(found[split], by_words[split], split) for split in scored}
        # MNLI is scored on two sets, whose mean counts.
        counted = [one for split, one in results.items() if self.target.glue and split.startswith(main)]
        return Evaluation(
            metrics={
                **by_split(results, main),
                **(_means(counted) if counted else {}),
                **notes_on_words(self._words("train")),
            },
            samples=[
                {"text": text.text}
                | ({"second": text.second} if text.second is not None else {})
                | {"label": text.label, "prediction": answer}
                for text, answer in zip(
                    self.texts[main][:_NUM_SAMPLES], self._answers(found[main][:_NUM_SAMPLES]), strict=True
                )
            ],
            predictions={
                name: text for split, values in found.items() for name, text in self._files(split, values).items()
            },
        )

    def _by_words(self, splits: Sequence[str]) -> dict[str, np.ndarray]:
        """What a bag of words, fitted once, says of some splits."""
        known, asked = self._words("train"), {split: self._words(split) for split in splits}
        every = [text for texts in asked.values() for text in texts]
        if self.target.classes:
            said: np.ndarray = bag_of_words_classes(known, self.train.labels, every)
        else:
            said = bag_of_words_values(known, self.train.labels.astype(np.float64), every)
        ends = np.cumsum([len(texts) for texts in asked.values()])
        return dict(zip(asked, np.split(said, ends[:-1]), strict=True))

    def _score(self, predictions: np.ndarray, by_words: np.ndarray, split: str) -> dict[str, Any]:
        """The model's scores beside those of a bag of words, and of the majority class where there are classes."""
        labels, train_labels = self.examples[split].labels, self.train.labels
        scores: dict[str, Mapping[str, float]] = {"score": self._scores(predictions, labels)}
        if self.target.classes:
            num_classes = len(self.target.classes)
            scores["majority"] = asdict(majority_score(train_labels, labels, num_classes=num_classes))
        scores["bag_of_words"] = self._scores(by_words, labels)
        if self.target.glue:
            reported = reported_scores(self.target.glue, split)
            scores = {name: {**one, "glue": glue_figure(one, reported)} for name, one in scores.items()}
        return {"score": scores.pop("score"), "baselines": scores}

    def _scores(
        self, predictions: Integer[np.ndarray, "N"] | Float[np.ndarray, "N"], labels: np.ndarray
    ) -> dict[str, float]:
        if self.target.classes:
            return asdict(classification_score(predictions, labels, num_classes=len(self.target.classes)))
        return asdict(regression_score(predictions.astype(np.float64), labels.astype(np.float64)))

    def _words(self, split: str) -> list[str]:
        """Texts as the bag of words sees them: a pair as one text."""
        return [text.text if text.second is None else f"{text.text} {text.second}" for text in self.texts[split]]

    def _answers(self, predictions: np.ndarray) -> list[str | float]:
        if self.target.classes:
            return [self.target.classes[number] for number in predictions]
        return [float(value) for value in predictions]

    def _files(self, split: str, predictions: np.ndarray) -> dict[str, str]:
        """Files of predictions: what the leaderboard takes of its test sets, and a table, but not of hidden labels."""
        answers = [str(answer) for answer in self._answers(predictions)]
        texts, glue = self.texts[split], self.target.glue
        indices = [index_of(text.id, split) or str(i) for i, text in enumerate(texts)]
        files = {}
        if glue and is_asked(split):
            files[predictions_file(glue, split)] = leaderboard_rows(indices, answers, glue)
        if not files or is_labelled(texts):
            rows = (f"{i}\t{text.label}\t{said}\n" for i, text, said in zip(indices, texts, answers, strict=True))
            files[f"{split}.tsv"] = "index\tlabel\tprediction\n" + "".join(rows)
        return files


def _means(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The benchmark's figure over the sets that count, and those of the baselines over the same ones."""
    beside = results[0]["baselines"]
    return {
        "glue": fmean(one["score"]["glue"] for one in results),
        "glue_baselines": {name: fmean(one["baselines"][name]["glue"] for one in results) for name in beside},
    }


def open_texts(
    texts: Mapping[str, Sequence[LabelledText]], target: Target, tokenizer: Tokenizer, *, max_length: int
) -> TextTask:
    """Encodes every split; ValueError names a text whose label is not allowed, and a split without texts.

    Where no text of a split has a label, they are answered and not scored; some without is a fault.
    """
    encoded = {}
    for split, rows in texts.items():
        if not rows:
            raise ValueError(f"the split {split} has no texts")
        if split not in ("train", "valid") and not is_labelled(rows):
            encoded[split] = unlabelled_examples(rows, tokenizer, max_length=max_length)
        elif target.classes:
            encoded[split] = classification_examples(rows, tokenizer, classes=target.classes, max_length=max_length)
        else:
            encoded[split] = regression_examples(rows, tokenizer, max_length=max_length)
    roles: tuple[Role, ...] = ("pad", "bos", "eos")
    ids = {f"{role}_token_id": tokenizer.id_of(role) for role in roles if role in tokenizer.special}
    return TextTask(target, texts, encoded, ids)


def is_labelled(texts: Sequence[LabelledText]) -> bool:
    """Whether any of these has a label."""
    return any(text.label for text in texts)


def glue_figure(scores: Mapping[str, float], reported: Sequence[Score]) -> float:
    """What the benchmark counts for a task: the mean of the scores that it reports, times 100."""
    return 100.0 * sum(scores[name] for name in reported) / len(reported)


@torch.no_grad()
def predict(model: SequenceClassifier, data: SequenceExamples) -> np.ndarray:
    """Class numbers, or real values, in the order of the examples."""
    device = next(model.parameters()).device
    is_value = model.classifier.out_features == 1
    result = np.zeros(len(data.input_ids), dtype=np.float32 if is_value else np.int64)
    sizes = data.sizes(0)
    was_training = model.training
    model.eval()
    for step in in_view(one_pass(sizes, tokens_per_batch=_TOKENS_PER_BATCH), name="predicting"):
        batch = data.collate(step.indices, 0).to(device)
        scores = model(batch.input_ids, batch.token_type_ids, batch.attention_mask)
        found = scores.squeeze(-1) if is_value else scores.argmax(-1)
        result[step.indices] = found.cpu().numpy()
    model.train(was_training)
    return result


def labelled_rows(path: Path, rows: Sequence[Any]) -> list[LabelledText]:
    """Prepared rows as labelled texts that know where they stand."""
    return [
        LabelledText(text=row.text, second=row.second, label=row.label, where=f"{path}, id {row.id}", id=row.id)
        for row in rows
    ]
