"""pipeline: the trained models at work, for people and for pipes.

Texts come as arguments, from a file, from a pipe or from a prompt; each line is one text, and gets one line as its
answer, in the same order, empty where the text is empty. Faults end in one line on standard error and exit code 2.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

if TYPE_CHECKING:
    from pipeline.cli_commands import Answerer

_LINES_AT_ONCE = 64
_MODELS = {
    "translate": "translate/transformer",
    "generate": "pretrain_gpt",
    "chat": "dpo",
    "classify": "finetune/polarity",
    "similar": "word_vectors/skipgram",
    "score": "reward",
}
"""The stage whose model folder a command opens by default."""
_HELP = {
    "translate": "translate texts",
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
        match options.command:
            case "results":
                return _results(options)
            case "doctor":
                return _doctor(options)
            case "estimate":
                return _estimate(options)
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
    except ValueError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename or 'output'}: {error.strerror or error}"
    sys.stdout.flush()
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pipeline", description="The trained models at work.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
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
    for command in (doctor, results):
        command.add_argument("--profile", default="", help="another profile than that of conf/profile.yaml")
    return parser


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
        lines = _lines(options.file)
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
        case "translate":
            return cli_commands.translating(folder)
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


def _lines(file: Path | None) -> Iterator[str]:
    """The lines of a file or of standard input; ValueError names the line that is not UTF-8."""
    name = str(file) if file else "standard input"
    with file.open("rb") if file else os.fdopen(os.dup(sys.stdin.fileno()), "rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise ValueError(f"{name}, line {number}: not UTF-8") from error


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
