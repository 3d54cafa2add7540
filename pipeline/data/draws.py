"""Random numbers that are a function of (seed, epoch, example, ...): no state, all examples at once.

The finaliser of SplitMix64 (Steele et al. 2014) mixes in one part of the key after the other, so an example is the same
whether it is drawn alone or with others.
"""

import numpy as np
from jaxtyping import Float, Int, UInt64

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def draw_bits(*key: int | Int[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """64 random bits for each element of the broadcast key parts, for example (seed, epoch, purpose, indices)."""
    state = np.zeros((), dtype=np.uint64)
    for part in key:
        # Sums and products wrap round modulo 2^64, which is meant.
        with np.errstate(over="ignore"):
            state = _mix(np.asarray(state + np.asarray(part).astype(np.uint64) * _GAMMA + _GAMMA))
    return np.asarray(state)


def draw_below(bound: int | Int[np.ndarray, "..."], *key: int | Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Whole numbers from 0 to bound - 1; the bounds must be from 1 to 2^31."""
    scaled = (draw_bits(*key) >> np.uint64(33)) * np.asarray(bound).astype(np.uint64)
    return np.asarray(scaled >> np.uint64(31)).astype(np.int64)


def draw_uniform(*key: int | Int[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Numbers from 0 up to, not including, 1."""
    return np.asarray((draw_bits(*key) >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _mix(z: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    return np.asarray(z ^ (z >> np.uint64(31)))
