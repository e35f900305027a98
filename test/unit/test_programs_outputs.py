# SPDX-License-Identifier: Apache-2.0
"""Programs for training and for the documentation write onto none of their inputs, however they are named."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("dimp_ros.msg", reason="the interfaces are not built: `make setup`, or colcon")

import make_training_bundle
from benchmark import busy, cli, ros_benchmark, transport
from result_files import write_results

from dimp_ros.evaluation import cli as evaluation
from dimp_ros.evaluation import redetection
from dimp_ros.evaluation.confidence import cli as confidence
from dimp_ros.model.checkpoints import weights_file
from dimp_ros.training import average_weights, box_refiner, point_boxes
from dimp_ros.training import cli as training

TOOLS = Path(__file__).parents[2] / "tools"


def _hard_link(path: Path) -> Path:
    link = path.with_name(f"hard{path.suffix}")
    os.link(path, link)
    return link


def _through_linked_folder(path: Path) -> Path:
    (path.parent / "folder").symlink_to(path.parent)
    return path.parent / "folder" / ".." / path.parent.name / path.name


NAMES: list[Callable[[Path], Path]] = [lambda path: path, _hard_link, _through_linked_folder]
names = pytest.mark.parametrize("name", NAMES)


def _given(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text("before")
    return path


@names
def test_refiner_is_not_exported_onto_its_base(
    tmp_path: Path, name: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    weights = _given(tmp_path, "base.safetensors")
    run = ["--folder", str(tmp_path / "run"), "--clips", str(tmp_path / "clips"), "--start", str(weights)]
    with pytest.raises(SystemExit):
        box_refiner.main([*run, "--export", str(name(weights))])
    assert "would overwrite --start" in capsys.readouterr().err and weights.read_text() == "before"


def _programs(folder: Path, shipped: Path) -> dict[str, tuple[Callable[[list[str]], int], list[str]]]:
    """Return for each program the arguments with which it would write onto the weights called dimp_lite."""
    run = ["--folder", str(folder / "run"), "--clips", str(folder / "clips")]
    linked = folder / "linked"
    linked.mkdir()
    for name in ("weights.safetensors", "results.json", "checkpoint.pt"):
        (linked / name).symlink_to(shipped)
    config = _given(folder, "config.yaml")
    config.write_text("model: dimp_lite\n")
    data = ["--images", str(folder / "images"), "--start", "dimp_lite"]
    return {
        "box_refiner": (box_refiner.main, [*run, "--export", str(shipped)]),
        "box_refiner --folder": (box_refiner.main, ["--folder", str(linked), *run[2:]]),
        "point_boxes": (point_boxes.main, [*run, "--export", str(shipped)]),
        "dimp-train": (training.main, [str(config), *data, "--folder", str(linked)]),
        "bundle": (make_training_bundle.main, [str(config), str(shipped), *data]),
        "average_weights": (average_weights.main, [str(shipped), "1.0=dimp_lite"]),
        "dimp-eval": (evaluation.main, ["--sequences", str(folder / "clips"), "--out", str(linked)]),
        "confidence": (confidence.main, ["--sequences", str(folder / "clips"), "--out", str(linked)]),
        "redetection": (redetection.main, ["--sequences", str(folder / "clips"), "--out", str(shipped)]),
    }


PROGRAMS = [
    *("box_refiner", "box_refiner --folder", "point_boxes", "dimp-train", "bundle"),
    *("average_weights", "dimp-eval", "confidence", "redetection"),
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_weights_given_by_name_are_not_overwritten(
    tmp_path: Path, program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(weights_file, "WEIGHTS_DIRECTORY", tmp_path)
    shipped = _given(tmp_path, "dimp_lite.safetensors")
    (tmp_path / "clips").mkdir()
    main, arguments = _programs(tmp_path, shipped)[program]
    try:
        status = main(arguments)
    except SystemExit as end:
        status = int(end.code or 0)
    said = capsys.readouterr().err
    assert status == 2 and shipped.read_text() == "before"
    assert "would overwrite" in said or "leads into" in said


@names
@pytest.mark.parametrize(("tool", "suffix"), [("plot_training.py", ".png"), ("contact_sheet.py", ".jpg")])
def test_tool_does_not_overwrite_what_it_reads(
    tmp_path: Path, tool: str, suffix: str, name: Callable[[Path], Path]
) -> None:
    source = _given(tmp_path, f"source{suffix}")
    other = name(source)
    paths = [str(other), f"run={source}"] if tool == "plot_training.py" else [str(source), str(other)]
    done = subprocess.run([sys.executable, str(TOOLS / tool), *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "would overwrite" in done.stderr and source.read_text() == "before"


@pytest.mark.parametrize(
    ("tool", "given", "wrong"),
    [
        ("plot_training.py", ["no/folder/out.png", "run={}"], "no folder"),
        ("plot_training.py", ["out.png", "run=nowhere"], "No such file"),
        ("plot_training.py", ["out.png", "run={}"], "source: JSONDecodeError: Expecting value"),
        ("contact_sheet.py", ["{}", "no/folder/out.jpg"], "no folder"),
        ("contact_sheet.py", ["{}", "out.mp4"], "suffix"),
        ("contact_sheet.py", ["{}", "out.jpg"], "not a video"),
        ("contact_sheet.py", ["/dev/zero", "out.jpg"], "is a device"),
    ],
)
def test_tool_refuses_files_in_one_line(tmp_path: Path, tool: str, given: list[str], wrong: str) -> None:
    source = _given(tmp_path, "source")
    command = [sys.executable, str(TOOLS / tool), *(text.format(source) for text in given)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and wrong in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(tool.removesuffix(".py")) and os.listdir(tmp_path) == ["source"]


def test_tools_refuse_wrong_numbers_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for value in ("0", "-1", "nan", "inf", "x"):
        with pytest.raises(SystemExit, match="2"):
            make_training_bundle.main(["c.yaml", "o.zip", f"--limit={value}"])
        assert "argument --limit: expected a number above 0" in capsys.readouterr().err.splitlines()[-1]
    command = [sys.executable, str(TOOLS / "run_fuzz.py"), "--inputs=-5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "argument --inputs: expected a whole number" in done.stderr


def _link(path: Path, target: Path) -> None:
    path.symlink_to(target)


@pytest.mark.parametrize("link", [_link, lambda path, target: os.link(target, path)], ids=["link", "hard link"])
@pytest.mark.parametrize("file", cli.FILES)
def test_benchmark_does_not_overwrite_weights(
    tmp_path: Path, file: str, link: Callable[[Path, Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    weights = _given(tmp_path, "w.safetensors")
    (tmp_path / "out").mkdir()
    link(tmp_path / "out" / file, weights)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["--models", str(weights), "--out", str(tmp_path / "out")])
    assert str(weights) in capsys.readouterr().err and weights.read_text() == "before"


MEASURING = {
    "run_benchmark.py": cli.FILES,
    "run_benchmark.py --ros": ros_benchmark.FILES,
    "run_benchmark.py --busy=1": busy.FILES,
    "run_benchmark.py --transport": transport.FILES,
    "run_soak.py": ("soak.json", "node.log"),
    "run_fuzz.py": ("fuzz.md", "requests.log"),
}


@pytest.mark.parametrize("program", MEASURING)
def test_unusable_out_is_refused_before_measuring(tmp_path: Path, program: str) -> None:
    name, *arguments = program.split()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MEASURING[program][1]).mkdir()
    _given(tmp_path, "file")
    module = f"""
