import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE
from transformers import AutoTokenizer

from pipeline.text.tokenizer import (
    Role,
    Tokenizer,
    load_padded_tokenizer,
    load_tokenizer,
    reading_length,
    with_marks,
    with_padding,
)
from pipeline.text.tokenizer_training import train_byte_bpe, train_translation_bpe, train_wordpiece

Texts = tuple[str, ...]
KINDS = ["byte_bpe", "wordpiece", "translation_bpe"]


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    found: Tokenizer = request.getfixturevalue(request.param)
    return found


def test_the_special_tokens_of_each_kind_have_the_agreed_ids(
    byte_bpe: Tokenizer, wordpiece: Tokenizer, translation_bpe: Tokenizer
) -> None:
    assert byte_bpe.tokens(range(6)) == ["<pad>", "<bos>", "<eos>", "<user>", "<assistant>", "<system>"]
    assert wordpiece.tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert translation_bpe.tokens(range(2)) == ["<eos>", "<unk>"]
    assert translation_bpe.pad_id == translation_bpe.bos_id == translation_bpe.vocab_size - 1


def test_training_reaches_exactly_the_vocabulary_size_asked_for(
    byte_bpe: Tokenizer, wordpiece: Tokenizer, translation_bpe: Tokenizer
) -> None:
    assert (byte_bpe.vocab_size, wordpiece.vocab_size, translation_bpe.vocab_size) == (400, 200, 200)


@pytest.mark.parametrize("text", ["plain words", " two  spaces\nand lines ", "🤖 ünïcödé \x00 漢字", "<eos> <bos>", ""])
def test_byte_level_bpe_gives_every_text_back_unchanged(byte_bpe: Tokenizer, text: str) -> None:
    assert byte_bpe.decode(byte_bpe.encode(text)) == text


def test_translation_bpe_gives_known_text_back_with_its_punctuation(translation_bpe: Tokenizer, texts: Texts) -> None:
    for text in texts:
        assert translation_bpe.decode(translation_bpe.encode(f"  {text.replace(' ', '  ')} ")) == text


def test_wordpiece_ignores_case_and_accents(wordpiece: Tokenizer) -> None:
    assert wordpiece.encode("SCHÖNEN Film") == wordpiece.encode("schonen film")
    assert wordpiece.decode(wordpiece.encode("The Harbour was empty.")) == "the harbour was empty."


def test_text_cannot_spell_a_special_token(tokenizer: Tokenizer) -> None:
    spelled = " ".join(sorted(set(tokenizer.special.values())))
    unknown = {tokenizer.id_of("unk")} if "unk" in tokenizer.special else set()
    assert not (set(tokenizer.encode(spelled)) & (tokenizer.special_ids - unknown))


def test_batch_encoding_equals_encoding_one_by_one(tokenizer: Tokenizer, texts: Texts) -> None:
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


def test_the_places_of_tokens_are_characters_of_the_text_as_it_was_written(wordpiece: Tokenizer) -> None:
    """The accent is stripped, the mark behind an e too, and what stands between words belongs to no token."""
    text = "🏔 Hárbour,  The\n se\u0301a"
    (placed,) = wordpiece.encode_placed([text])
    assert placed.ids == wordpiece.encode(text)
    written = [text[start:end] for start, end in placed.offsets]
    assert "".join(written) == "🏔Hárbour,Thesea"
    assert placed.offsets == sorted(placed.offsets)


def test_a_saved_tokenizer_comes_back_with_the_same_hash_roles_and_ids(
    tokenizer: Tokenizer, tmp_path: Path, texts: Texts
) -> None:
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.hash == tokenizer.hash
    assert loaded.special == tokenizer.special
    assert loaded.chat_template == tokenizer.chat_template
    assert loaded.encode_batch(texts) == tokenizer.encode_batch(texts)


@pytest.mark.parametrize("name", KINDS)
def test_transformers_opens_the_folder_and_agrees_on_ids_and_roles(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, texts: Texts
) -> None:
    ours: Tokenizer = request.getfixturevalue(name)
    ours.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == ours.vocab_size
    assert theirs.pad_token_id == ours.pad_id
    for role, token in ours.special.items():
        if role not in ("user", "assistant", "system"):
            assert getattr(theirs, f"{role}_token") == token
    for text in texts:
        assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text)
        assert theirs.decode(ours.encode(text), skip_special_tokens=True) == ours.decode(ours.encode(text))
    around = {"byte_bpe": ([], []), "wordpiece": ([2], [3]), "translation_bpe": ([], [0])}[name]
    assert theirs(texts[0])["input_ids"] == [*around[0], *ours.encode(texts[0]), *around[1]]


