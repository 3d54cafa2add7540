"""What the commands for people are called, what each takes, and what does not go together.

Nothing heavy is imported to say so.
"""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

_Value = TypeVar("_Value")

MODELS = {
    "generate": "pretrain_gpt",
    "chat": "dpo",
    "classify": "finetune/polarity",
    "tag": "finetune/tags",
    "fill-mask": "pretrain_bert",
    "similar": "word_vectors/skipgram",
    "score": "reward",
}
"""The stage whose model folder a command opens by default."""
TRANSLATOR = "translate/transformer"
"""That of translate."""
ANSWERER = "finetune/squad"
"""That of answer."""
DRAWING = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 0}
"""What --sample of translate draws by, unless told otherwise."""
ANSWERING = {"top_k": 0, "top_p": 0.95, "seed": 0}
"""What generate and chat draw by, unless told otherwise or greedy."""
RESAMPLING = {"resamples": 1000, "seed": 0}
"""The paired bootstrap of bleu, unless told otherwise."""
PLAIN_WORDS = ("13a", "zh", "char")
"""The tokenizers of plain text that bleu takes."""
COLUMNS = {"word_column": 1, "separator": "whitespace", "comment": "", "scheme": "iob2"}
"""How --conll of tag reads and writes, unless told otherwise."""
_PROFILE = "another profile than that of conf/profile.yaml"
SEARCH = {
    "beam_size": "beam",
    "length_penalty": "length_penalty",
    "max_extra_tokens": "max_extra_tokens",
    "normalisation": "normalisation",
    "stop": "stop",
}
"""The settings of a model's search that an option of translate replaces, and the option."""
_SEARCHING = ("beam", "length_penalty", "normalisation", "stop")
_TRANSLATE = (
    "Translates texts, each line of a file or a pipe, or what is typed at a prompt. As many lines come out as go in, "
    "in their order; an empty line stays empty. Input of any size is read in groups of lines."
)
_ANSWER = (
    "Answers questions with pieces of passages: a passage and a question as two arguments, or lines of passage, tab "
    "and question of a file or a pipe. With --passage, arguments and lines are questions about that one file. Prints "
    "the answer, a tab and its probability for each line, in order, and an empty line where the passage has no answer."
)
_BLEU = (
    "Scores translations with BLEU, chrF and TER, each with its sacreBLEU signature, on plain text. Of two systems it "
    "also says how much better the first is, by the paired bootstrap."
)
_HELP = {
    "generate": "continue texts",
    "chat": "talk: each line is the next turn of one conversation",
    "classify": "label texts; prints label, tab, probability",
    "tag": "find entities in texts, or label words; prints each text with its entities as [type probability words]",
    "fill-mask": "fill each [MASK] of texts; prints the filled text, tab, probability",
    "similar": "find the nearest words of words",
    "score": "reward answers; each line is a request, a tab and an answer",
}


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    found = argparse.ArgumentParser(prog="pipeline", description="The trained models at work.")
    commands = found.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_translate(commands.add_parser("translate", help="translate texts", description=_TRANSLATE))
    for name, stage in MODELS.items():
        command = commands.add_parser(name, help=_HELP[name], description=f"{_HELP[name][0].upper()}{_HELP[name][1:]}.")
        texts = "words" if name == "similar" else "one text"
        command.add_argument("text", nargs="*", help=f"{texts}; without it: --file, a pipe, or a prompt")
        command.add_argument("--file", type=Path, help="a UTF-8 file with one text on each line")
        _add_model(command, stage, has_device=name != "similar")
        if name in ("generate", "chat"):
            command.add_argument("--max-new-tokens", type=int, default=48, help="longest answer (default: 48)")
            command.add_argument("--temperature", type=float, default=0.8, help="0 is greedy (default: 0.8)")
            command.add_argument("--top-k", type=int, help="draw from the likeliest; 0 for all (default: 0)")
            command.add_argument("--top-p", type=float, help="draw from this probability (default: 0.95)")
            command.add_argument("--seed", type=int, help="seed of the draws (default: 0)")
        if name == "classify":
            command.add_argument(
                "--pairs", action="store_true", help="two texts: two arguments, or lines with a tab between them"
            )
        if name == "tag":
            _add_tag(command)
        if name == "fill-mask":
            command.add_argument(
                "--num", type=int, default=0, help="so many tokens for each gap, not the filled text (default: 0)"
            )
        if name == "similar":
            command.add_argument("--num", type=int, default=8, help="how many words (default: 8)")
    _add_answer(commands.add_parser("answer", help="answer questions about passages", description=_ANSWER))
    _add_bleu(commands.add_parser("bleu", help="score translations against a reference", description=_BLEU))
    doctor = commands.add_parser("doctor", help="look for what would stop a run")
    results = commands.add_parser("results", help="print the table of results, and where the report is")
    results.add_argument("--readme", action="store_true", help="also write the table into README.md")
    estimate = commands.add_parser("estimate", help="what a training would cost: operations, GPU-hours, memory")
    estimate.add_argument("config", type=Path, help="conf/PROFILE/STAGE.yaml of translate, pretrain_gpt, pretrain_bert")
    estimate.add_argument("--gpus", type=int, default=8, help="how many (default: 8)")
    estimate.add_argument(
        "--tflops",
        type=float,
        help="10^12 operations a second that each sustains (default: 40%% of the peaks of V100, A100 and H100)",
    )
    estimate.add_argument("--zero", type=int, choices=range(4), help="ZeRO stage (default: all)")
    estimate.add_argument(
        "--length",
        type=int,
        default=30,
        help="tokens of a sentence to translate, at most max_length of the model (default: 30)",
    )
    estimate.add_argument(
        "--step", action="store_true", help="also take one real optimizer step on the CPU, on generated tokens"
    )
    for command in (doctor, results):
        command.add_argument("--profile", default="", help=_PROFILE)
    return found


