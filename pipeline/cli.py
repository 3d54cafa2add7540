"""pipeline: the trained models at work, for people and for pipes.

Texts come as arguments, from a file, from a pipe or from a prompt; each line is one text, and gets one line as its
answer, in the same order, empty where the text is empty. Faults end in one line on standard error and exit code 2.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pipeline.cli_lines import STANDARD_INPUT, check_argument, count_lines, in_groups, lines_of, written
from pipeline.cli_options import (
    ANSWERER,
    ANSWERING,
    COLUMNS,
    DRAWING,
    MODELS,
    RESAMPLING,
    TRANSLATOR,
    check_answer,
    check_bleu,
    check_model,
    check_questions,
    check_tag,
    check_translate,
    given_or_default,
    parser,
)

if TYPE_CHECKING:
    from pipeline.cli_answer import AnswerWish
    from pipeline.cli_commands import Answerer
    from pipeline.cli_translate import Tally, Wish
    from pipeline.stages.translation import Translator

_LINES_AT_ONCE = 64
_TRANSLATED_AT_ONCE = 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code."""
    options = parser().parse_args(arguments)
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
            case "answer":
                return _answer_questions(options)
            case "classify":
                return _classify(options)
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


def _translate(options: argparse.Namespace) -> int:
    """Translates one text, each line of a stream, or what is typed at a prompt."""
    is_prompt = _is_prompt(options)
    check_translate(options, is_prompt=is_prompt)
    from pipeline import cli_translate
    from pipeline.inference_device import chosen_device
    from pipeline.profile import current_layout
    from pipeline.stages.translation import DrawConfig

    if options.attention:
        cli_translate.check_picture(options.attention)
    wish = cli_translate.Wish(
        num_best=options.n_best,
        draw=DrawConfig.model_validate(given_or_default(options, DRAWING)) if options.sample else None,
        too_long=options.long,
        lines_at_once=_TRANSLATED_AT_ONCE if options.lines_at_once is None else options.lines_at_once,
        name="the text" if options.text else str(options.file or STANDARD_INPUT),
    )
    translator = cli_translate.opened(
        options.model or [current_layout(options.profile).model(TRANSLATOR)],
        chosen_device(options.device),
        {"beam_size": options.beam, "length_penalty": options.length_penalty, "stop": options.stop},
        batch_tokens=options.batch_tokens,
    )
    tally = cli_translate.Tally()
    if is_prompt:
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


def _answer_questions(options: argparse.Namespace) -> int:
    """Answers a question, each line of a stream, or what is typed at a prompt."""
    check_questions(options)
    from pipeline import cli_answer
    from pipeline.data.records import read_text
    from pipeline.inference_device import chosen_device
    from pipeline.profile import current_layout

    wish = cli_answer.AnswerWish(
        num_best=options.n_best,
        passage=read_text(options.passage) if options.passage else "",
        name="the text" if options.text else str(options.file or STANDARD_INPUT),
    )
    folder = options.model or current_layout(options.profile).model(ANSWERER)
    model = cli_answer.opened(folder, chosen_device(options.device))

    def answer(lines: Iterable[str], wish: "AnswerWish") -> None:
        note = cli_answer.note_on(
            cli_answer.answer_lines(model, lines, wish, lambda found: print(*found, sep="\n", flush=True)), model
        )
        if note:
            print(note, file=sys.stderr)

    if _is_prompt(options):
        for line in _prompted("question> " if wish.passage else "passage TAB question> "):
            try:
                answer([line], wish)
            except ValueError as error:
                print(f"error: {error}", file=sys.stderr)
    elif options.text:
        asked = " ".join(options.text) if wish.passage else options.text[1]
        answer([asked], replace(wish, passage=wish.passage or options.text[0]))
    else:
        answer(lines_of(options.file), wish)
    return 0


def _classify(options: argparse.Namespace) -> int:
    """Labels one text, one pair, each line of a stream, or what is typed at a prompt."""
    check_model(options)
    if options.pairs and options.text and len(options.text) != 2:
        raise ValueError(f"--pairs: expected two texts, each one argument, found {len(options.text)}")
    from pipeline import cli_classify
    from pipeline.inference_device import chosen_device
    from pipeline.profile import current_layout

    folder = options.model or current_layout(options.profile).model(MODELS["classify"])
    model = cli_classify.opened(folder, chosen_device(options.device))
    name = "the text" if options.text else str(options.file or STANDARD_INPUT)

    def classify(lines: Iterable[str]) -> None:
        cut = cli_classify.classify_lines(
            model, lines, pairs=options.pairs, name=name, write=lambda found: print(*found, sep="\n", flush=True)
        )
        if note := cli_classify.note_on(cut, model):
            print(note, file=sys.stderr)

    if _is_prompt(options):
        for line in _prompted("text TAB text> " if options.pairs else "classify> "):
            try:
                classify([line])
            except ValueError as error:
                print(f"error: {error}", file=sys.stderr)
    elif options.text:
        classify([("\t" if options.pairs else " ").join(options.text)])
    else:
        classify(lines_of(options.file))
    return 0


