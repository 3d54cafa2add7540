"""What the command translate refuses: one line on standard error that names what was found, and exit code 2."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer, MarianMTModel

from pipeline.artifacts import read_json, write_json
from pipeline.cli import main
from pipeline.inference.translator_folder import open_translator, save_translator
from pipeline.text.tokenizer import load_tokenizer
from pipeline.text.tokenizer_training import train_translation_bpe
from tests.cli.conftest import MOSES, TEXTS

FOLDER = "models/tiny/translate"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str], str]:
    code = main(("translate", *arguments))
    found = capsys.readouterr()
    return code, found.out.split("\n")[:-1], found.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n-best", "3", "x"], "--n-best: found 3, allowed is at most the width of the search, 2"),
        (["--n-best", "5", "--beam", "4", "x"], "--n-best: found 5, allowed is at most the width of the search, 4"),
        (["--n-best", "-1", "x"], "--n-best: found -1, allowed is 1 or more"),
        (["--beam", "0", "x"], "beam_size: Input should be greater than 0, found 0"),
        (["--length-penalty", "-1", "x"], "length_penalty: Input should be greater than or equal to 0, found -1.0"),
        (["--sample", "--temperature", "0", "x"], "temperature: Input should be greater than 0, found 0.0"),
        (["--seed", "3", "x"], "--seed is for --sample"),
        (["--top-k", "0", "x"], "--top-k is for --sample"),
        (["--top-p", "1", "x"], "--top-p is for --sample"),
        (["--temperature", "1", "x"], "--temperature is for --sample"),
        *(
            (
                ["--sample", option, value, "x"],
                f"{option} is of the search, in place of which --sample draws: found both",
            )
            for option, value in (
                ("--beam", "2"),
                ("--length-penalty", "0"),
                ("--normalisation", "gnmt"),
                ("--stop", "proven"),
            )
        ),
        *(
            (["--beam", "1", option, value, "x"], f"{option} is for --beam of 2 or more: found a beam of 1")
            for option, value in (("--length-penalty", "0"), ("--normalisation", "gnmt"), ("--stop", "proven"))
        ),
        (
            ["--profile", "tiny", "--model", f"{FOLDER}/transformer", "x"],
            "--profile looks for the model of a profile, --model names its folder: found both",
        ),
        (
            ["--output", "x.svg", "--attention", "./x.svg", "x"],
            "--output and --attention would both write x.svg",
        ),
        (["--max-extra-tokens", "-1", "x"], "max_extra_tokens: Input should be greater than or equal to 0, found -1"),
        (["--batch-tokens", "0", "x"], "--batch-tokens: found 0, allowed is 1 or more"),
        (["--lines-at-once", "0", "x"], "--lines-at-once: found 0, allowed is 1 or more"),
        (["--file", "in.txt", "x"], "texts come as arguments or from --file, found both"),
        (["--attention", "x.jpg", "x"], "x.jpg: a picture of attention ends in .png or .svg"),
        (["--attention", "x.png", " "], "x.png: no line with a text"),
        (["--output", "nowhere/out.txt", "x"], "nowhere/out.txt: no folder nowhere to write into"),
        (["--output", "models", "x"], "models: a folder, expected a file to write"),
        (["--model", f"{FOLDER}/transformer", "--model", "models/tiny/dpo", "x"], "this folder holds a GPT"),
        (
            ["--model", f"{FOLDER}/transformer", "--model", f"{FOLDER}/stranger", "x"],
            f"{FOLDER}/stranger: its tokenizer is not that of {FOLDER}/transformer",
        ),
        (["the \udcff cat"], "not UTF-8"),
    ],
)
def test_a_fault_is_one_line_and_exit_code_2(
    inside: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, _, error = run(capsys, *arguments)
    assert code == 2 and message in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not [path for path in inside.iterdir() if path.name.startswith(("x.", "."))]


@pytest.mark.parametrize(("option", "value"), [("--output", "out.txt"), ("--lines-at-once", "1024")])
def test_what_a_prompt_would_ignore_is_refused_before_anything_is_asked(
    inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    def answer(prompt: str) -> str:
        raise AssertionError(prompt)

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    code, lines, error = run(capsys, option, value)
    assert (code, lines) == (2, [])
    assert error == f"error: {option} is for a text, --file or a pipe, found at a prompt\n"
    assert not Path("out.txt").exists()
    assert run(capsys, "x", option, "/dev/null" if option == "--output" else value)[0] == 0


def test_a_model_whose_own_search_is_greedy_takes_no_setting_that_greedy_search_ignores(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    translator = open_translator(Path(FOLDER, "transformer"))
    greedy = replace(translator, search=translator.search.greedy)
    save_translator(tmp_path / "greedy", greedy)
    code, _, error = run(capsys, "--model", str(tmp_path / "greedy"), "--length-penalty", "2", "a dog")
    assert code == 2
    assert error == "error: --length-penalty is for --beam of 2 or more: found a beam of 1, which is greedy search\n"
    expected = [greedy.translate(["a dog"])[0].text]
    assert run(capsys, "--model", str(tmp_path / "greedy"), "a dog")[:2] == (0, expected)
    assert run(capsys, "--model", str(tmp_path / "greedy"), "--beam", "2", "--stop", "filled", "a dog")[0] == 0


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_beams", 0, "Input should be greater than 0, found 0"),
        ("length_penalty", -1, "Input should be greater than or equal to 0, found -1"),
        ("stop", "never", "Input should be 'proven', 'settled', 'likely' or 'filled', found 'never'"),
    ],
)
def test_a_setting_that_the_search_cannot_have_is_named_with_its_file_and_its_key_there(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, value: object, message: str
) -> None:
    shutil.copytree(inside / FOLDER / "transformer", tmp_path / "model")
    file = tmp_path / "model/generation_config.json"
    write_json(file, read_json(file) | {key: value})
    code, lines, error = run(capsys, "--model", str(tmp_path / "model"), "cat")
    assert (code, lines, error) == (2, [], f"error: {file}: {key}: {message}\n")


@pytest.mark.parametrize("damage", ["tokenizer", "weights"])
def test_a_folder_whose_parts_do_not_fit_is_named_in_one_line(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    def take(folder: str, name: str) -> None:
        (tmp_path / name).write_bytes((inside / FOLDER / folder / name).read_bytes())

    for path in (inside / FOLDER / "transformer").iterdir():
        take("transformer", path.name)
    take("stranger", "tokenizer.json" if damage == "tokenizer" else "model.safetensors")
    code, lines, error = run(capsys, "--model", str(tmp_path), "cat")
    assert (code, lines) == (2, [])
    assert error.startswith(f"error: {tmp_path}: ") and error.count("\n") == 1
    if damage == "tokenizer":
        assert "the tokenizer does not fit the model" in error


def test_another_tokenizer_of_the_same_size_is_refused_with_both_files_named(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(inside / FOLDER / "transformer", folder)
    config = read_json(folder / "config.json")
    own, other = load_tokenizer(folder), train_translation_bpe([text.upper() for text in TEXTS], vocab_size=120)
    assert config["tokenizer_hash"] == own.hash != other.hash and own.vocab_size == other.vocab_size
    other.save(folder)
    code, lines, error = run(capsys, "--model", str(folder), "cat")
    assert (code, lines) == (2, []) and error.count("\n") == 1
    assert error.startswith(
        f"error: {folder}/tokenizer.json: not the tokenizer of this model, whose tokenizer_hash is in"
    )
    assert f"{folder}/config.json" in error and "Put back the files of the tokenizer" in error
    # A folder of before there was such a key.
    write_json(folder / "config.json", {key: value for key, value in config.items() if key != "tokenizer_hash"})
    assert open_translator(folder).tokenizer.hash == other.hash


def test_models_of_one_tokenizer_whose_texts_have_another_form_are_no_ensemble_and_both_forms_are_named(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = f"{FOLDER}/transformer", tmp_path / "second"
    save_translator(second, replace(open_translator(Path(first)), form=MOSES))
    code, lines, error = run(capsys, "--model", first, "--model", str(second), "cat")
    assert (code, lines) == (2, [])
    assert error.endswith(
        f'error: {second}: the form of its texts is {{"kind": "moses", "src": "en", "tgt": "de", "lowercase": true}}, '
        f'that of {first} is {{"kind": "plain"}}, as text.json says, without which it is plain: an ensemble reads '
        "texts of one form\n"
    )


def test_a_folder_that_transformers_has_written_anew_is_that_of_the_same_tokenizer(
    inside: Path, tmp_path: Path
) -> None:
    folder = inside / FOLDER / "transformer"
    for theirs in (MarianMTModel, AutoTokenizer):
        theirs.from_pretrained(folder).save_pretrained(tmp_path)
    assert read_json(tmp_path / "config.json")["tokenizer_hash"] == load_tokenizer(folder).hash
    texts = ["the cat", "a dog ran"]
    found, expected = ([one.tokens for one in open_translator(each).translate(texts)] for each in (tmp_path, folder))
    assert found == expected
