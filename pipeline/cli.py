"""pipeline: the trained models at work, for people and for pipes.

Texts come as arguments, from a file, from a pipe or from a prompt; each line is one text, and gets one line as its
answer, in the same order, empty where the text is empty. Faults end in one line on standard error and exit code 2.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pipeline.commands.lines import (
    STANDARD_INPUT,
    check_argument,
    count_lines,
    in_groups,
    in_place,
    lines_of,
    typed,
    written,
)
from pipeline.commands.options import (
    ANSWERER,
    ANSWERING,
    COLUMNS,
    DRAWING,
    MODELS,
    RESAMPLING,
    SEARCH,
    TRANSLATOR,
    check_answer,
    check_bleu,
    check_inputs,
    check_questions,
    check_tag,
    check_translate,
    given_or_default,
    parser,
)

if TYPE_CHECKING:
    from pipeline.commands.answer import AnswerWish
    from pipeline.commands.texts import Answerer
    from pipeline.commands.translate import Tally, Wish
    from pipeline.inference.translator import Translator

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
    except (KeyboardInterrupt, SystemExit) as stop:
        for note in _notes_on(stop):
            print(note, file=sys.stderr)
        if isinstance(stop, KeyboardInterrupt):
            return 130
        raise
    except ValidationError as error:
        from pipeline.config import first_problem

        noted: BaseException = error
        message = first_problem(error)
    except (ValueError, FloatingPointError) as error:
        noted, message = error, str(error)
    except OSError as error:
        noted = error
        message = f"{error.filename or 'output'}: {error.strerror or error}"
    sys.stdout.flush()
    print(f"error: {' '.join('; '.join([message, *_notes_on(noted)]).split())}", file=sys.stderr)
    return 2


def _notes_on(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


def _translate(options: argparse.Namespace) -> int:
    """Translates one text, each line of a stream, or what is typed at a prompt."""
    is_prompt = _is_prompt(options)
    check_translate(options, is_prompt=is_prompt)
    from pipeline.commands import translate as translating
    from pipeline.commands.models import folder_of
    from pipeline.inference.device import chosen_device
    from pipeline.inference.translator import DrawConfig

    if options.attention:
        translating.check_picture(options.attention)
    wish = translating.Wish(
        num_best=options.n_best,
        draw=DrawConfig.model_validate(given_or_default(options, DRAWING)) if options.sample else None,
        too_long=options.long,
        lines_at_once=_TRANSLATED_AT_ONCE if options.lines_at_once is None else options.lines_at_once,
        name="the text" if options.text else str(options.file or STANDARD_INPUT),
    )
    translator = translating.opened(
        [folder_of(one, options.profile, TRANSLATOR) for one in options.model or [None]],
        chosen_device(options.device),
        {name: getattr(options, option) for name, option in SEARCH.items()},
        batch_tokens=options.batch_tokens,
    )
    wish.check_beam(translator.search.beam_size)
    if options.attention:
        translating.check_attention(options.attention, translator)
    tally = translating.Tally()
    if is_prompt:
        _for_each_typed(
            "translate> ",
            lambda line: translating.translate_lines(translator, [line], wish, _print_lines, tally=tally),
        )
    else:
        _translate_stream(options, translator, wish, tally)
    for note in tally.notes(translator):
        print(note, file=sys.stderr)
    if options.attention:
        translating.draw_attention(options.attention, translator, tally)
    return 0


def _translate_stream(options: argparse.Namespace, translator: "Translator", wish: "Wish", tally: "Tally") -> None:
    """Translates a text or each line of a stream; what can be refused before is refused before."""
    from pipeline.commands import translate as translating

    lines = iter([" ".join(options.text)]) if options.text else lines_of(options.file)
    # A bar on the terminal that the translations go to would stand between them.
    is_shown = sys.stderr.isatty() and (options.output is not None or not sys.stdout.isatty())
    with written(options.output) as stream:
        if options.attention:
            lines = iter(translating.drawable(options.attention, translator, lines))
        # What can be read twice is looked through before hours are spent on what comes before a fault.
        if options.file and options.file.is_file() and options.long == "refuse":
            translating.check_lengths(translator, lines_of(options.file), wish)

        def write(found: Sequence[str]) -> None:
            stream.writelines(f"{line}\n" for line in found)
            stream.flush()

        total = 1 if options.text else count_lines(options.file) if is_shown else None
        translating.translate_lines(translator, lines, wish, write, tally=tally, total=total, is_shown=is_shown)


def _answer_questions(options: argparse.Namespace) -> int:
    """Answers a question, each line of a stream, or what is typed at a prompt."""
    check_questions(options)
    from pipeline.commands import answer as answering
    from pipeline.commands.models import folder_of
    from pipeline.data.records import read_text
    from pipeline.inference.device import chosen_device

    wish = answering.AnswerWish(
        num_best=options.n_best,
        passage=read_text(options.passage) if options.passage else "",
        name="the text" if options.text else str(options.file or STANDARD_INPUT),
    )
    model = answering.opened(
        folder_of(options.model, options.profile, ANSWERER),
        chosen_device(options.device),
        unanswerable=options.unanswerable,
        threshold=options.threshold,
    )

    def answer(lines: Iterable[str], wish: "AnswerWish") -> None:
        note = answering.note_on(answering.answer_lines(model, lines, wish, _print_lines), model)
        if note:
            print(note, file=sys.stderr)

    if _is_prompt(options):
        _for_each_typed("question> " if wish.passage else "passage TAB question> ", lambda line: answer([line], wish))
    elif options.text:
        asked = " ".join(options.text) if wish.passage else options.text[1]
        answer([asked], replace(wish, passage=wish.passage or options.text[0]))
    else:
        answer(lines_of(options.file), wish)
    return 0


def _classify(options: argparse.Namespace) -> int:
    """Labels one text, one pair, each line of a stream, or what is typed at a prompt."""
    check_inputs(options)
    if options.pairs and options.text and len(options.text) != 2:
        raise ValueError(f"--pairs: expected two texts, each one argument, found {len(options.text)}")
    from pipeline.commands import classify as classifying
    from pipeline.commands.models import folder_of
    from pipeline.inference.device import chosen_device

    folder = folder_of(options.model, options.profile, MODELS["classify"])
    model = classifying.opened(folder, chosen_device(options.device))
    name = "the text" if options.text else str(options.file or STANDARD_INPUT)

    def classify(lines: Iterable[str]) -> None:
        cut = classifying.classify_lines(model, lines, pairs=options.pairs, name=name, write=_print_lines)
        if note := classifying.note_on(cut, model):
            print(note, file=sys.stderr)

    if _is_prompt(options):
        _for_each_typed("text TAB text> " if options.pairs else "classify> ", lambda line: classify([line]))
    elif options.text:
        classify([("\t" if options.pairs else " ").join(options.text)])
    else:
        classify(lines_of(options.file))
    return 0


def _bleu(options: argparse.Namespace) -> int:
    check_bleu(options)
    from pipeline.commands.bleu import ScoreWish, score_files

    resampling = given_or_default(options, RESAMPLING)
    wish = ScoreWish(
        tokenised=options.tokenised,
        words=options.words,
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
        _for_each_typed(f"{options.command}> ", lambda line: _print_lines(answer([line])))
    elif options.text:
        texts = options.text if options.command == "similar" else [" ".join(options.text)]
        print(*answer(texts), sep="\n")
    else:
        name = str(options.file or STANDARD_INPUT)
        # The turns of a conversation follow each other.
        at_once = 1 if options.command == "chat" else _LINES_AT_ONCE
        for first, group in in_groups(lines_of(options.file), at_once, len):
            for reply in in_place(answer, group, first=first, name=name):
                print(" ".join(reply.splitlines()))
            sys.stdout.flush()
    sys.stdout.flush()
    return 0


def _tag_columns(options: argparse.Namespace) -> int:
    """Tags a column file as it comes."""
    from pipeline.commands import tag as tagging
    from pipeline.commands.models import folder_of
    from pipeline.inference.device import chosen_device

    given = given_or_default(options, COLUMNS)
    columns = tagging.Columns.model_validate(given | {"name": str(options.file or STANDARD_INPUT)})
    folder = folder_of(options.model, options.profile, MODELS["tag"])
    model = tagging.opened_tagger(folder, chosen_device(options.device))
    for line in tagging.tag_columns(model, lines_of(options.file), columns):
        print(line)
    sys.stdout.flush()
    return 0


def _answerer(options: argparse.Namespace) -> "Answerer":
    """The function behind a command. Imported here: help and errors of the command line need no torch."""
    from pipeline.commands import texts
    from pipeline.commands.models import folder_of
    from pipeline.inference.device import chosen_device

    folder = folder_of(options.model, options.profile, MODELS[options.command])
    if options.command == "similar":
        return texts.neighbouring(folder, options.num)
    device = chosen_device(options.device)
    match options.command:
        case "generate" | "chat":
            drawing = given_or_default(options, ANSWERING)
            draw = texts.Draw(
                max_new_tokens=options.max_new_tokens,
                temperature=options.temperature,
                top_k=int(drawing["top_k"]),
                top_p=drawing["top_p"],
                seed=int(drawing["seed"]),
            )
            begin = texts.chatting if options.command == "chat" else texts.continuing
            return begin(folder, device, draw)
        case "tag":
            from pipeline.commands import tag as tagging

            return tagging.tagging(
                tagging.opened_tagger(folder, device), as_json=options.json, tokenised=options.tokenised
            )
        case "fill-mask":
            return texts.filling(folder, device, options.num)
        case _:
            return texts.scoring(folder, device)


def _is_prompt(options: argparse.Namespace) -> bool:
    """Whether a person is to type the texts."""
    return not options.text and options.file is None and sys.stdin.isatty()


def _for_each_typed(prompt: str, answer: Callable[[str], None]) -> None:
    """Answers what is typed; a line that is refused says why, and the next is asked for."""
    for line in typed(prompt):
        try:
            answer(line)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)


def _print_lines(lines: Sequence[str]) -> None:
    print(*lines, sep="\n", flush=True)


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
    from pipeline.commands.estimate import describe

    for line in describe(
        options.config,
        num_gpus=options.gpus,
        tflops=options.tflops,
        zero_stage=options.zero,
        sentence_length=options.length,
    ):
        print(line)
    if options.step:
        from pipeline.commands.estimate_step import describe_step

        for line in describe_step(options.config, sentence_length=options.length):
            print(line, flush=True)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from pipeline.commands.doctor import examine
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
