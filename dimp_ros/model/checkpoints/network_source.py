# SPDX-License-Identifier: Apache-2.0
"""Where a network comes from: a weights file, which is built into a network when one is asked for, or random weights.

Importing this module does not import torch; `NetworkSource.network` does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dimp_ros.model.checkpoints.weights_file import (
    TORCH_SUFFIXES,
    WeightsInfo,
    find_weights,
    read_header,
)

if TYPE_CHECKING:
    from torch import Tensor

    from dimp_ros.model.dimp import DimpNet


class NetworkSource:
    """A network with its weights, in evaluation mode.

    :param info: what is known of the weights. :param path: of a safetensors file; None for a network in memory.
    :param net: the network in memory.
    """

    def __init__(self, info: WeightsInfo, path: Path | None = None, net: DimpNet | None = None) -> None:
        self.info, self.path, self._net = info, path, net
        self._versions: object = None

    @classmethod
    def find(cls, model: str) -> NetworkSource:
        """Return the source for a model, by name or by path of its weights.

        :raises FileNotFoundError: if there are no weights. :raises ValueError: if they cannot be read.
        """
        path = find_weights(model)
        if not path.name.endswith(TORCH_SUFFIXES):
            return cls(read_header(path).info, path)
        from dimp_ros.model.checkpoints.checkpoint import load_model

        net, info = load_model(model)
        return cls(info, net=net)

    @classmethod
    def random(cls, name: str, seed: int) -> NetworkSource:
        """Return the source for a model by name, with random weights.

        :raises ValueError: if no model has that name.
        """
        import torch

        from dimp_ros.model.dimp import build_model

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(WeightsInfo(architecture=name), net=build_model(name).eval().requires_grad_(False))

    def network(self) -> DimpNet:
        """Return the network, which a file is built into once.

        :raises ValueError: if the weights do not fit.
        """
        if self._net is None:
            from dimp_ros.model.checkpoints.checkpoint import load_model

            self._net, _ = load_model(str(self.path))
            self._versions = _versions(self._net)
        return self._net

    def move(self, device: str) -> DimpNet:
        """Move the network to a device, its channels last in memory, and return it; it keeps its `state`."""
        import torch

        net, before = self.network(), self.state()
        net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if before is None:
            self._versions = _versions(net)
        return net

    @property
    def has_box_refiner(self) -> bool:
        """Whether the weights have a box refiner."""
        if self._net is None and self.path is not None:
            return read_header(self.path).has_box_refiner
        return self.network().box_refiner is not None

    @property
    def has_point_box(self) -> bool:
        """Whether the weights have a head for points."""
        if self._net is None and self.path is not None:
            return read_header(self.path).has_point_box
        return self.network().point_box is not None

    def state(self) -> object:
        """Return a value that changes when a weight is written to or replaced."""
        if self._net is None or (self.path is not None and _versions(self._net) == self._versions):
            return None
        return _versions(self._net)

    def digest(self) -> str:
        """Return a hash of the weights: of the file, as long as the network has its weights."""
        if self.path is not None and self.state() is None:
            return hashlib.blake2b(self.path.read_bytes(), digest_size=16).hexdigest()
        return tensors_digest(self.network().state_dict())


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of tensors and their names."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in tensors.items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _versions(net: DimpNet) -> object:
    """Return values that change when a weight is written to or replaced."""
    from dimp_ros.model.inference.network import versions

    return versions(net)
