"""Which worlds are for what: those that weights are judged by must never be learned."""

from __future__ import annotations

from collections.abc import Iterable

EVALUATION_SEEDS = range(9000, 10000)


def require_training_seeds(seeds: Iterable[int]) -> None:
    """Raises ValueError for a seed that is reserved for evaluation."""
    reserved = sorted(set(seeds).intersection(EVALUATION_SEEDS))
    if reserved:
        raise ValueError(
            f"seed {reserved[0]} is reserved for evaluation, as all of {EVALUATION_SEEDS.start} to "
            f"{EVALUATION_SEEDS.stop - 1}; train on others"
        )
