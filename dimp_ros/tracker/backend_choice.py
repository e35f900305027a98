# SPDX-License-Identifier: Apache-2.0
"""Choice of the backend that runs the networks, and of their precision, by name."""

from __future__ import annotations

import importlib.util

from dimp_ros.model.checkpoints.network_source import NetworkSource
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.device import Device, apply_limit, multiplies_bfloat16, thread_count
from dimp_ros.tracker.inference_backend import InferenceBackend

BACKENDS = ("auto", "torch", "openvino")
PRECISIONS = ("float32", "bfloat16", "float16")


def choose_backend(name: str, device: Device) -> str:
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


def choose_precision(name: str, device: Device, backend: str = "torch") -> str:
    """Return the precision of the networks on a device: ``float32``, ``bfloat16`` or ``float16``.

    :param name: ``auto`` is float16 on a GPU, on a CPU bfloat16 if it has instructions for it, else float32.
    :raises ValueError: if the name is unknown, or float16 is asked for on a CPU.
    """
    if name == "auto":
        if device.type != "cpu":
            return "float16"
        return "bfloat16" if multiplies_bfloat16() and (backend == "openvino" or _torch_fuses()) else "float32"
    if name not in PRECISIONS:
        raise ValueError(f"precision {name!r} is unknown; choose auto, {', '.join(PRECISIONS)}")
    if name == "float16" and device.type == "cpu":
        raise ValueError("precision 'float16' is for GPUs; on a CPU choose auto, float32 or bfloat16")
    return name


def _torch_fuses() -> bool:
    """Tell whether torch has fused convolutions in bfloat16, without which it is slower than float32."""
    import torch

    from dimp_ros.model.inference.fused_conv import onednn_fuses

    return onednn_fuses(torch.bfloat16)


def make_backend(
    name: str, source: NetworkSource, device: Device, precision: str, config: TrackerConfig
) -> InferenceBackend:
    """Make the backend called ``name`` for a network on a device.

    :param precision: see `choose_precision`. :param config: which sizes it will need.
    :raises ValueError: see `choose_backend` and `choose_precision`, or if the weights do not fit.
    """
    name = choose_backend(name, device)
    precision = choose_precision(precision, device, name)
    if name == "openvino":
        from dimp_ros.tracker.openvino_backend import OpenvinoBackend

        return OpenvinoBackend(source, precision, config, thread_count())
    from dimp_ros.tracker.torch_backend import TorchBackend

    apply_limit()
    return TorchBackend(source.move(str(device)), device, precision)
