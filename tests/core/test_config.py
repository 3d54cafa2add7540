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


class Example(Config):
    model: Annotated[Small | Large, Field(discriminator="kind")]
    learning_rate: float
    names: tuple[str, ...] = ()


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
    assert "num_layer: unknown key; did you mean 'num_layers'?" in nested
    assert refusal(tmp_path, GOOD + "zzzzzz: 1\n").endswith("zzzzzz: unknown key")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    assert "learning_rate: missing key" in refusal(tmp_path, "model: {kind: small, width: 3}\n")


def test_an_ill_typed_value_is_named_with_what_was_found(tmp_path: Path) -> None:
    message = refusal(tmp_path, "model: {kind: small, width: -3}\nlearning_rate: fast\n")
    assert "2 bad key(s)" in message
    assert "width: Input should be greater than 0, found -3" in message
    assert "learning_rate: Input should be a valid number" in message and "found 'fast'" in message


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
