"""Our beam search beside `generate` of transformers, and CTranslate2 where it is installed, with the same weights.

python benchmarks/translate_decoding.py [--data FOLDER] [--model FOLDER] [--sentences 1000] [--beam 5] [--threads 1]

All translate the same sentences in fp32 in one run, with as many threads; transformers and CTranslate2 at several batch
sizes, of which the best counts. Ours is timed with each of its ends of a search: `proven`, until nothing can beat what
is found, `likely`, the rule of transformers, and `filled`, that of CTranslate2. `equal` is the share of sentences that
come out as ours do with `proven`. In brackets is the time of the processor, which counts where others use the machine.

The FOLDER of the data has a test_2016_flickr.en; without one the sentences are generated. Without a model its weights
are random: every translation is then as long as allowed, and none is equal, since there ours ends with <eos> and theirs
as it stands. CTranslate2 is no dependency of this project; with
`pip install ctranslate2` in an environment of its own, made with `--system-site-packages`, it takes part.
"""

import argparse
import importlib
import importlib.util
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, get_args

import numpy as np
import torch
from transformers import MarianMTModel

from pipeline.decoding.beam import Stop
from pipeline.models.seq2seq import Seq2Seq, TransformerConfig
from pipeline.stages.translation import SearchConfig, Translator, open_translator, save_translator
from pipeline.text.training import train_translation_bpe

TEST = "test_2016_flickr.en"
BATCHES = (16, 32, 64, 128)
RANDOM_LENGTH = 26
"""Longest source and target of a model with random weights."""

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Run:
    """What one side found and how long it took."""

    found: list[Ids]
    seconds: float
    cpu_seconds: float


def timed(translate: Callable[[], list[Ids]]) -> Run:
    wall, cpu = perf_counter(), process_time()
    found = translate()
    return Run(found, perf_counter() - wall, process_time() - cpu)


def best_of_two(translator: Translator, texts: Sequence[str]) -> Run:
    runs = [timed(lambda: [one.tokens for one in translator.translate(texts, too_long="cut")]) for _ in range(2)]
    return min(runs, key=lambda run: run.seconds)


def generated(count: int) -> list[str]:
    """Sentences of 4 to 22 words, frequent ones more often."""
    drawn = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "il", "or", "us")]
    words = ["".join(drawn.choices(syllables, k=drawn.randint(1, 3))) for _ in range(6000)]
    weights = [1 / (rank + 10) for rank in range(len(words))]
    return [" ".join(drawn.choices(words, weights, k=drawn.randint(4, 22))) for _ in range(count)]


def random_translator(texts: Sequence[str], beam: int) -> Translator:
    """The shape of the small published Transformers for this data, 4 + 4 layers."""
    tokenizer = train_translation_bpe([*texts, *generated(20_000)], vocab_size=6000)
    torch.manual_seed(0)
    shape = TransformerConfig(
        kind="transformer",
        vocab_size=tokenizer.vocab_size,
        d_model=128,
        num_encoder_layers=4,
        num_decoder_layers=4,
        num_heads=4,
        d_ff=256,
        max_length=RANDOM_LENGTH,
    )
    search = SearchConfig(beam_size=beam, normalisation="length", length_penalty=1.0, max_extra_tokens=RANDOM_LENGTH)
    return Translator(Seq2Seq(shape).eval(), tokenizer, search)


def batches(sources: Sequence[np.ndarray], size: int) -> list[list[int]]:
    """Places of sources of similar length, the longest first."""
    order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
    return [order[start : start + size] for start in range(0, len(order), size)]


