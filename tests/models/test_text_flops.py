"""Operations of training the encoders of texts, against what PyTorch counts, and by hand where it counts nothing."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.models.bert import Bert, BertConfig, Pooler
from pipeline.models.bilm import BiLMConfig
from pipeline.models.bilstm import BiLSTM
from pipeline.models.gpt import GPT
from pipeline.models.heads import SequenceClassifier
from pipeline.models.text_encoders import BiLMEncoder, GPTEncoder
from pipeline.models.text_flops import bilm_flops, lstm_flops, text_training_flops
from tests.models.test_text_encoders import BILM, BILSTM, GPT_SHAPE, ids, parts


@torch.no_grad()
def test_a_gpt_costs_what_pytorch_counts() -> None:
    encoder, _ = parts("gpt")
    tokens = ids(2, 9)
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        encoder(tokens, torch.zeros_like(tokens), torch.ones_like(tokens).bool())
    assert text_training_flops(encoder, np.array([9, 9])) == 3 * counter.get_total_flops()


@torch.no_grad()
def test_a_bert_that_is_read_at_the_first_token_costs_what_pytorch_counts() -> None:
    shape = BertConfig(vocab_size=29, d_model=16, num_layers=3, num_heads=2, d_ff=40, max_length=12)
    model = SequenceClassifier(Bert(shape), Pooler(shape.d_model), num_labels=2, dropout=0.0).eval()
    tokens = ids(2, 9)
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(tokens, torch.zeros_like(tokens), torch.ones_like(tokens).bool())
    head = 2 * 2 * (16 * 16 + 16 * 2)
    found = text_training_flops(model.encoder, np.array([9, 9]), reads_first=True)
    assert found == 3 * (counter.get_total_flops() - head)
    assert found < text_training_flops(model.encoder, np.array([9, 9]))


def test_the_cost_of_an_lstm_is_that_of_its_matrices() -> None:
    encoder = BiLSTM(BILSTM)
    weights = sum(one.numel() for name, one in encoder.layers.named_parameters() if "weight" in name)
    assert lstm_flops(BILSTM.d_embedding, BILSTM.d_hidden, BILSTM.num_layers) == 2 * weights
    assert text_training_flops(encoder, np.array([4, 7])) == 3 * 2 * weights * 11


@pytest.mark.parametrize("d_hidden", [6, 8])
def test_a_language_model_costs_its_matrices_and_what_is_frozen_a_third(d_hidden: int) -> None:
    below: BiLMConfig = BILM.language_model.model_copy(update={"d_hidden": d_hidden})
    encoder = BiLMEncoder(BILM.model_copy(update={"language_model": below}))
    frozen = [one for name, one in encoder.language_model.named_parameters() if "weight" in name and "back" in name]
    assert bilm_flops(below) == 2 * 2 * sum(one.numel() for one in frozen)
    own = sum(one.numel() for name, one in encoder.layers.named_parameters() if "weight" in name)
    assert text_training_flops(encoder, np.array([5])) == 5 * (3 * 2 * own + bilm_flops(below))


def test_the_vocabulary_costs_a_classifier_nothing() -> None:
    larger = GPT_SHAPE.model_copy(update={"vocab_size": 100})
    costs = {text_training_flops(GPTEncoder(GPT(shape)), np.array([5])) for shape in (GPT_SHAPE, larger)}
    assert len(costs) == 1
