"""Fine-tuning of BERT on a task (Devlin et al. 2019, section 4): texts, pairs of texts, tags of words, and questions.

One configuration is one training: the same network from random weights is a configuration of its own, and so is each
network that stands beside BERT (finetune_networks.py). What is learned is a task (finetune_task.py); the weights come
from the stage that pretrains the network, or from any BERT or GPT-2 in the layout of Hugging Face.
"""

import logging
from pathlib import Path
from typing import Annotated, Any, TypeVar, assert_never

import numpy as np
from pydantic import Field, PositiveInt, model_validator
from torch import nn

from pipeline.artifacts import load_model, publish, save_model, write_json
from pipeline.config import Config, Fraction, TrainingConfig, load
from pipeline.data.batches import Batch, Examples, TokenExamples
from pipeline.data.plan import TrainingPlan
from pipeline.layout import Layout
from pipeline.models.bert import Bert, Pooler
from pipeline.models.bilstm import build_pooling
from pipeline.models.heads import SequenceClassifier
from pipeline.models.huggingface.bert import bert_encoder_from_huggingface
from pipeline.models.read_rows import narrow, widen
from pipeline.models.text_encoders import LastTokenPooling, TextEncoder, TextPooler
from pipeline.models.text_flops import text_training_flops
from pipeline.stages.finetune_answers import QuestionsTask
from pipeline.stages.finetune_networks import (
    BertNetwork,
    BiLMNetwork,
    BiLSTMNetwork,
    GPTNetwork,
    Network,
    Start,
    bilm_encoder,
    bilstm_encoder,
    check_length,
    gpt_encoder,
    open_tokenizer,
    pretraining_stage,
)
from pipeline.stages.finetune_sources import TaggingTaskConfig, Task, open_task, sources
from pipeline.text.tokenizer import Tokenizer
from pipeline.training.base import StageModule
from pipeline.training.fit import fit
from pipeline.training.launch import launch
from pipeline.training.run import StageRun, stage_run

log = logging.getLogger(__name__)

B = TypeVar("B", bound=Batch)


class FinetuneConfig(Config):
    """The stage finetune."""

    training: TrainingConfig
    """How it is trained."""
    task: Annotated[Task, Field(discriminator="kind")]
    """What is learned."""
    network: Annotated[Network, Field(discriminator="kind")] = BertNetwork(kind="bert")
    """What learns it."""
    encoder: str = ""
    """Folder of the network's pretrained model, its tokenizer with it; empty for that of its stage of pretraining."""
    start: Start
    """Weights of the encoder at the beginning: those of its folder, or random ones of the same shape."""
    max_length: PositiveInt
    """Longest text, or pair of texts, in tokens; a longer one is shortened, for tags cut into several, and counted. A
    longer passage of a question is read through several windows. The folder of the model keeps it."""
    dropout: Fraction
    """Dropout of the encoder and before the classifier."""
    attention_dropout: Fraction = 0.0
    """Dropout of the attention weights (published: 0.1); what the encoder was pretrained with does not count."""

    @model_validator(mode="after")
    def _network_has_what_is_asked_of_it(self) -> "FinetuneConfig":
        kind = self.network.kind
        if kind != "bert" and isinstance(self.task, TaggingTaskConfig | QuestionsTask):
            raise ValueError(f"network: a task of {self.task.kind} is learned by bert alone, found {kind}")
        if kind == "bilstm" and self.start != "random":
            raise ValueError("start: a bilstm has no pretrained weights, allowed is random")
        if kind in ("bilstm", "bilm") and self.attention_dropout:
            raise ValueError(f"attention_dropout is for bert and gpt, found {self.attention_dropout} for {kind}")
        return self


