# SPDX-License-Identifier: Apache-2.0
"""The console script `dimp-convert`: the reference implementation's checkpoints to safetensors, and back."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dimp_ros.files.program import command


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="dimp-convert",
        description="Convert weights: a checkpoint of the reference implementation (.pth) to safetensors, or back. "
        "What a file is follows from its ending. Nothing in a checkpoint is executed.",
    )
    parser.add_argument("input", metavar="IN", help="the file to read, or the name of a model that is shipped")
    parser.add_argument("output", metavar="OUT", type=Path, help="the file to write: .safetensors, or .pth")
    parser.add_argument("--half", action="store_true", help="store numbers in half precision: half the size")
    parser.add_argument(
        "--like",
        metavar="FILE.pth",
        type=Path,
        help="take what the tracker does not read (layer4, fc, counters) from this checkpoint, not zeros",
    )
    return parser


def convert(source: str, output: Path, *, half: bool = False, like: Path | None = None) -> list[str]:
    """Convert a weights file and return what there is to say of it, in lines.

    :raises ValueError: if a file is not what it should be; nothing is written then. :raises OSError: likewise.
    """
    import torch

    from dimp_ros.files.outputs import check_outputs
    from dimp_ros.model.checkpoints import checkpoint, weights_file
    from dimp_ros.model.checkpoints.state_dict import listed, summary

    if not output.name.endswith(weights_file.SUFFIXES):
        raise ValueError(f"{output}: a weights file must end in {', '.join(weights_file.SUFFIXES)}")
    to_reference = output.name.endswith(weights_file.TORCH_SUFFIXES)
    if like is not None and not to_reference:
        raise ValueError("--like completes a .pth file; it has no effect on safetensors")
    path = weights_file.find_weights(source)
    check_outputs([("OUT", output)], [("IN", path), ("--like", like)])
    weights = checkpoint.read_weights(path)
    model = checkpoint.fill_model(weights, path)
    architecture = weights.info.architecture
    lines = [f"read {path}: {architecture}, {len(weights.tensors)} tensors"]
    if weights.other:
        lines.append(f"dropped entries: {listed(weights.other)}")
    dtype = torch.float16 if half else torch.float32
    if to_reference:
        unused = weights.unused
        if like is not None:
            template = checkpoint.read_weights(weights_file.find_weights(str(like)))
            if template.info.architecture != architecture:
                raise ValueError(f"{like} is {template.info.architecture}, and {path} is {architecture}")
            unused = template.unused
        filled = checkpoint.save_reference(output, model, weights.info, dtype, unused)
        lines.append(f"added, from {like or path}: {summary(key for key in unused if key not in filled)}")
        lines.append(f"added, as zeros: {summary(filled)}")
        parts = (weights_file.BOX_REFINER, weights_file.POINT_BOX)
        if own := sorted({key.partition(".")[0] for key in weights.tensors if key.startswith(parts)}):
            lines.append(f"kept, though the reference has no such part: {', '.join(own)}")
    else:
        checkpoint.save_weights(output, model, weights.info, dtype)
        lines.append(f"dropped tensors: {summary(weights.unused)}")
    return [*lines, f"wrote {output}: {dtype}, {output.stat().st_size / 2**20:.1f} MiB"]


@command("dimp-convert")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 2 for a request it refuses."""
    arguments = build_parser().parse_args(argv)
    try:
        lines = convert(arguments.input, arguments.output, half=arguments.half, like=arguments.like)
    except (ValueError, OSError, ImportError) as error:
        print(f"dimp-convert: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
