"""A toy language of our own: every kind of data that the chain needs, from a seed, without a network.

It is made to be learnable in seconds. Documents stay with one topic, so that the next sentence can be told from a
random one. A translation follows a fixed word list, with adjectives behind nouns and the verb at the end. The valence
of a rated text follows from its words: an adjective of known valence, an adverb that scales it or a negation.
"""

import json
import random
from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from pipeline.config import Config

TOPICS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "farm": (("farmer", "cow", "field", "barn", "horse", "plough"), ("feeds", "watches", "leads", "cleans")),
    "sea": (("sailor", "boat", "harbour", "net", "captain", "island"), ("steers", "repairs", "reaches", "follows")),
    "kitchen": (("cook", "soup", "kettle", "spoon", "oven", "baker"), ("heats", "stirs", "tastes", "carries")),
    "school": (("teacher", "pupil", "book", "lesson", "desk", "pencil"), ("reads", "explains", "opens", "copies")),
    "town": (("mayor", "street", "bridge", "market", "tower", "clock"), ("crosses", "paints", "visits", "builds")),
}
COLOURS = ("red", "green", "small", "tall", "old", "quiet", "heavy", "round")
VALENCE = {
    "wonderful": 3, "excellent": 3, "great": 3, "good": 2, "nice": 2, "pleasant": 2, "fun": 2,
    "boring": -1, "weak": -2, "bad": -2, "poor": -2, "awful": -3, "horrible": -3, "terrible": -3,
}  # fmt: skip
ADVERBS = {"": 1.0, "very ": 1.3, "somewhat ": 0.6, "not ": -0.6}
ASPECTS = {
    "movie": ("plot", "cast", "ending", "music", "story", "acting"),
    "product": ("screen", "battery", "handle", "price", "sound", "lens"),
    "tweet": ("weekend", "morning", "party", "weather", "coffee", "game"),
    "news": ("budget", "election", "reform", "treaty", "report", "speech"),
}
RATERS = 5


class GeneratedSource(Config):
    """Data of the toy language, in the formats in which a user brings own files."""

    kind: Literal["generated"]
    seed: NonNegativeInt
    """Seed of every draw."""
    num_documents: PositiveInt
    """Documents of running text."""
    num_pairs: PositiveInt
    """Sentences with their translation."""
    num_rated: PositiveInt
    """Rated texts."""
    num_conversations: PositiveInt
    """Questions with their answers."""
    licence: Literal["CC0-1.0"] = "CC0-1.0"
    """The generated texts are free of rights."""


def generate(source: GeneratedSource, folder: Path) -> None:
    """Writes text/, translation.tsv, rated.tsv, conversations.jsonl and the three word files into `folder`."""
    draw = random.Random(source.seed)
    (folder / "text").mkdir(parents=True)
    for number in range(source.num_documents):
        _write(folder / "text" / f"{number:05}.txt", _document(draw))
    _write(
        folder / "translation.tsv", "".join(f"{group}\t{s}\t{t}\n" for group, s, t in _pairs(draw, source.num_pairs))
    )
    _write(folder / "rated.tsv", "".join(f"{row}\n" for row in _rated(draw, source.num_rated)))
    _write(folder / "conversations.jsonl", "".join(f"{row}\n" for row in _questions(draw, source.num_conversations)))
    _write(folder / "questions-words.txt", _analogies())
    for name in ("wordsim353.tsv", "simlex999.txt"):
        _write(folder / name, _similarities(draw))


def translate_word(word: str) -> str:
    """The word of the toy target language: the letters in reverse, with an ending that marks the language."""
    return f"{word[::-1]}o"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _document(draw: random.Random) -> str:
    """Three to five paragraphs of one topic."""
    nouns, verbs = TOPICS[draw.choice(sorted(TOPICS))]
    paragraphs = [
        " ".join(_sentence(draw, nouns, verbs) for _ in range(draw.randint(4, 7))) for _ in range(draw.randint(3, 5))
    ]
    return "\n\n".join(paragraphs) + "\n"