def main(path: Path) -> None:
    """Trains on one task and scores what was held out beside what knows less."""
    config = load(path, FinetuneConfig)
    layout = Layout.of(path)
    folder = Path(config.encoder) if config.encoder else layout.model(pretraining_stage(config.network))
    inputs = (folder, *vectors(config.network), *sources(config.task, layout))
    with stage_run(__spec__.name, path, config, seed=config.training.seed, inputs=inputs) as run:
        tokenizer = open_tokenizer(config.network, folder)
        task = open_task(config.task, layout, tokenizer, max_length=config.max_length)
        encoder, pooler = build_network(folder, config, tokenizer)
        tokenizer.check_fits(encoder.config.vocab_size, folder)
        module = task.module(task.network(encoder, pooler, dropout=config.dropout), config.training)
        fit_read_rows(run, module, encoder, train=task.train, valid=task.valid)
        answers = task.answer(module.model)
        with publish(run.layout.output) as target:
            save_model(target, *task.export(module.model))
            for name, values in answers.settings.items():
                write_json(target / name, values)
            tokenizer.save(target, max_length=config.max_length)
        # Behind the model, so that a fault of a baseline, which ends the stage, does not lose what was trained.
        evaluation = task.evaluate(answers)
        run.finish(
            {
                **evaluation.metrics,
                **task.counts,
                "training": {
                    "num_parameters": sum(parameter.numel() for parameter in module.model.parameters()),
                    "num_steps": module.num_steps,
                    "flops": training_flops(module.model, encoder, task.train, config.training),
                },
            },
            history=module.history,
            samples=evaluation.samples,
            predictions=evaluation.predictions,
        )


def vectors(network: Network) -> tuple[Path, ...]:
    """The folder of word vectors that a network begins with, if it does."""
    return (Path(network.vectors),) if isinstance(network, BiLSTMNetwork) and network.vectors else ()


def build_network(folder: Path, config: FinetuneConfig, tokenizer: Tokenizer) -> tuple[TextEncoder, TextPooler]:
    """The encoder of a configuration and what makes one vector of its states; ValueError names what does not fit."""
    network = config.network
    match network:
        case BertNetwork():
            return build_encoder(folder, config)
        case GPTNetwork():
            gpt = gpt_encoder(
                folder,
                tokenizer,
                start=config.start,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                max_length=config.max_length,
            )
            return gpt, LastTokenPooling()
        case BiLSTMNetwork():
            lstm = bilstm_encoder(network, tokenizer, dropout=config.dropout, max_length=config.max_length)
            return lstm, build_pooling(network.pooling, lstm.config.d_model)
        case BiLMNetwork():
            over = bilm_encoder(
                network, folder, start=config.start, dropout=config.dropout, max_length=config.max_length
            )
            return over, build_pooling(network.pooling, over.config.d_model)
        case _:
            assert_never(network)


def build_encoder(folder: Path, config: FinetuneConfig) -> tuple[Bert, Pooler]:
    """The pretrained encoder with its pooler, or the same networks from random weights.

    A folder without a pooler gets one from the seed, as in `transformers`; ValueError names a folder that does not fit.
    """
    found = load_model(folder)
    dropouts = {"hidden_dropout_prob": config.dropout, "attention_probs_dropout_prob": config.attention_dropout}
    try:
        encoder, pooler = bert_encoder_from_huggingface({**found.config, **dropouts}, found.state)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    shape = encoder.config
    check_length(config.max_length, shape.max_length, folder)
    if config.start == "random":
        return Bert(shape), Pooler(shape.d_model, initial_std=shape.initial_std)
    if pooler is None:
        pooler = Pooler(shape.d_model, initial_std=shape.initial_std)
        # Neither the network of tags nor that of questions reads it.
        if not isinstance(config.task, TaggingTaskConfig | QuestionsTask):
            log.warning("%s: the weights have no pooler (bert.pooler.dense): it begins from the seed", folder)
    return encoder, pooler


def fit_read_rows(
    run: StageRun, module: StageModule[B], encoder: TextEncoder, *, train: TokenExamples[B], valid: TokenExamples[B]
) -> None:
    """`fit`, in which `encoder` has of its token vectors those alone that the examples read."""
    token_ids = np.union1d(train.token_ids(), valid.token_ids())
    whole = narrow(encoder, token_ids)
    if whole:
        log.info("%d of %d token vectors are read, no other is trained", len(token_ids), whole.num_embeddings)
    fit(run, module, train=train, valid=valid)
    if whole:
        widen(module.model, whole)


def training_flops(network: nn.Module, encoder: TextEncoder, train: Examples[Any], training: TrainingConfig) -> float:
    """Operations of the matrix products of a training in the encoder, padding, head and validations left out."""
    plan = TrainingPlan(train, training.batching, training.duration, seed=training.seed)
    lengths = train.sizes(0).lengths
    reads_first = isinstance(network, SequenceClassifier)
    return sum(
        text_training_flops(encoder, lengths[step.indices], reads_first=reads_first) for _, step in plan.steps(0)
    )


if __name__ == "__main__":
    launch(main)
