"""Our search beside `generate` of transformers, and CTranslate2 where it is installed, with the same weights.

python -m benchmarks.translate_decoding [--data FOLDER] [--model FOLDER] [--sentences-file FILE] [--sentences N]
    [--beam N] [--threads N] [--rounds N]

All translate the same sentences, from ids to ids, in fp32 in one run, with as many threads, on which ours and
CTranslate2 translate batches side by side. First transformers and CTranslate2 translate twice at each of several batch
sizes, 16 to 128, and on as long as a size is not slower than those before it; the one with the fastest turn counts in
the rounds, in which all take turns: ours with each of its ends of a search, then the others. The ends are `proven`,
until nothing can beat what is found, `settled`, the rule of transformers, `likely`, until nothing open is ahead of the
best, and `filled`, the rule of CTranslate2. Before each turn a side is opened and translates 64 sentences, and after it
it is closed, which is not timed: the threads of CTranslate2 take time from whatever else is in the process.

Seconds are the median of the rounds with the lowest and the highest, and ratios are those of medians; in brackets are
those of the processor's time, which counts where others use the machine. `equal` is the share of sentences that come
out as ours do, and with which end: the one that most resembles; ours are compared with `proven`.

With a model, greedy search follows: the same weights have to give the same tokens, as far as the length that ours may
have, so that fewer than 99.5% equal sentences (two logits may be nearly equal) end the program with an error.

The sentences are those of test_2016_flickr.LANGUAGE in the FOLDER of the data, the language being the one that the
model reads, or of a FILE with a sentence a line; without either they are generated. Without a model its weights are
random: every translation is then about as long as allowed, where ours ends with <eos> and that of transformers as it
stands, so that `equal` means nothing. Both peers are of the extra dev; CTranslate2 may be missing.
"""

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any, get_args

import numpy as np
import torch
from transformers import MarianMTModel

from benchmarks.shared.options import parser, positive
from benchmarks.shared.sentences import TEST, generated_sentences, read_lines
from pipeline.decoding.beam import Stop
from pipeline.inference.device import CPU
from pipeline.inference.models import put_on
from pipeline.inference.translator import SearchConfig, Translator
from pipeline.inference.translator_folder import open_translator, save_translator
from pipeline.models.huggingface.marian import is_marian
from pipeline.models.seq2seq import Seq2Seq, TransformerConfig
from pipeline.text.forms import MosesText
from pipeline.text.tokenizer_training import train_translation_bpe

SMALLEST_BATCH, LEAST_LARGEST_BATCH = 16, 128
"""Batch sizes of a peer: twice as large each time, up to the second at least, and on until a larger one is slower."""
TRIES = 2
"""Turns of a peer at each batch size, of which the faster one counts."""
RANDOM_LENGTH = 26
"""Longest source and target of a model with random weights."""
EQUAL_BEAM, EQUAL_GREEDY = 0.97, 0.995
"""Least share of sentences that a peer has to translate as we do; no end of ours is exactly that of a peer's beam."""

Ids = tuple[int, ...]
Translate = Callable[[Sequence[np.ndarray], int, Translator], list[Ids]]
"""Translates sources in batches of a size, searching as a translator of ours says."""


@dataclass(frozen=True)
class Side:
    """A program that translates, closed."""

    opened: Callable[[], Translate]
    size: int
    """Sentences of a batch; ours chooses its own."""
    ours: Translator
    """How it searches."""


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


def turn(side: Side, sources: Sequence[np.ndarray], threads: int) -> Run:
    """The time of a side between its opening and its closing, warmed up."""
    translate = side.opened()
    torch.set_num_threads(threads)  # which CTranslate2 changes for all of the process
    translate(sources[:64], side.size, side.ours)
    return timed(partial(translate, sources, side.size, side.ours))


def by_us(sources: Sequence[np.ndarray], size: int, ours: Translator) -> list[Ids]:
    found: list[Ids] = [()] * len(sources)
    for finished in ours.searched(sources, num_best=1):
        for place, (best,) in finished:
            found[place] = best.tokens
    return found


def random_translator(texts: Sequence[str], beam: int) -> Translator:
    """The shape of the small published Transformers for this data, 4 + 4 layers."""
    tokenizer = train_translation_bpe([*texts, *generated_sentences(20_000)], vocab_size=6000)
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


