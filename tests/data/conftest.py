import pytest
from hypothesis import settings

from pipeline.text.tokenizer import Tokenizer
from pipeline.text.tokenizer_training import train_byte_bpe, train_translation_bpe, train_wordpiece

# The machine that runs the tests may be busy: a slow example is not a fault, and a failure must come back.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

TEXTS = (
    "The committee shall report its findings to the Senate before the first day of March.",
    "We hold that a free people can govern itself, and that no king may rule it.",
    "Prices rose by 12% in 1897; wages did not.",
    "Don't open the door (it is locked), said the old man; nobody answered him.",
    "Our ships sailed on the third of June, and the harbour was empty when they came back.",
    "Die Katze sitzt auf dem Dach und schläft, während der Hund im Garten bellt.",
)


@pytest.fixture(scope="session")
def texts() -> tuple[str, ...]:
    return TEXTS


@pytest.fixture(scope="session")
def byte_bpe() -> Tokenizer:
    return train_byte_bpe(TEXTS, vocab_size=300)


@pytest.fixture(scope="session")
def wordpiece() -> Tokenizer:
    return train_wordpiece(TEXTS, vocab_size=150)


@pytest.fixture(scope="session")
def translation_bpe() -> Tokenizer:
    return train_translation_bpe(TEXTS, vocab_size=120)
