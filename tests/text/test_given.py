"""Tokenizers that users have: their pieces stay, their ids become those of the translation models."""

import json
import struct
from pathlib import Path

import pytest
import tokenizers
from transformers import AutoTokenizer

from pipeline.text.given_tokenizer import translation_tokenizer
from pipeline.text.tokenizer import Role, Tokenizer, load_tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
SPECIAL = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
UNIGRAM = [
    *SPECIAL, ("▁the", -1.0, NORMAL), ("▁", -2.0, NORMAL), ("cat", -3.0, NORMAL),
    *((letter, -5.0, NORMAL) for letter in "cats</>undehpk"),
]  # fmt: skip
UNIGRAM_KIND, BPE_KIND, WORD_KIND = 1, 2, 3


def number(field: int, value: int) -> bytes:
    """A number of a message of protocol buffers."""
    return varint(field << 3) + varint(value)


def block(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def model(
    folder: Path, pieces: list[tuple[str, float, int]], kind: int, *, training: bytes = b"", normalisation: bytes = b""
) -> Path:
    """A .model file as SentencePiece writes it."""
    rows = [block(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score) + number(3, type_)
            for text, score, type_ in pieces]  # fmt: skip
    file = folder / "own.model"
    spec = number(3, kind) + training
    file.write_bytes(b"".join(block(1, row) for row in rows) + block(2, spec) + block(3, normalisation))
    return file


def test_a_unigram_model_takes_the_likeliest_pieces_and_gives_the_text_back(tmp_path: Path) -> None:
    tokenizer = translation_tokenizer(model(tmp_path, UNIGRAM, UNIGRAM_KIND))
    # -2 - 3 beats -2 - 5 - 5 - 5 for " cat".
    ids = tokenizer.encode("  the   cats ")
    assert tokenizer.tokens(ids) == ["▁the", "▁", "cat", "s"]
    assert tokenizer.decode(ids) == "the cats"
    assert tokenizer.tokens(tokenizer.encode("the ж")) == ["▁the", "▁", "<unk>"]


def test_the_ids_are_those_of_the_translation_models(tmp_path: Path) -> None:
    tokenizer = translation_tokenizer(model(tmp_path, UNIGRAM, UNIGRAM_KIND))
    assert tokenizer.vocab_size == len(UNIGRAM) + 1
    assert tokenizer.special == {"eos": "</s>", "pad": "<pad>", "bos": "<pad>", "unk": "<unk>"}
    assert (tokenizer.eos_id, tokenizer.pad_id, tokenizer.id_of("unk")) == (0, len(UNIGRAM), 1)
    pieces = [("<pad>", 0.0, CONTROL), *UNIGRAM]
    named = number(40, 1) + number(41, 2) + number(42, 3) + number(43, 0)
    padded = translation_tokenizer(model(tmp_path, pieces, UNIGRAM_KIND, training=named))
    assert (padded.vocab_size, padded.pad_id, padded.eos_id) == (len(pieces), len(pieces) - 1, 0)
    assert padded.tokens(padded.encode("the cats")) == ["▁the", "▁", "cat", "s"]


@pytest.mark.parametrize("text", ["</s>", "<unk>", "cat</s>the", "<pad>", "<s><s>"])
def test_text_cannot_spell_a_special_token_of_a_unigram_model(text: str, tmp_path: Path) -> None:
    tokenizer = translation_tokenizer(model(tmp_path, UNIGRAM, UNIGRAM_KIND))
    ids = tokenizer.encode(text)
    assert not tokenizer.special_ids & set(ids)
    assert tokenizer.decode(ids) == text


def test_a_bpe_model_merges_by_score_and_not_by_length(tmp_path: Path) -> None:
    letters = [(letter, -9.0 - i, NORMAL) for i, letter in enumerate("▁abcd")]
    pieces = [
        *SPECIAL,
        ("bc", 0.0, NORMAL),
        ("ab", -1.0, NORMAL),
        ("bcd", -2.0, NORMAL),
        ("▁a", -3.0, NORMAL),
        *letters,
    ]
    tokenizer = translation_tokenizer(model(tmp_path, pieces, BPE_KIND))
    assert tokenizer.tokens(tokenizer.encode("abcd ab")) == ["▁a", "bcd", "▁", "ab"]
    assert tokenizer.decode(tokenizer.encode("abcd ab")) == "abcd ab"


def test_bytes_spell_what_has_no_piece_and_a_defined_symbol_stays_whole(tmp_path: Path) -> None:
    more = [("<0xD0>", 0.0, BYTE), ("<0xB6>", 0.0, BYTE), ("cat<", 0.0, USER_DEFINED)]
    for kind in (UNIGRAM_KIND, BPE_KIND):
        file = model(tmp_path, [*UNIGRAM, *more], kind, training=number(35, 1))
        tokenizer = translation_tokenizer(file)
        ids = tokenizer.encode("the ж cat<s")
        assert [one for one in tokenizer.tokens(ids) if len(one) > 3 and one != "▁the"] == ["<0xD0>", "<0xB6>", "cat<"]
        assert tokenizer.decode(ids) == "the ж cat<s"


def test_a_model_without_a_space_before_the_first_word_keeps_its_ways(tmp_path: Path) -> None:
    tokenizer = translation_tokenizer(model(tmp_path, UNIGRAM, UNIGRAM_KIND, normalisation=number(3, 0)))
    ids = tokenizer.encode("cats the")
    assert tokenizer.tokens(ids) == ["cat", "s", "▁the"]
    assert tokenizer.decode(ids) == "cats the"


def test_a_saved_one_comes_back_the_same_and_transformers_opens_it(tmp_path: Path) -> None:
    tokenizer = translation_tokenizer(model(tmp_path, UNIGRAM, UNIGRAM_KIND))
    tokenizer.save(tmp_path)
    again = translation_tokenizer(tmp_path)
    assert again.hash == tokenizer.hash
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("the cats").input_ids == [*tokenizer.encode("the cats"), 0]
    assert theirs.pad_token_id == tokenizer.pad_id


def test_a_folder_with_other_ids_keeps_its_pieces(byte_bpe: Tokenizer, wordpiece: Tokenizer, tmp_path: Path) -> None:
    # An unknown token for the first, an end for the second, whose padding has another name.
    for given, size in ((byte_bpe, byte_bpe.vocab_size + 1), (wordpiece, wordpiece.vocab_size + 1)):
        given.save(tmp_path)
        tokenizer = translation_tokenizer(tmp_path)
        assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.pad_id, tokenizer.bos_id) == (
            size,
            0,
            size - 1,
            size - 1,
        )
        text = "Our ships sailed on the third of June."
        assert tokenizer.tokens(tokenizer.encode(text)) == given.tokens(given.encode(text))
        assert tokenizer.decode(tokenizer.encode(text)) == given.decode(given.encode(text))
        assert tokenizer.special["unk"] == given.special.get("unk", "<unk>")
        assert tokenizer.tokens([size - 1]) == ["<pad>"] and tokenizer.special["pad"] == "<pad>"
        assert tokenizer.backend.token_to_id("[PAD]") is None
        tokenizer.save(tmp_path)
        assert translation_tokenizer(tmp_path).hash == tokenizer.hash