def test_transformers_cuts_a_text_at_the_length_that_a_folder_keeps(wordpiece: Tokenizer, tmp_path: Path) -> None:
    text = "the harbour was empty " * 9
    wordpiece.save(tmp_path)
    assert reading_length(tmp_path, positions=16) == 16
    wordpiece.save(tmp_path, max_length=12)
    assert load_tokenizer(tmp_path).hash == wordpiece.hash
    assert reading_length(tmp_path, positions=16) == 12
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    cls, sep = wordpiece.id_of("cls"), wordpiece.id_of("sep")
    assert theirs(text, truncation=True)["input_ids"] == [cls, *wordpiece.encode(text)[:10], sep]


@pytest.mark.parametrize(
    "settings", [{}, {"model_max_length": None}, {"model_max_length": int(1e30)}, {"model_max_length": 65}, None]
)
def test_a_folder_without_a_length_below_its_positions_is_read_as_far_as_these_go(
    settings: dict[str, object] | None, tmp_path: Path
) -> None:
    if settings is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert reading_length(tmp_path, positions=64) == 64


@pytest.mark.parametrize("found", [2, -1, 0, "512", True, float("nan"), [512]])
def test_a_length_that_is_none_is_refused_with_its_file(found: object, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": found}))
    message = r"tokenizer_config\.json: model_max_length: found .*, allowed is a number of tokens, 3 or more"
    with pytest.raises(ValueError, match=message):
        reading_length(tmp_path, positions=64)


def test_training_in_other_processes_gives_the_same_bytes(texts: Texts) -> None:
    code = (
        "import json, sys; from pipeline.text import tokenizer_training as t; texts = json.load(sys.stdin);"
        "print(t.train_byte_bpe(texts, vocab_size=400).hash, t.train_wordpiece(texts, vocab_size=200).hash,"
        "t.train_translation_bpe(texts, vocab_size=200).hash)"
    )
    given = json.dumps(texts)
    runs = {
        subprocess.run([sys.executable, "-c", code], input=given, check=True, capture_output=True, text=True).stdout
        for _ in range(3)
    }
    assert len(runs) == 1


def test_the_hash_changes_with_the_vocabulary_and_with_the_roles(byte_bpe: Tokenizer, texts: Texts) -> None:
    assert train_byte_bpe(texts, vocab_size=399).hash != byte_bpe.hash
    fewer: dict[Role, str] = {role: token for role, token in byte_bpe.special.items() if role != "system"}
    assert Tokenizer(backend=byte_bpe.backend, special=fewer).hash != byte_bpe.hash


def test_padding_and_truncation_baked_into_a_foreign_file_are_switched_off(
    wordpiece: Tokenizer, tmp_path: Path, texts: Texts
) -> None:
    wordpiece.save(tmp_path)
    foreign = Backend.from_file(str(tmp_path / "tokenizer.json"))
    foreign.enable_truncation(4)
    foreign.enable_padding(length=8)
    foreign.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).encode(texts[0]) == wordpiece.encode(texts[0])


def test_a_tokenizer_whose_padding_is_its_end_is_refused(byte_bpe: Tokenizer, tmp_path: Path) -> None:
    byte_bpe.save(tmp_path)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        settings = json.loads((tmp_path / name).read_text())
        (tmp_path / name).write_text(json.dumps(settings | {"pad_token": "<eos>"}))
    with pytest.raises(ValueError, match=f"{tmp_path}.*pad and eos are the same token '<eos>'"):
        load_tokenizer(tmp_path)


def unpadded(tokenizer: Tokenizer) -> Tokenizer:
    """The same one, without the role of padding."""
    return Tokenizer(tokenizer.backend, {role: token for role, token in tokenizer.special.items() if role != "pad"})


def test_padding_is_added_behind_all_ids_where_there_is_none(byte_bpe: Tokenizer, tmp_path: Path, texts: Texts) -> None:
    assert with_padding(byte_bpe) is byte_bpe
    # Its vocabulary has a token <pad>, which nobody calls padding.
    padded = with_padding(unpadded(byte_bpe))
    assert padded.special == {**byte_bpe.special, "pad": "<pad-0>"}
    assert (padded.pad_id, padded.vocab_size, byte_bpe.vocab_size) == (400, 401, 400)
    assert padded.encode_batch(["<pad-0>", *texts]) == byte_bpe.encode_batch(["<pad-0>", *texts])
    padded.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.hash == padded.hash == with_padding(unpadded(byte_bpe)).hash
    assert AutoTokenizer.from_pretrained(tmp_path).pad_token_id == 400


