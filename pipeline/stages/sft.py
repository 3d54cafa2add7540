"""Supervised fine-tuning: a pretrained GPT learns to answer, from conversations, by the loss on their responses.

The start is what the stage pretrain_gpt of the profile handed over: sizes come from its config.json, and its tokenizer
has the tokens of the template, which that of a published GPT-2 has not. The tuned model is compared with the start on
the same held-out conversations, under the same template.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from pydantic import NonNegativeInt, PositiveInt

from pipeline.config import Config, Fraction, TrainingConfig, load
from pipeline.data.batches import InstructionBatch
from pipeline.data.examples.instructions import InstructionExamples, TooLong, instruction_examples
from pipeline.data.prepared import read_conversations
from pipeline.data.records import SPLITS, Conversation
from pipeline.evaluation.held_out import HeldOutLoss, held_out_loss
from pipeline.inference.generation import (
    Answer,
    GreedyConfig,
    are_shortened,
    encode_prompts,
    evenly_spread,
    generate,
)
from pipeline.inference.handover import OpenedGPT, open_gpt, save_gpt
from pipeline.layout import Layout
from pipeline.models.gpt import GPT
from pipeline.objectives.likelihood import token_cross_entropy
from pipeline.objectives.terms import LossTerms
from pipeline.text.tokenizer import Tokenizer
from pipeline.training.base import StageModule
from pipeline.training.fit import fit
from pipeline.training.launch import launch
from pipeline.training.run import stage_run

_TOKENS_PER_BATCH = 8192


class AnswersConfig(Config):
    """Greedy answers to held-out requests, before and after."""

    decoding: GreedyConfig
    """How they are generated."""
    num_requests: PositiveInt
    """Most requests that are answered: different ones, spread over the test split."""
    num_samples: NonNegativeInt
    """How many of the answers are shown."""


class SFTConfig(Config):
    """The stage sft."""

    training: TrainingConfig
    """How it is trained."""
    dropout: Fraction
    """Dropout of the embeddings and of each residual update."""
    max_length: PositiveInt
    """Longest conversation in tokens; at most the context of the model."""
    too_long: TooLong
    """What happens to a response that does not fit: the example is left out and counted, or it is an error."""
    answers: AnswersConfig
    """What is generated after training."""


class SupervisedFineTuning(StageModule[InstructionBatch]):
    """Next-token prediction on the responses of a conversation."""

    model: GPT

    def objective(self, batch: InstructionBatch) -> tuple[LossTerms, ...]:
        """One loss, with response tokens and their <eos> as targets."""
        return (response_loss(self.model, batch),)


def response_loss(model: GPT, batch: InstructionBatch) -> LossTerms:
    """Cross entropy of the responses; prompts and padding are only read. Right padding needs no mask: it is later."""
    logits = model.logits(model(batch.input_ids)[batch.is_response])
    return token_cross_entropy(logits, batch.labels[batch.is_response])


def main(path: Path) -> None:
    """Trains on the responses, compares with the start on held-out conversations, and hands over a GPT."""
    config = load(path, SFTConfig)
    layout = Layout.of(path)
    folder, conversations = layout.model("pretrain_gpt"), layout.data("prepared/conversations")
    with stage_run(__spec__.name, path, config, seed=config.training.seed, inputs=(folder, conversations)) as run:
        opened = open_gpt(folder, dropout=config.dropout)
        check_context(config, opened.model)
        records = {split: read_some(conversations / f"{split}.jsonl") for split in SPLITS}
        encoded = {
            split: instruction_examples(
                records[split], opened.tokenizer, max_length=config.max_length, too_long=config.too_long
            )
            for split in SPLITS
        }
        if not encoded["test"][0].conversations:
            raise ValueError(
                f"{conversations / 'test.jsonl'}: no response of its {len(records['test'])} conversations fits into "
                f"max_length: {config.max_length} of {path}, so that none could be scored"
            )
        requests = choose_requests(records["test"], config.answers.num_requests)
        prompts = prompts_of(requests, opened, config.answers.decoding)
        module = SupervisedFineTuning(opened.model, config.training)
        fit(run, module, train=encoded["train"][0], valid=encoded["valid"][0])
        # Before it answers, so that a fault of that, which ends the stage, does not lose what was trained.
        save_gpt(run.layout.output, module.model, opened.tokenizer)
        before, after = open_gpt(folder), OpenedGPT(module.model, opened.tokenizer)
        before.model.to(next(module.model.parameters()).device)
        answers = [generate(one.model, one.tokenizer, prompts, config.answers.decoding) for one in (before, after)]
        cut = are_shortened([one.messages[:-1] for one in requests], prompts, opened.tokenizer)
        samples = side_by_side(requests, *answers)
        run.finish(
            {
                "data": {split: asdict(report) for split, (_, report) in encoded.items()},
                "response": {
                    "base": response_scores(before.model, records["test"], opened.tokenizer, config),
                    "sft": response_scores(after.model, records["test"], opened.tokenizer, config),
                },
                "greedy": {
                    name: {**ending(found), "num_shortened": sum(cut)}
                    for name, found in zip(("base", "sft"), answers, strict=True)
                },
            },
            history=module.history,
            samples=samples[: config.answers.num_samples],
        )


def read_some(path: Path) -> tuple[Conversation, ...]:
    """The conversations of a split; ValueError says how a split without any gets some."""
    if path.is_file() and not path.stat().st_size:
        raise ValueError(
            f"{path}: no conversations, and sft learns from train, validates on valid and is scored on test: in "
            f"prepare.yaml, a source of conversations goes there by `into: {path.stem}`, or a part of each to every "
            "split by `into: split`"
        )
    return read_conversations(path)


def check_context(config: SFTConfig, model: GPT) -> None:
    """ValueError when conversations may be longer than the context of the model."""
    if config.max_length > model.config.max_length:
        raise ValueError(
            f"max_length: found {config.max_length}, the model's context holds {model.config.max_length} tokens"
        )


def response_scores(
    model: GPT, records: Sequence[Conversation], tokenizer: Tokenizer, config: SFTConfig
) -> dict[str, Any]:
    """Nats a token and perplexity of the responses, over all and by source."""
    by_source: dict[str, HeldOutLoss] = {}
    for source in sorted({record.source for record in records}):
        chosen = [record for record in records if record.source == source]
        examples, _ = instruction_examples(chosen, tokenizer, max_length=config.max_length, too_long=config.too_long)
        if examples.conversations:
            by_source[source] = response_total(model, examples)
    whole = sum(by_source.values(), HeldOutLoss(0.0, 0))
    return {**_score(whole), "by_source": {source: _score(found) for source, found in by_source.items()}}


def response_total(model: GPT, examples: InstructionExamples) -> HeldOutLoss:
    """The loss over all responses of a data set."""
    return held_out_loss(model, examples, lambda batch: response_loss(model, batch), tokens_per_batch=_TOKENS_PER_BATCH)


def _score(loss: HeldOutLoss) -> dict[str, float]:
    return {"nats_per_token": loss.mean, "perplexity": math.exp(loss.mean), "num_tokens": loss.num_targets}


def choose_requests(records: Sequence[Conversation], count: int) -> list[Conversation]:
    """At most `count` conversations whose requests differ, spread over the records."""
    different = list({record.messages[:-1]: record for record in reversed(records)}.values())[::-1]
    return [different[place] for place in evenly_spread(len(different), count)]


def prompts_of(
    requests: Sequence[Conversation], opened: OpenedGPT, decoding: GreedyConfig
) -> list[Int[np.ndarray, "_"]]:
    """The requests as the model reads them, with room for an answer; ValueError where there is none."""
    messages = [one.messages[:-1] for one in requests]
    try:
        return encode_prompts(messages, opened.model, opened.tokenizer, max_new_tokens=decoding.max_new_tokens)
    except ValueError as error:
        raise ValueError(f"answers.decoding.{error}") from error


def ending(answers: Sequence[Answer]) -> dict[str, float]:
    """How answers end: the share with <eos>, and their mean length in tokens."""
    return {
        "ended": sum(one.has_ended for one in answers) / len(answers),
        "length": sum(len(one.token_ids) for one in answers) / len(answers),
        "num_requests": len(answers),
    }


def side_by_side(
    requests: Sequence[Conversation], before: Sequence[Answer], after: Sequence[Answer]
) -> list[dict[str, Any]]:
    """Requests with the answers of both models and of the data."""
    return [
        {
            "source": request.source,
            "prompt": request.messages[-2].content,
            "before": one.text,
            "after": two.text,
            "after_ended": two.has_ended,
            "data": request.messages[-1].content,
        }
        for request, one, two in zip(requests, before, after, strict=True)
    ]


if __name__ == "__main__":
    launch(main)