def by_transformers(model: Any, sources: Sequence[np.ndarray], size: int, ours: Translator) -> list[Ids]:
    search, pad = ours.search, ours.tokenizer.pad_id
    found: list[Ids] = [()] * len(sources)
    for places in batches(sources, size):
        longest = len(sources[places[0]])
        ids = torch.full((len(places), longest), pad)
        for row, i in enumerate(places):
            ids[row, : len(sources[i])] = torch.from_numpy(sources[i])
        # The decoder's start counts among their tokens.
        limit = 1 + min(ours.model.config.max_length, longest + search.max_extra_tokens)
        with torch.inference_mode():
            tokens = model.generate(
                input_ids=ids,
                attention_mask=(ids != pad).long(),
                num_beams=search.beam_size,
                max_length=limit,
                length_penalty=search.length_penalty,
            )
        for i, row in zip(places, tokens.tolist(), strict=True):
            ends = row.index(0) if 0 in row else len(row)
            found[i] = tuple(token for token in row[1:ends] if token != pad)
    return found


def by_ctranslate2(folder: Path, sources: Sequence[np.ndarray], ours: Translator, threads: int) -> Run:
    # Not installed where types are checked.
    ctranslate2 = importlib.import_module("ctranslate2")
    converters = importlib.import_module("ctranslate2.converters")

    converted = folder / "ctranslate2"
    converters.TransformersConverter(str(folder)).convert(str(converted))
    engine = ctranslate2.Translator(
        str(converted), device="cpu", compute_type="float32", inter_threads=1, intra_threads=threads
    )
    tokens = ours.tokenizer
    texts = [tokens.tokens(source.tolist()) for source in sources]
    limit = ours.model.config.max_length - 1

    def translate(size: int) -> list[Ids]:
        results = engine.translate_batch(
            texts,
            beam_size=ours.search.beam_size,
            length_penalty=ours.search.length_penalty,
            max_batch_size=size,
            max_decoding_length=limit,
        )
        return [tuple(tokens.backend.token_to_id(token) or 0 for token in one.hypotheses[0]) for one in results]

    return min((timed(partial(translate, size)) for size in BATCHES), key=lambda run: run.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help=f"a folder with {TEST}")
    parser.add_argument("--model", type=Path, help="the folder of a trained Transformer")
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    texts = (options.data / TEST).read_text().split("\n")[:-1] if options.data else generated(options.sentences)
    texts = texts[: options.sentences]
    ours = open_translator(options.model) if options.model else random_translator(texts, options.beam)
    ours = replace(ours, search=ours.search.model_copy(update={"beam_size": options.beam}))
    sources = ours.encode(texts, too_long="cut")
    num_tokens = sum(map(len, sources))
    print(f"{len(texts)} sentences, {num_tokens} source tokens, beam {options.beam}, {options.threads} threads")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "model")
        save_translator(folder, ours)
        theirs: Any = MarianMTModel.from_pretrained(folder)
        ours.translate(texts[:64], too_long="cut")
        by_transformers(theirs, sources[:64], 64, ours)

        ends = get_args(Stop)
        mine = {
            end: best_of_two(replace(ours, search=ours.search.model_copy(update={"stop": end})), texts) for end in ends
        }
        runs = {
            f"transformers, batches of {size}": timed(partial(by_transformers, theirs, sources, size, ours))
            for size in BATCHES
        }
        if importlib.util.find_spec("ctranslate2"):
            runs["CTranslate2"] = by_ctranslate2(folder, sources, ours, options.threads)

    heads = " ".join(f"{f'x ours, {end}':>16}" for end in ends)
    print(f"{'':>28} {'seconds':>16} {heads} {'equal':>7}")
    print(f"{'(seconds of CPU behind them)':>28}")
    for name, run in {**{f"ours, {end}": mine[end] for end in ends}, **runs}.items():
        equal = sum(a == b for a, b in zip(mine["proven"].found, run.found, strict=True)) / len(texts)
        ratios = (
            f"{run.seconds / one.seconds:8.2f} ({run.cpu_seconds / one.cpu_seconds:5.2f})" for one in mine.values()
        )
        print(f"{name:>28} {run.seconds:8.2f} ({run.cpu_seconds:5.2f})  {'  '.join(ratios)} {equal:7.1%}")
    if options.model:
        most = max(sum(a == b for a, b in zip(mine["proven"].found, run.found, strict=True)) for run in runs.values())
        assert most >= 0.97 * len(texts), "the sides do not compute the same"


if __name__ == "__main__":
    main()
