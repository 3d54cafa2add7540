"""The stage pretrain_bert: two planted patterns are learned, and its two losses have denominators of their own.

Every document repeats one word, so a masked word is a copy of its neighbours, and a random segment has another word.
"""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch.testing import assert_close
from transformers import BertForPreTraining

from pipeline.artifacts import load_model, publish
from pipeline.config import load
from pipeline.data.batches import MaskedBatch, MicroBatch
from pipeline.data.plan import plan_epoch
from pipeline.data.token_arrays import in_memory, read_token_arrays, write_token_arrays
from pipeline.evaluation.held_out import EvenlySpaced
from pipeline.evaluation.perplexity import unigram_entropy
from pipeline.models.bert import BertConfig, BertForPretraining
from pipeline.models.huggingface.bert import bert_encoder_from_huggingface, masked_words_from_huggingface
from pipeline.seeds import seed_everything
from pipeline.stages.pretrain_bert import BertPretraining, PretrainBertConfig, masked_examples
from pipeline.stages.pretrain_bert_starts import CountedStart, start_from_counts
from pipeline.text.tokenizer import Tokenizer, load_tokenizer
from pipeline.text.tokenizer_training import train_wordpiece
from tests.stages.grammar import WORDS
from tests.training.harness import ROOT, Workspace, change_yaml, snapshot

CONFIG: dict[str, Any] = {
    "training": {
        "seed": 1,
        "batching": {"kind": "tokens", "tokens_per_step": 1024},
        "duration": {"kind": "steps", "num_steps": 240},
        "optimizer": {"lr": 0.005, "betas": [0.9, 0.98]},
        "schedule": {"kind": "linear", "num_warmup_steps": 10},
        "validate_every": 100,
        "checkpoint_every": 100,
    },
    "model": {
        "d_model": 48,
        "num_layers": 2,
        "num_heads": 2,
        "d_ff": 96,
        "max_length": 40,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "initial_std": 0.02,
    },
    "start": {"kind": "random"},
    "masking": {"mask_share": 0.15, "short_share": 0.1, "whole_words": False},
    "num_valid_rows": 16,
}
SPLITS = {"train": (0, 120), "valid": (120, 12), "test": (132, 40)}


@cache
def tokenizer() -> Tokenizer:
    """WordPiece in which every word is one token."""
    return train_wordpiece([f"{word}. {word}" for word in WORDS for _ in range(9)], vocab_size=220)


