# SPDX-License-Identifier: Apache-2.0
"""The console script `dimp-export`: a model's networks as files for ONNX Runtime, OpenVINO and other runtimes."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from dimp_ros.files.program import command

NEEDED = {"onnx": ("onnx", "onnxscript"), "openvino": ("onnx", "onnxscript", "openvino")}
"""Format -> modules that write it."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="dimp-export",
        description="Write the networks of a model as static graphs in float32, one file each, into a new folder. "
        "Names, shapes, colour order, value ranges and the tracker's settings are in the files' metadata.",
    )
    parser.add_argument("output", metavar="OUT", type=Path, help="the folder to make")
    parser.add_argument("--format", choices=tuple(NEEDED), default="onnx", help="of the files (default: onnx)")
    parser.add_argument(
        "--model",
        default="dimp_lite",
        help="dimp_lite (default), a weights file (.safetensors, .pth), or with --random dimp_lite, dimp18 or dimp50",
    )
    parser.add_argument("--random", action="store_true", help="random weights, to measure a model's speed without any")
    return parser


def export(model: str, output: Path, *, file_format: str = "onnx", random: bool = False) -> list[str]:
    """Write a model's graphs and return what there is to say of it, in lines.

    :raises ValueError: if the model or a name does not fit; nothing is written then. :raises OSError: likewise.
    :raises ImportError: if a package is missing that writes the format.
    """
    missing = [name for name in NEEDED[file_format] if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"{file_format} needs {', '.join(missing)}; run: pip install 'dimp_ros[export]'")
    from dimp_ros.apps.export.frame_graphs import description, frame_graphs
    from dimp_ros.apps.export.writer import write_onnx, write_openvino
    from dimp_ros.files.outputs import OutputFolder, check_outputs, write_error
    from dimp_ros.model.checkpoints.checkpoint import load_model
    from dimp_ros.model.checkpoints.weights_file import WeightsInfo, find_weights
    from dimp_ros.model.dimp import build_model
    from dimp_ros.tracker.tracker import config_of

    check_outputs([], [("--model", None if random else find_weights(model))], new_folders=[("OUT", output)])
    net, info = (build_model(model), WeightsInfo(architecture=model)) if random else load_model(model)
    net, config = net.eval().requires_grad_(False), config_of(info)
    name = info.architecture + (", random weights" if random else "")
    folder, lines = OutputFolder(output), []
    try:
        folder.partial.mkdir()
        for graph in frame_graphs(net, config):
            text = description(graph, name, config)
            path = folder.partial / f"{graph.name}.onnx"
            write_onnx(path, graph, text)
            if file_format == "openvino":
                write_openvino(path.with_suffix(".xml"), path, text)
                path.unlink()
            size = sum(file.stat().st_size for file in folder.partial.glob(f"{graph.name}.*"))
            lines.append(f"{graph.name}: {size / 2**20:.1f} MiB")
    except OSError as error:
        folder.discard()
        raise write_error(output, error) from error
    except BaseException:
        folder.discard()
        raise
    folder.commit()
    return [*lines, f"wrote {output}: {name}, {file_format}, float32"]


@command("dimp-export")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 2 for a request it refuses."""
    arguments = build_parser().parse_args(argv)
    try:
        lines = export(arguments.model, arguments.output, file_format=arguments.format, random=arguments.random)
    except (ValueError, OSError, ImportError) as error:
        print(f"dimp-export: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