def ctranslate2_engine(folder: Path, threads: int) -> Any:
    """CTranslate2's translator of a model folder, in which its own form of the model stays."""
    import ctranslate2
    from ctranslate2.converters import TransformersConverter

    converted = folder / "ctranslate2"
    if not converted.exists():
        TransformersConverter(str(folder)).convert(str(converted))
    return ctranslate2.Translator(
        str(converted), device="cpu", compute_type="float32", inter_threads=threads, intra_threads=1
    )


def by_ctranslate2(engine: Any, sources: Sequence[np.ndarray], size: int, ours: Translator) -> list[Ids]:
    tokens = ours.tokenizer
    results = engine.translate_batch(
        [tokens.tokens(source.tolist()) for source in sources],
        beam_size=ours.search.beam_size,
        length_penalty=ours.search.length_penalty,
        max_batch_size=size,
        max_decoding_length=ours.model.config.max_length - 1,
    )
    return [tuple(tokens.backend.token_to_id(token) or 0 for token in one.hypotheses[0]) for one in results]


def main(arguments: Sequence[str] | None = None) -> None:
    choices = parser("translate_decoding", __doc__, "data", "model", "threads")
    choices.add_argument("--sentences-file", type=Path, help="a file with a sentence a line, in the form that it reads")
    choices.add_argument("--sentences", type=positive, default=1000, help="how many at most; default %(default)s")
    choices.add_argument("--beam", type=positive, default=5, help="open hypotheses; default %(default)s")
    choices.add_argument("--rounds", type=positive, default=3, help="turns of each side; default %(default)s")
    options = choices.parse_args(arguments)
    torch.set_num_threads(options.threads)

    trained = open_trained(options.model) if options.model else None
    texts = choose_texts(options.data, options.sentences_file, trained, options.sentences)
    ours = trained or random_translator(texts, options.beam)
    ours = replace(ours, search=ours.search.model_copy(update={"beam_size": options.beam}))
    sources = ours.encode(texts, too_long="cut")
    num_tokens = sum(map(len, sources))
    print(f"{len(texts)} sentences, {num_tokens} source tokens, beam {options.beam}, {options.threads} thread(s)")
    if trained is None:
        print("not measured: equal translations, no MODEL=FOLDER (--model): `equal` means nothing for random weights")

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "model")
        save_translator(folder, ours)
        put_on(ours, CPU)  # as the command opens it
        peers: dict[str, Callable[[], Translate]] = {
            "transformers": lambda: partial(by_transformers, MarianMTModel.from_pretrained(folder))
        }
        if importlib.util.find_spec("ctranslate2"):
            peers["CTranslate2"] = lambda: partial(by_ctranslate2, ctranslate2_engine(folder, options.threads))
        else:
            print("not measured: CTranslate2 is not installed (extra dev)")
        sides = {f"ours, {end}": Side(lambda: by_us, 0, ending(ours, end)) for end in get_args(Stop)}
        for name, opened in peers.items():
            size = best_size(name, opened, sources, ours, options.threads)
            sides[f"{name}, batches of {size}"] = Side(opened, size, ours)
        runs: dict[str, list[Run]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, side in sides.items():
                runs[name].append(turn(side, sources, options.threads))
        mine = {end: runs.pop(f"ours, {end}") for end in get_args(Stop)}
        report(mine, runs)
        if trained is None:
            return
        greedy = replace(ours, search=ours.search.greedy)
        expected = by_us(sources, 0, greedy)
        shares = {
            name: share(expected, cut(turn(Side(opened, 32, greedy), sources, options.threads).found, sources, ours))
            for name, opened in peers.items()
        }

    for name, equal in shares.items():
        print(f"greedy search: {equal:.1%} of the sentences come out of {name} as of ours")
    beams = {name: closest(mine, taken[0])[0] for name, taken in runs.items()}
    wrong = [f"greedy, {name}: {equal:.1%} equal" for name, equal in shares.items() if equal < EQUAL_GREEDY]
    wrong += [f"beam, {name}: {equal:.1%} equal" for name, equal in beams.items() if equal < EQUAL_BEAM]
    if wrong:
        raise SystemExit(f"the sides do not compute the same: {'; '.join(wrong)}")


def ending(ours: Translator, end: Stop) -> Translator:
    """A translator that ends a search so."""
    return replace(ours, search=ours.search.model_copy(update={"stop": end}))


def best_size(
    name: str, opened: Callable[[], Translate], sources: Sequence[np.ndarray], ours: Translator, threads: int
) -> int:
    """The batch size at which a side is fastest, printed with the seconds at the others."""

    def seconds_at(size: int) -> float:
        return min(turn(Side(opened, size, ours), sources, threads).seconds for _ in range(TRIES))

    seconds = tried_sizes(seconds_at, num_sources=len(sources))
    print(f"{name}: {', '.join(f'{one:.2f} s in batches of {size}' for size, one in seconds.items())}")
    return min(seconds, key=lambda size: seconds[size])


def tried_sizes(seconds_at: Callable[[int], float], *, num_sources: int) -> dict[int, float]:
    """The seconds at each batch size, until one is slower than the fastest, or takes all sources at once."""
    seconds: dict[int, float] = {}
    size = SMALLEST_BATCH
    while True:
        seconds[size] = seconds_at(size)
        is_slower = size > LEAST_LARGEST_BATCH and seconds[size] > min(seconds.values())
        if is_slower or size >= num_sources:
            return seconds
        size *= 2


def open_trained(folder: Path) -> Translator:
    """The translator of a folder, of a variant that the peers open too."""
    try:
        found = open_translator(folder)
    except (OSError, ValueError) as error:
        raise SystemExit(f"--model: {error}") from error
    if not is_marian(found.model.config):
        raise SystemExit(f"--model: {folder} is no post-norm sinusoidal Transformer, which is what the others open")
    return found


def choose_texts(data: Path | None, file: Path | None, trained: Translator | None, count: int) -> list[str]:
    """The sentences of a file, or those that a folder has in the language that the model reads, or generated ones."""
    if file is None and data is None:
        return generated_sentences(count)
    language = trained.form.src if trained and isinstance(trained.form, MosesText) else "en"
    return read_lines(file or Path(data or "", f"{TEST}.{language}"))[:count]


def cut(found: Sequence[Ids], sources: Sequence[np.ndarray], ours: Translator) -> list[Ids]:
    """Translations as long as ours may be: the others limit a batch, or all of them alike, and may go on for longer."""
    longest, extra = ours.model.config.max_length, ours.search.max_extra_tokens
    return [
        ids[: min(longest, len(source) + extra) - 1]  # ours counts <eos>
        for ids, source in zip(found, sources, strict=True)
    ]


def share(expected: Sequence[Ids], found: Sequence[Ids]) -> float:
    """How many of the translations are the same, of all."""
    return sum(a == b for a, b in zip(expected, found, strict=True)) / len(expected)


def closest(mine: dict[Stop, list[Run]], run: Run) -> tuple[float, Stop]:
    """The end of our search that finds most of what another found, and the share of it."""
    shares = ((share(taken[0].found, run.found), end) for end, taken in mine.items())
    return max(shares, key=lambda found: found[0])


def report(mine: dict[Stop, list[Run]], theirs: dict[str, list[Run]]) -> None:
    """Prints the times of all, and those beside ours."""
    heads = "  ".join(f"{f'x ours, {end}':>16}" for end in mine)
    print(f"{'':>28} {'seconds, lowest to highest':>32}  {heads} {'equal':>7}")
    print(f"{'(in brackets those of CPU)':>28}")
    rows = {
        f"ours, {end}": (taken, (share(mine["proven"][0].found, taken[0].found), "proven"))
        for end, taken in mine.items()
    }
    rows |= {name: (taken, closest(mine, taken[0])) for name, taken in theirs.items()}
    for name, (taken, (equal, end)) in rows.items():
        wall, cpu = medians(taken)
        lowest, highest = (pick(run.seconds for run in taken) for pick in (min, max))
        ratios = (f"{wall / our_wall:8.2f} ({cpu / our_cpu:5.2f})" for our_wall, our_cpu in map(medians, mine.values()))
        times = f"{wall:.2f}, {lowest:.2f} to {highest:.2f} ({cpu:.2f})"
        print(f"{name:>28} {times:>32}  {'  '.join(ratios)} {equal:7.1%} {end}")


def medians(taken: Sequence[Run]) -> tuple[float, float]:
    """The medians of the seconds and of those of the processor."""
    return median(run.seconds for run in taken), median(run.cpu_seconds for run in taken)


if __name__ == "__main__":
    main()
