"""The attention maps of a translation are the weights that the model gave to its source."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.inference.attention_map import attention_map
from pipeline.models.attention import CrossAttention
from pipeline.models.seq2seq import Seq2Seq
from pipeline.models.source_attention import SourceAttention
from tests.stages.test_translate import translator


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("transformer", {"num_heads": 1}),
        ("gru", {"attention": "additive"}),
        ("gru", {"attention": "general"}),
        ("gru", {"attention": "dot", "bidirectional": False}),
    ],
)
def test_the_weights_of_an_attention_map_mix_the_source_as_the_model_did(kind: str, shape: dict[str, Any]) -> None:
    one = translator(kind, **shape)
    contexts, values = [], []

    def keep(module: nn.Module, arguments: tuple[Any, ...], result: Tensor) -> None:
        match module:
            case CrossAttention():
                contexts.append(result[0])
                values.append(module.output(arguments[1].values[0, 0]) - module.output.bias)
                contexts[-1] = contexts[-1] - module.output.bias
            case SourceAttention():
                contexts.append(result[0])
                values.append(arguments[1].outputs[0])

    attentions = [module for module in one.model.modules() if isinstance(module, CrossAttention | SourceAttention)]
    hooks = [module.register_forward_hook(keep) for module in attentions]
    (found,) = one.translate(["amber birch river"])
    contexts.clear()
    values.clear()
    attention = attention_map(one, "amber birch river", found)
    for hook in hooks:
        hook.remove()
    assert len(contexts) == 1
    assert attention.weights.shape == (len(found.tokens) + 1, len(attention.src_tokens))
    assert attention.src_tokens[-1] == attention.tgt_tokens[-1] == "<eos>"
    assert_close(attention.weights.sum(1), torch.ones(len(attention.weights)))
    assert attention.weights.std() > 1e-3
    assert_close(attention.weights @ values[0], contexts[0], rtol=1e-4, atol=1e-4)


def test_the_attention_map_of_a_transformer_is_the_mean_over_its_heads_and_layers() -> None:
    one = translator("transformer", num_heads=4, num_decoder_layers=3)
    assert isinstance(one.model, Seq2Seq)
    read: list[tuple[CrossAttention, Tensor]] = []

    def keep(module: CrossAttention, arguments: tuple[Any, ...]) -> None:
        read.append((module, arguments[0][0]))

    (found,) = one.translate(["amber birch river"])
    hooks = [layer.cross_attention.register_forward_pre_hook(keep) for layer in one.model.decoder]
    attention = attention_map(one, "amber birch river", found)
    for hook in hooks:
        hook.remove()
    (source,) = one.encode(["amber birch river"], too_long="refuse")
    src = torch.from_numpy(source)[None]
    weights = []
    with torch.no_grad():
        memory = one.model.encode(src, torch.ones_like(src).bool())[0]
        for module, hidden in read:
            queries, keys = module.query(hidden), module.key_value(memory)[:, :32]
            for first in (0, 8, 16, 24):
                scores = queries[:, first : first + 8] @ keys[:, first : first + 8].T
                weights.append((scores / 8**0.5).softmax(1))
    assert len(weights) == 3 * 4
    assert all((a - b).abs().max() > 1e-2 for a, b in itertools.combinations(weights, 2))
    assert_close(attention.weights, torch.stack(weights).mean(0), rtol=0, atol=1e-5)


def test_with_input_feeding_the_map_has_a_row_for_each_target_token() -> None:
    one = translator("gru", input_feeding=True)
    (found,) = one.translate(["amber birch river"])
    weights = attention_map(one, "amber birch river", found).weights
    assert_close(weights.sum(1), torch.ones(len(found.tokens) + 1))


def test_the_map_of_an_ensemble_is_the_mean_of_its_models_over_what_the_shortest_of_them_reads() -> None:
    long, short = translator("transformer"), translator("gru", max_length=8)
    both = replace(long, others=(short.model,))
    text = " ".join(["amber birch river"] * 5)
    (found,) = both.translate([text], too_long="cut")
    attention = attention_map(both, text, found)
    assert len(attention.src_tokens) == both.longest_text + 1 == 8 < len(long.encode([text], too_long="cut")[0])
    kept = long.tokenizer.decode(long.encode([text], too_long="cut")[0][:7].tolist())
    of_each = [attention_map(replace(both, model=one, others=()), kept, found) for one in both.models]
    assert {one.src_tokens for one in of_each} == {attention.src_tokens}
    assert_close(attention.weights, (of_each[0].weights + of_each[1].weights) / 2)
    assert not torch.allclose(of_each[0].weights, of_each[1].weights, atol=1e-3)
