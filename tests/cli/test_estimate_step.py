"""The one step that an estimate takes: against plain PyTorch, and through the command."""

from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from pipeline.cli import main
from pipeline.commands.estimate_step import first_step
from pipeline.config import load
from pipeline.stages.translate import TranslateConfig, training_module
from tests.cli.conftest import ROOT

TINY = ROOT / "conf/tiny"
BASE = ROOT / "conf/numbers/wmt14-en-de-base/translate/base.yaml"


def changed(tmp_path: Path, path: Path, changes: dict[str, Any]) -> Path:
    """A copy of a configuration in a profile of its own, with other values; dots lead into nested keys."""
    values = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        *parents, last = key.split(".")
        reduce(dict.__getitem__, parents, values)[last] = value
    copy = tmp_path / "conf/mine/translate" / path.name
    copy.parent.mkdir(parents=True)
    copy.write_text(yaml.safe_dump(values))
    return copy


def test_the_step_is_that_of_plain_pytorch(tmp_path: Path) -> None:
    """Without dropout: cross entropy smoothed over all tokens but <pad>, clipped to norm 1, a first AdamW step at a
    tenth of the peak rate, since ten steps warm up; the losses beside it are not smoothed.
    """
    path = changed(tmp_path, TINY / "translate/transformer.yaml", {"model.dropout": 0.0})
    found = first_step(path, sentence_length=12)

    config = load(path, TranslateConfig)
    torch.manual_seed(config.training.seed)
    model = training_module(config).model.train()
    random = np.random.default_rng(config.training.seed)
    src, labels = (
        F.pad(torch.from_numpy(random.integers(1, 399, (8, 11))), (0, 1)) for _ in range(2)
    )  # id 0, EOS, ends each row
    tgt = torch.cat([torch.full((8, 1), 399), labels[:, :-1]], dim=1)

    def loss(smoothing: float) -> Tensor:
        logits = model.logits(model(src, torch.ones_like(src, dtype=torch.bool), tgt))
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=smoothing)

    assert found.before == pytest.approx(loss(0.0).item(), rel=1e-5)
    torch.autograd.backward(loss(0.1))
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
    assert norm > 1.0 and found.gradient_norm == pytest.approx(norm, rel=1e-4)
    torch.optim.AdamW(model.parameters(), lr=0.0005, betas=(0.9, 0.98), weight_decay=0.0).step()
    assert found.lr == pytest.approx(0.0005)
    assert found.after == pytest.approx(loss(0.0).item(), rel=1e-5)
    assert found.before - found.after > 0.01
    assert found.tokens == {"source": 96, "target": 96}


def test_with_consistency_the_step_is_another_one_on_the_same_batch(tmp_path: Path) -> None:
    path = TINY / "translate/transformer.yaml"
    twice = changed(tmp_path, path, {"consistency": 5.0})
    one, two = (first_step(each, sentence_length=12) for each in (path, twice))
    assert two.before == one.before and two.gradient_norm > 1.05 * one.gradient_norm


def test_a_step_has_sentences_as_long_as_the_model_reads_and_not_longer() -> None:
    path = TINY / "translate/gru.yaml"
    assert first_step(path, sentence_length=48).tokens == {"source": 384, "target": 384}
    with pytest.raises(
        ValueError, match=f"--length: expected at most 48 tokens, the model.max_length of {path}, .* 49"
    ):
        first_step(path, sentence_length=49)


@pytest.mark.parametrize("name", ["translate/transformer", "translate/gru", "pretrain_gpt", "pretrain_bert"])
def test_every_kind_of_training_takes_a_step_that_lowers_the_loss(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(TINY / f"{name}.yaml")
    assert main(["estimate", path]) == 0
    without = capsys.readouterr().out
    assert "optimizer step" not in without
    assert main(["estimate", path, "--step"]) == 0
    step = capsys.readouterr().out.removeprefix(without)
    tokens = "240 source and 240 target tokens" if "translate" in name else "512 text tokens"
    assert tokens in step and "before the step" in step and "after it, lower by" in step
    assert "learning rate" in step and "seconds" in step


def test_wmt14_base_takes_a_step_at_the_first_learning_rate_of_equation_3() -> None:
    """512^-0.5 x 4000^-1.5; untrained scores cost about ln V + 1/2 nats."""
    found = first_step(BASE, sentence_length=6)
    assert found.lr == pytest.approx(512**-0.5 * 4000**-1.5, rel=1e-4)
    assert found.before == pytest.approx(np.log(37_000) + 0.5, abs=0.3)
    assert found.after < found.before - 1e-3
    assert found.clip_norm == 0.0


def test_a_configuration_that_does_not_train_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = changed(tmp_path, TINY / "translate/transformer.yaml", {"residual_init": 1e38})
    assert main(["estimate", str(path), "--step"]) == 2
    error = capsys.readouterr().err
    assert "error: valid/loss is nan after optimizer step 0" in error and "Traceback" not in error