def _add_model(command: argparse.ArgumentParser, stage: str, *, has_device: bool = True, several: str = "") -> None:
    """Which model answers, and on what; `several` says what becomes of more than one."""
    text = f"a model folder (default: models/PROFILE/{stage}){several}"
    command.add_argument("--model", type=Path, action="append" if several else "store", help=text)
    command.add_argument("--profile", default="", help=_PROFILE)
    if has_device:
        text = "cpu, cuda or cuda:NUMBER; auto is CUDA where it is found, else the CPU (default: auto)"
        command.add_argument("--device", default="auto", help=text)


def _add_translate(command: argparse.ArgumentParser) -> None:
    command.add_argument("text", nargs="*", help="one text; without it: --file, a pipe, or a prompt")
    command.add_argument("--file", type=Path, help="a UTF-8 file with one text on each line")
    command.add_argument(
        "--output",
        type=Path,
        help="write to this file, which appears when all is translated; a fault leaves what there is in FILE.*.partial",
    )
    _add_model(command, TRANSLATOR, several="; given several times: an ensemble")
    command.add_argument("--beam", type=int, help="hypotheses of the search; 1 is greedy (default: the model's)")
    command.add_argument("--length-penalty", type=float, help="0 prefers short translations (default: the model's)")
    command.add_argument(
        "--normalisation",
        choices=("gnmt", "length"),
        help="by what the length penalty divides, ((5 + n) / 6) ** penalty or n ** penalty (default: the model's)",
    )
    command.add_argument(
        "--max-extra-tokens", type=int, help="longest translation, in tokens more than the text (default: the model's)"
    )
    command.add_argument(
        "--stop",
        choices=("proven", "settled", "likely", "filled"),
        help="when a search ends: when nothing open can win; sooner, when nothing open is ahead of all that have "
        "ended; of the best of them; when as many have ended as the beam holds (default: the model's)",
    )
    command.add_argument(
        "--n-best",
        type=int,
        default=0,
        help="so many translations a line, of different texts unless drawn: number ||| text ||| log-prob ||| score",
    )
    command.add_argument(
        "--long", choices=("refuse", "cut"), default="refuse", help="what becomes of a line that is too long"
    )
    command.add_argument(
        "--lines-at-once", type=int, help="lines read and sorted at once; 1 answers each as it comes (default: 1024)"
    )
    command.add_argument(
        "--batch-tokens", type=int, help="tokens translated together: more of them fill a large GPU (default: 2048)"
    )
    command.add_argument("--sample", action="store_true", help="draw translations in place of searching the best")
    command.add_argument("--temperature", type=float, help="of --sample: below 1 is closer to the best (default: 1)")
    command.add_argument("--top-k", type=int, help="of --sample: draw from the likeliest; 0 for all (default: 0)")
    command.add_argument("--top-p", type=float, help="of --sample: draw from this probability (default: 1)")
    command.add_argument("--seed", type=int, help="of --sample: seed of the draws (default: 0)")
    command.add_argument(
        "--attention",
        type=Path,
        help="draw the attention of up to 16 lines into a .png or .svg; where they are long, some tokens are not named",
    )


def _add_answer(command: argparse.ArgumentParser) -> None:
    command.add_argument("text", nargs="*", help="a passage and a question; of --passage: a question")
    command.add_argument("--passage", type=Path, help="a UTF-8 file: the passage of all questions")
    command.add_argument("--file", type=Path, help="a UTF-8 file with passage, tab and question on each line")
    _add_model(command, ANSWERER)
    command.add_argument(
        "--unanswerable",
        action="store_true",
        help="the model may say that there is no answer, as those of SQuAD 2.0 learn (default: as its folder says)",
    )
    command.add_argument(
        "--threshold",
        type=float,
        help="say so where its score, less that of the best answer, is above this (default: the folder's, else 0)",
    )
    command.add_argument(
        "--n-best", type=int, default=0, help="so many answers a line: number ||| answer ||| probability ||| score"
    )


