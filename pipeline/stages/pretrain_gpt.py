"""GPT pretraining: next-token prediction on windows of text (Radford et al. 2019), here with documents apart."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from pipeline.config import Config, Fraction, TrainingConfig, load
from pipeline.data.batches import CausalBatch
from pipeline.data.examples.windows import EvaluationWindows, TrainingWindows
from pipeline.data.prepared import read_documents
from pipeline.data.records import SPLITS
from pipeline.data.token_arrays import read_token_arrays
from pipeline.evaluation.few_shot import Choice, few_shot_score
from pipeline.evaluation.held_out import EvenlySpaced
from pipeline.evaluation.next_sentence import as_choices, ask, neighbours
from pipeline.inference.handover import save_gpt
from pipeline.layout import Layout
from pipeline.models.gpt import GPT, GPTConfig
from pipeline.objectives.terms import LossTerms
from pipeline.stages.language_model import (
    LanguageModelEvaluation,
    causal_loss,
    evaluate_language_model,
    texts_by_source,
)
from pipeline.text.tokenizer import Tokenizer, load_tokenizer
from pipeline.training.base import StageModule
from pipeline.training.fit import fit
from pipeline.training.launch import launch
from pipeline.training.run import stage_run

_log = logging.getLogger(__name__)
_ROWS_PER_BATCH = 32


class DecoderConfig(Config):
    """Shape of the GPT; the vocabulary comes from the tokenizer."""

    d_model: PositiveInt
    """Width of the residual stream; the feed-forward network is four times as wide."""
    num_layers: PositiveInt
    """Transformer layers."""
    num_heads: PositiveInt
    """Attention heads; must divide d_model."""
    max_length: PositiveInt
    """Longest context in tokens, and the length of the training windows."""
    dropout: Fraction
    """Dropout of the embeddings and of each residual update."""
    attention_dropout: Fraction
    """Dropout of the attention weights."""


class FewShotConfig(Config):
    """Choosing the next sentence of held-out text, with and without solved examples before the question."""

    num_questions: PositiveInt
    """Most questions, taken from the test documents."""
    num_candidates: Annotated[int, Field(ge=2)]
    """Sentences to choose from; chance is one over it."""
    num_shots: tuple[NonNegativeInt, ...]
    """Numbers of solved examples, from the validation documents; each is scored on the same questions."""
    min_words: PositiveInt
    """Fewest words of a sentence."""
    max_words: PositiveInt
    """Most words of a sentence."""
    seed: NonNegativeInt
    """Seed of the questions and of the examples."""


class PretrainGPTConfig(Config):
    """The stage pretrain_gpt."""

    training: TrainingConfig
    """How it is trained."""
    model: DecoderConfig
    """What is trained."""
    num_valid_windows: PositiveInt
    """Windows of the validation text, spread over it, that are scored during training."""
    evaluation: LanguageModelEvaluation
    """How it is scored afterwards."""
    few_shot: FewShotConfig | None
    """What it is asked afterwards; null for a text without sentences to ask about."""


class GPTPretraining(StageModule[CausalBatch]):
    """One loss, with every token of the text as a target."""

    model: GPT

    def objective(self, batch: CausalBatch) -> tuple[LossTerms, ...]:
        """Next-token prediction within documents."""
        return (causal_loss(self.model, batch),)


def main(path: Path) -> None:
    """Trains on the training documents, scores the held-out ones, and hands over a GPT."""
    config = load(path, PretrainGPTConfig)
    layout = Layout.of(path)
    text, tokenizer_folder, arrays = (layout.data(part) for part in ("prepared/text", "tokens/bpe", "tokens/text-bpe"))
    inputs = (text, tokenizer_folder, arrays)
    with stage_run(__spec__.name, path, config, seed=config.training.seed, inputs=inputs) as run:
        tokenizer = load_tokenizer(tokenizer_folder)
        tokens = {split: read_token_arrays(arrays / split, tokenizer_hash=tokenizer.hash) for split in SPLITS}
        length = config.model.max_length
        valid = EvaluationWindows(tokens["valid"], length=length, num_context=0, pad_id=tokenizer.pad_id)
        asked = _choices(path, text, tokenizer, config)
        shape = GPTConfig(vocab_size=tokenizer.vocab_size, **config.model.model_dump())
        module = GPTPretraining(GPT(shape), config.training)
        fit(
            run,
            module,
            train=TrainingWindows(tokens["train"], length=length, seed=config.training.seed),
            valid=EvenlySpaced(valid, config.num_valid_windows),
        )
        # Before the scores, so that a fault of one, which ends the stage, does not lose what was trained.
        save_gpt(run.layout.output, module.model, tokenizer)
        texts = texts_by_source(tokens["test"], read_documents(text / "test.jsonl"))
        scores = evaluate_language_model(
            module.model, tokenizer, texts, tokens["train"], text / "train.jsonl", config.evaluation
        )
        few_shot = {"few_shot": {"next_sentence": few_shot_scores(module.model, tokenizer, asked)}} if asked else {}
        run.finish({"test": scores, **few_shot}, history=module.history)


def _choices(path: Path, text: Path, tokenizer: Tokenizer, config: PretrainGPTConfig) -> dict[int, list[Choice]]:
    """What the model is to be asked, by the number of examples; ValueError, before any training, where it cannot be."""
    few_shot = config.few_shot
    if few_shot is None:
        return {}
    asked, shown = (
        neighbours(read_documents(text / f"{split}.jsonl"), min_words=few_shot.min_words, max_words=few_shot.max_words)
        for split in ("test", "valid")
    )
    try:
        questions = ask(
            asked, num_questions=few_shot.num_questions, num_candidates=few_shot.num_candidates, seed=few_shot.seed
        )
        return {
            num_shots: as_choices(
                questions,
                shown,
                tokenizer,
                num_shots=num_shots,
                max_length=config.model.max_length,
                seed=few_shot.seed,
            )
            for num_shots in few_shot.num_shots
        }
    except ValueError as error:
        raise ValueError(f"{path}: few_shot: {error} ({text}); null asks nothing") from error


def few_shot_scores(
    model: GPT, tokenizer: Tokenizer, asked: Mapping[int, Sequence[Choice]]
) -> dict[str, dict[str, float]]:
    """Accuracy beside chance, by the number of examples; each with the standard error of its proportion."""
    device = next(model.parameters()).device
    found: dict[str, dict[str, float]] = {}
    for num_shots, choices in asked.items():
        _log.info("evaluating: next sentence after %d examples", num_shots)
        score = few_shot_score(model, choices, pad=tokenizer.pad_id, batch_size=_ROWS_PER_BATCH, device=device)
        error = math.sqrt(score.accuracy * (1.0 - score.accuracy) / len(choices))
        found[f"{num_shots}_shot"] = {**asdict(score), "standard_error": error, "num_questions": len(choices)}
    return found


if __name__ == "__main__":
    launch(main)
