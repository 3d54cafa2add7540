"""A working directory with a tiny model of every kind, random weights, where the commands look for them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.inference.handover import save_gpt, save_reward
from pipeline.inference.translator import SearchConfig, Translator
from pipeline.inference.translator_folder import save_translator
from pipeline.inference.word_folder import save_words
from pipeline.models.bert import Bert, BertConfig, BertForPretraining, Pooler
from pipeline.models.bilm import BidirectionalLM, BiLMConfig
from pipeline.models.bilstm import AttentionPooling, BiLSTM, BiLSTMConfig, MaxPooling
from pipeline.models.gpt import GPT, GPTConfig
from pipeline.models.heads import RewardModel, SequenceClassifier, SpanHead, TokenClassifier
from pipeline.models.huggingface.bert import (
    bert_to_huggingface,
    sequence_classifier_to_huggingface,
    span_head_to_huggingface,
    token_classifier_to_huggingface,
)
from pipeline.models.huggingface.text_classifiers import bilm_to_huggingface, text_classifier_to_huggingface
from pipeline.models.seq2seq import Seq2Seq, TransformerConfig
from pipeline.models.text_encoders import (
    BiLMEncoder,
    BiLMEncoderConfig,
    GPTEncoder,
    LastTokenPooling,
    TextEncoder,
    TextPooler,
)
from pipeline.text.forms import PLAIN, MosesText, PlainText
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.tokenizer_training import train_byte_bpe, train_translation_bpe, train_wordpiece
from pipeline.text.words import Vocabulary
from tests.folders import save_folder

ROOT = Path(__file__).parents[2]
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
MOSES = MosesText(kind="moses", src="en", tgt="de", lowercase=True)
TEXTS = ["the cat sat on the mat", "a dog ran after the cat", "the dog sat by the door"] * 4


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """conf/ of the project, with the profile tiny, and models/tiny."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("workspace")
    (root / "conf").mkdir()
    for name in ("cpu", "tiny", "paper", "runtime"):
        (root / "conf" / name).symlink_to(ROOT / "conf" / name)
    (root / "conf/profile.yaml").write_text("profile: tiny\n")
    models = root / "models/tiny"
    bpe = train_byte_bpe(TEXTS, vocab_size=300)
    shape = GPTConfig(vocab_size=bpe.vocab_size, d_model=16, num_layers=1, num_heads=2, max_length=64)
    for stage in ("pretrain_gpt", "dpo"):
        save_gpt(models / stage, GPT(shape), bpe)
    save_reward(models / "reward", RewardModel(GPT(shape)), bpe)
    _save_berts(models)
    _save_networks(models, shape, bpe)
    tokenizer = train_translation_bpe(TEXTS, vocab_size=120)
    for name in ("transformer", "second"):
        _save_translator(models / "translate" / name, tokenizer)
    _save_translator(models / "translate/stranger", train_translation_bpe(TEXTS[:2], vocab_size=60))
    tokens = ["the café , the cat 's door .", *TEXTS, '" a dog ! " , the mat ran .'] * 4
    with torch.random.fork_rng():
        # Weights whose translations hold marks with spaces around them.
        torch.manual_seed(5)
        _save_translator(models / "translate/moses", train_translation_bpe(tokens, vocab_size=60), MOSES)
    words = ("cat", "dog", "door", "mat")
    matrix = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.5, 0.5]], dtype=np.float32)
    counts = np.array([4, 3, 2, 1])
    save_words(models / "word_vectors/skipgram", Vocabulary(words, counts), matrix, method="skipgram")
    return root


@pytest.fixture
def inside(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workspace as the working directory."""
    monkeypatch.chdir(workspace)
    return workspace


def _save_berts(models: Path) -> None:
    tokenizer = train_wordpiece(TEXTS, vocab_size=80)
    shape = BertConfig(
        vocab_size=tokenizer.vocab_size, d_model=16, num_layers=1, num_heads=2, d_ff=32, max_length=32, dropout=0.0
    )
    classifier = SequenceClassifier(Bert(shape), Pooler(16), num_labels=2, dropout=0.0)
    labels, pad = ("negative", "positive"), tokenizer.pad_id
    with torch.random.fork_rng(), torch.no_grad():
        answerer = SpanHead(Bert(shape))
        # As they come, random weights find every span equally good.
        answerer.classifier.weight.mul_(50.0)
        tagger = TokenClassifier(Bert(shape), num_labels=5, dropout=0.0)
        # As they come, random weights give every word the same tag.
        for parameter in tagger.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.5)
    for stage, exported in (
        ("finetune/tags", token_classifier_to_huggingface(tagger, pad_token_id=pad, labels=TAGS)),
        ("pretrain_bert", bert_to_huggingface(BertForPretraining(shape), pad_token_id=pad)),
        ("finetune/squad", span_head_to_huggingface(answerer, pad_token_id=pad)),
        ("finetune/polarity", sequence_classifier_to_huggingface(classifier, pad_token_id=pad, labels=labels)),
    ):
        save_folder(models / stage, exported, tokenizer)


def _save_networks(models: Path, shape: GPTConfig, bpe: Tokenizer) -> None:
    """The language model that reads both ways, and the classifiers beside BERT."""
    both = BiLMConfig(vocab_size=bpe.vocab_size, d_model=8, d_hidden=8, num_layers=1)
    own = BiLSTMConfig(vocab_size=bpe.vocab_size, d_embedding=8, d_hidden=8, num_layers=1, max_length=32)
    over = BiLMEncoderConfig(language_model=both, d_hidden=8, num_layers=1, max_length=32)
    ids = {"pad_token_id": bpe.pad_id, "bos_token_id": bpe.bos_id, "eos_token_id": bpe.eos_id}
    exported = {"pretrain_bilm": bilm_to_huggingface(BidirectionalLM(both), token_ids=ids)}
    parts: dict[str, tuple[TextEncoder, TextPooler]] = {
        "gpt": (GPTEncoder(GPT(shape)), LastTokenPooling()),
        "bilstm": (BiLSTM(own), AttentionPooling(16)),
        "bilm": (BiLMEncoder(over), MaxPooling()),
    }
    for name, (encoder, pooler) in parts.items():
        model = SequenceClassifier(encoder, pooler, num_labels=2, dropout=0.0, has_bias=name != "gpt")
        exported[f"finetune/polarity-{name}"] = text_classifier_to_huggingface(
            model, token_ids=ids, labels=("negative", "positive")
        )
    for stage, one in exported.items():
        save_folder(models / stage, one, bpe)


def _save_translator(folder: Path, tokenizer: Tokenizer, form: PlainText | MosesText = PLAIN) -> None:
    shape = TransformerConfig(
        kind="transformer",
        vocab_size=tokenizer.vocab_size,
        d_model=16,
        num_encoder_layers=1,
        num_decoder_layers=1,
        num_heads=2,
        d_ff=32,
        max_length=32,
        dropout=0.0,
    )
    search = SearchConfig(beam_size=2, normalisation="length", length_penalty=1.0, max_extra_tokens=5)
    model = Seq2Seq(shape)
    # As they come, random weights give every sentence the same translation.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3.0)
    save_translator(folder, Translator(model.eval(), tokenizer, search, form))


def typing(monkeypatch: pytest.MonkeyPatch, lines: Sequence[str], *, prompt: str = "") -> None:
    """A person at a terminal who types these lines and ends the input, asked with `prompt` where one is named."""
    left = iter(lines)

    def answer(asked: str) -> str:
        assert asked == (prompt or asked)
        try:
            return next(left)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
