"""Counted operations against closed forms, and against torch's own counter on small models, forward and backward."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.models.bert import BertConfig, BertForPretraining
from pipeline.models.flops import bert_flops, forward_flops, gpt_flops, model_flops
from pipeline.models.gpt import GPT, GPTConfig
from pipeline.models.recurrent import Recurrent, RecurrentConfig
from pipeline.models.seq2seq import Seq2Seq, TransformerConfig

V, SRC, TGT, PAIRS = 101, 7, 5, 3
TRANSFORMER = TransformerConfig(
    kind="transformer",
    vocab_size=V,
    d_model=16,
    num_encoder_layers=2,
    num_decoder_layers=3,
    num_heads=2,
    d_ff=24,
    max_length=12,
)


def recurrent(**choices: Any) -> RecurrentConfig:
    shape = {"kind": "recurrent", "vocab_size": V, "d_embedding": 12, "d_hidden": 16, "max_length": 12}
    return RecurrentConfig.model_validate(shape | {"tied_embeddings": "none", "dropout": 0.0} | choices)


def counted(compute: Callable[[], Tensor]) -> int:
    """What torch counts in a forward and backward pass."""
    # Fused kernels of CPUs for attention and LSTM are not in torch's table; the plain ones are made of products.
    plain = sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False)
    with FlopCounterMode(display=False) as counter, plain[0], plain[1]:
        compute().backward()  # type: ignore[no-untyped-call]
    total: int = counter.get_total_flops()
    return total


def translating(model: Seq2Seq | Recurrent) -> int:
    """The same over PAIRS pairs."""
    src, tgt = (torch.randint(0, V - 1, (PAIRS, length)) for length in (SRC, TGT))
    return counted(lambda: model.logits(model(src, torch.ones_like(src).bool(), tgt)).sum())


def test_a_transformer_of_one_layer_counts_what_its_products_count() -> None:
    """By hand, D = 4, F = 8, S = 3, T = 2, V = 11, in multiplications.

    Encoder 3 x (4 x 16 + 2 x 32) = 384; decoder 2 x (4 x 16 + 2 x 32 + 2 x 16) = 320 at target positions and
    3 x 2 x 16 = 96 at source positions; attention 2 x 4 x (9 + 4 + 6) = 152; vocabulary 2 x 4 x 11 = 88.
    """
    small = {"vocab_size": 11, "d_model": 4, "d_ff": 8, "num_encoder_layers": 1, "num_decoder_layers": 1}
    config = TRANSFORMER.model_copy(update=small)
    parts = forward_flops(config, 3, 2)
    assert parts == {"encoder": 2 * 384, "decoder": 2 * 416, "attention": 2 * 152, "vocabulary": 2 * 88}
    assert model_flops(config, 3, 2) == 3 * 2 * (384 + 416 + 152 + 88)


def test_pairs_add_up() -> None:
    lengths = ([3, 9, 6], [4, 8, 2])
    one_by_one = sum(model_flops(TRANSFORMER, src, tgt) for src, tgt in zip(*lengths, strict=True))
    assert model_flops(TRANSFORMER, np.array(lengths[0]), np.array(lengths[1])) == one_by_one


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_a_transformer_counts_what_torch_counts() -> None:
    assert translating(Seq2Seq(TRANSFORMER)) == model_flops(TRANSFORMER, [SRC] * PAIRS, [TGT] * PAIRS)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_gpt_and_bert_count_what_torch_counts() -> None:
    shape = {"vocab_size": V, "d_model": 16, "num_layers": 2, "num_heads": 2, "max_length": 12}
    gpt, bert = GPTConfig.model_validate(shape), BertConfig.model_validate(shape | {"d_ff": 24})
    ids, real = torch.randint(0, V, (PAIRS, TGT)), torch.ones(PAIRS, TGT, dtype=torch.bool)
    one = GPT(gpt)
    assert counted(lambda: one.logits(one(ids)).sum()) == 3 * sum(gpt_flops(gpt, [TGT] * PAIRS).values())
    other = BertForPretraining(bert)

    def pretrain() -> Tensor:
        hidden = other(ids, torch.zeros_like(ids), real, (torch.arange(TGT) < 2).expand_as(ids))
        return other.mlm_logits(hidden[:, 1]).sum() + other.nsp_logits(hidden).sum()

    assert counted(pretrain) == 3 * sum(bert_flops(bert, [TGT] * PAIRS, num_masked=PAIRS).values())


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize(
    "choices",
    [
        {"cell": "gru", "attention": "additive"},
        {"cell": "gru", "attention": "general", "num_layers": 2},
        {"cell": "rnn", "attention": "dot", "bidirectional": False},
        {"cell": "lstm", "attention": "none", "num_layers": 2},
        {"cell": "gru", "attention": "none", "context": "every"},
        {"cell": "gru", "attention": "local_p"},
        {"cell": "lstm", "attention": "general", "input_feeding": True},
    ],
    ids=lambda choices: "-".join(str(value) for value in choices.values()),
)
def test_a_recurrent_model_counts_what_torch_counts(choices: dict[str, Any]) -> None:
    config = recurrent(**choices)
    assert translating(Recurrent(config)) == pytest.approx(model_flops(config, [SRC] * PAIRS, [TGT] * PAIRS), rel=0.03)
