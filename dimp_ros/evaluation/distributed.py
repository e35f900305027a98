# SPDX-License-Identifier: Apache-2.0
"""A run divided between processes, as `torchrun` starts them on one machine or on several.

Nothing is sent between them: each knows its number and the number of all, and from these alone which part is its own.
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
    """Which process this is: `index` of `count`, and of those on this machine `local_index` of `local_count`.

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
        """Read what torchrun sets; without it this is the only process."""
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
        """Return this process's share of the cores of its machine, at least 1."""
        return max(1, available // self.local_count)


ALONE = Rank()


def share(specs: Sequence[_Spec], sequences: Sequence[_Sequence], rank: Rank) -> list[tuple[_Spec, _Sequence]]:
    """Return the pairs of tracker and sequence that belong to `rank`; together the ranks have each pair once.

    Sequences go longest first, each with all trackers one after the other, so that a change of load during the run
    touches all trackers alike. A sequence is dealt whole, always to the rank with the fewest frames so far, so that the
    times of different trackers on it come from one machine; only where there are fewer sequences than ranks, pairs are
    dealt.
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
