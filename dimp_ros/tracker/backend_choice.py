# SPDX-License-Identifier: Apache-2.0
"""Choice of the backend that runs the networks, by name."""

from __future__ import annotations

import importlib.util

import torch

from dimp_ros.model.dimp import DimpNet
from dimp_ros.tracker.inference_backend import InferenceBackend

BACKENDS = ("auto", "torch", "openvino")


def choose_backend(name: str, device: torch.device) -> str:
    """Return the backend called ``name`` for a device: ``torch`` or ``openvino``.

    :param name: ``auto`` is OpenVINO where it is installed and the device is a CPU, else PyTorch.
    :raises ValueError: if the name is unknown, or if OpenVINO is asked for and cannot be used.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend {name!r} is unknown; choose one of {', '.join(BACKENDS)}")
    installed = importlib.util.find_spec("openvino") is not None
    if name == "auto":
        return "openvino" if installed and device.type == "cpu" else "torch"
    if name == "openvino" and not installed:
        raise ValueError(
            "backend 'openvino' was asked for, but Python module 'openvino' is missing; install it "
            "(python3 -m pip install openvino), or choose torch or auto"
        )
    if name == "openvino" and device.type != "cpu":
        raise ValueError(f"backend 'openvino' computes on a CPU, and device is {str(device)!r}; choose torch or auto")
    return name


def make_backend(name: str, net: DimpNet, device: torch.device, precision: torch.dtype) -> InferenceBackend:
    """Make the backend called ``name`` for a network in evaluation mode, on its device.

    :raises ValueError: see `choose_backend`.
    """
    if choose_backend(name, device) == "openvino":
        from dimp_ros.tracker.openvino_backend import OpenvinoBackend

        return OpenvinoBackend(net, precision)
    from dimp_ros.tracker.torch_backend import TorchBackend

    return TorchBackend(net, device, precision)
