"""A grammar that a GPT learns in a second: words follow each other in one fixed circle.

Documents walk round it from any word; `Say NAME.` is answered by the five words behind the name.
"""

from pathlib import Path

from pipeline.artifacts import publish
from pipeline.data.records import Conversation, Document, Message, write_records
from pipeline.data.token_arrays import write_token_arrays
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.tokenizer_training import train_byte_bpe

WORDS = [
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "heron",
    "islet",
    "jetty",
    "knoll",
    "larch",
    "maple",
    "north",
    "ocean",
    "pearl",
    "quartz",
    "river",
    "stone",
    "tulip",
    "umber",
    "valley",
    "willow",
    "xylem",
    "yarrow",
    "zephyr",
]


def walk(start: int, count: int) -> str:
    """Some words of the circle."""
    return " ".join(WORDS[(start + i) % len(WORDS)] for i in range(count))


def documents(first: int, count: int) -> list[Document]:
    """Documents of two paragraphs of three sentences of six words; two sources."""
    return [
        Document(
            id=f"{number}",
            title=f"{number}",
            source=("circle", "ring")[number % 2],
            text="\n".join(
                " ".join(walk(7 * number + 18 * paragraph + 6 * i, 6).capitalize() + "." for i in range(3))
                for paragraph in range(2)
            ),
        )
        for number in range(first, first + count)
    ]


def conversations(first: int, count: int) -> list[Conversation]:
    """Requests that name a word."""
    return [
        Conversation(
            id=f"{number}",
            source=("asked", "begged")[number % 2],
            messages=(
                Message("user", f"{('Say', 'Please say')[number // 26 % 2]} {WORDS[number % 26]}."),
                Message("assistant", walk(number + 1, 5)),
            ),
            group=f"{number}",
        )
        for number in range(first, first + count)
    ]


def tokenizer() -> Tokenizer:
    """Byte-level BPE in which nearly every word of the grammar is one token."""
    texts = [one.text for one in documents(0, 60)]
    return train_byte_bpe([*texts, *(m.content for one in conversations(0, 52) for m in one.messages)], vocab_size=520)


def write_data(root: Path, *, with_tokens: bool) -> None:
    """The prepared data of profile tiny below `root`, with or without the token arrays of its text."""
    data = root / "data/tiny"
    splits = {"train": (0, 120), "valid": (120, 12), "test": (132, 12)}
    for split, (first, count) in splits.items():
        write_records(data / f"prepared/text/{split}.jsonl", documents(first, count))
        write_records(data / f"prepared/conversations/{split}.jsonl", conversations(first, count))
    if not with_tokens:
        return
    trained = tokenizer()
    with publish(data / "tokens/bpe") as folder:
        trained.save(folder)
    for split, (first, count) in splits.items():
        texts = documents(first, count)
        ids = [[[trained.bos_id, *trained.encode(one.text), trained.eos_id]] for one in texts]
        folder = data / "tokens/text-bpe" / split
        write_token_arrays(folder, [one.id for one in texts], ids, tokenizer_hash=trained.hash)