def _add_tag(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--json", action="store_true", help="a list a text, of type, text, start, end (in characters) and probability"
    )
    command.add_argument(
        "--tokenised", action="store_true", help="words are what spaces separate; else marks around words stand apart"
    )
    command.add_argument(
        "--conll",
        action="store_true",
        help="texts are column files, a word a line, an empty line between sentences: each line gets the tag of its "
        "word as a further column, as conlleval reads it; other lines stay as they are",
    )
    command.add_argument("--word-column", type=int, help="of --conll: column of the word, from 1 (default: 1)")
    command.add_argument(
        "--separator", choices=("whitespace", "tab"), help="of --conll: what separates columns (default: whitespace)"
    )
    command.add_argument("--comment", help="of --conll: beginning of lines before a sentence that are no words")
    command.add_argument(
        "--scheme", choices=("iob1", "iob2", "bioes", "bilou"), help="of --conll: scheme of the tags (default: iob2)"
    )


def _add_bleu(command: argparse.ArgumentParser) -> None:
    command.add_argument("systems", nargs="+", type=Path, metavar="SYSTEM", help="one or two files of translations")
    command.add_argument("--reference", type=Path, required=True, help="a file with the reference of each line")
    command.add_argument("--tokenised", action="store_true", help="words are what spaces separate, for tokenised text")
    command.add_argument(
        "--words",
        choices=PLAIN_WORDS,
        help="sacreBLEU's tokenizer of plain text (default: zh for references in Chinese, char for Japanese, Thai and "
        "other scripts without spaces, else 13a)",
    )
    command.add_argument(
        "--moses",
        metavar="LANG",
        help="also BLEU after Moses' tokenizer of this language, as papers on WMT14 report it",
    )
    command.add_argument(
        "--split-compounds", action="store_true", help="of --moses: split at hyphens, as papers on English-German do"
    )
    command.add_argument("--lowercase", action="store_true", help="BLEU and chrF of text in lower case")
    command.add_argument("--resamples", type=int, help="of the paired bootstrap of two systems (default: 1000)")
    command.add_argument("--seed", type=int, help="of the paired bootstrap of two systems (default: 0)")


def given_or_default(options: argparse.Namespace, defaults: Mapping[str, _Value]) -> dict[str, _Value]:
    """The value of each option that has one of these defaults: the default where none was given."""
    return {name: default if (value := getattr(options, name)) is None else value for name, default in defaults.items()}


def check_bleu(options: argparse.Namespace) -> None:
    """ValueError for more systems than two, and for settings of a comparison with nothing to compare."""
    if len(options.systems) > 2:
        raise ValueError(f"one or two systems are scored, found {len(options.systems)}")
    if len(options.systems) == 1:
        _refuse(options, RESAMPLING, "is of the bootstrap that compares two systems: found one")


def check_answer(options: argparse.Namespace) -> None:
    """ValueError for options of a command for texts of which one would be ignored."""
    check_inputs(options)
    if options.command in ("generate", "chat") and options.temperature == 0.0:
        _refuse(options, ANSWERING, "is for draws: found --temperature 0, which takes the likeliest token")


def check_questions(options: argparse.Namespace) -> None:
    """ValueError for options of answer of which one would be ignored, and for a passage without a question."""
    check_inputs(options)
    if options.text and not options.passage and len(options.text) != 2:
        raise ValueError(f"expected a passage and a question, each in quotes, found {len(options.text)} text(s)")
    for name, text in zip(("passage", "question"), options.text if not options.passage else (), strict=False):
        if not text.strip():
            raise ValueError(f"the {name} is empty")


def check_tag(options: argparse.Namespace, *, is_prompt: bool) -> None:
    """ValueError for options of tag of which one would be ignored; `is_prompt` where texts are to be typed."""
    if not options.conll:
        _refuse(options, COLUMNS, "is for --conll")
        return
    if options.text or is_prompt:
        raise ValueError("--conll reads a file or a pipe, found " + ("a prompt" if is_prompt else "texts as arguments"))
    for name in ("json", "tokenised"):
        if getattr(options, name):
            raise ValueError(f"--{name} is for running text, --conll for column files: found both")


def check_inputs(options: argparse.Namespace) -> None:
    """ValueError for a profile whose models nobody would look for, and for a file that nobody would read."""
    if options.model and options.profile:
        raise ValueError("--profile looks for the model of a profile, --model names its folder: found both")
    if options.text and options.file:
        raise ValueError("texts come as arguments or from --file, found both")


def check_translate(options: argparse.Namespace, *, is_prompt: bool) -> None:
    """ValueError for options of translate of which one would be ignored; `is_prompt` where texts are to be typed."""
    check_inputs(options)
    if options.sample:
        _refuse(options, _SEARCHING, "is of the search, in place of which --sample draws: found both")
    else:
        _refuse(options, DRAWING, "is for --sample")
    if is_prompt:
        _refuse(options, ("output", "lines_at_once"), "is for a text, --file or a pipe, found at a prompt")
    if options.output and options.attention and options.output.resolve() == options.attention.resolve():
        raise ValueError(f"--output and --attention would both write {options.output}")


def _refuse(options: argparse.Namespace, names: Iterable[str], reason: str) -> None:
    """ValueError for the first of some options that was given."""
    for name in names:
        if getattr(options, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} {reason}")