def test_padding_that_would_take_the_id_of_another_token_is_refused(tmp_path: Path) -> None:
    vocabulary = {"a": 0, "b": 1, "c": 3}
    (tmp_path / "tokenizer.json").write_text(Backend(BPE(vocab=vocabulary, merges=[])).to_str())
    with pytest.raises(ValueError, match=f"{tmp_path}: the ids of the tokenizer have gaps"):
        with_padding(load_tokenizer(tmp_path))


def test_a_padding_that_is_the_end_is_none_for_the_caller_who_adds_one(byte_bpe: Tokenizer, tmp_path: Path) -> None:
    byte_bpe.save(tmp_path)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        settings = json.loads((tmp_path / name).read_text())
        (tmp_path / name).write_text(json.dumps(settings | {"pad_token": "<eos>"}))
    assert "pad" not in load_tokenizer(tmp_path, pad_may_be_eos=True).special
    assert load_padded_tokenizer(tmp_path).pad_id == 400


def test_the_marks_are_put_around_texts_by_transformers_and_not_by_us(
    byte_bpe: Tokenizer, tmp_path: Path, texts: Texts
) -> None:
    marked = with_marks(byte_bpe, "bos", "eos")
    assert marked.encode_batch(texts) == byte_bpe.encode_batch(texts)
    marked.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    one, other = (byte_bpe.encode(text) for text in texts[:2])
    bos, eos = byte_bpe.bos_id, byte_bpe.eos_id
    assert theirs(texts[0])["input_ids"] == [bos, *one, eos]
    assert theirs(*texts[:2])["input_ids"] == [bos, *one, eos, *other, eos]


def test_transformers_is_told_the_types_of_two_texts_by_the_tokenizer_of_a_bert_alone(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path)
    pair = AutoTokenizer.from_pretrained(tmp_path)("the harbour", "was empty")
    if tokenizer.is_wordpiece:
        second = len(tokenizer.encode("was empty")) + 1
        assert pair["token_type_ids"] == [0] * (len(pair["input_ids"]) - second) + [1] * second
    else:
        assert "token_type_ids" not in pair


def test_a_tokenizer_that_does_not_fit_the_model_is_named(byte_bpe: Tokenizer) -> None:
    byte_bpe.check_fits(400, Path("models/x"))
    # Rows that no id reaches do no harm.
    byte_bpe.check_fits(448, Path("models/x"))
    with pytest.raises(ValueError, match=r"models/x.*does not fit.*400 ids.*399"):
        byte_bpe.check_fits(399, Path("models/x"))


def test_a_role_that_is_missing_is_named(wordpiece: Tokenizer) -> None:
    with pytest.raises(ValueError, match="no 'eos' token; it has"):
        _ = wordpiece.eos_id


def test_a_role_of_a_conversation_that_is_missing_is_looked_for_where_it_would_be_found(
    byte_bpe: Tokenizer, tmp_path: Path
) -> None:
    Tokenizer(Backend(byte_bpe.backend.model), {}).save(tmp_path)
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"user_token": "a"}))
    message = (
        r"the tokenizer has no 'user' token; it has \[\]; looked for <user> among the added tokens of tokenizer.json$"
    )
    with pytest.raises(ValueError, match=message):
        load_tokenizer(tmp_path).id_of("user")
    file = tmp_path / "tokenizer.json"
    added = [{"id": 400, "content": "<user>", "special": True}]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"added_tokens": [one | flags for one in added]}))
    assert load_tokenizer(tmp_path).id_of("user") == byte_bpe.id_of("user")


@pytest.mark.parametrize("content", ["", "{}", "[1", '"x"'])
def test_a_damaged_tokenizer_file_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=str(tmp_path)):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("train", [train_byte_bpe, train_wordpiece, train_translation_bpe])
def test_training_without_text_or_with_too_few_ids_is_refused(train: Callable[..., Tokenizer], texts: Texts) -> None:
    with pytest.raises(ValueError, match="without a character"):
        train(["", " "], vocab_size=1000)
    with pytest.raises(ValueError, match=r"vocab_size: found 20"):
        train(texts, vocab_size=20)
