"""BLEU of the validation set while a translation model trains: the ranks divide the sentences, and all learn it."""

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.data.records import Pair
from pipeline.evaluation.bleu import bleu
from pipeline.inference.translator import Translator
from pipeline.stages.translation_scores import as_plain
from pipeline.text.forms import has_no_case


class ValidationBleu:
    """Scores weights with a model of its own: a strategy may take the trained one to pieces."""

    def __init__(self, translator: Translator, pairs: Sequence[Pair]) -> None:
        """The model of `translator` is nobody else's; it stays where it is until the first score."""
        self.translator = translator
        self.pairs = pairs

    def __call__(self, state: Mapping[str, Tensor], device: torch.device) -> float:
        """BLEU of the model with these weights, found on `device`. A collective operation."""
        form, model = self.translator.form, self.translator.model
        model.load_state_dict(state)
        model.to(device)
        is_shared = dist.is_available() and dist.is_initialized()
        rank, world_size = (dist.get_rank(), dist.get_world_size()) if is_shared else (0, 1)
        mine = [pair.src for pair in self.pairs[rank::world_size]]
        parts = [[one.text for one in self.translator.translate(mine, too_long="cut", is_shown=rank == 0)]]
        if is_shared:
            found, parts = parts[0], [[] for _ in range(world_size)]
            dist.all_gather_object(parts, found)
        texts = [parts[i % world_size][i // world_size] for i in range(len(self.pairs))]
        value = bleu(*as_plain(texts, self.pairs, form), lowercase=has_no_case(form)).value if rank == 0 else 0.0
        # Decisions hang on it: not one bit may differ between two kinds of nodes.
        score = torch.tensor(value, dtype=torch.float64, device=device)
        if is_shared:
            dist.broadcast(score, src=0)
        return float(score)
