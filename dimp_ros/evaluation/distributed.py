# SPDX-License-Identifier: Apache-2.0
"""A run divided between processes that `torchrun` starts on one or several machines.

They do not communicate: each computes its share from its rank.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import TypeVar

_Spec = TypeVar("_Spec")
_Sequence = TypeVar("_Sequence", bound=Sized)


@dataclass(frozen=True)
class Rank:
    """Rank of a process: `index` of `count`, and on its machine `local_index` of `local_count`.

    Indices start at 0. Raise ValueError if a number does not fit the others.
    """

    index: int = 0
    count: int = 1
    local_index: int = 0
    local_count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count or not 0 <= self.local_index < self.local_count:
            raise ValueError(
                f"RANK {self.index} of WORLD_SIZE {self.count}, LOCAL_RANK {self.local_index} of LOCAL_WORLD_SIZE "
                f"{self.local_count}: a rank must be from 0 to its size - 1; start with torchrun, or unset them"
            )

    @staticmethod
    def from_environment(environment: Mapping[str, str] | None = None) -> Rank:
        """Read the variables that torchrun sets; without them this is the only process."""
        environment = os.environ if environment is None else environment

        def number(name: str, default: int) -> int:
            text = environment.get(name, "")
            if text and not text.isdecimal():
                raise ValueError(f"{name} is {text!r} in the environment; it must be a whole number")
            return int(text) if text else default

        index, count = number("RANK", 0), number("WORLD_SIZE", 1)
        return Rank(index, count, number("LOCAL_RANK", 0), number("LOCAL_WORLD_SIZE", 1))

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.count == 1

    def cores(self, available: int) -> int:
        """Return this process's share of its machine's cores, at least 1."""
        return max(1, available // self.local_count)


ALONE = Rank()


def share(specs: Sequence[_Spec], sequences: Sequence[_Sequence], rank: Rank) -> list[tuple[_Spec, _Sequence]]:
    """Return the pairs of tracker and sequence of a rank; over all ranks each pair occurs once.

    Longest sequences come first, each with all trackers in turn, so that changes of load affect all trackers alike. A
    whole sequence goes to the rank with the fewest frames so far, so that times on it come from one machine; with fewer
    sequences than ranks, single pairs are assigned.
    """
    ordered = sorted(sequences, key=len, reverse=True)
    pairs = [(spec, sequence) for sequence in ordered for spec in specs]
    size = len(specs) if len(sequences) >= rank.count else 1
    loads, own = [0] * rank.count, []
    for start in range(0, len(pairs), size):
        group = pairs[start : start + size]
        receiver = loads.index(min(loads))
        loads[receiver] += sum(len(sequence) for _, sequence in group)
        if receiver == rank.index:
            own.extend(group)
    return own
