"""The profile `paper` holds the published sizes of BERT, counted by hand; other models are counted by their tests."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.config import load
from pipeline.models.bert import Bert, BertConfig, BertForPretraining, Pooler
from pipeline.stages.pretrain_bert import PretrainBertConfig
from pipeline.stages.tokenize import TokenizeConfig

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "conf/paper"


def num_parameters(model: nn.Module) -> int:
    """Parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "published", "whole", "encoder"),
    [
        ("pretrain_bert", 110e6, 110_106_428, 109_482_240),
        ("pretrain_bert_large", 340e6, 336_226_108, 335_141_888),
    ],
)
def test_bert_has_the_published_size(name: str, published: float, whole: int, encoder: int) -> None:
    """Devlin et al. 2019, section 3, round: 110 M and 340 M.

    By hand, for base: embeddings (30522 + 512 + 2) x 768 and a norm 1,536; a layer has attention 4 x (768^2 + 768),
    feed-forward 2 x 768 x 3072 + 3072 + 768 and two norms 3,072, together 7,087,872; the pooler 768^2 + 768. The heads:
    dense 768^2 + 768, norm 1,536, a bias of 30,522 (the matrix is the embedding), next sentence 2 x 768 + 2.
    """
    config = load(PAPER / f"{name}.yaml", PretrainBertConfig)
    tokenizers = load(PAPER / "tokenize.yaml", TokenizeConfig)
    assert tokenizers.wordpiece
    shape = BertConfig(vocab_size=tokenizers.wordpiece.vocab_size, **config.model.model_dump())
    with torch.device("meta"):
        model, alone = BertForPretraining(shape), (Bert(shape), Pooler(shape.d_model))
    assert num_parameters(model) == whole
    assert sum(num_parameters(part) for part in alone) == encoder
    assert abs(whole / published - 1) < 0.012
