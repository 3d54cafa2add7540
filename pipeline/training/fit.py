"""`fit`: a module, a plan and validation data become a trained model, through kills, signals and any runtime."""

import copy
import errno
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.pytorch import Callback

from pipeline.checkpoints import Checkpoint, CheckpointFolder, Writer
from pipeline.config import ByExamples, ByTokens, TrainingConfig
from pipeline.data.batches import Batch, Examples, MicroBatch
from pipeline.data.loaders import Cut, TrainingLoader, ValidationBatch, check_cut, validation_batches
from pipeline.data.plan import Phase, TrainingPlan, examples_at, padding_share, plan_epoch
from pipeline.runtime import (
    RuntimeConfig,
    build_trainer,
    global_rank,
    gradient_scale,
    keep_freed_memory,
    resume_mode,
    saved_weights,
)
from pipeline.training.base import StageModule
from pipeline.training.callbacks import (
    PROGRESS,
    RANDOM,
    STATE,
    OwnSettings,
    Progress,
    RandomState,
    SameStart,
    SaveCheckpoint,
    StopAtStep,
    Track,
    TrainedWeights,
    Validation,
)
from pipeline.training.history import OTHER_KEY, History
from pipeline.training.run import StageRun
from pipeline.training.selection import Select, Selection, Weights

_log = logging.getLogger(__name__)

B = TypeVar("B", bound=Batch)

_LOST = ("closed by peer", "closed by remote peer", "connection reset", "connection closed", "broken pipe")
"""What gloo and NCCL say when the process at the other end has gone, in small letters."""


def fit(
    run: StageRun,
    module: StageModule[B],
    *,
    train: Examples[B],
    valid: Examples[B],
    later: Sequence[Phase[B]] = (),
    later_valid: Sequence[Phase[B]] = (),
    selection: Selection | None = None,
) -> Mapping[str, float]:
    """Trains `module` and leaves the plain trained model, on the CPU or the first GPU, in `module.model`.

    Without a `selection` these are the last weights. Returns the losses and reports of the model on the validation
    data. The data sets `later` take over from `train` at their steps, and `later_valid` from `valid`: what is validated
    behind a step is that of the step.

    Continues from the newest valid checkpoint of the same configuration, code and inputs, or where PIPELINE_RESUME
    says so of others. Returns on rank 0 only:
    the other ranks end here, and a stop request ends the process with 128 + signal after saving.
    """
    config = module.training_config
    run = replace(run, runtime=run.runtime.in_groups(config.batching.groups_per_step))
    plan = TrainingPlan(train, config.batching, config.duration, seed=config.seed, later=tuple(later))
    place = place_of(run.runtime)
    padding = _check_first_epoch(train, config, place, name="training", seed=config.seed)
    _check_first_epoch(valid, config, None, name="validation", seed=0)
    for phase in later:
        _check_first_epoch(phase.examples, config, place, name="training", seed=config.seed)
    for phase in later_valid:
        _check_first_epoch(phase.examples, config, None, name="validation", seed=0)
    module.num_steps = plan.num_steps
    if selection:
        selection.check(config, num_steps=plan.num_steps)
    if place.rank == 0:
        _log.info(
            "%s: %d steps, padding %.1f%%, %.2f M parameters trained",
            run.layout.stage,
            module.num_steps,
            100 * padding,
            sum(parameter.numel() for parameter in module.model.parameters()) / 1e6,
        )
    found = newest_checkpoint(run)
    start = found.update if found else 0
    if found and selection and selection.is_over(history_of(found)):
        module.num_steps, start = found.update, plan.num_steps
    loader = TrainingLoader(plan, place, start=start, prefetch=run.runtime.prefetch)

    def validate(place: Cut = place) -> Mapping[str, float]:
        examples = examples_at(valid, later_valid, module.update - 1)
        return module.validate(validation_batches(examples, config.batching, place))

    weights = Weights(CheckpointFolder(run.layout.local, run.key))
    if found and selection and not selection.config.is_end:
        weights.take_over(found, selection.chosen(history_of(found)), is_main=place.rank == 0)
    callbacks: list[Callback] = [Validation(validate, every=config.validate_every)]
    if selection:
        callbacks.append(Select(selection, weights, run.runtime))
    train_module(run, module, loader, found, callbacks)
    chosen = [] if selection is None or selection.config.is_end else selection.chosen(module.history)
    if selection is None or not chosen:
        values = {name.removeprefix("valid/"): value for name, value in module.history[-1].items() if "valid/" in name}
        if not values:
            # It went on at its last step, from a checkpoint of a configuration that did not validate there.
            values = dict(validate(_alone(place)))
            reports = {f"valid/{name}": value for name, value in values.items()}
            module.history.add_to_last(reports)
            run.tracker.metrics(reports, module.update)
        return values
    _log.info("%s: the model is the mean of the weights after the steps %s", run.layout.stage, chosen)
    if len(chosen) < selection.config.num_averaged:
        _log.warning("%d weights were to be averaged: the training ended sooner", selection.config.num_averaged)
    module.model.load_state_dict(weights.mean(chosen))
    # The other ranks have ended: rank 0 validates on its own.
    return validate(_alone(place))


