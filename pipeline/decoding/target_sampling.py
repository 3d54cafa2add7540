"""Drawing targets from a translation model, one token at a time, in place of a search for the likeliest.

Legend: N rows (sources), M rows still running, L longest target, V scores. What is drawn for a row depends on its own
draws alone (see `sampling.uniforms`), not on the batch.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.decoding.beam import Hypothesis
from pipeline.decoding.protocol import S, StepModel
from pipeline.decoding.sampling import inverse_cdf, truncated_probs


@torch.no_grad()
def sample_targets(
    model: StepModel[S],
    state: S,
    draws: Float[Tensor, "N L"],
    *,
    bos: int,
    eos: int,
    max_lengths: Int[Tensor, "N"],
    temperature: float,
    top_k: int,
    top_p: float,
    suppressed: Sequence[int] = (),
) -> list[Hypothesis]:
    """One target for each row, which ends with EOS at its `max_lengths` tokens at the latest.

    `suppressed` tokens are never drawn. Its log-probability, which is also its score, is that of the model itself: of
    temperature 1 and all tokens.
    """
    num_rows = len(max_lengths)
    tokens: list[list[int]] = [[] for _ in range(num_rows)]
    log_probs = torch.zeros(num_rows, device=max_lengths.device)
    never = torch.tensor(list(suppressed), dtype=torch.long, device=max_lengths.device)
    rows = torch.arange(num_rows, device=max_lengths.device)
    last_tokens = torch.full((num_rows,), bos, device=max_lengths.device)
    for position in range(int(max_lengths.max())):
        logits, state = model.step(last_tokens, state)
        allowed = logits.index_fill(1, never, -torch.inf) if len(never) else logits
        probs = truncated_probs(allowed, temperature=temperature, top_k=top_k, top_p=top_p)
        chosen = inverse_cdf(probs, draws[rows, position].to(probs))
        chosen = chosen.masked_fill(max_lengths[rows] == position + 1, eos)
        log_probs[rows] += logits.float().log_softmax(1).gather(1, chosen[:, None]).squeeze(1)
        kept = (chosen != eos).nonzero().squeeze(1)
        rows, last_tokens = rows[kept], chosen[kept]
        for row, token in zip(rows.tolist(), last_tokens.tolist(), strict=True):
            tokens[row].append(token)
        if len(rows) == 0:
            break
        if len(kept) < len(chosen):
            state = state.select(kept)
    return [
        Hypothesis(tuple(found), log_prob, log_prob) for found, log_prob in zip(tokens, log_probs.tolist(), strict=True)
    ]
