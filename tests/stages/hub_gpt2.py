"""Folders of GPT-2 as others publish them, with random weights: each lacks padding in a way of its own."""

from pathlib import Path
from typing import Any

import tokenizers
import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel

from pipeline.artifacts import load_model, read_json, write_json
from tests.parity.hf import spread
from tests.stages.grammar import WORDS

END = "<|endoftext|>"
MERGED = 320
"""Ids of the vocabulary, the end of a text among them."""
KINDS = ("no pad", "pad is eos", "own pad", "own pad with a row", "spare rows", "bare", "head", "half")
"""As the first GPT-2s; saved after `pad_token = eos_token`; with a [PAD] whose row is missing, or is there; with a
vocabulary that is padded to 384 rows; with the names of a `GPT2Model`; with the output matrix written too; in 16 bits.
"""


def backend() -> tokenizers.Tokenizer:
    """Byte-level BPE as that of GPT-2: the end of a text is the last id, and the one special token."""
    found = tokenizers.Tokenizer(tokenizers.models.BPE())
    found.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = tokenizers.decoders.ByteLevel()
    found.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=MERGED - 1, initial_alphabet=alphabet, show_progress=False, special_tokens=[]
    )
    found.train_from_iterator([" ".join(WORDS), *(f" {word}" for word in WORDS)] * 9, trainer)
    assert found.get_vocab_size() == MERGED - 1
    found.add_special_tokens([END])
    return found


def publish_gpt2(folder: Path, kind: str = "no pad") -> Path:
    """A `GPT2LMHeadModel` of one of KINDS."""
    torch.manual_seed(3)
    rows = {"own pad with a row": MERGED + 1, "spare rows": 384}.get(kind, MERGED)
    shape: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32}
    model: Any = GPT2LMHeadModel(GPT2Config(vocab_size=rows, bos_token_id=MERGED - 1, eos_token_id=MERGED - 1, **shape))
    spread(model)
    if kind == "half":
        model.half()
    model.save_pretrained(folder)
    named = {"bos_token": END, "eos_token": END, "unk_token": END, "tokenizer_class": "GPT2Tokenizer"}
    words, settings = backend(), {}
    if kind.startswith("own pad"):
        words.add_special_tokens(["[PAD]"])
        settings = named | {"pad_token": "[PAD]"}
    elif kind == "pad is eos":
        settings = named | {"pad_token": END}
    words.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"model_max_length": 1024, **settings})
    state = dict(load_model(folder).state)
    if kind == "head":
        state["lm_head.weight"] = state["transformer.wte.weight"].clone()
    elif kind == "bare":
        state = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
        state["h.0.attn.bias"] = torch.ones(1, 1, 32, 32)
        write_json(folder / "config.json", read_json(folder / "config.json") | {"architectures": ["GPT2Model"]})
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