def batches_alone(
    run: StageRun, examples: Examples[B], batching: ByExamples | ByTokens
) -> Iterator[ValidationBatch[B]]:
    """All examples on rank 0 when the other ranks have ended, in micro-batches as small as they were in training."""
    place = place_of(run.runtime.in_groups(batching.groups_per_step))
    return validation_batches(examples, batching, _alone(place))


def _alone(place: Cut) -> Cut:
    return Cut(rank=0, world_size=1, accumulation=place.parts)


def _check_first_epoch(
    examples: Examples[Any], config: TrainingConfig, place: Cut | None, *, name: str, seed: int
) -> float:
    """The share of padding in epoch 0, of which nothing is kept: its steps are as many as the corpus is large.

    A data set that cannot be cut into steps, or whose steps `place` cannot cut, is named before anything starts.
    """
    try:
        sizes = examples.sizes(0)
        steps = plan_epoch(sizes, config.batching, seed=seed, epoch=0)
    except ValueError as error:
        raise ValueError(f"{name} data: {error}") from error
    if place:
        for step in steps:
            check_cut(step, place)
    return padding_share(steps, sizes)


def place_of(runtime: RuntimeConfig) -> Cut:
    """This process's place in the cut of every optimizer step."""
    return Cut(rank=global_rank(runtime), world_size=runtime.world_size, accumulation=runtime.accumulation)


def _writer(runtime: RuntimeConfig) -> Writer:
    return Writer(
        strategy=runtime.kind,
        world_size=runtime.world_size,
        accelerator=runtime.accelerator,
        precision=runtime.precision,
        accumulation=runtime.accumulation,
    )


def newest_checkpoint(run: StageRun) -> Checkpoint | None:
    """Where this run continues; None at a fresh start. ValueError where the runtime does not fit the checkpoint."""
    checkpoints, writer = CheckpointFolder(run.layout.local, run.key), _writer(run.runtime)
    found = checkpoints.newest(writer, resume=resume_mode())
    if global_rank(run.runtime) == 0:
        _tell(checkpoints, found, writer)
    return found


def _tell(checkpoints: CheckpointFolder, found: Checkpoint | None, writer: Writer) -> None:
    """Says where a training continues, and what of it is not as it was."""
    if found is None:
        for other in checkpoints.others():
            _log.warning(
                "%s: written with another configuration, code or inputs, so this run starts anew; stop it and set "
                "PIPELINE_RESUME=any to continue from there, or PIPELINE_RESUME=weights for the weights alone. It is "
                "removed when this stage has finished",
                other,
            )
        return
    _log.info("continuing from %s", found.folder)
    if found.is_foreign:
        _log.warning(
            "WRITTEN WITH ANOTHER CONFIGURATION, CODE OR INPUTS: what this training ends with is not what its "
            "configuration says; its curve and metrics name step %d under %s",
            found.update,
            OTHER_KEY,
        )
    if not found.is_whole:
        _log.warning("written by %s: only its weights are taken, the optimizer is fresh", found.writer)
    elif found.writer != writer:
        _log.warning(
            "written with %d micro-batches a step, this run has %d: the gradients are the same, but rounding and "
            "dropout are not, so that it does not continue bit for bit",
            found.writer.accumulation,
            writer.accumulation,
        )


def progress_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """What `StageModule.progress` gave."""
    progress: dict[str, Any] = torch.load(checkpoint.folder / PROGRESS, weights_only=True)
    return progress


def history_of(checkpoint: Checkpoint) -> History:
    """The history up to a checkpoint."""
    return History.of(progress_of(checkpoint)["history"])


