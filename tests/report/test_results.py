"""A result is compared with what it must reach, and the margin is what a person would compute."""

from pathlib import Path

import pytest

from pipeline.config import load
from pipeline.report.inputs import RunFiles
from pipeline.report.results import AbsoluteFloor, Floor, RelativeFloor, Result, ResultSpec, Source, evaluate
from pipeline.report.rows import result_specs
from pipeline.stages.report import ReportConfig
from tests.report.fabricated import metrics

ROOT = Path(__file__).parents[2]
LOSS = ResultSpec(
    id="loss",
    stage="one",
    title="One",
    measure="nats",
    path="loss",
    better="lower",
    baselines={"before": Source("one", "old")},
)
SHARE = ResultSpec(
    id="share", stage="one", title="One", measure="share", path="share", better="higher", style="percent", decimals=1
)
CHANGE = ResultSpec(
    id="change", stage="one", title="One", measure="", path="mean", better="higher", low="low", high="high"
)
ONE = {"loss": 4.25, "old": 6.0, "share": 0.61, "mean": 0.2, "low": -0.02, "high": 0.42}


def run_of(stages: dict[str, dict[str, float]]) -> RunFiles:
    return RunFiles(profile="cpu", metrics=stages, curves={}, samples={}, costs={}, sources={})


def judge(spec: ResultSpec, floor: Floor | None) -> Result:
    (result,) = evaluate([spec], {} if floor is None else {spec.id: floor}, run_of({"one": ONE}))
    return result


def test_a_share_below_its_floor_is_missed_by_the_difference_in_points() -> None:
    result = judge(SHARE, AbsoluteFloor(kind="absolute", bound=0.65))
    assert result.reached is False
    assert result.margin == pytest.approx(-0.04)
    assert (result.shown_value, result.shown_floor, result.verdict) == ("61.0%", "≥ 65.0%", "missed by 4.0 points")


def test_a_relative_floor_follows_the_baseline_and_for_a_loss_lower_reaches_it() -> None:
    floor = RelativeFloor(kind="relative", baseline="before", factor=0.75, offset=-0.5)
    result = judge(LOSS, floor)  # 0.75 * 6 - 0.5 = 4.0, and the loss is 4.25
    assert result.bound == 4.0
    assert result.margin == -0.25
    assert (result.reached, result.verdict) == (False, "missed by 0.25")
    assert judge(LOSS, floor.model_copy(update={"offset": -0.25})).reached is True


@pytest.mark.parametrize(("strict", "reached"), [(False, True), (True, False)])
def test_the_bound_itself_is_enough_unless_the_floor_is_strict(strict: bool, reached: bool) -> None:
    result = judge(LOSS, AbsoluteFloor(kind="absolute", bound=4.25, strict=strict))
    assert result.reached is reached
    assert result.shown_floor == ("< 4.25" if strict else "≤ 4.25")


def test_of_a_result_with_an_interval_the_lower_end_must_reach_the_floor() -> None:
    result = judge(CHANGE, AbsoluteFloor(kind="absolute", bound=0.0, strict=True))
    assert result.value == 0.2
    assert (result.reached, result.verdict) == (False, "missed by 0.02")
    assert result.shown_value == "+0.20 [-0.02, +0.42]"


def test_without_a_floor_there_is_no_verdict_and_without_a_run_it_says_so() -> None:
    assert judge(LOSS, None).verdict == ""
    floor = RelativeFloor(kind="relative", baseline="before")
    (missing,) = evaluate([LOSS], {"loss": floor}, run_of({}))
    assert (missing.value, missing.reached, missing.verdict, missing.show(None)) == (None, None, "not run", "-")


def test_what_a_floor_names_must_exist() -> None:
    with pytest.raises(ValueError, match=r"floors: unknown result 'bleu'; known are loss"):
        evaluate([LOSS], {"bleu": AbsoluteFloor(kind="absolute", bound=1.0)}, run_of({}))
    with pytest.raises(ValueError, match=r"floors.loss.baseline: unknown baseline 'xz'; known are \['before'\]"):
        judge(LOSS, RelativeFloor(kind="relative", baseline="xz"))


def test_metrics_without_the_expected_number_are_named_and_not_taken_for_a_stage_that_has_not_run() -> None:
    with pytest.raises(ValueError, match=r"metrics of one: no 'loss'; its keys are \['old'\]"):
        evaluate([LOSS], {}, run_of({"one": {"old": 1.0}}))
    with pytest.raises(ValueError, match=r"metrics of one: expected a number at 'loss', found True"):
        evaluate([LOSS], {}, run_of({"one": {"old": 1.0, "loss": True}}))


def test_every_result_has_an_id_of_its_own_and_further_items_of_a_matrix_get_rows_too() -> None:
    names = [spec.id for spec in result_specs(run_of({"translate/big": {}, "translate/gru": {}}))]
    assert len(names) == len(set(names))
    assert [name for name in names if name.startswith("translate")] == [
        "translate_transformer",
        "translate_gru",
        "translate_big",
    ]


def test_a_translation_has_every_bleu_that_its_stage_made_beside_sacrebleu_and_the_sources_that_were_cut() -> None:
    further = {"tokenised_bleu": {"beam": 22.04}, "moses_bleu": {"beam": 21.96}}
    moses = {**metrics()["translate/gru"], **further, "test": {"num_pairs": 1000, "num_src_too_long": 3}}
    run = run_of(metrics() | {"translate/gru": moses})
    results = {result.spec.id: result for result in evaluate(result_specs(run), {}, run)}
    gru, transformer = results["translate_gru"], results["translate_transformer"]
    assert gru.as_json()["shown"]["baselines"] == (
        "source copied 3.0, greedy 13.0, BLEU of the tokens 22.0, Moses BLEU 22.0"
    )
    assert gru.spec.measure == "sacreBLEU, beam search, sources cut at their ends: 3"
    assert transformer.baselines.keys() == {"source copied", "greedy"}
    assert transformer.spec.measure == "sacreBLEU, beam search"


@pytest.mark.parametrize("profile", ["cpu", "tiny", "paper"])
def test_the_floors_of_a_profile_belong_to_results_and_baselines_that_exist(profile: str) -> None:
    config = load(ROOT / "conf" / profile / "report.yaml", ReportConfig)
    run = run_of(metrics())
    results = evaluate(result_specs(run), config.floors, run)
    assert {result.spec.id for result in results if result.reached is not None} == set(config.floors)


def test_the_floors_of_the_default_profile_are_those_that_were_set_at_the_beginning() -> None:
    """A floor that turns out too high is reported as missed; it is not lowered."""
    run = run_of(metrics())
    results = evaluate(result_specs(run), load(ROOT / "conf/cpu/report.yaml", ReportConfig).floors, run)
    bounds = {result.spec.id: (result.bound, result.strict) for result in results if result.has_floor}
    assert bounds == {
        "bert_words": (6.0 - 0.5, False),
        "bert_next_sentence": (0.65, False),
        "finetune_polarity": (0.7, True),  # random weights
        "finetune_rating": (0.5, True),
        "gpt_bits_per_byte": (1.76, True),  # xz
        "translate_transformer": (15.0, False),
        "sft_perplexity": (80.0, True),  # the base model
        "sft_ended": (0.95, False),
        "reward_accuracy": (0.70, False),
        "dpo_judge": (0.0, True),
        "dpo_distinct": (0.4, False),  # half of 0.8
        "ppo_judge": (0.0, True),
        "ppo_distinct": (0.45, False),  # half of 0.9
    }