def sentences(first: int, count: int) -> list[list[list[int]]]:
    """Documents as token ids: six sentences of six times the same word, or one sentence in every fourth document."""
    trained, random = tokenizer(), np.random.default_rng(0)
    words = random.choice(WORDS, first + count)[first:]
    return [[trained.encode(" ".join([word] * 6) + ".")] * (1 if i % 4 == 3 else 6) for i, word in enumerate(words)]


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code as it was when the tests began."""
    return snapshot(tmp_path_factory.mktemp("code"))


def workspace(root: Path, code: Path, changes: dict[str, Any]) -> Workspace:
    """A workspace with the token arrays of the grammar."""
    made = Workspace(root, code, module="pipeline.stages.pretrain_bert", config="conf/tiny/pretrain_bert.yaml")
    trained = tokenizer()
    with publish(root / "data/tiny/tokens/wordpiece") as folder:
        trained.save(folder)
    for split, (first, count) in SPLITS.items():
        target = root / "data/tiny/tokens/text-wordpiece" / split
        names = [str(i) for i in range(count)]
        write_token_arrays(target, names, sentences(first, count), tokenizer_hash=trained.hash)
    (root / "conf/tiny").mkdir()
    path = root / "conf/tiny/pretrain_bert.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    change_yaml(path, changes)
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, code: Path) -> Path:
    """The workspace in which the stage ran."""
    made = workspace(tmp_path_factory.mktemp("pretrain") / "workspace", code, {})
    made.run("cpu")
    return made.root


def _metrics(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "metrics/tiny/pretrain_bert.json").read_text())
    return found


def test_the_planted_patterns_are_learned_far_below_the_unigram_entropy_and_above_the_majority(trained: Path) -> None:
    found = _metrics(trained)
    assert found["mlm"]["nats"] < 0.3 * found["baselines"]["unigram_entropy"]
    assert found["mlm"]["accuracy"] > 0.85
    assert found["nsp"]["accuracy"] > found["baselines"]["nsp_majority"] + 0.2


def test_the_baselines_are_those_of_the_whole_test_split(trained: Path) -> None:
    found = _metrics(trained)
    flat = [token for document in sentences(*SPLITS["test"]) for sentence in document for token in sentence]
    assert found["baselines"]["unigram_entropy"] == pytest.approx(unigram_entropy(np.array(flat)))
    arrays = trained / "data/tiny/tokens/text-wordpiece/test"
    tokens = read_token_arrays(arrays, tokenizer_hash=tokenizer().hash)
    rows = masked_examples(tokens, tokenizer(), PretrainBertConfig.model_validate(CONFIG))
    batch = rows.collate(np.arange(len(rows.sizes(0).lengths)), 0)
    labels = batch.next_sentence_labels[batch.is_pair]
    assert found["nsp"]["num_pairs"] == len(labels) < len(batch.is_pair)
    assert found["baselines"]["nsp_majority"] == pytest.approx(np.bincount(labels).max() / len(labels))


@torch.no_grad()
def test_transformers_opens_the_folder_with_our_logits(trained: Path) -> None:
    folder = trained / "models/tiny/pretrain_bert"
    found = load_model(folder)
    ours = masked_words_from_huggingface(found.config, found.state).eval()
    _, pooler = bert_encoder_from_huggingface(found.config, found.state)
    assert pooler is not None
    assert load_tokenizer(folder).vocab_size == ours.config.vocab_size
    batch = _rows().collate(np.arange(8), 0)
    theirs: Any = BertForPreTraining.from_pretrained(folder)
    expected = theirs(
        input_ids=batch.input_ids,
        token_type_ids=batch.token_type_ids,
        attention_mask=batch.attention_mask.long(),
    )
    hidden = ours(batch.input_ids, batch.token_type_ids, batch.attention_mask)
    assert expected.prediction_logits.std() > 0.5
    real = batch.attention_mask
    assert_close(ours.mlm_logits(hidden)[real], expected.prediction_logits[real], atol=1e-4, rtol=0)
    weight, bias = (found.state[f"cls.seq_relationship.{name}"] for name in ("weight", "bias"))
    assert_close(F.linear(pooler(hidden), weight, bias), expected.seq_relationship_logits, atol=1e-4, rtol=0)


def _rows(documents: list[list[list[int]]] | None = None) -> Any:
    config = PretrainBertConfig.model_validate(CONFIG)
    return masked_examples(in_memory(documents or sentences(*SPLITS["train"])), tokenizer(), config)


def _module() -> BertPretraining:
    config = PretrainBertConfig.model_validate(CONFIG)
    seed_everything(1)
    shape = BertConfig(vocab_size=tokenizer().vocab_size, **config.model.model_dump())
    return BertPretraining(BertForPretraining(shape), config.training)


def _all_positions(module: BertPretraining, batch: MaskedBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Both losses as means, with every position projected and what does not count ignored."""
    hidden = module.model(batch.input_ids, batch.token_type_ids, batch.attention_mask)
    words = batch.labels.masked_fill(~batch.is_masked, -100)
    pairs = batch.next_sentence_labels.masked_fill(~batch.is_pair, -100)
    return (
        F.cross_entropy(module.model.mlm_logits(hidden).flatten(0, 1), words.flatten()),
        F.cross_entropy(module.model.nsp_logits(hidden), pairs),
    )


def test_gathering_the_masked_positions_gives_the_loss_of_projecting_all() -> None:
    module, batch = _module(), _rows().collate(np.arange(40), 0)
    assert not batch.is_pair.all() and batch.is_pair.any() and not batch.attention_mask.all()
    terms = {term.name: term for term in module.objective(batch)}
    mlm, nsp = _all_positions(module, batch)
    assert_close(terms["mlm"].loss_sum / terms["mlm"].num_targets, mlm, rtol=1e-5, atol=1e-6)
    assert_close(terms["nsp"].loss_sum / terms["nsp"].num_targets, nsp, rtol=1e-5, atol=1e-6)


