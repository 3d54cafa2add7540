"""How much room a profile needs: parameters are counted on models without memory, from the configuration files."""

import torch
from torch import nn

from pipeline.config import C, load
from pipeline.layout import Layout
from pipeline.models.bert import BertConfig, BertForPretraining
from pipeline.models.bilm import BidirectionalLM, BiLMConfig
from pipeline.models.gpt import GPT, GPTConfig
from pipeline.profile import stage_configs
from pipeline.stages.pretrain_bert import PretrainBertConfig
from pipeline.stages.pretrain_bilm import PretrainBiLMConfig
from pipeline.stages.pretrain_gpt import PretrainGPTConfig
from pipeline.stages.tokenize import TokenizeConfig
from pipeline.stages.translate import TranslateConfig, build_model

_FLOAT = 4
_CHECKPOINTS = 3
"""Two are kept while a third is written."""
_DATA = 2_000_000_000
"""Archives, texts, token arrays and word vectors of the default profile, with their copies in the cache of DVC."""


def needed_bytes(layout: Layout) -> int:
    """Room for data, for every model three times (DVC and MLflow keep copies), and for the largest checkpoints.

    A checkpoint holds weights and two moments. Those of a stage go when it ends, so that only one stage counts.
    """
    berts, gpts, bilms, translators = parameters(layout)
    # BERT, its four fine-tunings and two BiLSTMs, which are smaller; GPT, its fine-tuning, SFT, reward, DPO and PPO;
    # the bidirectional language model, and the classifier that it is a part of.
    handed_over = 7 * sum(berts) + 6 * sum(gpts) + 2 * sum(bilms) + sum(translators)
    largest = max(*berts, *(2 * gpt for gpt in gpts), *bilms, *translators)  # PPO trains a policy and a critic
    return _DATA + 3 * _FLOAT * handed_over + _CHECKPOINTS * 3 * _FLOAT * largest


def parameters(layout: Layout) -> tuple[list[int], list[int], list[int], list[int]]:
    """Parameters of each BERT, GPT, bidirectional language model and translation model.

    ValueError names a file that is missing or not valid.
    """
    (tokenizers,) = _load(layout, "tokenize", TokenizeConfig)
    if tokenizers.wordpiece is None or tokenizers.byte_bpe is None:
        raise ValueError(f"conf/{layout.profile}/tokenize.yaml: no tokenizer for BERT, or none for GPT")
    words, pieces = tokenizers.wordpiece.vocab_size, tokenizers.byte_bpe.vocab_size
    with torch.device("meta"):
        berts: list[nn.Module] = [
            BertForPretraining(BertConfig(vocab_size=words, **one.model.model_dump()))
            for one in _load(layout, "pretrain_bert", PretrainBertConfig)
        ]
        gpts: list[nn.Module] = [
            GPT(GPTConfig(vocab_size=pieces, **one.model.model_dump()))
            for one in _load(layout, "pretrain_gpt", PretrainGPTConfig)
        ]
        bilms: list[nn.Module] = [
            BidirectionalLM(BiLMConfig(vocab_size=pieces, **one.model.model_dump()))
            for one in _load(layout, "pretrain_bilm", PretrainBiLMConfig)
        ]
        translators: list[nn.Module] = [build_model(one.model) for one in _load(layout, "translate", TranslateConfig)]
    return _count(berts), _count(gpts), _count(bilms), _count(translators)


def _load(layout: Layout, stage: str, schema: type[C]) -> list[C]:
    paths = stage_configs(layout.profile, stage)
    if not paths:
        raise ValueError(f"conf/{layout.profile}: no configuration of {stage}")
    return [load(path, schema) for path in paths]


def _count(models: list[nn.Module]) -> list[int]:
    return [sum(parameter.numel() for parameter in model.parameters()) for model in models]
