"""Folders of published BERTs, which leave out what `BertTokenizer` of `transformers` knows by itself."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer

from pipeline.data.examples.classification import LabelledText, unlabelled_examples
from pipeline.text.tokenizer import TOKENIZER, VOCABULARY, Role, Tokenizer, load_tokenizer
from pipeline.text.tokenizer_training import train_wordpiece

ROLES: tuple[Role, ...] = ("pad", "unk", "cls", "sep", "mask")
MORE = ("ÉCOLE über Straße, don't! 12%\u00a0中文 \u200bx", "a [MASK] and a [CLS] that are text")


@pytest.fixture(scope="module")
def cased(texts: tuple[str, ...]) -> Tokenizer:
    """Pieces with capitals and accents."""
    return train_wordpiece([*texts, MORE[0]], vocab_size=240, lower_case=False)


def write(folder: Path, tokenizer: Tokenizer, settings: Any, *, file: str, **config: str) -> Path:
    """A folder with one file of the tokenizer and no special_tokens_map.json; `settings` of None is no file at all."""
    folder.mkdir(exist_ok=True)
    if file == TOKENIZER:
        tokenizer.backend.save(str(folder / TOKENIZER))
    else:
        lines = "\n".join(tokenizer.tokens(range(tokenizer.vocab_size)))
        (folder / VOCABULARY).write_text(f"{lines}\n", encoding="utf-8")
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **config}))
    return folder


def assert_as_theirs(folder: Path, texts: tuple[str, ...]) -> Tokenizer:
    """Roles and pieces are those of the tokenizer that `transformers` opens."""
    ours, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    assert {role: ours.id_of(role) for role in ROLES} == {role: getattr(theirs, f"{role}_token_id") for role in ROLES}
    assert set(ours.special) == set(ROLES) and ours.vocab_size == len(theirs)
    for text in (*texts, MORE[0]):
        assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]
    assert not {ours.id_of("cls"), ours.id_of("mask")} & set(ours.encode(MORE[1]))
    assert ours.special_ids == {ours.id_of(role) for role in ROLES}
    return ours


@pytest.mark.parametrize("file", [TOKENIZER, VOCABULARY])
def test_a_folder_that_names_no_special_token_has_those_of_bert(
    file: str, cased: Tokenizer, texts: tuple[str, ...], tmp_path: Path
) -> None:
    """As google-bert/bert-base-cased is."""
    folder = write(tmp_path, cased, {"do_lower_case": False, "model_max_length": 512}, file=file)
    ours = assert_as_theirs(folder, texts)
    assert ours.encode("Die Katze") != ours.encode("die katze")
    assert ours.hash == cased.hash
    (row,) = unlabelled_examples([LabelledText("Die Katze", None, "", "")], ours, max_length=9).input_ids
    assert (row[0], row[-1]) == (cased.id_of("cls"), cased.id_of("sep"))


@pytest.mark.parametrize(
    "settings",
    [
        None,
        {},
        {"do_lower_case": True, "strip_accents": False},
        {"do_lower_case": False, "strip_accents": True, "tokenizer_class": "BertTokenizer"},
        {"do_lower_case": False, "tokenize_chinese_chars": False},
    ],
)
def test_a_vocabulary_alone_is_read_as_the_settings_beside_it_say(
    settings: Any, cased: Tokenizer, texts: tuple[str, ...], tmp_path: Path
) -> None:
    ours = assert_as_theirs(write(tmp_path, cased, settings, file=VOCABULARY), texts)
    lower_cased = ours.encode("Die Katze") == ours.encode("die katze")
    assert lower_cased == (settings or {}).get("do_lower_case", True)
    ours.save(tmp_path)
    assert load_tokenizer(tmp_path).hash == ours.hash


def test_tokens_that_a_tokenizer_json_does_not_mark_as_special_are_so_all_the_same(
    cased: Tokenizer, texts: tuple[str, ...], tmp_path: Path
) -> None:
    folder = write(tmp_path, cased, {"do_lower_case": False}, file=TOKENIZER)
    content = json.loads((folder / TOKENIZER).read_text(encoding="utf-8"))
    (folder / TOKENIZER).write_text(json.dumps(content | {"added_tokens": []}), encoding="utf-8")
    assert Backend.from_file(str(folder / TOKENIZER)).get_added_tokens_decoder() == {}
    assert_as_theirs(folder, texts)


@pytest.mark.parametrize(
    "settings",
    [{"do_lower_case": True}, {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False}],
)
def test_the_settings_decide_where_a_tokenizer_json_says_otherwise(
    settings: Any, cased: Tokenizer, texts: tuple[str, ...], tmp_path: Path
) -> None:
    ours = assert_as_theirs(write(tmp_path, cased, settings, file=TOKENIZER), texts)
    assert ours.hash != cased.hash
    ours.save(tmp_path)
    assert load_tokenizer(tmp_path).hash == ours.hash


def test_the_settings_of_another_class_decide_nothing(cased: Tokenizer, tmp_path: Path) -> None:
    settings = {"do_lower_case": True, "tokenizer_class": "PreTrainedTokenizerFast"}
    assert load_tokenizer(write(tmp_path, cased, settings, file=TOKENIZER)).hash == cased.hash


def test_what_a_folder_names_itself_counts_and_a_name_of_null_is_no_token(cased: Tokenizer, tmp_path: Path) -> None:
    words = cased.tokens(range(5, 240))
    named = {"cls_token": words[40], "sep_token": {"content": words[41]}, "mask_token": None}
    for file in (TOKENIZER, VOCABULARY):
        found = load_tokenizer(write(tmp_path / file, cased, named, file=file))
        assert found.special == {"pad": "[PAD]", "unk": "[UNK]", "cls": words[40], "sep": words[41]}


def test_byte_level_bpe_is_given_no_tokens_of_bert(byte_bpe: Tokenizer, tmp_path: Path) -> None:
    more = Backend.from_str(byte_bpe.backend.to_str())
    more.add_tokens(["[CLS]"])
    found = load_tokenizer(write(tmp_path, Tokenizer(more, byte_bpe.special), None, file=TOKENIZER))
    assert found.backend.token_to_id("[CLS]") == byte_bpe.vocab_size
    assert "cls" not in found.special


def test_a_token_that_is_nowhere_is_named_with_the_folder_and_the_places(tmp_path: Path) -> None:
    pieces = {"[PAD]": 0, "[UNK]": 1, "a": 2}
    folder = write(tmp_path, train_wordpiece(["a b"] * 3, vocab_size=9), None, file=TOKENIZER)
    content = json.loads((folder / TOKENIZER).read_text()) | {"added_tokens": [], "post_processor": None}
    content["model"]["vocab"] = pieces
    (folder / TOKENIZER).write_text(json.dumps(content))
    found = load_tokenizer(folder)
    message = (
        rf"^{tmp_path}: the tokenizer has no 'cls' token; it has \['pad', 'unk'\]; looked for cls_token in "
        r"tokenizer_config.json and special_tokens_map.json, \[CLS\] in the vocabulary$"
    )
    with pytest.raises(ValueError, match=message):
        unlabelled_examples([LabelledText("a", None, "", "")], found, max_length=9)


@pytest.mark.parametrize(
    ("settings", "config", "message"),
    [
        (
            {"tokenizer_class": "BertJapaneseTokenizer"},
            {},
            r"tokenizer_config.json: tokenizer_class is 'BertJapaneseTokenizer'; a folder with vocab.txt and no "
            r"tokenizer.json is read for BertTokenizer or BertTokenizerFast alone",
        ),
        ({}, {"tokenizer_class": "BertJapaneseTokenizer"}, r"/config.json: tokenizer_class is 'BertJapaneseTokenizer'"),
        ({"do_lower_case": "no"}, {}, r"tokenizer_config.json: do_lower_case is 'no', allowed are true and false"),
        ({"cls_token": "<s>"}, {}, r"vocab.txt: no <s>; a vocabulary of BERT has"),
    ],
)
def test_a_vocabulary_of_another_tokenizer_is_refused(
    settings: Any, config: dict[str, str], message: str, cased: Tokenizer, tmp_path: Path
) -> None:
    folder = write(tmp_path, cased, settings, file=VOCABULARY, **config)
    with pytest.raises(ValueError, match=f"{tmp_path}.*{message}"):
        load_tokenizer(folder)


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{tmp_path}: no tokenizer in this folder: neither tokenizer.json nor vocab"):
        load_tokenizer(tmp_path)
