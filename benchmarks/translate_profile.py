"""Where the time of training a small translation Transformer goes, by kind of kernel.

python -m benchmarks.translate_profile [--data FOLDER] [--threads N] [--steps N]

Steps of the stage's module (loss, backward pass, clipping, fused AdamW) on batches of its plan, first timed as they
are, then again under PyTorch's profiler. A share is the time that the profiler sees in kernels of one kind; what the
kernels do not account for of the time without it is Python, dispatch and allocation between them. The kernels of the
vocabulary's softmax are those of softmax outside attention, whose own is fused. At last the same steps in bfloat16, as
the runtime cpu_bf16 takes them, are timed in turn with those in float32. FOLDER holds train.en and train.de, as
Multi30k has them; without it, sentences are generated.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from time import perf_counter

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.shared.options import parser, positive
from benchmarks.shared.sentences import read_pairs
from benchmarks.shared.steps import stage_step, whole_steps
from benchmarks.shared.task import prepare, training_config, training_module
from pipeline.config import Steps
from pipeline.data.batches import MicroBatch, TranslationBatch
from pipeline.data.plan import TrainingPlan
from pipeline.runtime import keep_freed_memory
from pipeline.stages.translate import padding_share

WARM_UP = 5
KINDS: Mapping[str, tuple[str, ...]] = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "addmm_"),
    "attention": (
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention_for_cpu_backward",
    ),
    "random numbers of dropout": ("random_", "clamp_", "sub_", "bernoulli_"),
    "softmax of the vocabulary": ("_log_softmax", "_softmax", "logsumexp", "exp", "exp_", "amax", "max", "argmax"),
    "layer norms": ("native_layer_norm", "native_layer_norm_backward"),
    "embeddings": ("index_select", "embedding_dense_backward", "index", "index_put_", "_index_put_impl_", "index_add_"),
    "optimizer and clipping": (
        "_fused_adamw_",
        "_fused_adam_",
        "_foreach_norm",
        "linalg_vector_norm",
        "_foreach_mul_",
        "zero_",
    ),
    "element by element": ("mul", "mul_", "add", "add_", "relu", "threshold_backward", "div", "div_", "sum"),
    "copies": ("copy_", "cat", "fill_", "stack"),
}
"""Kernels of torch by what they do; those that are not named here are other ones."""


def main(arguments: Sequence[str] | None = None) -> None:
    choices = parser("translate_profile", __doc__, "data", "threads")
    choices.add_argument("--steps", type=positive, default=20, help="optimizer steps of each pass; default %(default)s")
    options = choices.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    task = prepare(read_pairs(options.data))
    training = training_config(Steps(kind="steps", num_steps=WARM_UP + options.steps))
    plan = TrainingPlan(task.examples, training.batching, training.duration, seed=training.seed)
    batches = list(whole_steps(plan))
    take = stage_step(training_module(task.tokenizer.vocab_size, training))
    for micro in batches[:WARM_UP]:
        take(micro)
    seconds = timed(take, batches[WARM_UP:])
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        timed(take, batches[WARM_UP:])
    kernels = {event.key.removeprefix("aten::"): event.self_cpu_time_total / 1e6 for event in seen.key_averages()}
    compare_precisions(plan, task.tokenizer.vocab_size, options.steps)
    report(shares(kernels, seconds), seconds / options.steps, options.threads)
    print(f"padding: {100 * padding_share(task.examples, training):.1f}% of the source and target tokens of an epoch")


def compare_precisions(plan: TrainingPlan[TranslationBatch], vocab_size: int, num_steps: int) -> None:
    """Prints the seconds of a step in both precisions, three rounds of each in turn from equal weights."""
    training = training_config(Steps(kind="steps", num_steps=num_steps))
    batches = list(whole_steps(plan))
    times: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for _ in range(3):
        for name, found in times.items():
            take = stage_step(training_module(vocab_size, training))
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=name == "bfloat16"):
                timed(take, batches[:WARM_UP])
                found.append(timed(take, batches[WARM_UP:]) / num_steps)
    for name, found in times.items():
        print(f"{name:>9}: {1e3 * median(found):.0f} ms a step ({1e3 * min(found):.0f} to {1e3 * max(found):.0f})")
    print(f"    ratio: {median(times['float32']) / median(times['bfloat16']):.2f}")


def report(found: Mapping[str, float], seconds: float, threads: int) -> None:
    """Prints the time of a step and its shares."""
    print(f"{threads} thread(s), {1e3 * seconds:.0f} ms a step")
    for kind, share in found.items():
        print(f"{kind:>26} {100 * share:5.1f}%")


def shares(kernels: Mapping[str, float], seconds: float) -> dict[str, float]:
    """The share of the seconds that each kind of kernel took, the largest first, and what is left between them."""
    kind_of = {name: kind for kind, names in KINDS.items() for name in names}
    found: dict[str, float] = defaultdict(float)
    for name, value in kernels.items():
        # Not the ranges that enclose others, of the optimizer and of autograd.
        if name in kind_of or name.islower():
            found[kind_of.get(name, "other kernels")] += value / seconds
    largest_first = dict(sorted(found.items(), key=lambda item: -item[1]))
    return {**largest_first, "between kernels": max(0.0, 1.0 - sum(found.values()))}


def timed(
    take: Callable[[MicroBatch[TranslationBatch]], None], batches: Sequence[MicroBatch[TranslationBatch]]
) -> float:
    """Seconds of a step on each batch, together."""
    started = perf_counter()
    for micro in batches:
        take(micro)
    return perf_counter() - started


if __name__ == "__main__":
    main()
