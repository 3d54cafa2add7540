"""Every kind of recurrent translation model in its trade: beam search, attention maps, model folders."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from pipeline.inference.attention_map import attention_map
from pipeline.inference.translator import Translator
from pipeline.inference.translator_folder import open_translator, save_translator
from pipeline.models.recurrent import Recurrent, RecurrentConfig
from tests.stages.test_translate import pairs, translator

WHOLE = {"num_layers": 2, "dropout": {"embedding": 0.3, "memory": 0.5, "readout": 0.5}, "truncate_steps": 4}
SHAPES: list[dict[str, Any]] = [
    {"cell": "rnn", "attention": "none"},
    {"cell": "lstm", "attention": "none", **WHOLE},
    {"cell": "gru", "attention": "none", "context": "every", **WHOLE},
    {"cell": "rnn", "attention": "local_p", "window": 2, **WHOLE},
    {"cell": "lstm", "attention": "local_p", "input_feeding": True, "bidirectional": False},
    {"cell": "lstm", "attention": "dot", "input_feeding": True, "bidirectional": False, **WHOLE},
    {"cell": "gru", "attention": "general", "input_feeding": True, "tied_embeddings": "none"},
    {"cell": "rnn", "attention": "additive", "tied_embeddings": "decoder", **WHOLE},
]


def recurrent(**shape: Any) -> Translator:
    """A model of the given shape with random weights that are large enough for decided answers."""
    one = translator("gru")
    torch.manual_seed(2)
    model = Recurrent(RecurrentConfig.model_validate(one.model.config.model_dump() | shape))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embeddings" not in name:
                parameter.mul_(2.0)
    return replace(one, model=model.eval())


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape.values())))
def test_a_variant_searches_alike_in_company_and_after_it_was_saved_and_scores_as_in_training(
    shape: dict[str, Any], tmp_path: Path
) -> None:
    one = recurrent(**shape)
    texts = [pair.src for pair in pairs(range(12))]
    together = one.translate(texts)
    assert len({found.text for found in together}) > 4
    alone = [one.translate([text])[0] for text in texts]
    assert [found.tokens for found in alone] == [found.tokens for found in together]
    save_translator(tmp_path / "model", one)
    opened = open_translator(tmp_path / "model")
    assert opened.model.config == one.model.config
    assert opened.translate(texts) == together
    for text, found in zip(texts, together, strict=True):
        (source,) = one.encode([text], too_long="refuse")
        src, tgt = torch.from_numpy(source)[None], torch.tensor([[one.tokenizer.bos_id, *found.tokens]])
        log_probs = one.model.logits(one.model(src, torch.ones_like(src).bool(), tgt))[0].log_softmax(-1)
        labels = torch.tensor([*found.tokens, one.tokenizer.eos_id])
        assert found.log_prob == pytest.approx(log_probs.gather(1, labels[:, None]).sum().item(), abs=1e-3)


@pytest.mark.parametrize("is_fed", [False, True])
def test_the_map_of_local_attention_is_a_window_of_the_source_in_each_row(is_fed: bool) -> None:
    one = recurrent(attention="local_p", window=1, input_feeding=is_fed)
    text = " ".join(pair.src for pair in pairs(range(3, 5)))
    (found,) = one.translate([text])
    wide = replace(one, model=recurrent(attention="general", input_feeding=is_fed).model)
    local, whole = (attention_map(each, text, found).weights for each in (one, wide))
    assert local.shape == whole.shape
    assert_close(whole.sum(1), torch.ones(len(whole)))
    seen = local > 0
    assert (seen.sum(1) >= 1).all() and (seen.sum(1) <= 3).all() and (local.sum(1) < 1).all()
    for row in seen:
        places = row.nonzero()[:, 0]
        assert places[-1] - places[0] == len(places) - 1