def test_of_a_step_only_the_masked_positions_go_through_the_vocabulary_projection() -> None:
    module, rows = _module(), _rows().collate(np.arange(12), 0)
    num_masked, num_pairs = int(rows.is_masked.sum()), int(rows.is_pair.sum())
    assert 0 < 4 * num_masked < rows.attention_mask.sum()
    micro = MicroBatch(
        batch=rows,
        step_targets={"mlm": num_masked, "nsp": num_pairs},
        update=0,
        epoch=0,
        is_last=True,
        indices=np.arange(12),
    )
    received: list[tuple[int, ...]] = []
    for part in (module.model.masked_word, module.model.masked_word.decoder):
        part.register_forward_pre_hook(lambda _, inputs: received.append(tuple(inputs[0].shape)))
    torch.autograd.backward(module.training_step(micro, 0))
    assert received == [(num_masked, 48)] * 2


def test_rows_without_a_pair_contribute_nothing_to_the_second_loss_and_leave_a_gradient() -> None:
    module, rows = _module(), _rows()
    single = np.flatnonzero(rows.sizes(0).num_targets["nsp"] == 0)[:5]
    micro = MicroBatch(
        batch=rows.collate(single, 0),
        step_targets={"mlm": 7, "nsp": 0},
        update=0,
        epoch=0,
        is_last=True,
        indices=single,
    )
    loss = module.training_step(micro, 0)
    words = module.objective(micro.batch)[0]
    assert_close(loss, words.loss_sum / 7)
    torch.autograd.backward(loss)
    assert all(one.grad is not None and one.grad.isfinite().all() for one in module.model.parameters())
    gradient = module.model.next_sentence.weight.grad
    assert gradient is not None and gradient.abs().max() == 0.0


def test_a_step_of_two_ranks_minimises_the_sum_of_both_means_over_the_whole_step(tmp_path: Path, code: Path) -> None:
    changes = {"training.duration.num_steps": 1, "training.optimizer.clip_norm": 0.0}
    made = workspace(tmp_path / "workspace", code, changes)
    made.run("ddp_cpu")
    row = made.curve()[0]
    module, rows = _module(), _rows()
    batching = PretrainBertConfig.model_validate(CONFIG).training.batching
    step = plan_epoch(rows.sizes(0), batching, seed=1, epoch=0)[0]
    mlm, nsp = _all_positions(module, rows.collate(step.indices, 0))
    torch.autograd.backward(mlm + nsp)
    norm = math.sqrt(sum(float(one.grad.square().sum()) for one in module.model.parameters() if one.grad is not None))
    assert step.targets["mlm"] != step.targets["nsp"] > 0
    assert row["train/mlm"] == pytest.approx(float(mlm), rel=1e-5)
    assert row["train/nsp"] == pytest.approx(float(nsp), rel=1e-5)
    assert row["train/total"] == pytest.approx(float(mlm + nsp), rel=1e-5)
    assert row["grad_norm"] == pytest.approx(norm, rel=1e-5)


def test_what_was_trained_in_groups_is_scored_too(tmp_path: Path, code: Path) -> None:
    changes = {"training.duration.num_steps": 2, "training.batching.groups_per_step": 2}
    made = workspace(tmp_path / "workspace", code, changes)
    made.run("cpu")
    assert math.isfinite(_metrics(made.root)["mlm"]["nats"])


@pytest.mark.parametrize("path", sorted(ROOT.glob("conf/*/pretrain_bert*.yaml")), ids=lambda path: path.parts[-2])
def test_the_configuration_of_every_profile_trains_on_pairs_that_fit_a_step(path: Path) -> None:
    config = load(path, PretrainBertConfig)
    assert config.training.batching.kind == "examples" or (
        config.training.batching.tokens_per_step >= 8 * config.model.max_length
    )