def _sentence(draw: random.Random, nouns: tuple[str, ...], verbs: tuple[str, ...]) -> str:
    subject, target = draw.sample(nouns, 2)
    number = draw.choice(("the {}", "one {}", "the {}s", "two {}s"))
    return f"The {draw.choice(COLOURS)} {subject} {draw.choice(verbs)} {number.format(target)}."


def _pairs(draw: random.Random, count: int) -> list[tuple[str, str, str]]:
    """Distinct sentences with group and translation; the group stands for the file of a real package."""
    rows: dict[str, tuple[str, str, str]] = {}
    while len(rows) < count:
        topic = draw.choice(sorted(TOPICS))
        nouns, verbs = TOPICS[topic]
        first, second, verb = draw.choice(nouns), draw.choice(nouns), draw.choice(verbs)
        one, two = draw.choice(COLOURS), draw.choice(COLOURS)
        src = f"the {one} {first} {verb} the {two} {second}"
        order = ("the", first, one, "the", second, two, verb)
        rows[src] = (f"{topic}-{draw.randrange(20)}", src, " ".join(translate_word(word) for word in order))
    return list(rows.values())


def _rated(draw: random.Random, count: int) -> list[str]:
    """Rows of text, comma-separated ratings and domain; the raters differ by at most one step from the true valence."""
    rows: dict[str, str] = {}
    while len(rows) < count:
        domain = draw.choice(sorted(ASPECTS))
        noun, other = draw.sample(ASPECTS[domain], 2)
        adjective, adverb = draw.choice(sorted(VALENCE)), draw.choice(sorted(ADVERBS))
        opening = draw.choice(("I think the", "The", "Honestly, the", "For me the", "Once again the"))
        text = f"{opening} {noun} with the {draw.choice(COLOURS)} {other} was {adverb}{adjective}."
        valence = VALENCE[adjective] * ADVERBS[adverb]
        ratings = (max(-4, min(4, round(valence + draw.choice((-1, 0, 0, 1))))) for _ in range(RATERS))
        rows.setdefault(text, f"{text}\t{','.join(map(str, ratings))}\t{domain}")
    return list(rows.values())


def _questions(draw: random.Random, count: int) -> list[str]:
    """Conversations in which the answer follows from the words of the question."""
    rows: dict[str, str] = {}
    while len(rows) < count:
        nouns, verbs = TOPICS[draw.choice(sorted(TOPICS))]
        noun, verb, colour, other = draw.choice(nouns), draw.choice(verbs), draw.choice(COLOURS), draw.choice(nouns)
        question = f"What does the {colour} {noun} do with the {other}?"
        turns = [("user", question), ("assistant", f"The {colour} {noun} {verb} the {other}.")]
        messages = [{"role": role, "content": content} for role, content in turns]
        rows.setdefault(question, json.dumps({"messages": messages}))
    return list(rows.values())


def _analogies() -> str:
    """Singular is to plural as singular is to plural, in the format of the Google analogy set."""
    nouns = [noun for topic in sorted(TOPICS) for noun in TOPICS[topic][0][:3]]
    lines = [f"{one} {one}s {two} {two}s" for one in nouns for two in nouns if one != two]
    return "\n".join([": gram8-plural", *lines]) + "\n"


def _similarities(draw: random.Random) -> str:
    """Pairs of words with a score: high within a topic, low across topics."""
    words = [(topic, noun) for topic in sorted(TOPICS) for noun in TOPICS[topic][0]]
    rows = []
    for position, (topic, one) in enumerate(words):
        for other_topic, two in words[position + 1 :]:
            score = draw.uniform(6, 10) if topic == other_topic else draw.uniform(0, 4)
            rows.append(f"{one}\t{two}\t{score:.2f}")
    return "\n".join(["# Word 1\tWord 2\tHuman (mean)", *draw.sample(rows, 120)]) + "\n"
