"""Configuration files: what is wrong with one is said in a line for each key."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, PositiveInt

from pipeline.config import Config, load
from pipeline.layout import Layout
from pipeline.runtime import RuntimeConfig


class Small(Config):
    kind: Literal["small"]
    width: PositiveInt


class Large(Config):
    kind: Literal["large"]
    num_layers: PositiveInt


class Part(Config):
    size: PositiveInt


class Example(Config):
    model: Annotated[Small | Large, Field(discriminator="kind")]
    learning_rate: float
    names: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()


GOOD = "model: {kind: small, width: 3}\nlearning_rate: 0.5\n"


def refusal(tmp_path: Path, text: str) -> str:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        load(path, Example)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def test_a_good_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text(GOOD + "names: [a, b]\n")
    found = load(tmp_path / "file.yaml", Example)
    assert found == Example(model=Small(kind="small", width=3), learning_rate=0.5, names=("a", "b"))


def test_an_unknown_key_is_named_with_the_nearest_known_one(tmp_path: Path) -> None:
    assert "learning_rat: unknown key; did you mean 'learning_rate'?" in refusal(tmp_path, GOOD + "learning_rat: 1\n")
    nested = refusal(tmp_path, "model: {kind: large, num_layers: 2, num_layer: 3}\nlearning_rate: 1\n")
    assert "model.num_layer: unknown key; did you mean 'model.num_layers'?" in nested
    assert refusal(tmp_path, GOOD + "zzzzzz: 1\n").endswith("zzzzzz: unknown key")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    assert "learning_rate: missing key" in refusal(tmp_path, "model: {kind: small, width: 3}\n")


def test_an_ill_typed_value_is_named_with_what_was_found(tmp_path: Path) -> None:
    message = refusal(tmp_path, "model: {kind: small, width: -3}\nlearning_rate: fast\n")
    assert "2 bad key(s)" in message
    assert "width: Input should be greater than 0, found -3" in message
    assert "learning_rate: Input should be a valid number" in message and "found 'fast'" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {kind: small, width: true}", "model.width: Input should be a valid integer, found true"),
        ("model: {kind: small, width: 3.0}", "model.width: Input should be a valid integer, found 3.0"),
        ("model: {kind: small, width: '3'}", "model.width: Input should be a valid integer, found '3', text; write 3"),
        ("learning_rate: yes", "learning_rate: Input should be a valid number, found true"),
        ("learning_rate: '1e-4'", "learning_rate: Input should be a valid number, found '1e-4', text; write 1e-4"),
        ("learning_rate: .inf", "learning_rate: Input should be a finite number, found inf"),
        ("learning_rate: .nan", "learning_rate: Input should be a finite number, found nan"),
        ("names: [a, 1]", "names.1: Input should be a valid string, found 1"),
        ("names: a", "names: Input should be a valid array, found 'a'"),
    ],
)
def test_nothing_is_taken_for_a_number_or_a_text_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    key = text.partition(":")[0]
    kept = [line for line in GOOD.splitlines() if not line.startswith(f"{key}:")]
    lines = refusal(tmp_path, "\n".join([*kept, text])).splitlines()
    assert lines[1:] == [f"  {message}"]


def test_a_number_without_a_point_and_a_whole_number_are_floats(tmp_path: Path) -> None:
    for text, value in (("1e-4", 0.0001), ("2", 2.0)):
        (tmp_path / "file.yaml").write_text(GOOD.replace("0.5", text))
        assert load(tmp_path / "file.yaml", Example).learning_rate == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "num_layers: 2", "num_layers: unknown key; did you mean 'model.num_layers'?"),
        (GOOD.replace("3}", "3, num_layers: 2}"), "model.num_layers: unknown key of this kind"),
        (GOOD.replace("3}", "3, names: [a]}"), "model.names: unknown key; did you mean 'names'?"),
        (GOOD + "parts: [{size: 1}, {size: 2, siz: 3}]", "parts.1.siz: unknown key; did you mean 'parts.1.size'?"),
        (GOOD + "size: 3", "size: unknown key; did you mean 'parts.*.size'?"),
    ],
)
def test_a_misplaced_key_is_told_its_place(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text).splitlines()[1:] == [f"  {message}"]


def test_the_path_of_a_key_is_that_of_the_file(tmp_path: Path) -> None:
    assert "  model.width: missing key" in refusal(tmp_path, "model: {kind: small}\nlearning_rate: 1\n")
    assert "  model.width: Input" in refusal(tmp_path, "model: {kind: small, width: 0}\nlearning_rate: 1\n")
    assert "  model: Input should be" in refusal(tmp_path, "model: 3\nlearning_rate: 1\n")


def test_an_unknown_variant_is_named_with_the_known_ones(tmp_path: Path) -> None:
    message = refusal(tmp_path, "model: {kind: huge, width: 3}\nlearning_rate: 1\n")
    assert "'huge'" in message and "'small', 'large'" in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [("a: [1\n", "not readable as YAML"), ("- 1\n- 2\n", "expected keys and values"), ("", "bad key")],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    assert reason in refusal(tmp_path, text)


def test_a_file_that_is_not_utf8_or_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(ValueError, match=r"file.yaml: not readable as YAML"):
        load(tmp_path / "file.yaml", Example)
    with pytest.raises(ValueError, match=r"other.yaml: no such configuration file"):
        load(tmp_path / "other.yaml", Example)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Small(kind="small", width=3).width = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("config", "output", "metrics", "curve"),
    [
        ("conf/cpu/sft.yaml", "models/cpu/sft", "metrics/cpu/sft.json", "metrics/cpu/curves/sft.csv"),
        (
            "conf/cpu/translate/gru.yaml",
            "models/cpu/translate/gru",
            "metrics/cpu/translate/gru.json",
            "metrics/cpu/curves/translate/gru.csv",
        ),
        (
            "conf/numbers/multi30k/sft.yaml",
            "runs/multi30k/models/sft",
            "runs/multi30k/metrics/sft.json",
            "runs/multi30k/metrics/curves/sft.csv",
        ),
    ],
)
def test_the_layout_follows_from_the_path_of_the_configuration(
    config: str, output: str, metrics: str, curve: str
) -> None:
    for path in (Path(config), Path("/somewhere/conf/else") / config):
        layout = Layout.of(path)
        assert layout.output == Path(output)
        assert layout.metrics == Path(metrics)
        assert layout.curve == Path(curve)


def test_no_two_stages_share_a_folder() -> None:
    paths = [
        "conf/cpu/sft.yaml",
        "conf/tiny/sft.yaml",
        "conf/cpu/translate/sft.yaml",
        "conf/numbers/cpu/sft.yaml",
        "conf/numbers/cpu/translate/sft.yaml",
    ]
    layouts = [Layout.of(Path(path)) for path in paths]
    for folders in zip(*[(one.output, one.metrics, one.curve, one.local, one.cost) for one in layouts], strict=True):
        assert len(set(folders)) == len(paths)


@pytest.mark.parametrize("path", ["sft.yaml", "conf/sft.yaml", "conf/numbers/sft.yaml", "other/cpu/sft.yaml"])
def test_a_path_outside_a_profile_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=f"{path}: expected"):
        Layout.of(Path(path))


def test_every_runtime_file_is_valid() -> None:
    files = sorted((Path(__file__).parents[2] / "conf/runtime").glob("*.yaml"))
    assert len(files) >= 10
    for path in files:
        assert load(path, RuntimeConfig).world_size >= 1