def test_a_counted_start_scores_words_by_their_frequency_and_lays_words_of_one_passage_together() -> None:
    shape = BertConfig(vocab_size=12, d_model=2, num_layers=1, num_heads=1, d_ff=8, max_length=8, initial_std=0.05)
    model = BertForPretraining(shape)
    # Passages of three tokens: words 5 and 6, or words 7, 8 and 9, twice each.
    tokens = in_memory([[[5, 6, 6]], [[7, 8, 9]], [[6, 5, 5]], [[9, 7, 8]]])
    start_from_counts(model, tokens, CountedStart(kind="counts", passage_length=3), seed=1)
    # One is added to every count: 12 tokens and 12 words.
    expected = (torch.tensor([1, 1, 1, 1, 1, 4, 4, 3, 3, 3, 1, 1]) / 24).log()
    assert_close(model.masked_word.decoder.bias.detach(), expected)
    vectors = model.encoder.token_embedding.weight.detach()
    assert_close(vectors.norm(dim=1), torch.ones(12))
    likeness = vectors @ vectors.T
    assert likeness[5, 6] > 0.9 and likeness[7:10, 7:10].min() > 0.9
    assert likeness[5:7, 7:10].max() < 0.0
    assert model.masked_word.decoder.weight is model.encoder.token_embedding.weight


PHASES = {"kind": "phases", "first_length": 20, "first_share": 0.5}


def test_a_killed_training_in_two_phases_continues_bit_by_bit_on_both_sides_of_the_switch(
    tmp_path: Path, code: Path
) -> None:
    changes = {
        "length": PHASES,
        "training.duration.num_steps": 12,
        "training.checkpoint_every": 2,
        "training.batching.tokens_per_step": 400,
        "model.dropout": 0.2,
    }
    whole, killed = (workspace(tmp_path / name, code, changes) for name in ("whole", "killed"))
    whole.run("cpu")
    killed.run("cpu", kill_at=5)
    killed.run("cpu", kill_at=9)
    killed.run("cpu")
    assert killed.curve_text() == whole.curve_text()
    assert all(torch.equal(tensor, killed.weights()[name]) for name, tensor in whole.weights().items())


@torch.no_grad()
def test_validations_of_a_phase_have_rows_of_its_length(tmp_path: Path, code: Path) -> None:
    changes = {
        "length": PHASES,
        "training.duration.num_steps": 12,
        "training.validate_every": 3,
        "training.optimizer.lr": 1e-9,  # the model stays as it is: what differs is what it reads
    }
    made = workspace(tmp_path / "workspace", code, changes)
    made.run("cpu")
    config, module = PretrainBertConfig.model_validate(CONFIG), _module()
    tokens, expected = in_memory(sentences(*SPLITS["valid"])), {}
    for length in (20, 40):
        rows = EvenlySpaced(masked_examples(tokens, tokenizer(), config, max_length=length), config.num_valid_rows)
        words, _ = module.objective(rows.collate(np.arange(len(rows.sizes(0).lengths)), 0))
        expected[length] = float(words.loss_sum) / words.num_targets
    found = [float(row["valid/mlm"]) for row in made.curve() if row.get("valid/mlm")]
    # The sixth step is the last one of the first phase.
    assert found == pytest.approx([expected[20], expected[20], expected[40], expected[40]], rel=1e-5)
    assert abs(expected[20] - expected[40]) > 1e-3


def test_the_rows_of_each_phase_have_its_length_and_the_paper_switches_at_nine_tenths() -> None:
    config = PretrainBertConfig.model_validate(CONFIG | {"length": PHASES})
    assert config.phases == ((0, 20), (120, 40))
    tokens = in_memory(sentences(*SPLITS["train"]))
    longest = [
        masked_examples(tokens, tokenizer(), config, max_length=length).sizes(0).lengths.max()
        for _, length in config.phases
    ]
    assert longest == [20, 40]
    for path in ROOT.glob("conf/paper/pretrain_bert*.yaml"):
        assert load(path, PretrainBertConfig).phases == ((0, 128), (900_000, 512))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length.first_length": 40}, r"length.first_length: found 40, it must be below model.max_length, 40"),
        ({"training.duration": {"kind": "epochs", "num_epochs": 2}}, r"training.duration must be of kind steps"),
        ({"length.first_share": 1.2}, r"length.first_share"),
    ],
)
def test_phases_that_do_not_fit_the_training_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "pretrain_bert.yaml"
    path.write_text(yaml.safe_dump(CONFIG | {"length": PHASES}))
    change_yaml(path, changes)
    with pytest.raises(ValueError, match=message):
        load(path, PretrainBertConfig)
