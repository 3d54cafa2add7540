"""The profile `paper` holds complete configurations of the published sizes: each file loads, each size is counted."""

import ast
import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.config import Config, load
from pipeline.models.bert import Bert, BertConfig, BertForPretraining, Pooler
from pipeline.stages.pretrain_bert import PretrainBertConfig
from pipeline.stages.tokenize import TokenizeConfig

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "conf/paper"
FILES = sorted(PAPER.rglob("*.yaml"))


def schema_of(stage: str) -> type[Config]:
    """The configuration class that a stage gives to the loader, read from its source: `load(path, Schema)`."""
    tree = ast.parse((ROOT / f"pipeline/stages/{stage}.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = [
        call.args[1].id
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "load" and isinstance(call.args[1], ast.Name)
    ]
    assert len(names) == 1, f"{stage}: expected one load(path, Schema), found {names}"
    schema: type[Config] = getattr(importlib.import_module(f"pipeline.stages.{stage}"), names[0])
    return schema


def num_parameters(model: nn.Module) -> int:
    """Parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PAPER).as_posix())
def test_every_file_of_the_paper_profile_loads_with_the_schema_of_its_stage(path: Path) -> None:
    stage = path.relative_to(PAPER).with_suffix("").parts[0]
    assert load(path, schema_of(stage))


@pytest.mark.parametrize(
    ("size", "published", "whole", "encoder"),
    [("base", 110e6, 110_106_428, 109_482_240), ("large", 340e6, 336_226_108, 335_141_888)],
)
def test_bert_has_the_published_size(size: str, published: float, whole: int, encoder: int) -> None:
    """Devlin et al. 2019, section 3, round: 110 M and 340 M.

    By hand, for base: embeddings (30522 + 512 + 2) x 768 and a norm 1,536; a layer has attention 4 x (768^2 + 768),
    feed-forward 2 x 768 x 3072 + 3072 + 768 and two norms 3,072, together 7,087,872; the pooler 768^2 + 768. The heads:
    dense 768^2 + 768, norm 1,536, a bias of 30,522 (the matrix is the embedding), next sentence 2 x 768 + 2.
    """
    config = load(PAPER / f"pretrain_bert/{size}.yaml", PretrainBertConfig)
    tokenizers = load(PAPER / "tokenize.yaml", TokenizeConfig)
    assert tokenizers.wordpiece
    shape = BertConfig(vocab_size=tokenizers.wordpiece.vocab_size, **config.model.model_dump())
    with torch.device("meta"):
        model, alone = BertForPretraining(shape), (Bert(shape), Pooler(shape.d_model))
    assert num_parameters(model) == whole
    assert sum(num_parameters(part) for part in alone) == encoder
    assert abs(whole / published - 1) < 0.012
