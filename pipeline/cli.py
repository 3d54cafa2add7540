"""pipeline: the trained models at work, for people and for pipes.

Texts come as arguments, from a file, from a pipe or from a prompt; each line is one text, and gets one line as its
answer, in the same order, empty where the text is empty. Faults end in one line on standard error and exit code 2.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pipeline.cli_lines import STANDARD_INPUT, check_argument, count_lines, lines_of, written

if TYPE_CHECKING:
    from pipeline.cli_commands import Answerer
    from pipeline.cli_translate import Tally, Wish
    from pipeline.stages.translation import Translator

_LINES_AT_ONCE = 64
_MODELS = {
    "generate": "pretrain_gpt",
    "chat": "dpo",
    "classify": "finetune/polarity",
    "similar": "word_vectors/skipgram",
    "score": "reward",
}
"""The stage whose model folder a command opens by default."""
_TRANSLATOR = "translate/transformer"
_TRANSLATE = (
    "Translates texts, each line of a file or a pipe, or what is typed at a prompt. As many lines come out as go in, "
    "in their order; an empty line stays empty. Input of any size is read in groups of lines."
)
_BLEU = (
    "Scores translations with BLEU, chrF and TER, each with its sacreBLEU signature, on plain text. Of two systems it "
    "also says how much better the first is, by the paired bootstrap."
)
_HELP = {
    "generate": "continue texts",
    "chat": "talk: each line is the next turn of one conversation",
    "classify": "label texts; prints label, tab, probability",
    "similar": "find the nearest words of words",
    "score": "reward answers; each line is a request, a tab and an answer",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        for text in getattr(options, "text", ()):
            check_argument(text)
        match options.command:
            case "results":
                return _results(options)
            case "doctor":
                return _doctor(options)
            case "estimate":
                return _estimate(options)
            case "translate":
                return _translate(options)
            case "bleu":
                return _bleu(options)
            case _:
                return _answer(options)
    except BrokenPipeError:
        # Whoever read has seen enough; what is left in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except ValidationError as error:
        problem = error.errors()[0]
        message = f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}, found {problem['input']!r}"
    except (ValueError, FloatingPointError) as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename or 'output'}: {error.strerror or error}"
    sys.stdout.flush()
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pipeline", description="The trained models at work.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_translate(commands.add_parser("translate", help="translate texts", description=_TRANSLATE))
    for name, stage in _MODELS.items():
        command = commands.add_parser(name, help=_HELP[name], description=_HELP[name].capitalize() + ".")
        texts = "words" if name == "similar" else "one text"
        command.add_argument("text", nargs="*", help=f"{texts}; without it: --file, a pipe, or a prompt")
        command.add_argument("--file", type=Path, help="a UTF-8 file with one text on each line")
        command.add_argument("--model", type=Path, help=f"a model folder (default: models/PROFILE/{stage})")
        command.add_argument("--profile", default="", help="another profile than that of conf/profile.yaml")
        if name in ("generate", "chat"):
            command.add_argument("--max-new-tokens", type=int, default=48, help="longest answer (default: 48)")
            command.add_argument("--temperature", type=float, default=0.8, help="0 is greedy (default: 0.8)")
            command.add_argument("--top-k", type=int, default=0, help="draw from the likeliest; 0 for all")
            command.add_argument("--top-p", type=float, default=0.95, help="draw from this probability (default: 0.95)")
            command.add_argument("--seed", type=int, default=0, help="seed of the draws (default: 0)")
        if name == "similar":
            command.add_argument("--num", type=int, default=8, help="how many words (default: 8)")
    _add_bleu(commands.add_parser("bleu", help="score translations against a reference", description=_BLEU))
    doctor = commands.add_parser("doctor", help="look for what would stop a run")
    results = commands.add_parser("results", help="print the table of results, and where the report is")
    results.add_argument("--readme", action="store_true", help="also write the table into README.md")
    estimate = commands.add_parser("estimate", help="what a training would cost: operations, GPU-hours, memory")
    estimate.add_argument("config", type=Path, help="conf/PROFILE/STAGE.yaml of translate, pretrain_gpt, pretrain_bert")
    estimate.add_argument("--gpus", type=int, default=8, help="how many (default: 8)")
    estimate.add_argument(
        "--tflops", type=float, help="10^12 operations a second that each sustains (default: examples)"
    )
    estimate.add_argument("--zero", type=int, choices=range(4), help="ZeRO stage (default: all)")
    estimate.add_argument("--length", type=int, default=30, help="tokens of a sentence to translate (default: 30)")
    estimate.add_argument(
        "--step", action="store_true", help="also take one real optimizer step on the CPU, on generated tokens"
    )
    for command in (doctor, results):
        command.add_argument("--profile", default="", help="another profile than that of conf/profile.yaml")
    return parser


def _add_translate(command: argparse.ArgumentParser) -> None:
    command.add_argument("text", nargs="*", help="one text; without it: --file, a pipe, or a prompt")
    command.add_argument("--file", type=Path, help="a UTF-8 file with one text on each line")
    command.add_argument("--output", type=Path, help="write to this file, which appears when all is translated")
    command.add_argument(
        "--model",
        type=Path,
        action="append",
        help=f"a model folder (default: models/PROFILE/{_TRANSLATOR}); given several times: an ensemble",
    )
    command.add_argument("--profile", default="", help="another profile than that of conf/profile.yaml")
    command.add_argument("--beam", type=int, help="hypotheses of the search; 1 is greedy (default: the model's)")
    command.add_argument("--length-penalty", type=float, help="0 prefers short translations (default: the model's)")
    command.add_argument(
        "--stop",
        choices=("proven", "likely", "filled"),
        help="when a search ends: when nothing open can win; sooner, when nothing open is ahead; "
        "when the beam is full (default: the model's)",
    )
    command.add_argument(
        "--n-best", type=int, default=0, help="so many translations a line: number ||| text ||| log-prob ||| score"
    )
    command.add_argument(
        "--long", choices=("refuse", "cut"), default="refuse", help="what becomes of a line that is too long"
    )
    command.add_argument(
        "--lines-at-once", type=int, default=1024, help="lines read and sorted at once; 1 answers each as it comes"
    )
    command.add_argument("--sample", action="store_true", help="draw translations in place of searching the best")
    command.add_argument("--temperature", type=float, help="of --sample: below 1 is closer to the best (default: 1)")
    command.add_argument("--top-k", type=int, help="of --sample: draw from the likeliest; 0 for all (default: 0)")
    command.add_argument("--top-p", type=float, help="of --sample: draw from this probability (default: 1)")
    command.add_argument("--seed", type=int, help="of --sample: seed of the draws (default: 0)")
    command.add_argument("--attention", type=Path, help="draw the attention of up to 16 lines into a .png or .svg")


def _add_bleu(command: argparse.ArgumentParser) -> None:
    command.add_argument("systems", nargs="+", type=Path, metavar="SYSTEM", help="one or two files of translations")
    command.add_argument("--reference", type=Path, required=True, help="a file with the reference of each line")
    command.add_argument("--tokenised", action="store_true", help="words are what spaces separate, for tokenised text")
    command.add_argument("--lowercase", action="store_true", help="BLEU and chrF of text in lower case")
    command.add_argument("--resamples", type=int, default=1000, help="of the paired bootstrap (default: 1000)")
    command.add_argument("--seed", type=int, default=0, help="of the paired bootstrap (default: 0)")


def _translate(options: argparse.Namespace) -> int:
    """Translates one text, each line of a stream, or what is typed at a prompt."""
    if options.text and options.file:
        raise ValueError("texts come as arguments or from --file, found both")
    drawing = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 0}
    given = {name: value for name in drawing if (value := getattr(options, name)) is not None}
    if given and not options.sample:
        raise ValueError(f"--{next(iter(given)).replace('_', '-')} is for --sample")
    from pipeline import cli_translate
    from pipeline.profile import current_layout
    from pipeline.stages.translation import DrawConfig

    if options.attention:
        cli_translate.check_picture(options.attention)
    wish = cli_translate.Wish(
        num_best=options.n_best,
        draw=DrawConfig.model_validate(drawing | given) if options.sample else None,
        too_long=options.long,
        lines_at_once=options.lines_at_once,
        name="the text" if options.text else str(options.file or STANDARD_INPUT),
    )
    translator = cli_translate.opened(
        options.model or [current_layout(options.profile).model(_TRANSLATOR)],
        beam_size=options.beam,
        length_penalty=options.length_penalty,
        stop=options.stop,
    )
    tally = cli_translate.Tally()
    if not options.text and options.file is None and sys.stdin.isatty():
        _prompt_for_translations(translator, wish, tally)
    else:
        lines = iter([" ".join(options.text)]) if options.text else lines_of(options.file)
        # A bar on the terminal that the translations go to would stand between them.
        is_shown = sys.stderr.isatty() and (options.output is not None or not sys.stdout.isatty())
        with written(options.output) as stream:

            def write(found: Sequence[str]) -> None:
                stream.writelines(f"{line}\n" for line in found)
                stream.flush()

            cli_translate.translate_lines(
                translator,
                lines,
                wish,
                write,
                tally=tally,
                total=1 if options.text else count_lines(options.file) if is_shown else None,
                is_shown=is_shown,
            )
    if options.attention:
        cli_translate.draw_attention(options.attention, translator, tally)
    for note in tally.notes(translator):
        print(note, file=sys.stderr)
    return 0


def _prompt_for_translations(translator: "Translator", wish: "Wish", tally: "Tally") -> None:
    """Answers what is typed; a line that is refused says why, and the next is asked for."""
    from pipeline.cli_translate import translate_lines

    for line in _prompted("translate> "):
        try:
            translate_lines(translator, [line], wish, lambda found: print(*found, sep="\n", flush=True), tally=tally)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)


def _bleu(options: argparse.Namespace) -> int:
    from pipeline.cli_bleu import ScoreWish, score_files

    if len(options.systems) > 2:
        raise ValueError(f"one or two systems are scored, found {len(options.systems)}")
    wish = ScoreWish(
        kind="tokenised" if options.tokenised else "13a",
        lowercase=options.lowercase,
        seed=options.seed,
        num_resamples=options.resamples,
    )
    print(*score_files(options.reference, options.systems, wish), sep="\n")
    return 0


def _answer(options: argparse.Namespace) -> int:
    """Answers each text; one text or a prompt is answered as it comes, many in groups."""
    is_prompt = not options.text and options.file is None and sys.stdin.isatty()
    answer = _answerer(options)
    if is_prompt:
        for line in _prompted(f"{options.command}> "):
            print(*answer([line]), sep="\n", flush=True)
    elif options.text:
        texts = options.text if options.command == "similar" else [" ".join(options.text)]
        print(*answer(texts), sep="\n")
    else:
        lines = lines_of(options.file)
        while group := list(islice(lines, _LINES_AT_ONCE)):
            for reply in _keeping_empty(answer, group):
                print(" ".join(reply.splitlines()))
            sys.stdout.flush()
    sys.stdout.flush()
    return 0


def _answerer(options: argparse.Namespace) -> "Answerer":
    """The function behind a command. Imported here: help and errors of the command line need no torch."""
    from pipeline import cli_commands
    from pipeline.profile import current_layout

    folder = options.model or current_layout(options.profile).model(_MODELS[options.command])
    match options.command:
        case "generate" | "chat":
            draw = cli_commands.Draw(
                max_new_tokens=options.max_new_tokens,
                temperature=options.temperature,
                top_k=options.top_k,
                top_p=options.top_p,
                seed=options.seed,
            )
            begin = cli_commands.chatting if options.command == "chat" else cli_commands.continuing
            return begin(folder, draw)
        case "classify":
            return cli_commands.classifying(folder)
        case "similar":
            return cli_commands.neighbouring(folder, options.num)
        case _:
            return cli_commands.scoring(folder)


def _keeping_empty(answer: "Answerer", lines: Sequence[str]) -> list[str]:
    """Answers in the places of their lines; an empty line is no text and stays empty."""
    filled = [place for place, line in enumerate(lines) if line.strip()]
    answers = [""] * len(lines)
    if filled:
        for place, reply in zip(filled, answer([lines[place] for place in filled]), strict=True):
            answers[place] = reply
    return answers


def _prompted(prompt: str) -> Iterable[str]:
    """Lines that a person types, until the end of input; empty ones are asked again."""
    while True:
        try:
            line = input(prompt)
        except EOFError:
            print()
            return
        if line.strip():
            yield line


def _results(options: argparse.Namespace) -> int:
    from pipeline.profile import current_layout
    from pipeline.report.table import PAGE, plain_table, read_results, write_readme

    folder = current_layout(options.profile).reports
    rows = read_results(folder)
    print(plain_table(rows))
    print(f"\nReport: {folder / PAGE}")
    if options.readme:
        write_readme(Path("README.md"), rows)
    return 0


def _estimate(options: argparse.Namespace) -> int:
    from pipeline.estimate import describe

    for line in describe(
        options.config,
        num_gpus=options.gpus,
        tflops=options.tflops,
        zero_stage=options.zero,
        sentence_length=options.length,
    ):
        print(line)
    if options.step:
        from pipeline.estimate_step import describe_step

        for line in describe_step(options.config, sentence_length=options.length):
            print(line, flush=True)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from pipeline.doctor import examine
    from pipeline.profile import current_layout

    problems = 0
    for finding in examine(current_layout(options.profile)):
        problems += not finding.is_fine
        print(
            f"{'ok     ' if finding.is_fine else 'PROBLEM'}  {finding.what}: {' '.join(finding.found.split())}",
            flush=True,
        )
        if finding.remedy:
            print(f"         -> {finding.remedy}", flush=True)
    print(f"\n{problems} problem(s)" if problems else "\nEverything is ready: make repro")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
