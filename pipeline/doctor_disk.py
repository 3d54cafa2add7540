"""How much room a profile needs: parameters are counted on models without memory, from the configuration files."""

from pathlib import Path

import torch
from torch import nn

from pipeline.config import load
from pipeline.layout import Layout
from pipeline.models.bert import BertConfig, BertForPretraining
from pipeline.models.gpt import GPT, GPTConfig
from pipeline.stages.pretrain_bert import PretrainBertConfig
from pipeline.stages.pretrain_gpt import PretrainGPTConfig
from pipeline.stages.tokenize import TokenizeConfig
from pipeline.stages.translate import TranslateConfig, build_model

_FLOAT = 4
_CHECKPOINTS = 3
"""Two are kept while a third is written."""
_DATA = 2_000_000_000
"""Archives, texts, token arrays and word vectors of the default profile, with their copies in the cache of DVC."""


def needed_bytes(layout: Layout) -> int:
    """Room for data, for every model twice (DVC keeps a copy), and for the checkpoints of the largest training.

    A checkpoint holds weights and two moments. Those of a stage go when it ends, so that only one stage counts.
    """
    bert, gpt, translators = parameters(layout)
    # BERT and its two fine-tunings, GPT, SFT, reward, DPO and PPO.
    handed_over = 3 * bert + 5 * gpt + sum(translators)
    largest = max(bert, 2 * gpt, *translators)  # PPO trains a policy and a critic
    return _DATA + 2 * _FLOAT * handed_over + _CHECKPOINTS * 3 * _FLOAT * largest


def parameters(layout: Layout) -> tuple[int, int, list[int]]:
    """Parameters of BERT, of GPT, and of each translation model; ValueError names a file that is not valid."""
    folder = Path("conf", layout.profile)
    tokenizers = load(folder / "tokenize.yaml", TokenizeConfig)
    if tokenizers.wordpiece is None or tokenizers.byte_bpe is None:
        raise ValueError(f"{folder / 'tokenize.yaml'}: no tokenizer for BERT or none for GPT")
    encoder = load(folder / "pretrain_bert.yaml", PretrainBertConfig).model
    decoder = load(folder / "pretrain_gpt.yaml", PretrainGPTConfig).model
    with torch.device("meta"):
        bert = BertForPretraining(BertConfig(vocab_size=tokenizers.wordpiece.vocab_size, **encoder.model_dump()))
        gpt = GPT(GPTConfig(vocab_size=tokenizers.byte_bpe.vocab_size, **decoder.model_dump()))
        paths = sorted((folder / "translate").glob("*.yaml"))
        translators = [build_model(load(path, TranslateConfig).model) for path in paths]
    return _count(bert), _count(gpt), [_count(model) for model in translators]


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
