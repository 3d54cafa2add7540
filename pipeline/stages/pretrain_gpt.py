"""GPT pretraining: next-token prediction on windows of running text, documents apart (Radford et al. 2019)."""

from pathlib import Path

from pydantic import PositiveInt

from pipeline.config import Config, Fraction, TrainingConfig, load
from pipeline.data.batches import CausalBatch
from pipeline.data.prepared import read_documents
from pipeline.data.records import SPLITS
from pipeline.data.token_arrays import read_token_arrays
from pipeline.data.windows import EvaluationWindows, TrainingWindows
from pipeline.layout import Layout
from pipeline.models.gpt import GPT, GPTConfig
from pipeline.objectives.terms import LossTerms
from pipeline.stages.base import StageModule
from pipeline.stages.handover import save_gpt
from pipeline.stages.held_out import EvenlySpaced
from pipeline.stages.language_model import (
    LanguageModelEvaluation,
    causal_loss,
    evaluate_language_model,
    texts_by_source,
)
from pipeline.stages.launch import launch
from pipeline.stages.run import stage_run
from pipeline.stages.training import fit
from pipeline.text.tokenizer import load_tokenizer


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
        shape = GPTConfig(vocab_size=tokenizer.vocab_size, **config.model.model_dump())
        module = GPTPretraining(GPT(shape), config.training)
        fit(
            run,
            module,
            train=TrainingWindows(tokens["train"], length=length, seed=config.training.seed),
            valid=EvenlySpaced(valid, config.num_valid_windows),
        )
        texts = texts_by_source(tokens["test"], read_documents(text / "test.jsonl"))
        scores = evaluate_language_model(
            module.model, tokenizer, texts, tokens["train"], text / "train.jsonl", config.evaluation
        )
        save_gpt(run.layout.output, module.model, tokenizer)
        run.finish({"test": scores}, history=module.history)


if __name__ == "__main__":
    launch(main)