def _bleu(options: argparse.Namespace) -> int:
    check_bleu(options)
    from pipeline.cli_bleu import ScoreWish, score_files

    resampling = given_or_default(options, RESAMPLING)
    wish = ScoreWish(
        tokenised=options.tokenised,
        moses=options.moses,
        split_compounds=options.split_compounds,
        lowercase=options.lowercase,
        seed=resampling["seed"],
        num_resamples=resampling["resamples"],
    )
    print(*score_files(options.reference, options.systems, wish), sep="\n")
    return 0


def _answer(options: argparse.Namespace) -> int:
    """Answers each text; one text or a prompt is answered as it comes, many in groups."""
    check_answer(options)
    is_prompt = _is_prompt(options)
    if options.command == "tag":
        check_tag(options, is_prompt=is_prompt)
        if options.conll:
            return _tag_columns(options)
    answer = _answerer(options)
    if is_prompt:
        for line in _prompted(f"{options.command}> "):
            print(*answer([line]), sep="\n", flush=True)
    elif options.text:
        texts = options.text if options.command == "similar" else [" ".join(options.text)]
        print(*answer(texts), sep="\n")
    else:
        for _, group in in_groups(lines_of(options.file), _LINES_AT_ONCE):
            for reply in _keeping_empty(answer, group):
                print(" ".join(reply.splitlines()))
            sys.stdout.flush()
    sys.stdout.flush()
    return 0


def _tag_columns(options: argparse.Namespace) -> int:
    """Tags a column file as it comes."""
    from pipeline import cli_tag
    from pipeline.inference_device import chosen_device
    from pipeline.profile import current_layout

    given = given_or_default(options, COLUMNS)
    columns = cli_tag.Columns.model_validate(given | {"name": str(options.file or STANDARD_INPUT)})
    folder = options.model or current_layout(options.profile).model(MODELS["tag"])
    model = cli_tag.opened_tagger(folder, chosen_device(options.device))
    for line in cli_tag.tag_columns(model, lines_of(options.file), columns):
        print(line)
    sys.stdout.flush()
    return 0


def _answerer(options: argparse.Namespace) -> "Answerer":
    """The function behind a command. Imported here: help and errors of the command line need no torch."""
    from pipeline import cli_commands
    from pipeline.inference_device import chosen_device
    from pipeline.profile import current_layout

    folder = options.model or current_layout(options.profile).model(MODELS[options.command])
    if options.command == "similar":
        return cli_commands.neighbouring(folder, options.num)
    device = chosen_device(options.device)
    match options.command:
        case "generate" | "chat":
            drawing = given_or_default(options, ANSWERING)
            draw = cli_commands.Draw(
                max_new_tokens=options.max_new_tokens,
                temperature=options.temperature,
                top_k=int(drawing["top_k"]),
                top_p=drawing["top_p"],
                seed=int(drawing["seed"]),
            )
            begin = cli_commands.chatting if options.command == "chat" else cli_commands.continuing
            return begin(folder, device, draw)
        case "tag":
            from pipeline import cli_tag

            return cli_tag.tagging(
                cli_tag.opened_tagger(folder, device), as_json=options.json, tokenised=options.tokenised
            )
        case "fill-mask":
            return cli_commands.filling(folder, device, options.num)
        case _:
            return cli_commands.scoring(folder, device)


def _keeping_empty(answer: "Answerer", lines: Sequence[str]) -> list[str]:
    """Answers in the places of their lines; an empty line is no text and stays empty."""
    filled = [place for place, line in enumerate(lines) if line.strip()]
    answers = [""] * len(lines)
    if filled:
        for place, reply in zip(filled, answer([lines[place] for place in filled]), strict=True):
            answers[place] = reply
    return answers


def _is_prompt(options: argparse.Namespace) -> bool:
    """Whether a person is to type the texts."""
    return not options.text and options.file is None and sys.stdin.isatty()


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
