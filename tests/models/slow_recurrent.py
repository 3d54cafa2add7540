"""Recurrent translation of one sentence, written down from the papers: no batches, no padding, no call of a cell.

It reads the weights of a `Recurrent` by the names and the order of gates that PyTorch documents, and shares no code
with it. Legend: S source length, T target length, E embedding size, H hidden size, V vocabulary.
"""

import math

import torch
from torch import Tensor, nn

from pipeline.models.recurrent import Recurrent

State = tuple[Tensor, ...]
"""Output of one cell, and for an LSTM its cell too."""


def logits(model: Recurrent, src: Tensor, tgt: Tensor) -> Tensor:
    """The scores (T, V) of the tokens after each of `tgt`, given the ids of one source."""
    config, embeddings = model.config, model.embeddings
    directions = ["", "_reverse"] if config.bidirectional else [""]
    scale = math.sqrt(config.d_embedding) if config.scale_embedding else 1.0
    layer_inputs = [scale * embeddings.source.weight[i] for i in src]
    finals: list[list[State]] = []
    for layer in range(config.num_layers):
        outputs: list[list[Tensor]] = []
        finals.append([])
        for direction in directions:
            state: State = tuple(torch.zeros(config.d_hidden) for _ in range(2))
            found: list[Tensor] = []
            for x in layer_inputs[::-1] if direction else layer_inputs:
                state = _cell(model.encoder, f"l{layer}{direction}", x, state)
                found.append(state[0])
            outputs.append(found[::-1] if direction else found)
            finals[-1].append(state)
        layer_inputs = [torch.cat(both) for both in zip(*outputs, strict=True)]
    memory = layer_inputs
    hidden: list[State] = [
        tuple(
            torch.tanh(bridge.weight @ torch.cat([one[part] for one in final]) + bridge.bias)
            for part, bridge in enumerate(model.bridges)
        )
        for final in finals
    ]
    summary, feed = hidden[-1][0], torch.zeros(config.d_embedding)
    scores: list[Tensor] = []
    for i in tgt:
        token = scale * embeddings.target.weight[i]
        x = token
        if config.input_feeding:
            x = torch.cat([token, feed])
        if config.context == "every":
            x = torch.cat([token, summary])
        for layer in range(config.num_layers):
            hidden[layer] = _cell(model.decoder, f"l{layer}", x, hidden[layer])
            x = hidden[layer][0]
        if config.context == "every":
            x = torch.cat([summary, x, token])
        elif config.attention != "none":
            weights = attention(model, x, memory)
            x = torch.cat([sum((w * one for w, one in zip(weights, memory, strict=True)), torch.zeros(())), x])
        feed = torch.tanh(model.readout.weight @ x + model.readout.bias)
        known = (embeddings.output.weight @ feed + embeddings.output.bias)[:-1]
        scores.append(torch.cat([known, torch.tensor([-torch.inf])]))
    return torch.stack(scores)


def attention(model: Recurrent, query: Tensor, memory: list[Tensor]) -> list[float]:
    """The weight of each source state."""
    module, positions = model.attention, range(len(memory))
    scores = [_score(model, query, one) for one in memory]
    if module.kind == "local_p":
        depth = math.exp(-float(module.centre.weight[0] @ torch.tanh(module.position.weight @ query)))
        centre = len(memory) / (1.0 + depth)
        window, sigma = model.config.window, model.config.window / 2.0
        positions = [s for s in positions if centre - window <= s <= centre + window]  # type: ignore[assignment]
    total = sum(math.exp(scores[s]) for s in positions)
    weights = [math.exp(scores[s]) / total if s in positions else 0.0 for s in range(len(memory))]
    if module.kind == "local_p":
        weights = [w * math.exp(-((s - centre) ** 2) / (2 * sigma**2)) for s, w in enumerate(weights)]
    return weights


def _score(model: Recurrent, query: Tensor, key: Tensor) -> float:
    module = model.attention
    match module.kind:
        case "additive":
            inner = torch.tanh(module.query.weight @ query + module.query.bias + module.key.weight @ key)
            return float(module.score.weight[0] @ inner)
        case "general" | "local_p":
            return float(query @ (module.key.weight @ key))
        case _:
            return float(query @ key)


def _cell(stack: nn.RNNBase, place: str, x: Tensor, state: State) -> State:
    """One step of one layer (Elman 1990; Hochreiter and Schmidhuber 1997; Cho et al. 2014, as PyTorch has it)."""
    weights = dict(stack.named_parameters())
    entering = weights[f"weight_ih_{place}"] @ x + weights[f"bias_ih_{place}"]
    recurring = weights[f"weight_hh_{place}"] @ state[0] + weights[f"bias_hh_{place}"]
    if isinstance(stack, nn.LSTM):
        i, f, g, o = (entering + recurring).chunk(4)
        memory = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(memory), memory
    if isinstance(stack, nn.GRU):
        (r_x, z_x, n_x), (r_h, z_h, n_h) = entering.chunk(3), recurring.chunk(3)
        r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
        return ((1 - z) * torch.tanh(n_x + r * n_h) + z * state[0],)
    return (torch.tanh(entering + recurring),)
