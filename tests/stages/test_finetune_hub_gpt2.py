"""Published GPT-2s: each is fine-tuned and generates, and `transformers` answers by the folder as we do."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from transformers import AutoTokenizer, GPT2ForSequenceClassification, GPT2LMHeadModel
from transformers import pipeline as their_pipeline

from pipeline.artifacts import load_model, save_model, write_json
from pipeline.data.examples.classification import LabelledText, unlabelled_examples
from pipeline.inference.generation import GreedyConfig
from pipeline.inference.handover import open_gpt
from pipeline.inference.models import Classifier, Generator, open_model
from pipeline.models.heads import SequenceClassifier
from pipeline.models.huggingface.gpt import gpt_classifier_to_huggingface
from pipeline.models.text_encoders import GPTEncoder
from pipeline.stages.finetune import FinetuneConfig, build_network
from pipeline.stages.finetune_networks import open_tokenizer
from pipeline.text.tokenizer import Tokenizer, load_tokenizer
from tests.foundations.chain import Run
from tests.parity.hf import spread
from tests.stages.grammar import WORDS
from tests.stages.hub_gpt2 import KINDS, MERGED, backend, publish_gpt2
from tests.stages.test_finetune import CONFIG, POLARITY
from tests.stages.test_finetune_networks import write_language_models
from tests.training.harness import Workspace, snapshot

TEXTS = [WORDS[0], " ".join(WORDS[3:9]), "zzz", " ".join(WORDS[9:11]), f"{WORDS[1]} 🤖 {WORDS[2]}"]
SECOND = [" ".join(WORDS[7:11]), "x", WORDS[5], "y z", WORDS[6]]
LABELS = ("no", "perhaps", "yes")


def config(**changes: Any) -> FinetuneConfig:
    settings = {"task": POLARITY, "network": {"kind": "gpt"}, "start": "pretrained", "max_length": 30}
    return FinetuneConfig.model_validate(CONFIG | settings | changes)


def begun(folder: Path, **changes: Any) -> tuple[SequenceClassifier, Tokenizer]:
    """The classifier that a fine-tuning begins with, its head far from zero, and its tokenizer."""
    settings = config(**changes)
    tokenizer = open_tokenizer(settings.network, folder)
    torch.manual_seed(1)
    encoder, pooler = build_network(folder, settings, tokenizer)
    tokenizer.check_fits(encoder.config.vocab_size, folder)
    model = SequenceClassifier(encoder, pooler, num_labels=len(LABELS), dropout=0.0, has_bias=False)
    spread(model.classifier)
    return model.eval(), tokenizer


def begun_folder(folder: Path, start: Path) -> Path:
    """The same as the stage publishes it."""
    model, tokenizer = begun(start)
    ids = {f"{role}_token_id": tokenizer.id_of(role) for role in ("pad", "bos", "eos")}
    folder.mkdir()
    save_model(folder, *gpt_classifier_to_huggingface(model, token_ids=ids, labels=LABELS))
    tokenizer.save(folder, max_length=30)
    return folder


def scores(
    model: SequenceClassifier, tokenizer: Tokenizer, texts: Sequence[str], second: Sequence[str] | None
) -> torch.Tensor:
    """Of some texts, or pairs, as one batch."""
    others = [None] * len(texts) if second is None else second
    rows = [LabelledText(one, other, "", "") for one, other in zip(texts, others, strict=True)]
    batch = unlabelled_examples(rows, tokenizer, max_length=30).collate(np.arange(len(rows)), 0)
    found: torch.Tensor = model(batch.input_ids, batch.token_type_ids, batch.attention_mask)
    return found


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_published_gpt2_begins_with_its_own_rows_and_padding_that_no_text_is_changed_by(
    tmp_path: Path, kind: str
) -> None:
    folder = publish_gpt2(tmp_path, kind)
    model, tokenizer = begun(folder)
    assert isinstance(model.encoder, GPTEncoder)
    assert tokenizer.pad_id == MERGED and tokenizer.bos_id == tokenizer.eos_id == MERGED - 1
    assert tokenizer.special["pad"] == ("[PAD]" if kind.startswith("own pad") else "<pad>")
    table, state = model.encoder.gpt.token_embedding.weight, load_model(folder).state
    own = state["wte.weight" if kind == "bare" else "transformer.wte.weight"]
    assert torch.equal(table[: len(own)], own.float())
    assert len(table) == max(len(own), MERGED + 1)
    if len(own) == MERGED:
        assert_close(table[-1], own.float().mean(0), atol=1e-3 if kind == "half" else 1e-6, rtol=0)
    for second in (None, SECOND):
        together = scores(model, tokenizer, TEXTS, second)
        alone = [
            scores(model, tokenizer, [text], None if second is None else [second[i]]) for i, text in enumerate(TEXTS)
        ]
        assert together.std() > 0.1
        assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


def test_random_weights_have_the_shape_of_the_others(tmp_path: Path) -> None:
    folder = publish_gpt2(tmp_path)
    tuned, fresh = (begun(folder, start=start)[0].encoder for start in ("pretrained", "random"))
    assert isinstance(tuned, GPTEncoder) and isinstance(fresh, GPTEncoder)
    assert tuned.config == fresh.config and tuned.config.vocab_size == MERGED + 1
    assert not torch.equal(tuned.gpt.token_embedding.weight, fresh.gpt.token_embedding.weight)


@torch.no_grad()
@pytest.mark.parametrize("kind", [*KINDS, "ours"])
def test_from_text_to_probability_transformers_says_by_our_folder_what_we_say(tmp_path: Path, kind: str) -> None:
    if kind == "ours":
        write_language_models(tmp_path)
    start = tmp_path / "models/tiny/pretrain_gpt" if kind == "ours" else publish_gpt2(tmp_path / "hub", kind)
    folder = begun_folder(tmp_path / "tuned", start)
    ours = open_model(folder)
    assert isinstance(ours, Classifier)
    theirs: Any = their_pipeline("text-classification", model=str(folder), top_k=None)
    pairs = [{"text": text, "text_pair": other} for text, other in zip(TEXTS, SECOND, strict=True)]
    for asked, found in ((TEXTS, ours.classify(TEXTS)), (pairs, ours.classify(TEXTS, SECOND))):
        # In batches too, which are padded by the tokenizer of the folder.
        for rows in (theirs(asked), theirs(asked, batch_size=len(TEXTS))):
            best = [max(row, key=lambda one: one["score"]) for row in rows]
            assert [one.label for one in found] == [one["label"] for one in best]
            assert [one.value for one in found] == pytest.approx([one["score"] for one in best], abs=1e-4)
    # Not the same probability for everything.
    assert np.std([one.value for one in ours.classify(TEXTS)]) > 1e-2


@torch.no_grad()
def test_the_classes_of_transformers_open_the_folder_whole(tmp_path: Path) -> None:
    folder = begun_folder(tmp_path / "tuned", publish_gpt2(tmp_path / "hub"))
    theirs: Any = GPT2ForSequenceClassification
    model, report = theirs.from_pretrained(folder, output_loading_info=True)
    assert not {kind: names for kind, names in report.items() if names}
    words = AutoTokenizer.from_pretrained(folder)
    assert model.config.pad_token_id == words.pad_token_id == MERGED
    found = words(TEXTS, padding=True, return_tensors="pt")
    assert "token_type_ids" not in found
    own = load_tokenizer(folder)
    expected = [[own.bos_id, *own.encode(text), own.eos_id] for text in TEXTS]
    assert [row[mask.bool()].tolist() for row, mask in zip(*map(found.get, FIELDS), strict=True)] == expected


FIELDS = ("input_ids", "attention_mask")


@torch.no_grad()
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("bare", "half")])
def test_a_published_gpt2_generates_what_it_does_in_transformers(tmp_path: Path, kind: str) -> None:
    folder = publish_gpt2(tmp_path, kind)
    opened = open_gpt(folder)
    ours = open_model(folder)
    assert isinstance(ours, Generator)
    decoding = GreedyConfig(kind="greedy", max_new_tokens=6)
    theirs: Any = GPT2LMHeadModel.from_pretrained(folder)
    expected = []
    for text in TEXTS:
        ids = torch.tensor([[MERGED - 1, *opened.tokenizer.encode(text)]])
        # What stands for no text, the rows behind the vocabulary, is not asked for.
        allowed = {"suppress_tokens": list(range(MERGED, theirs.config.vocab_size)) or None}
        settings = {"do_sample": False, "max_new_tokens": 6, "pad_token_id": 0, "eos_token_id": MERGED - 1}
        out = theirs.generate(ids, attention_mask=torch.ones_like(ids), **settings, **allowed)
        expected.append(opened.tokenizer.decode(out[0, ids.shape[1] :].tolist()))
    # Prompts of unequal lengths stand padded in one batch.
    assert ours.extend(TEXTS, decoding) == expected
    assert len(set(expected)) > 1


def test_only_padding_may_lack_a_row(tmp_path: Path) -> None:
    words = backend()
    words.add_special_tokens(["<more>"])
    words.save(str(publish_gpt2(tmp_path) / "tokenizer.json"))
    with pytest.raises(ValueError, match=f"{tmp_path}: the tokenizer does not fit the model: it has {MERGED + 2} ids"):
        open_gpt(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path}: the tokenizer does not fit the model: it has {MERGED + 2} ids"):
        begun(tmp_path)


def test_an_output_matrix_of_its_own_is_refused_though_a_row_is_missing(tmp_path: Path) -> None:
    folder = publish_gpt2(tmp_path, "head")
    found = load_model(folder)
    save_model(folder, found.config, {**found.state, "lm_head.weight": torch.ones(MERGED, 32)})
    with pytest.raises(ValueError, match=rf"{tmp_path}: lm_head\.weight differs from transformer\.wte\.weight"):
        open_gpt(folder)


def test_a_folder_with_the_older_files_of_a_tokenizer_alone_is_refused(tmp_path: Path) -> None:
    folder = publish_gpt2(tmp_path)
    (folder / "tokenizer.json").unlink()
    backend().model.save(str(folder))
    assert (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()
    with pytest.raises(ValueError, match=r"no tokenizer in this folder: neither tokenizer\.json nor vocab\.txt"):
        open_gpt(folder)


def test_the_stage_fine_tunes_a_published_gpt2_and_its_folder_answers_as_it_did(tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    Workspace(root, snapshot(tmp_path / "code"), module="", config="conf/tiny/")
    rows = "\n".join(["text\tlabel", *(f"{WORDS[i]}\t{LABELS[i % 3]}" for i in range(12))]) + "\n"
    splits = {split: str(root / f"{split}.tsv") for split in ("train", "valid")}
    for path in splits.values():
        Path(path).write_text(rows)
    task = {"kind": "files", "splits": splits, "text": "text", "label": "label", "target": "classes"}
    training = CONFIG["training"] | {"duration": {"kind": "steps", "num_steps": 2}, "validate_every": 2}
    start = publish_gpt2(root / "hub", "pad is eos")
    settings = {"network": {"kind": "gpt"}, "encoder": str(start), "start": "pretrained", "max_length": 16}
    write_json(root / "conf/tiny/finetune/hub.yaml", CONFIG | {"task": task, "training": training} | settings)
    Run(root, "finetune/hub").run("cpu")
    folder = root / "models/tiny/finetune/hub"
    model = open_model(folder)
    assert isinstance(model, Classifier) and model.labels == LABELS and model.max_length == 16
    lines = (root / "metrics/tiny/predictions/finetune/hub/valid.tsv").read_text().splitlines()[1:]
    assert [one.label for one in model.classify(WORDS[:12])] == [line.split("\t")[2] for line in lines]
    theirs: Any = their_pipeline("text-classification", model=str(folder))
    expected = [one["score"] for one in theirs(list(WORDS[:12]))]
    assert [one.value for one in model.classify(WORDS[:12])] == pytest.approx(expected, abs=1e-4)
