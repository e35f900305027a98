# SPDX-License-Identifier: Apache-2.0
"""Average the weights of several runs of one architecture.

    python -m dimp_ros.training.average_weights OUT.safetensors 0.7=b.safetensors 0.3=a.safetensors

The result keeps the confidence map of the first file; fit it again with `dimp_ros.evaluation.confidence.calibrate`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from dimp_ros.files.arguments import number
from dimp_ros.files.outputs import check_outputs
from dimp_ros.files.program import command
from dimp_ros.model.checkpoints.checkpoint import fill_model, read_weights, save_weights
from dimp_ros.model.checkpoints.weights_file import find_weights, require_safetensors
from dimp_ros.model.dimp import DimpNet

PROGRAM = "python -m dimp_ros.training.average_weights"


def average(parts: Sequence[tuple[float, DimpNet]]) -> DimpNet:
    """Return the first network with the weighted mean of all networks' weights and statistics.

    :param parts: shares, which must sum to 1, and networks of one architecture; the first one is changed.
    :raises ValueError: if the shares do not sum to 1, or the networks differ in architecture.
    """
    if not parts or not math.isclose(sum(share for share, _ in parts), 1.0, abs_tol=1e-6):
        raise ValueError(f"shares are {[share for share, _ in parts]}; they must sum to 1")
    states = [net.state_dict() for _, net in parts]
    shapes = [{key: value.shape for key, value in state.items()} for state in states]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError("the networks differ in their parameters; all must be of one architecture")
    with torch.no_grad():
        for key, value in states[0].items():
            if value.is_floating_point():  # batch counters stay the first network's
                value.copy_(sum(share * state[key] for (share, _), state in zip(parts, states, strict=True)))
    return parts[0][1]


def _part(text: str) -> tuple[float, str]:
    """Parse ``SHARE=FILE``, for argparse."""
    share, _, model = text.partition("=")
    if not model:
        raise argparse.ArgumentTypeError(f"expected SHARE=FILE, such as 0.5=a.safetensors, got {text!r}")
    return number(0, 1, above=True)(share), model


@command(PROGRAM)
def main(arguments: Sequence[str] | None = None) -> int:
    """Average weights files and write the result in half precision."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=main.__doc__)
    parser.add_argument("out", type=Path, help="a .safetensors file")
    parser.add_argument("parts", nargs="+", type=_part, metavar="SHARE=FILE")
    options = parser.parse_args(arguments)
    try:
        require_safetensors("OUT", options.out)
        parts = [(share, find_weights(name)) for share, name in options.parts]
        check_outputs([("OUT", options.out)], [("the part", path) for _, path in parts])
        read = [(share, path, read_weights(path)) for share, path in parts]
        net = average([(share, fill_model(weights, path)) for share, path, weights in read])
    except (OSError, ValueError) as error:
        parser.error(str(error))
    info = read[0][2].info
    made_of = {f"{path.absolute().parent.name}/{path.name}": share for share, path, _ in read}
    try:
        save_weights(options.out, net, replace(info, details={**info.details, "average_of": made_of}), torch.float16)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"written: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
