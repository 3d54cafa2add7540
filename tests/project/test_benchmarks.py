"""Every benchmark explains itself, needs no argument, and is one of those that `make bench` runs."""

import argparse
import importlib
import re
from functools import partial
from pathlib import Path

import pytest

from benchmarks import classify_texts, finetune_training
from benchmarks.__main__ import OPTIONS, commands

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))


class Parsed(Exception):
    """Ends a benchmark where it has read its arguments."""


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[argparse.ArgumentParser]:
    """The parsers that have read arguments without an error; the benchmark goes no further."""
    found: list[argparse.ArgumentParser] = []
    parse = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, arguments: list[str]) -> None:
        parse(self, arguments)
        found.append(self)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_answers_help_with_its_documentation(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    assert ended.value.code == 0
    assert module.__doc__
    assert module.__doc__.splitlines()[0] in capsys.readouterr().out
    assert f"python -m benchmarks{'' if name == '__main__' else f'.{name}'}" in module.__doc__


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs_without_arguments(name: str, parsed: list[argparse.ArgumentParser]) -> None:
    with pytest.raises(Parsed):
        importlib.import_module(f"benchmarks.{name}").main([])
    assert [action.dest for action in parsed[0]._actions if not action.option_strings] == []


def test_all_benchmarks_are_run_with_the_options_that_they_take(
    tmp_path: Path, parsed: list[argparse.ArgumentParser]
) -> None:
    assert set(OPTIONS) | {"__main__"} == set(NAMES)
    shared = {"--data", "--model", "--joeynmt", "--glue", "--threads"}
    for name, taken in OPTIONS.items():
        with pytest.raises(Parsed):
            importlib.import_module(f"benchmarks.{name}").main([])
        assert {f"--{option}" for option in taken} == shared & set(parsed[-1]._option_string_actions), name


def test_what_is_given_reaches_those_that_take_it_and_nothing_else(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.touch()
    given = ["--data", str(tmp_path), "--joeynmt", str(python), "--threads", "2"]
    made = {name: command[3:] for name, command in commands(given).items()}
    assert made["dropout"] == ["--threads", "2"] and made["translation_memory"] == []
    assert made["translate_decoding"] == ["--data", str(tmp_path), "--threads", "2"]
    assert made["translate_training"] == given


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "argument --data: no folder 'nowhere'"),
        (["--joeynmt", "nowhere"], "argument --joeynmt: no file 'nowhere'"),
        (["--threads", "0"], "argument --threads: expected a whole number above 0, found '0'"),
    ],
)
def test_a_faulty_option_ends_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        commands(arguments)
    assert capsys.readouterr().err.splitlines()[-1].endswith(message)


def test_make_passes_every_option_on() -> None:
    (recipe,) = re.findall(r"^bench:.*\n\t(.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"--(\w+) '\$\((\w+)\)'", recipe)) == {
        (name, name.upper()) for name in ("data", "model", "joeynmt", "glue", "threads")
    }


def test_the_pairs_of_mrpc_need_its_training_file_alone_and_a_fault_ends_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "MRPC/train.tsv"
    message = f"error: {file.parent}: MRPC needs train.tsv, or train.jsonl of the hub: found neither"
    for read in (partial(classify_texts.texts, tmp_path, 2), partial(finetune_training.examples, tmp_path)):
        with pytest.raises(SystemExit) as ended:
            read()
        assert ended.value.code == message
    file.parent.mkdir()
    file.write_text("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n" + "1\t7\t8\tIt rains .\tRain falls .\n" * 40)
    assert classify_texts.texts(tmp_path, 3) == ["It rains .", "Rain falls .", "It rains ."]
    assert finetune_training.examples(tmp_path).labels.tolist() == [1] * 40
