"""The stage translate: its loss, its folder, its search, its figures and what it refuses."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.testing import assert_close
from transformers import MarianMTModel

from pipeline.artifacts import read_json
from pipeline.config import load
from pipeline.data.examples.translation import TokenRows, TranslationExamples, translation_examples
from pipeline.data.records import Pair, write_records
from pipeline.evaluation.bleu import bleu, chrf
from pipeline.evaluation.gradient_flow import decoder_gradients
from pipeline.inference.translator import DrawConfig, SearchConfig, Translator
from pipeline.inference.translator_folder import open_translator, save_translator
from pipeline.models.recurrent import Recurrent
from pipeline.stages.translate import TranslateConfig, TranslationTraining, build_model, padding_share
from pipeline.stages.translation_tokens import encode_pairs
from pipeline.text.forms import MosesText
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.tokenizer_training import train_translation_bpe
from tests.stages import grammar
from tests.training.harness import ROOT, Workspace, snapshot

KINDS = ("transformer", "gru")
SPLITS = {"train": range(0, 80), "valid": range(80, 90), "test": range(90, 110)}


def pairs(numbers: range) -> list[Pair]:
    """Sentences of two to six words of the circle, each translated into the word behind it."""
    words = grammar.WORDS
    result = []
    for number in numbers:
        chosen = [(number * 7 + i * (number % 5 + 1)) % len(words) for i in range(2 + number % 5)]
        src, tgt = (" ".join(words[(i + shift) % len(words)] for i in chosen) for shift in (0, 1))
        result.append(Pair(id=str(number), src=src, tgt=tgt, source="circle", group=str(number)))
    return result


def tokenizer() -> Tokenizer:
    texts = [text for pair in pairs(SPLITS["train"]) for text in (pair.src, pair.tgt)]
    return train_translation_bpe(texts, vocab_size=90)


def settings(kind: str, **model: Any) -> dict[str, Any]:
    """The tiny configuration of a model, for the tokenizer above."""
    config: dict[str, Any] = yaml.safe_load((ROOT / f"conf/tiny/translate/{kind}.yaml").read_text())
    config["model"] |= {"vocab_size": tokenizer().vocab_size} | model
    config["num_samples"] = 5
    return config


def translator(kind: str, **model: Any) -> Translator:
    """A model with random weights that are large enough for decided answers."""
    config = TranslateConfig.model_validate(settings(kind, **model))
    torch.manual_seed(2)
    network = build_model(config.model)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 2 and "embeddings" not in name:
                parameter.mul_(2.0)
    return Translator(network.eval(), tokenizer(), config.search)


def examples(texts: list[Pair]) -> TranslationExamples:
    return translation_examples(texts, tokenizer(), max_length=48, too_long="drop")[0]


def rows(sentences: Sequence[Sequence[int]], tokens: Tokenizer) -> TokenRows:
    return TokenRows.of(sentences, max_length=48, eos_id=tokens.eos_id)


@pytest.mark.parametrize("beam_size", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_translation_does_not_depend_on_the_texts_beside_it(kind: str, beam_size: int) -> None:
    one = translator(kind)
    one = replace(one, search=one.search.model_copy(update={"beam_size": beam_size}))
    texts = [pair.src for pair in pairs(range(30))]
    together = one.translate(texts)
    for text, found in zip(texts, together, strict=True):
        (alone,) = one.translate([text])
        assert alone.tokens == found.tokens
        assert alone.log_prob == pytest.approx(found.log_prob, abs=1e-4)
    assert len({found.text for found in together}) > 5


@pytest.mark.parametrize("kind", KINDS)
def test_the_log_probability_of_a_translation_is_that_of_teacher_forcing(kind: str) -> None:
    one = translator(kind)
    test = pairs(range(8))
    found = one.translate([pair.src for pair in test])
    tokens = tokenizer()
    forced = TranslationExamples(
        src=rows([tokens.encode(pair.src) for pair in test], tokens),
        tgt=rows([translation.tokens for translation in found], tokens),
        pad_id=tokens.pad_id,
        bos_id=tokens.bos_id,
    )
    for i, translation in enumerate(found):
        batch = forced.collate(np.array([i]), 0)
        log_probs = one.model.logits(one.model(batch.src, batch.src_mask, batch.tgt)).log_softmax(-1)
        expected = log_probs.gather(2, batch.labels[..., None]).sum().item()
        assert translation.log_prob == pytest.approx(expected, abs=1e-3)
        assert translation.score == pytest.approx(expected / batch.labels.numel(), abs=1e-3)


def test_a_blank_text_stays_blank_and_a_text_that_is_too_long_is_refused_by_name_or_cut() -> None:
    one = translator("transformer", max_length=8)
    long = " ".join(grammar.WORDS)
    blank, full = one.translate(["  ", "amber"])
    assert (blank.text, blank.tokens) == ("", ()) and full.tokens
    with pytest.raises(ValueError, match="the model reads at most 7: 'amber birch"):
        one.translate(["amber", long])
    (cut,) = one.translate([long], too_long="cut")
    assert 0 < len(cut.tokens) < 8


@pytest.mark.parametrize("beam_size", [1, 4])
def test_no_translation_has_an_unknown_token_however_likely_it_is(beam_size: int, tmp_path: Path) -> None:
    one = translator("transformer", tied_embeddings="none")
    one = replace(one, search=one.search.model_copy(update={"beam_size": beam_size}))
    unknown = one.tokenizer.id_of("unk")
    with torch.no_grad():
        one.model.embeddings.output.bias[unknown] += 100.0
    sources = one.encode([pair.src for pair in pairs(range(4))], too_long="cut")
    draw = DrawConfig(temperature=1.0, top_k=0, top_p=1.0, seed=1)
    searched = [*one.searched(sources, num_best=1), *one.drawn(sources, range(4), draw, num_draws=1)]
    tokens = {token for batch in searched for _, row in batch for found in row for token in found.tokens}
    assert tokens and unknown not in tokens
    save_translator(tmp_path / "model", one)
    assert read_json(tmp_path / "model/generation_config.json")["bad_words_ids"] == [[one.tokenizer.pad_id], [unknown]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_gives_back_the_translator_that_was_saved(kind: str, tmp_path: Path) -> None:
    one = translator(kind)
    one = replace(
        one,
        search=SearchConfig(beam_size=3, normalisation="gnmt", length_penalty=0.6, max_extra_tokens=7, stop="filled"),
    )
    save_translator(tmp_path / "model", one)
    opened = open_translator(tmp_path / "model")
    assert opened.search == one.search
    texts = [pair.src for pair in pairs(range(10))]
    assert opened.translate(texts) == one.translate(texts)


def test_gnmts_penalty_is_told_apart_from_that_of_transformers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """For 13 tokens, ((5 + 13) / 6) ** 0.6 is 1.93 and 13 ** 0.6 is 4.66: one number, two searches."""
    one = translator("transformer")
    gnmt = replace(one, search=one.search.model_copy(update={"normalisation": "gnmt", "length_penalty": 0.6}))
    save_translator(tmp_path / "gnmt", gnmt)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "((5 + n) / 6) ** 0.6" in record.message and "n ** length_penalty" in record.message
    assert str(tmp_path / "gnmt") in record.message
    theirs: Any = MarianMTModel.from_pretrained(tmp_path / "gnmt")
    assert theirs.generation_config.length_penalty in (None, 1.0)
    assert theirs.generation_config.num_beams == gnmt.search.beam_size > 1
    source, asked = torch.tensor([[5, 9, 7, 0], [6, 8, 5, 0]]), {"return_dict_in_generate": True, "output_scores": True}
    scores = [
        theirs.generate(source, max_new_tokens=9, **asked, **penalty).sequences_scores
        for penalty in ({}, {"length_penalty": 1.0}, {"length_penalty": 0.6})
    ]
    assert_close(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2])
    assert open_translator(tmp_path / "gnmt").search == gnmt.search
    # A folder that was saved when both went by one name.
    file = tmp_path / "gnmt" / "generation_config.json"
    settings = json.loads(file.read_text())
    settings["length_penalty"] = settings.pop("gnmt_penalty")
    file.write_text(json.dumps(settings))
    assert open_translator(tmp_path / "gnmt").search == gnmt.search


@pytest.mark.parametrize(("lowercase", "case"), [(True, "lower-cased Moses tokens"), (False, "reads Moses tokens")])
def test_a_folder_that_wants_moses_tokens_says_so_to_who_opens_it_elsewhere(
    lowercase: bool, case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    form = MosesText(kind="moses", src="en", tgt="de", lowercase=lowercase)
    save_translator(tmp_path / "model", replace(translator("transformer"), form=form))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(tmp_path / "model") in record.message and case in record.message and "text.json" in record.message
    assert "of the language en" in record.message and "those of de" in record.message
    caplog.clear()
    # What no other program opens is opened by us alone, who read the note.
    save_translator(tmp_path / "own", replace(translator("gru"), form=form))
    assert caplog.records == []


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("transformer", {"normalisation": "length"}),
        ("transformer", {"normalisation": "gnmt", "beam_size": 1}),
        ("gru", {"normalisation": "gnmt"}),
    ],
)
def test_a_search_that_transformers_cannot_mistake_is_no_reason_to_warn(
    kind: str, changes: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = translator(kind)
    save_translator(tmp_path / "model", replace(one, search=one.search.model_copy(update=changes)))
    assert caplog.records == []
    settings = json.loads((tmp_path / "model/generation_config.json").read_text())
    assert ("length_penalty" in settings) == (changes["normalisation"] == "length")


def test_a_folder_whose_tokenizer_has_another_size_is_refused(tmp_path: Path) -> None:
    save_translator(tmp_path / "model", translator("gru"))
    train_translation_bpe(["amber birch"], vocab_size=20).save(tmp_path / "model")
    with pytest.raises(ValueError, match="the tokenizer does not fit the model"):
        open_translator(tmp_path / "model")


def test_the_padding_share_counts_both_sides() -> None:
    shares = []
    for lengths in ([(4, 4), (4, 4)], [(4, 2), (2, 4)]):
        data = TranslationExamples(
            src=rows([[1] * (src - 1) for src, _ in lengths], tokenizer()),
            tgt=rows([[1] * (tgt - 1) for _, tgt in lengths], tokenizer()),
            pad_id=89,
            bos_id=89,
        )
        shares.append(padding_share(data, TranslateConfig.model_validate(settings("transformer")).training))
    assert shares == [0.0, 0.25]


def test_residual_init_scales_what_enters_the_residual_stream_and_nothing_else() -> None:
    config = TranslateConfig.model_validate(settings("transformer")).model
    models = []
    for scale in (1.0, 0.25):
        torch.manual_seed(1)
        models.append(dict(build_model(config, residual_init=scale).named_parameters()))
    changed = {name for name, parameter in models[0].items() if not torch.equal(parameter, models[1][name])}
    assert changed == {
        f"{layer}.{part}.output.weight"
        for layer, parts in (
            ("encoder.0", ("attention", "feed_forward")),
            ("decoder.0", ("attention", "cross_attention", "feed_forward")),
        )
        for part in parts
    }
    assert all(torch.equal(models[0][name] * 0.25, models[1][name]) for name in changed)
    with pytest.raises(ValueError, match="residual_init is for a Transformer"):
        TranslateConfig.model_validate(settings("gru") | {"residual_init": 0.5})


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return snapshot(tmp_path_factory.mktemp("code"))


def workspace(root: Path, code: Path, kind: str, config: dict[str, Any]) -> Workspace:
    """A folder with data, a tokenizer and one configuration."""
    made = Workspace(root, code, module="pipeline.stages.translate", config=f"conf/tiny/translate/{kind}.yaml")
    for split, numbers in SPLITS.items():
        write_records(root / f"data/tiny/prepared/translation/{split}.jsonl", pairs(numbers))
    (root / "data/tiny/tokens/translation").mkdir(parents=True)
    tokenizer().save(root / "data/tiny/tokens/translation")
    encode_pairs(root / "data/tiny/prepared/translation", root / "data/tiny/tokens/translation/pairs", tokenizer())
    (root / "conf/tiny/translate").mkdir(parents=True)
    (root / made.config).write_text(yaml.safe_dump(config))
    return made


@pytest.fixture(scope="module", params=KINDS)
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, code: Path) -> tuple[Path, str]:
    """A workspace in which the stage ran, and the kind of its model."""
    made = workspace(tmp_path_factory.mktemp("translate") / "workspace", code, request.param, settings(request.param))
    made.run("cpu")
    return made.root, request.param


def test_the_figures_of_the_stage_are_those_of_its_folder_on_the_whole_test_set(ran: tuple[Path, str]) -> None:
    root, kind = ran
    metrics = read_json(root / f"metrics/tiny/translate/{kind}.json")
    opened = open_translator(root / f"models/tiny/translate/{kind}")
    test = pairs(SPLITS["test"])
    references = [pair.tgt for pair in test]
    found = [one.text for one in opened.translate([pair.src for pair in test])]
    for name, score in (("bleu", bleu), ("chrf", chrf)):
        assert metrics[name]["beam"] == pytest.approx(score(found, references).value)
        assert metrics[name]["copy"] == pytest.approx(score([pair.src for pair in test], references).value)
        assert metrics[name]["signature"] == score(found, references).signature
    assert metrics["training"]["num_parameters"] == sum(one.numel() for one in opened.model.parameters())

    module = TranslationTraining(
        opened.model, TranslateConfig.model_validate(settings(kind)).training, label_smoothing=0.1
    )
    valid = examples(pairs(SPLITS["valid"]))
    (terms,) = module.objective(valid.collate(np.arange(len(valid.src)), 0))
    assert metrics["valid"]["nll"] == pytest.approx(terms.loss_sum.item() / terms.num_targets, rel=1e-4)
    assert ("gradient_by_distance" in metrics) == isinstance(opened.model, Recurrent)
    if isinstance(opened.model, Recurrent):
        norms = decoder_gradients(opened.model, valid.collate(np.arange(len(valid.src)), 0), longest=20)
        assert len(norms) > 3 and metrics["gradient_by_distance"] == pytest.approx(norms, rel=1e-3)

    rows = json.loads((root / f"metrics/tiny/samples/translate/{kind}.json").read_text())
    assert [row["beam"] for row in rows] == found[::4]
    assert [row["reference"] for row in rows] == references[::4]
    assert [("attention" in row) for row in rows] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 91}, "model.vocab_size is 91, but the tokenizer in data/tiny/tokens/translation has 90 ids"),
        ({"d_model": 31}, "num_heads must divide d_model"),
    ],
)
def test_a_model_that_fits_neither_tokenizer_nor_itself_is_refused_in_one_message(
    tmp_path: Path, code: Path, changes: dict[str, Any], message: str
) -> None:
    made = workspace(tmp_path / "workspace", code, "transformer", settings("transformer", **changes))
    outcome = made.run("cpu", expect=(2,))
    assert message in outcome.log and "Traceback" not in outcome.log
    assert not made.output.exists()


@pytest.mark.parametrize("profile", ["tiny", "cpu", "paper"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_vocabulary_of_every_profile_is_that_of_its_tokenizer(profile: str, kind: str) -> None:
    config = load(ROOT / f"conf/{profile}/translate/{kind}.yaml", TranslateConfig)
    tokenize = yaml.safe_load((ROOT / f"conf/{profile}/tokenize.yaml").read_text())
    assert config.model.vocab_size == tokenize["translation"]["vocab_size"]
    assert config.model.kind == {"transformer": "transformer", "gru": "recurrent"}[kind]


@pytest.mark.parametrize(("item", "millions"), [("transformer", 63.1), ("big", 214.3), ("iwslt", 41.8)])
def test_the_paper_profile_has_the_published_sizes(item: str, millions: float) -> None:
    config = load(ROOT / f"conf/paper/translate/{item}.yaml", TranslateConfig)
    with torch.device("meta"):
        model = build_model(config.model)
    # Vaswani et al. 2017, table 3, count 65 and 213 million for a vocabulary of about 37,000.
    # IWSLT: 6 layers of 2,102,784 and 6 of 3,154,432 parameters, and two matrices of 10,000 vectors, by hand.
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