def test_an_unknown_token_that_is_the_end_of_a_text_too_makes_room_for_one_of_its_own(
    byte_bpe: Tokenizer, tmp_path: Path
) -> None:
    """As in the folders of GPT-2."""
    end = byte_bpe.special["eos"]
    Tokenizer(byte_bpe.backend, {"bos": end, "eos": end, "unk": end}).save(tmp_path)
    tokenizer = translation_tokenizer(tmp_path)
    assert tokenizer.special.items() >= {"eos": end, "bos": "<pad>", "pad": "<pad>", "unk": "<unk>"}.items()
    assert tokenizer.vocab_size == byte_bpe.vocab_size + 1
    assert len({tokenizer.eos_id, tokenizer.pad_id, tokenizer.id_of("unk")}) == 3


def test_a_padding_that_is_the_unknown_token_too_stays_that(wordpiece: Tokenizer, tmp_path: Path) -> None:
    Tokenizer(wordpiece.backend, dict(wordpiece.special) | {"pad": "[UNK]"}).save(tmp_path)
    tokenizer = translation_tokenizer(tmp_path)
    assert (tokenizer.special["unk"], tokenizer.special["pad"]) == ("[UNK]", "<pad>")
    assert tokenizer.tokens(tokenizer.encode("the \u0436")) == ["the", "[UNK]"]


def test_a_character_that_has_no_piece_is_unknown_where_it_would_be_left_out(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({"</s>": 0, "a": 1, "b": 2, "ab": 3}, [("a", "b")]))
    Tokenizer(backend, {"eos": "</s>"}).save(tmp_path)
    assert load_tokenizer(tmp_path).encode("xab") == [3]
    tokenizer = translation_tokenizer(tmp_path)
    assert tokenizer.tokens(tokenizer.encode("xab")) == ["<unk>", "ab"]


@pytest.mark.parametrize("special", [{"pad": "[PAD]"}, {"unk": "<eos>"}])
def test_a_folder_that_has_the_ids_but_not_the_names_gets_them(
    special: dict[Role, str], translation_bpe: Tokenizer, tmp_path: Path
) -> None:
    content = json.loads(translation_bpe.backend.to_str())
    if "pad" in special:
        content["added_tokens"][-1]["content"] = "[PAD]"
        special = special | {"bos": "[PAD]"}
    backend = tokenizers.Tokenizer.from_str(json.dumps(content))
    Tokenizer(backend, dict(translation_bpe.special) | special).save(tmp_path)
    tokenizer = translation_tokenizer(tmp_path)
    assert tokenizer.special == translation_bpe.special
    text = "Our ships sailed."
    assert tokenizer.tokens(tokenizer.encode(text)) == translation_bpe.tokens(translation_bpe.encode(text))


def test_a_folder_that_has_the_ids_is_taken_as_it_is(translation_bpe: Tokenizer, tmp_path: Path) -> None:
    translation_bpe.save(tmp_path)
    assert translation_tokenizer(tmp_path).hash == load_tokenizer(tmp_path).hash == translation_bpe.hash


def test_what_is_no_tokenizer_is_refused_with_what_is_allowed(tmp_path: Path) -> None:
    codes = tmp_path / "codes.bpe"
    codes.write_text("#version: 0.2\ne r</w>\n")
    with pytest.raises(ValueError, match=r"codes.bpe: no tokenizer; allowed are a folder .* subword-nmt are not read"):
        translation_tokenizer(codes)
    whole = model(tmp_path, UNIGRAM, UNIGRAM_KIND)
    damaged = whole.read_bytes()[:-9]
    whole.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"own.model: not a model of SentencePiece, or damaged"):
        translation_tokenizer(whole)
    for kind, message in ((WORD_KIND, "of type word; allowed are unigram and bpe"), (UNIGRAM_KIND, "treat_whitespace")):
        with pytest.raises(ValueError, match=f"own.model: .*{message}"):
            translation_tokenizer(model(tmp_path, UNIGRAM, kind, training=number(24, 1)))
    with pytest.raises(ValueError, match="no piece of it is the unknown one"):
        translation_tokenizer(model(tmp_path, UNIGRAM[1:], UNIGRAM_KIND))
    with pytest.raises(ValueError, match=r"none\.model: no such file"):
        translation_tokenizer(tmp_path / "none.model")
