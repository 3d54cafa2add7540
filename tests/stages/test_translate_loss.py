"""What the stage translate minimises, against PyTorch's own cross entropy and the definitions."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from pipeline.data.batches import TranslationBatch
from pipeline.stages.translate import TranslateConfig, TranslationTraining, training_module
from tests.stages.test_translate import KINDS, examples, pairs, settings, tokenizer


def training(kind: str, *, dropout: float = 0.0, **changes: Any) -> TranslationTraining:
    config = TranslateConfig.model_validate(settings(kind, dropout=dropout) | changes)
    torch.manual_seed(1)
    return training_module(config)


def scores_without_pad(module: TranslationTraining, src: Tensor, src_mask: Tensor, tgt: Tensor) -> Tensor:
    scores = module.model.logits(module.model(src, src_mask, tgt))
    assert scores.shape[-1] == tokenizer().vocab_size
    return scores[..., : tokenizer().pad_id]


@pytest.mark.parametrize("kind", KINDS)
def test_training_smooths_labels_over_all_tokens_but_padding_and_validation_does_not(kind: str) -> None:
    module = training(kind, label_smoothing=0.3)
    batch = examples(pairs(range(6))).collate(np.arange(6), 0)
    logits = scores_without_pad(module, batch.src, batch.src_mask, batch.tgt)
    losses = {}
    for smoothing in (0.3, 0.0):
        each = F.cross_entropy(
            logits.flatten(0, 1),
            batch.labels.flatten(),
            label_smoothing=smoothing,
            ignore_index=tokenizer().pad_id,
            reduction="sum",
        )
        losses[smoothing] = each
    (terms,) = module.objective(batch)
    assert_close(terms.loss_sum, losses[0.3], rtol=1e-5, atol=1e-4)
    assert_close(terms.report["nll"], losses[0.0].detach(), rtol=1e-5, atol=1e-4)
    module.model.eval()
    (terms,) = module.objective(batch)
    assert_close(terms.loss_sum, losses[0.0], rtol=1e-5, atol=1e-4)
    assert terms.num_targets == sum(len(tokenizer().encode(pair.tgt)) + 1 for pair in pairs(range(6)))


@pytest.mark.parametrize("kind", KINDS)
def test_with_consistency_a_step_compares_two_passes_and_validation_makes_one(kind: str) -> None:
    module = training(kind, dropout=0.4, label_smoothing=0.3, consistency=2.0)
    batch = examples(pairs(range(6))).collate(np.arange(6), 0)
    torch.manual_seed(7)
    (terms,) = module.objective(batch)
    torch.manual_seed(7)
    twice = [tensor.repeat(2, 1) for tensor in (batch.src, batch.src_mask, batch.tgt)]
    logits = scores_without_pad(module, *twice).view(2, *batch.labels.shape, -1)[:, batch.is_target]
    labels = batch.labels[batch.is_target]
    entropies = [F.cross_entropy(one, labels, label_smoothing=0.3, reduction="sum") for one in logits]
    p, q = logits.log_softmax(-1)
    divergence = ((p.exp() - q.exp()) * (p - q)).sum() / 2
    assert divergence > 0.1
    assert_close(terms.report["divergence"], divergence.detach(), rtol=1e-4, atol=1e-4)
    assert_close(terms.loss_sum, sum(entropies) / 2 + 2.0 * divergence, rtol=1e-4, atol=1e-4)
    assert terms.num_targets == len(labels)
    module.model.eval()
    (once,) = module.objective(batch)
    assert "divergence" not in once.report
    plain = scores_without_pad(module, batch.src, batch.src_mask, batch.tgt)[batch.is_target]
    assert_close(once.loss_sum, F.cross_entropy(plain, labels, reduction="sum"), rtol=1e-4, atol=1e-4)


def test_consistency_without_dropout_is_refused() -> None:
    with pytest.raises(ValueError, match=r"consistency: 2\.0 compares passes that differ by dropout, and all are 0"):
        TranslateConfig.model_validate(settings("transformer", dropout=0.0) | {"consistency": 2.0})


@pytest.mark.parametrize("kind", KINDS)
def test_neither_the_amount_nor_the_content_of_padding_changes_the_loss(kind: str) -> None:
    module = training(kind)
    batch = examples(pairs(range(6))).collate(np.arange(6), 0)
    (plain,) = module.objective(batch)
    random = torch.Generator().manual_seed(3)

    def widened(ids: Tensor, real: Tensor) -> Tensor:
        rubbish = torch.randint(0, tokenizer().vocab_size - 1, (len(ids), ids.shape[1] + 4), generator=random)
        rubbish[:, : ids.shape[1]][real] = ids[real]
        return rubbish

    def longer(mask: Tensor) -> Tensor:
        return F.pad(mask, (0, 4))

    assert not batch.src_mask.all() and not batch.is_target.all()
    padded = TranslationBatch(
        src=widened(batch.src, batch.src_mask),
        src_mask=longer(batch.src_mask),
        tgt=widened(batch.tgt, batch.is_target),
        labels=widened(batch.labels, batch.is_target),
        is_target=longer(batch.is_target),
    )
    (wide,) = module.objective(padded)
    assert wide.num_targets == plain.num_targets
    assert_close(wide.loss_sum, plain.loss_sum, rtol=1e-5, atol=1e-4)
