"""Fine-tuning of BERT on a task of texts: classes or a real value (Devlin et al. 2019, section 4.1).

One configuration is one training: the same network from random weights is a configuration of its own.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt

from pipeline.artifacts import load_model, publish, save_model
from pipeline.config import ByTokens, Config, Fraction, TrainingConfig, load
from pipeline.data.batches import SequenceBatch
from pipeline.data.classification import (
    LabelledText,
    SequenceExamples,
    classification_examples,
    regression_examples,
)
from pipeline.data.plan import plan_epoch
from pipeline.data.prepared import read_rated
from pipeline.data.records import SPLITS
from pipeline.evaluation.bag_of_words import bag_of_words_classes, bag_of_words_values
from pipeline.evaluation.glue import classification_score, majority_score, regression_score
from pipeline.layout import Layout
from pipeline.models.bert import Bert, Pooler
from pipeline.models.heads import SequenceClassifier
from pipeline.models.huggingface.bert import bert_encoder_from_huggingface, sequence_classifier_to_huggingface
from pipeline.objectives.likelihood import class_cross_entropy, squared_error
from pipeline.objectives.terms import LossTerms
from pipeline.stages.base import StageModule
from pipeline.stages.held_out import in_view
from pipeline.stages.launch import launch
from pipeline.stages.run import stage_run
from pipeline.stages.training import fit
from pipeline.text.tokenizer import Tokenizer, load_tokenizer

POLARITIES = ("negative", "positive")
"""The classes of polarity, in the order of their numbers."""

_TOKENS_PER_BATCH = 8192
_NUM_SAMPLES = 20


class PolarityTask(Config):
    """Positive or negative: rated texts whose mean rating is far enough from neutral."""

    kind: Literal["polarity"]
    domains: tuple[str, ...]
    """Domains of the texts."""
    min_strength: PositiveFloat
    """Smallest absolute mean rating of a text that counts as polar."""


class RatingTask(Config):
    """The mean rating itself, from -4 to 4."""

    kind: Literal["rating"]
    domains: tuple[str, ...]
    """Domains of the texts."""


class FinetuneConfig(Config):
    """The stage finetune."""

    training: TrainingConfig
    """How it is trained."""
    task: Annotated[PolarityTask | RatingTask, Field(discriminator="kind")]
    """What is learned."""
    start: Literal["pretrained", "random"]
    """Weights of the encoder at the beginning: those of pretrain_bert, or random ones of the same shape."""
    max_length: PositiveInt
    """Longest text in tokens; a longer one is shortened and counted."""
    dropout: Fraction
    """Dropout of the encoder and before the classifier."""
    attention_dropout: Fraction = 0.0
    """Dropout of the attention weights (published: 0.1); what the encoder was pretrained with does not count."""


class FineTuning(StageModule[SequenceBatch]):
    """Classes by cross entropy, or a real value by squared error."""

    model: SequenceClassifier

    def objective(self, batch: SequenceBatch) -> tuple[LossTerms, ...]:
        """One loss with texts as targets."""
        scores = self.model(batch.input_ids, batch.token_type_ids, batch.attention_mask)
        if batch.labels.is_floating_point():
            return (squared_error(scores.squeeze(-1), batch.labels),)
        return (class_cross_entropy(scores, batch.labels),)


def read_task(layout: Layout, split: str, task: PolarityTask | RatingTask) -> list[LabelledText]:
    """The labelled texts of one split; ValueError when none is left."""
    path = layout.data(f"prepared/rated/{split}.jsonl")
    texts = [text for text in read_rated(path) if text.domain in task.domains]
    match task:
        case PolarityTask():
            texts = [text for text in texts if abs(text.mean) >= task.min_strength]
            labels = [POLARITIES[text.mean > 0] for text in texts]
        case RatingTask():
            labels = [repr(text.mean) for text in texts]
    if not texts:
        raise ValueError(f"{path}: no texts of the domains {sorted(task.domains)} for the task {task.kind}")
    return [
        LabelledText(text=text.text, second="", label=label, where=f"{path}, id {text.id}")
        for text, label in zip(texts, labels, strict=True)
    ]


def examples(
    texts: list[LabelledText], tokenizer: Tokenizer, task: PolarityTask | RatingTask, *, max_length: int
) -> SequenceExamples:
    """The encoded texts of a task."""
    match task:
        case PolarityTask():
            return classification_examples(texts, tokenizer, classes=POLARITIES, max_length=max_length)
        case RatingTask():
            return regression_examples(texts, tokenizer, max_length=max_length)


@torch.no_grad()
def predict(model: SequenceClassifier, data: SequenceExamples) -> np.ndarray:
    """Class numbers, or real values, in the order of the examples."""
    device = next(model.parameters()).device
    result = np.zeros(len(data.input_ids), dtype=data.labels.dtype)
    batching = ByTokens(kind="tokens", tokens_per_step=_TOKENS_PER_BATCH)
    for step in in_view(plan_epoch(data.sizes(0), batching, seed=0, epoch=0), name="predicting"):
        batch = data.collate(step.indices, 0).to(device)
        scores = model(batch.input_ids, batch.token_type_ids, batch.attention_mask)
        found = scores.squeeze(-1) if scores.shape[1] == 1 else scores.argmax(-1)
        result[step.indices] = found.cpu().numpy()
    return result


def main(path: Path) -> None:
    """Trains on one task and scores the test split beside what knows less."""
    config = load(path, FinetuneConfig)
    layout = Layout.of(path)
    folder = layout.model("pretrain_bert")
    inputs = (folder, layout.data("prepared/rated"))
    with stage_run(__spec__.name, path, config, seed=config.training.seed, inputs=inputs) as run:
        tokenizer = load_tokenizer(folder)
        texts = {split: read_task(layout, split, config.task) for split in SPLITS}
        train, valid, test = (
            examples(one, tokenizer, config.task, max_length=config.max_length) for one in texts.values()
        )
        labels = POLARITIES if isinstance(config.task, PolarityTask) else ("rating",)
        model = build_model(folder, config, num_labels=len(labels))
        tokenizer.check_fits(model.encoder.config.vocab_size, folder)
        module = FineTuning(model, config.training)
        fit(run, module, train=train, valid=valid)
        predictions = predict(module.model, test)
        with publish(run.layout.output) as target:
            exported = sequence_classifier_to_huggingface(module.model, pad_token_id=tokenizer.pad_id, labels=labels)
            save_model(target, *exported)
            tokenizer.save(target)
        run.finish(
            {
                **scores(config.task, predictions, train, test, texts),
                "num_texts": {split: len(one) for split, one in texts.items()},
                "num_shortened": {
                    split: one.num_shortened for split, one in zip(SPLITS, (train, valid, test), strict=True)
                },
            },
            history=module.history,
            samples=[
                {"text": text.text, "label": text.label, "prediction": predictions[i].item()}
                for i, text in enumerate(texts["test"][:_NUM_SAMPLES])
            ],
        )


def build_model(folder: Path, config: FinetuneConfig, *, num_labels: int) -> SequenceClassifier:
    """The pretrained encoder with a new classifier, or the same network from random weights."""
    found = load_model(folder)
    dropouts = {"hidden_dropout_prob": config.dropout, "attention_probs_dropout_prob": config.attention_dropout}
    encoder, pooler = bert_encoder_from_huggingface({**found.config, **dropouts}, found.state)
    if config.start == "random":
        encoder, pooler = Bert(encoder.config), Pooler(encoder.config.d_model, initial_std=encoder.config.initial_std)
    if config.max_length > encoder.config.max_length:
        raise ValueError(
            f"max_length: {config.max_length} is longer than the {encoder.config.max_length} positions of {folder}"
        )
    return SequenceClassifier(encoder, pooler, num_labels=num_labels, dropout=config.dropout)


def scores(
    task: PolarityTask | RatingTask,
    predictions: np.ndarray,
    train: SequenceExamples,
    test: SequenceExamples,
    texts: Mapping[Literal["train", "valid", "test"], list[LabelledText]],
) -> dict[str, Any]:
    """The metrics of the task beside those of a bag of words, and of the majority class where there are classes."""
    known, asked = ([text.text for text in texts[split]] for split in ("train", "test"))
    match task:
        case PolarityTask():
            words = bag_of_words_classes(known, train.labels, asked)
            majority = majority_score(train.labels, test.labels, num_classes=2)
            return {
                "score": asdict(classification_score(predictions, test.labels, num_classes=2)),
                "baselines": {
                    "majority": asdict(majority),
                    "bag_of_words": asdict(classification_score(words, test.labels, num_classes=2)),
                },
            }
        case RatingTask():
            values = bag_of_words_values(known, train.labels.astype(np.float64), asked).astype(np.float64)
            truth = test.labels.astype(np.float64)
            return {
                "score": asdict(regression_score(predictions.astype(np.float64), truth)),
                "baselines": {"bag_of_words": asdict(regression_score(values, truth))},
            }


if __name__ == "__main__":
    launch(main)