def _take_over(run: StageRun, module: StageModule[Any], found: Checkpoint) -> None:
    """Notes that a training goes on from a checkpoint of another key; ValueError where it cannot."""
    if found.update > module.num_steps:
        raise ValueError(f"{found.folder}: {found.update} steps are done, and this training has {module.num_steps}")
    theirs, ours = saved_weights(found.folder / STATE), module.model.state_dict()
    for name in sorted(theirs.keys() | ours.keys()):
        there, here = (tuple(state[name].shape) if name in state else None for state in (theirs, ours))
        if there != here:
            raise ValueError(
                f"{found.folder}: not of this model: {name} has the shape {there} there and {here} here; "
                "unset PIPELINE_RESUME to start anew"
            )
        # Integers are not learned: they say what the learned numbers stand for, as the tokens of rows.
        if not ours[name].is_floating_point() and not torch.equal(theirs[name].to(ours[name]), ours[name]):
            raise ValueError(
                f"{found.folder}: not of this model: {name} has other values there, as where texts have other tokens; "
                "unset PIPELINE_RESUME to start anew"
            )
    module.history.add_to_last({OTHER_KEY: 1.0})
    run.tracker.metrics({OTHER_KEY: 1.0}, found.update)


@contextmanager
def _lost_ranks(rank: int) -> Iterator[None]:
    """Turns what a collective operation says when another rank has died into one line: that rank says why.

    So are faults of the meeting of the ranks, as of a port that is in use. Everything else stays what it is.
    """
    try:
        yield
    except RuntimeError as error:
        lines = str(error).splitlines() or [""]
        if isinstance(error, dist.DistNetworkError | dist.DistStoreError):
            reason = f"rank {rank} does not reach the other ranks: {lines[0]}"
            raise ConnectionAbortedError(errno.ECONNABORTED, reason) from error
        lost = next((line for line in lines if any(text in line.lower() for text in _LOST)), None)
        if lost is None:
            raise
        reason = f"rank {rank} lost the connection to another rank: {lost}"
        raise ConnectionAbortedError(errno.ECONNABORTED, reason) from error


def train_module(
    run: StageRun,
    module: StageModule[Any],
    loader: Iterable[MicroBatch[Any]],
    found: Checkpoint | None,
    callbacks: Sequence[Callback],
) -> None:
    """The Lightning side of `fit`, for stages that bring a loader of their own and set `module.num_steps`.

    `loader` gives as many micro-batches of a step as `run.runtime` accumulates.
    """
    config, runtime = module.training_config, run.runtime
    module.loss_scale = gradient_scale(runtime)
    random, seed, resumed = {}, config.seed, None
    trained, checkpoints = TrainedWeights(runtime), CheckpointFolder(run.layout.local, run.key)
    if found:
        module.load_progress(progress_of(found))
        if found.is_foreign:
            _take_over(run, module, found)
        if found.is_whole:
            random = torch.load(found.folder / RANDOM.format(global_rank(runtime)), weights_only=True)
            resumed = found.folder / STATE
        else:
            trained.state = saved_weights(found.folder / STATE)
            module.model.load_state_dict(trained.state)
            seed += found.update
    # DeepSpeed takes the parameters to pieces and lower precision: the trained ones go into a copy.
    plain = copy.deepcopy(module.model) if runtime.strategy == "deepspeed" else module.model
    trainer = build_trainer(
        runtime,
        clip_norm=config.optimizer.clip_norm,
        callbacks=[
            SameStart(module.update, checkpoints),
            StopAtStep(run.interrupt),
            *callbacks,
            SaveCheckpoint(checkpoints, _writer(runtime), every=config.checkpoint_every),
            RandomState(random, seed=seed),
            *([OwnSettings()] if found and found.is_foreign else []),
            Progress(run.layout.stage),
            Track(run.tracker.metrics),
            trained,
        ],
        folder=run.layout.local,
    )
    if runtime.accelerator == "cpu":
        keep_freed_memory()
    run.interrupt.is_training = True
    try:
        with _lost_ranks(global_rank(runtime)):
            trainer.fit(module, loader, ckpt_path=resumed, weights_only=True)
    except SystemExit as end:
        # A signal in the moment between Lightning's handlers and ours: Lightning ends without an exit code.
        if run.interrupt.signum and not end.code and trainer.is_global_zero:
            raise SystemExit(run.interrupt.exit_code) from end
        raise
    run.interrupt.is_training = False
    if dist.is_available() and dist.is_initialized():
        # Rank 0 goes on alone: nothing that it evaluates may wait for the others.
        dist.destroy_process_group()
    if run.interrupt.signum:
        # The other ranks end well: Lightning kills rank 0 as soon as one of them does not.
        raise SystemExit(run.interrupt.exit_code if trainer.is_global_zero else 0)
    if not trainer.is_global_zero:
        raise SystemExit(0)
    plain.load_state_dict(trained.state)
    module.model = plain
    module.to(run.device).eval()
