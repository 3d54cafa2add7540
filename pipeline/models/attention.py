"""Multi-head attention (Vaswani et al. 2017, section 3.2) and the cache that makes decoding incremental.

Legend: B batch, N rows of a search, P real tokens of a batch, R of them read in the end, T query length, S key length,
H heads, K head size, D model size, E three times D, C capacity.
Masks are boolean and broadcast to (B, H, T, S); True: this query attends to this key. A mask of None allows everything.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pipeline.models.dropout import dropout
from pipeline.models.rows import ReadTokens, Rows, attend_row_by_row


def segment_mask(segment_ids: Int[Tensor, "B T"]) -> Bool[Tensor, "B 1 T T"]:
    """Token t attends to s <= t of the same segment.

    One rule for packing, right padding and left padding: documents that share a row have different segments, padding
    is a segment of its own (-1), and every token attends at least to itself.
    """
    length = segment_ids.size(1)
    causal = torch.ones(length, length, dtype=torch.bool, device=segment_ids.device).tril()
    return (causal & (segment_ids.unsqueeze(2) == segment_ids.unsqueeze(1))).unsqueeze(1)


def key_mask(attention_mask: Bool[Tensor, "B S"]) -> Bool[Tensor, "B 1 1 S"] | None:
    """Every query attends to every real key of its row.

    On a CPU None where all are real, as with sentences of one length: attention without a mask takes three quarters of
    the time. A GPU would have to wait for the answer.
    """
    if attention_mask.device.type == "cpu" and bool(attention_mask.all()):
        return None
    return attention_mask[:, None, None, :]


def attend(
    queries: Float[Tensor, "B H T K"],
    keys: Float[Tensor, "B H S K"],
    values: Float[Tensor, "B H S K"],
    mask: Bool[Tensor, "#B 1 #T S"] | None,
    *,
    is_causal: bool = False,
    dropout_p: float = 0.0,
) -> Float[Tensor, "B T D"]:
    """softmax(Q K^T / sqrt(K)) V for each head, heads concatenated (eq. 1).

    Without dropout this is PyTorch's fused kernel, which skips the masked half when `is_causal`; dropout on the
    attention weights needs them in memory. On a CPU its backward pass in bfloat16 takes six times that of float32 at 20
    tokens, and more than twice that of the products written out at 256.
    """
    is_slow = queries.dtype == torch.bfloat16 and queries.device.type == "cpu" and queries.requires_grad
    if dropout_p == 0.0 and not is_slow:
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=is_causal)
    else:
        scores = (queries * queries.size(-1) ** -0.5) @ keys.transpose(-2, -1)  # (B, H, T, S)
        if is_causal:
            future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(future, float("-inf"))
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = scores.softmax(dim=-1)
        mixed = (dropout(weights, dropout_p) if dropout_p else weights) @ values
    return mixed.transpose(1, 2).flatten(2)


def _attend_once(
    queries: Float[Tensor, "N H 1 K"], keys: Float[Tensor, "S N H K"], values: Float[Tensor, "S N H K"]
) -> Float[Tensor, "N 1 D"]:
    """`attend` from one position to a short past, by sums over whole vectors: half the time of the fused kernel."""
    query = queries[:, :, 0] * queries.size(-1) ** -0.5  # (N, H, K)
    weights = (query * keys).sum(-1).softmax(0)  # (S, N, H)
    mixed: Tensor = (weights.unsqueeze(-1) * values).sum(0)  # (N, H, K)
    return mixed.flatten(1).unsqueeze(1)


_SPARE = 16
"""Positions for which a cache that is full grows."""
_SHORT = 48
"""Longest past for which `_attend_once` is the faster one."""
_SHORT_ROWS = 64
"""Longest row up to which padded rows are not slower than one after the other, which are too little work a call."""


@dataclass
class _Buffer:
    """Storage that several caches may share; `used` is the longest prefix that any of them wrote.

    Positions come first: what is used stands together, so that selecting rows copies it and nothing else.
    """

    keys: Float[Tensor, "C N H K"]
    values: Float[Tensor, "C N H K"]
    used: int


@dataclass(frozen=True)
class KeyValueCache:
    """Keys and values of the first `length` positions of one layer.

    Behaves as a value: `append` and `select` return a cache and leave this one as it was. Like the slices of Go,
    appending to the longest cache writes into spare capacity in place, so a step costs one position, not a copy.
    Generation has no gradient, which writing in place would break.
    """

    buffer: _Buffer
    length: int

    @staticmethod
    def of(keys: Float[Tensor, "N H T K"], values: Float[Tensor, "N H T K"]) -> "KeyValueCache":
        """A cache that holds `keys` and `values`."""
        return KeyValueCache(_Buffer(_by_position(keys), _by_position(values), keys.size(2)), keys.size(2))

    @property
    def keys(self) -> Float[Tensor, "N H S K"]:
        """Keys of the positions so far."""
        return self.buffer.keys[: self.length].permute(1, 2, 0, 3)

    @property
    def values(self) -> Float[Tensor, "N H S K"]:
        """Values of the positions so far."""
        return self.buffer.values[: self.length].permute(1, 2, 0, 3)

    def append(self, keys: Float[Tensor, "N H T K"], values: Float[Tensor, "N H T K"]) -> "KeyValueCache":
        """This cache followed by T further positions."""
        length = self.length + keys.size(2)
        buffer = self.buffer
        if self.length != buffer.used or length > buffer.keys.size(0):
            grown = [old.new_empty(length + _SPARE, *old.shape[1:]) for old in (buffer.keys, buffer.values)]
            grown[0][: self.length] = buffer.keys[: self.length]
            grown[1][: self.length] = buffer.values[: self.length]
            buffer = _Buffer(grown[0], grown[1], self.length)
        buffer.keys[self.length : length] = _by_position(keys)
        buffer.values[self.length : length] = _by_position(values)
        buffer.used = length
        return KeyValueCache(buffer, length)

    def select(self, rows: Int[Tensor, "M"]) -> "KeyValueCache":
        """The cache of the given rows, which may repeat, drop and re-order; spare capacity stays."""
        chosen = []
        for old in (self.buffer.keys, self.buffer.values):
            new = old.new_empty(old.size(0), len(rows), *old.shape[2:])
            torch.index_select(old[: self.length], 1, rows, out=new[: self.length])
            chosen.append(new)
        return KeyValueCache(_Buffer(chosen[0], chosen[1], self.length), self.length)

    def attend_from(
        self, queries: Float[Tensor, "N H T K"], mask: Bool[Tensor, "#N 1 #T S"] | None, *, is_causal: bool = False
    ) -> Float[Tensor, "N T D"]:
        """What the last T positions, or those of another sequence, take from the positions so far."""
        is_short = queries.size(2) == 1 and self.length <= _SHORT
        if is_short and mask is None and queries.device.type == "cpu":
            return _attend_once(queries, self.buffer.keys[: self.length], self.buffer.values[: self.length])
        return attend(queries, self.keys, self.values, mask, is_causal=is_causal)


def _by_position(heads: Float[Tensor, "N H T K"]) -> Float[Tensor, "T N H K"]:
    return heads.permute(2, 0, 1, 3)


class SelfAttention(nn.Module):
    """Attention of a sequence to itself; queries, keys and values are one matrix product."""

    def __init__(self, d_model: int, num_heads: int, *, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.output = nn.Linear(d_model, d_model)

    def _project(self, hidden: Float[Tensor, "B T D"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, H, T, K)."""
        queries, keys, values = self._heads(self.qkv(hidden), 3)
        return queries, keys, values

    def _heads(self, vectors: Float[Tensor, "B T E"], count: int) -> tuple[Tensor, ...]:
        """Each of `count` sorts of vectors that stand side by side, as (B, H, T, K)."""
        heads = vectors.view(*vectors.shape[:2], count, self.num_heads, -1)  # (B, T, count, H, K)
        return heads.permute(2, 0, 3, 1, 4).unbind(0)

    def forward(
        self, hidden: Float[Tensor, "B T D"], mask: Bool[Tensor, "#B 1 #T T"] | None, *, is_causal: bool = False
    ) -> Float[Tensor, "B T D"]:
        """Attends over the whole sequence at once."""
        dropout_p = self.dropout if self.training else 0.0
        queries, keys, values = self._project(hidden)
        update: Tensor = self.output(attend(queries, keys, values, mask, is_causal=is_causal, dropout_p=dropout_p))
        return update

    def over_rows(
        self, hidden: Float[Tensor, "P D"], rows: Rows, read: ReadTokens | None = None
    ) -> Float[Tensor, "P_or_R D"]:
        """Attends from the P real tokens of some rows, or the R that are read, to those of their own row.

        On padded rows, or where there is dropout, which the fused kernel has not, one row after the other on a CPU.
        """
        dropout_p = self.dropout if self.training else 0.0
        qkv = self.qkv(hidden)
        if read is not None:
            asking, known = qkv.split([hidden.size(1), 2 * hidden.size(1)], dim=1)
            (queries,) = self._heads(read.close.pad(asking.index_select(0, read.places)), 1)  # as many as most in a row
            keys, values = self._heads(rows.pad(known), 2)
            mask = rows.mask[:, None, None, :] if rows.has_padding else None
            attended = read.close.pack(attend(queries, keys, values, mask, dropout_p=dropout_p))
        elif dropout_p > 0.0 and hidden.device.type == "cpu" and rows.mask.size(1) > _SHORT_ROWS:
            attended = attend_row_by_row(qkv, rows.lengths, num_heads=self.num_heads, dropout_p=dropout_p)
        else:
            queries, keys, values = self._heads(rows.pad(qkv), 3)
            mask = rows.mask[:, None, None, :] if rows.has_padding else None
            attended = rows.pack(attend(queries, keys, values, mask, dropout_p=dropout_p))
        update: Tensor = self.output(attended)
        return update

    def extend(
        self,
        hidden: Float[Tensor, "N T D"],
        cache: KeyValueCache | None,
        mask: Bool[Tensor, "#N 1 #T S"] | None,
        *,
        is_causal: bool = False,
    ) -> tuple[Float[Tensor, "N T D"], KeyValueCache]:
        """Attends from T new positions to those of `cache` (None: nothing yet) and to themselves; no dropout."""
        queries, keys, values = self._project(hidden)
        cache = KeyValueCache.of(keys, values) if cache is None else cache.append(keys, values)
        return self.output(cache.attend_from(queries, mask, is_causal=is_causal)), cache


class CrossAttention(nn.Module):
    """Attention of a target sequence to an encoded source, the memory, which is projected only once."""

    def __init__(self, d_model: int, num_heads: int, *, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = nn.Linear(d_model, d_model)
        self.key_value = nn.Linear(d_model, 2 * d_model)
        self.output = nn.Linear(d_model, d_model)

    def project_memory(self, memory: Float[Tensor, "B S D"]) -> KeyValueCache:
        """Keys and values of the source."""
        heads = self.key_value(memory).unflatten(2, (2, self.num_heads, -1))  # (B, S, 2, H, K)
        keys, values = heads.permute(2, 0, 3, 1, 4).unbind(0)
        return KeyValueCache.of(keys, values)

    def forward(
        self, hidden: Float[Tensor, "B T D"], memory: KeyValueCache, mask: Bool[Tensor, "#B 1 #T S"] | None
    ) -> Float[Tensor, "B T D"]:
        """Attends from each target position to the projected memory."""
        queries = self.query(hidden).unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, H, T, K)
        dropout_p = self.dropout if self.training else 0.0
        update: Tensor = self.output(attend(queries, memory.keys, memory.values, mask, dropout_p=dropout_p))
        return update
