"""BERT pretraining: masked words and next sentences (Devlin et al. 2019, section 3.1).

The two losses have denominators of their own: masked positions, and rows that are pairs of segments. Their sum is
minimised, and each is reported beside what knows no context.
"""

from pathlib import Path

import numpy as np
from pydantic import PositiveInt

from pipeline.artifacts import publish, save_model
from pipeline.config import Config, Fraction, Probability, TrainingConfig, load
from pipeline.data.batches import MaskedBatch
from pipeline.data.loaders import Cut, validation_batches
from pipeline.data.masking import MaskedExamples, vocabulary
from pipeline.data.records import SPLITS
from pipeline.data.token_arrays import TokenArrays, read_token_arrays
from pipeline.evaluation.perplexity import unigram_entropy
from pipeline.layout import Layout
from pipeline.models.bert import BertConfig, BertForPretraining
from pipeline.models.huggingface.bert import bert_to_huggingface
from pipeline.objectives.likelihood import class_cross_entropy, token_cross_entropy
from pipeline.objectives.terms import LossTerms
from pipeline.stages.base import StageModule
from pipeline.stages.held_out import EvenlySpaced
from pipeline.stages.launch import launch
from pipeline.stages.run import stage_run
from pipeline.stages.training import fit
from pipeline.text.tokenizer import Tokenizer, load_tokenizer


class EncoderConfig(Config):
    """Shape of the encoder; the vocabulary comes from the tokenizer."""

    d_model: PositiveInt
    """Width of the residual stream."""
    num_layers: PositiveInt
    """Transformer layers."""
    num_heads: PositiveInt
    """Attention heads; must divide d_model."""
    d_ff: PositiveInt
    """Width of the feed-forward networks."""
    max_length: PositiveInt
    """Longest sequence in tokens: the number of learned positions."""
    dropout: Fraction
    """Dropout of the embeddings and of each residual update."""
    attention_dropout: Fraction
    """Dropout of the attention weights."""


class MaskingConfig(Config):
    """How sentence pairs are drawn and masked."""

    mask_share: Probability
    """Share of the ordinary tokens that are predicted."""
    short_share: Probability
    """Share of the rows that aim at a random shorter length."""
    whole_words: bool
    """Whether the pieces of a word are masked together."""


class PretrainBertConfig(Config):
    """The stage pretrain_bert."""

    training: TrainingConfig
    """How it is trained."""
    model: EncoderConfig
    """What is trained."""
    masking: MaskingConfig
    """What it is trained on."""
    num_valid_rows: PositiveInt
    """Rows of the validation documents, spread over them, that are scored during training."""


class BertPretraining(StageModule[MaskedBatch]):
    """Two losses with denominators of their own: masked positions and sentence pairs."""

    model: BertForPretraining

    def objective(self, batch: MaskedBatch) -> tuple[LossTerms, ...]:
        """Only the masked positions go through the vocabulary projection."""
        masked, pairs = batch.is_masked, batch.is_pair
        hidden = self.model(batch.input_ids, batch.token_type_ids, batch.attention_mask)
        words = token_cross_entropy(self.model.mlm_logits(hidden[masked]), batch.labels[masked], name="mlm")
        sentences = class_cross_entropy(
            self.model.nsp_logits(hidden[pairs]), batch.next_sentence_labels[pairs], name="nsp"
        )
        return words, sentences


def main(path: Path) -> None:
    """Trains on the training documents, scores the held-out ones with the masks of epoch 0, and hands over a BERT."""
    config = load(path, PretrainBertConfig)
    layout = Layout.of(path)
    inputs = (layout.data("tokens/wordpiece"), layout.data("tokens/text-wordpiece"))
    with stage_run(__spec__.name, path, config, seed=config.training.seed, inputs=inputs) as run:
        tokenizer = load_tokenizer(inputs[0])
        tokens = {split: read_token_arrays(inputs[1] / split, tokenizer_hash=tokenizer.hash) for split in SPLITS}
        rows = {split: masked_examples(tokens[split], tokenizer, config) for split in SPLITS}
        shape = BertConfig(vocab_size=tokenizer.vocab_size, **config.model.model_dump())
        module = BertPretraining(BertForPretraining(shape), config.training)
        fit(run, module, train=rows["train"], valid=EvenlySpaced(rows["valid"], config.num_valid_rows))
        test = validation_batches(rows["test"], config.training.batching, Cut(0, 1, 1))
        scores = module.validate(test)
        with publish(run.layout.output) as folder:
            save_model(folder, *bert_to_huggingface(module.model, pad_token_id=tokenizer.pad_id))
            tokenizer.save(folder)
        is_random = rows["test"].next_sentence_labels(epoch=0)
        run.finish(
            {
                "mlm": {"nats": scores["mlm"], "accuracy": scores["mlm/accuracy"]},
                "nsp": {"nats": scores["nsp"], "accuracy": scores["nsp/accuracy"], "num_pairs": len(is_random)},
                "baselines": {
                    "unigram_entropy": unigram_entropy(tokens["test"].gather(np.arange(tokens["test"].num_tokens))),
                    "nsp_majority": float(max(is_random.mean(), 1.0 - is_random.mean())),
                },
            },
            history=module.history,
        )


def masked_examples(tokens: TokenArrays, tokenizer: Tokenizer, config: PretrainBertConfig) -> MaskedExamples:
    """The rows of one split."""
    return MaskedExamples(
        tokens,
        vocabulary(tokenizer),
        max_length=config.model.max_length,
        mask_share=config.masking.mask_share,
        short_share=config.masking.short_share,
        whole_words=config.masking.whole_words,
        seed=config.training.seed,
    )


if __name__ == "__main__":
    launch(main)