import sys, {name.removesuffix(".py")} as program
given = sys.argv[1].split()
for out in sys.argv[2:]:
    sys.argv[1:] = [*given, "--out", out]
    try:
        sys.exit(program.main())
    except SystemExit as end:
        print(end.code)
"""
    places = [str(tmp_path / "out"), str(tmp_path / "file"), str(tmp_path / "file" / "out")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TOOLS), str(TOOLS.parent), *sys.path])}
    command = [sys.executable, "-c", module, " ".join(arguments), *places]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.split() == ["2"] * 3, done.stderr
    assert (
        "is a folder; give the name of a file" in done.stderr and "is a file; give the name of a folder" in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_results_that_cannot_be_written_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert write_results("bench", tmp_path / "nowhere", ("a.json", "a.md"), {"x": 1}, "the table\n") == 2
    said = capsys.readouterr()
    assert said.out == "the table\n" and said.err.startswith("bench: ") and said.err.count("\n") == 1


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_that_cannot_be_written_are_reported(tmp_path: Path, suffix: str) -> None:
    path = _given(tmp_path, f"weights{suffix}")
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
    limited += "from dimp_ros.model.checkpoints.convert_cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", limited, "dimp_lite", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "could not be written" in done.stderr
    assert os.listdir(tmp_path) == [path.name] and path.read_text() == "before"
