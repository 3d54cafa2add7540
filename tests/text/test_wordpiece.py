"""WordPiece of BERT: cased and uncased, trained and given, with the pieces that `transformers` finds."""

from pathlib import Path
from typing import Any

import pytest
from transformers import BertTokenizer

from pipeline.text.tokenizer import VOCABULARY, Tokenizer, load_tokenizer
from pipeline.text.tokenizer_training import train_wordpiece

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_vocabulary(folder: Path, tokenizer: Tokenizer) -> Path:
    """The pieces of a tokenizer in a vocab.txt."""
    path = folder / VOCABULARY
    path.write_text("\n".join(tokenizer.tokens(range(tokenizer.vocab_size))) + "\n", encoding="utf-8")
    return path


def test_cased_keeps_case_and_accents(texts: tuple[str, ...]) -> None:
    cased = train_wordpiece(texts, vocab_size=200, lower_case=False)
    assert cased.encode("Die Katze") != cased.encode("die katze")
    assert cased.encode("schön") != cased.encode("schon")
    assert cased.decode(cased.encode("Die Katze schläft")) == "Die Katze schläft"
    assert any(piece[0].isupper() for piece in cased.tokens(range(5, 200)))


def test_training_goes_through_texts_that_are_read_anew_and_refuses_an_iterator(texts: tuple[str, ...]) -> None:
    class ReadAnew:
        def __iter__(self) -> Any:
            return iter(texts)

    assert train_wordpiece(ReadAnew(), vocab_size=200).hash == train_wordpiece(texts, vocab_size=200).hash
    with pytest.raises(AssertionError, match="used up"):
        train_wordpiece(iter(texts), vocab_size=200)


@pytest.mark.parametrize("lower_case", [True, False])
def test_a_given_vocabulary_cuts_texts_as_transformers_does(
    lower_case: bool, texts: tuple[str, ...], tmp_path: Path
) -> None:
    trained = train_wordpiece(texts, vocab_size=200, lower_case=lower_case)
    write_vocabulary(tmp_path, trained)
    ours = load_tokenizer(tmp_path, lower_case=lower_case)
    theirs: Any = BertTokenizer.from_pretrained(tmp_path, do_lower_case=lower_case)
    for text in (*texts, "ÉCOLE über Straße, don't! 12%\u00a0中文 \u200bx"):
        assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.encode(text) == trained.encode(text)
    assert ours.hash == trained.hash


def test_special_tokens_may_stand_anywhere_in_a_given_vocabulary(tmp_path: Path) -> None:
    """As in the files of 2018, where [CLS] is 101."""
    path = tmp_path / VOCABULARY
    path.write_text("[PAD]\n[unused0]\nthe\n##re\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    found = load_tokenizer(tmp_path)
    assert [found.id_of(role) for role in ("pad", "unk", "cls", "sep", "mask")] == [0, 4, 5, 6, 7]
    assert found.encode("There the [MASK]")[:3] == [2, 3, 2] and 7 not in found.encode("There the [MASK]")
    assert found.special_ids == {0, 4, 5, 6, 7}


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([*SPECIAL, "a", "b", "a"], r"vocab\.txt: line 8: 'a' also stands in line 6; expected one piece a line"),
        ([*SPECIAL, "a", "", "b"], r"vocab\.txt: line 7: it is empty; expected one piece a line"),
        (["[PAD]", "[CLS]", "[SEP]", "a"], r"vocab\.txt: no \[UNK\] and no \[MASK\]; a vocabulary of BERT has"),
    ],
)
def test_a_faulty_vocabulary_is_named_with_its_line(pieces: list[str], message: str, tmp_path: Path) -> None:
    path = tmp_path / VOCABULARY
    path.write_text("\n".join(pieces) + "\n")
    with pytest.raises(ValueError, match=message):
        load_tokenizer(tmp_path)
