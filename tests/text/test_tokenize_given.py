"""tokenize with tokenizers that users give: what does not do is refused at once."""

from pathlib import Path

import pytest

from pipeline.data.records import Pair, write_records
from pipeline.stages.tokenize import main
from pipeline.text.forms import MosesText, save_form
from pipeline.text.tokenizer import Tokenizer
from tests.text.test_tokenize_stage import CONFIG, prepare, refuse_training

TRAINED = "byte_bpe: {vocab_size: 320, corpora: [text]}\n"


@pytest.fixture(autouse=True)
def _beside_given_tokenizers(
    wordpiece: Tokenizer, translation_bpe: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, tokenizer in (("wordpiece", wordpiece), ("bpe", translation_bpe)):
        Path("given", name).mkdir(parents=True)
        tokenizer.save(Path("given", name))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("translation: {vocab_size: 200, given: given/typo}", "given/typo: no tokenizer"),
        ("translation: {vocab_size: 100, given: given/bpe}", "translation.vocab_size: found 100, the tokenizer in"),
        (
            "translation: {vocab_size: 201, given: given/wordpiece, bpe_dropout: 0.1}",
            "translation.bpe_dropout: found 0.1, with the tokenizer in given/wordpiece allowed is 0: "
            "BPE-dropout needs a tokenizer of type BPE, found WordPiece",
        ),
        ("wordpiece: {vocab_size: 200, corpora: [text], given: given/typo}", "given/typo: no tokenizer"),
        ("wordpiece: {vocab_size: 100, corpora: [text], given: given/wordpiece}", "wordpiece.vocab_size: found 100"),
        ("wordpiece: {vocab_size: 200, corpora: [text], given: given/bpe}", "given/bpe: a tokenizer of BERT has"),
    ],
)
def test_what_is_given_and_does_not_do_is_refused_before_the_first_training(
    part: str, message: str, texts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "wordpiece: {vocab_size: 160, corpora: [text]}\n" if part.startswith("translation") else ""
    prepare(texts, TRAINED + other + part)
    refuse_training(monkeypatch)
    with pytest.raises(ValueError, match=message):
        main(CONFIG)


def test_the_words_that_a_given_wordpiece_does_not_know_are_named_and_counted(
    texts: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """Each of their letters alone is known, as at the end of a word longer than WordPiece reads."""
    prepare(texts, "translation: {vocab_size: 201, given: given/wordpiece}")
    long = "a" * 101
    write_records(Path("data/own/prepared/translation/train.jsonl"), [Pair("p", f"the {long}", "the", "own", "p")])
    main(CONFIG)
    told = [record.getMessage() for record in caplog.records if "unknown to the tokenizer" in record.getMessage()]
    assert told == [
        f"translation: 50% of the source tokens of training are unknown to the tokenizer, for 1 word, most "
        f"often {'a' * 40}...: nothing is learnt of them; another tokenizer than the given one leaves out fewer"
    ]


@pytest.mark.parametrize("name", ["wordpiece", "bpe"])
def test_the_share_of_targets_that_do_not_come_back_from_a_given_tokenizer_is_told(
    name: str, texts: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    prepare(texts, f"translation: {{vocab_size: {201 if name == 'wordpiece' else 200}, given: given/{name}}}")
    folder = Path("data/own/prepared/translation")
    lines = ["we hold that , no king", "die katze schläft .", "Wir haben", "the ships sailed"]
    write_records(folder / "valid.jsonl", [Pair(line, "the", line, "own", line) for line in lines])
    save_form(folder, MosesText(kind="moses", src="en", tgt="de", lowercase=False))
    main(CONFIG)
    told = [record.getMessage() for record in caplog.records if "come back" in record.getMessage()]
    expected = (
        "translation: of 4 validation targets, 50% do not come back from the tokenizer in given/wordpiece as they "
        "were, as 'die katze schläft .', which becomes 'die katze schlaft .': no model can write them, and a score of "
        "100 is out of reach"
    )
    assert told == ([expected] if name == "wordpiece" else [])
