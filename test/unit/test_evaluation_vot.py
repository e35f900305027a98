# SPDX-License-Identifier: Apache-2.0
"""The adapter for the VOT toolkit: against a test client, and against TraX itself if installed."""

import configparser
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from dimp_ros.evaluation import vot
from dimp_ros.evaluation.tracker_api import Prediction
from dimp_ros.evaluation.trackers import TrackerSpec
from dimp_ros.geometry.box import Box

ROOT = Path(__file__).parents[2]


class _Region:
    type = "rectangle"

    def __init__(self, *box: float) -> None:
        self.box = box

    def bounds(self) -> tuple[float, ...]:
        return self.box


class _Client:
    """The toolkit's side: sends requests and records the answers."""

    def __init__(self, *requests: tuple[str, Path | None, Any]) -> None:
        self.requests = list(requests)
        self.answers: list[Any] = []

    def wait(self) -> Any:
        kind, path, objects = self.requests.pop(0)
        return SimpleNamespace(type=kind, image={"color": SimpleNamespace(path=lambda: str(path))}, objects=objects)

    def status(self, objects: list[Any]) -> None:
        ((region, properties),) = objects
        self.answers.append((region.box, properties))


class _Counting:
    """A tracker that moves by the brightness of the image."""

    def init(self, image: Any, box: Box) -> None:
        self.box = box

    def update(self, image: Any) -> Prediction:
        self.box = Box(self.box.x + float(image[0, 0, 0]), *self.box[1:])
        return Prediction(self.box, True, 0.5)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "3.png"), np.full((8, 8, 3), 3, np.uint8))
    return tmp_path / "3.png"


TARGET = [(_Region(10, 20, 30, 40), {})]


def test_each_frame_gets_a_rectangle_and_a_confidence(image: Path) -> None:
    client = _Client(
        ("initialize", image, TARGET),
        ("frame", image, None),
        ("frame", image, []),
        ("initialize", image, [(_Region(0, 0, 5, 5), {})]),
        ("frame", image, None),
        ("quit", None, None),
    )
    made: list[_Counting] = []

    vot.serve(client, lambda: made.append(_Counting()) or made[-1], _Region)  # type: ignore[func-returns-value]

    assert client.answers == [
        ((10, 20, 30, 40), {}),
        ((13, 20, 30, 40), {"confidence": "0.5000"}),
        ((16, 20, 30, 40), {"confidence": "0.5000"}),
        ((0, 0, 5, 5), {}),
        ((3, 0, 5, 5), {"confidence": "0.5000"}),
    ]
    assert len(made) == 1  # the network is loaded once, however often a target is given


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        ([("initialize", TARGET * 2)], "one target is tracked at a time, got 2"),
        ([("initialize", None)], "got 0"),
        ([("frame", None)], "needs one target"),
        ([("initialize", TARGET), ("frame", TARGET)], "needs one target"),
        ([("initialize", [(SimpleNamespace(type="mask"), {})])], "the target is a mask, a rectangle is needed"),
    ],
)
def test_what_the_tracker_cannot_do_is_refused(image: Path, requests: list[Any], reason: str) -> None:
    client = _Client(*((kind, image, objects) for kind, objects in requests))

    with pytest.raises(ValueError, match=reason):
        vot.serve(client, _Counting, _Region)


def test_a_wrong_tracker_is_refused_before_the_handshake(capsys: pytest.CaptureFixture[str]) -> None:
    assert vot.main(["dimp_lite@not_a_setting=1"]) == 2
    assert "no setting 'not_a_setting'" in capsys.readouterr().err


def test_the_configuration_names_trackers_that_exist() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "config" / "vot_trackers.ini")

    for section in parser.sections():
        words = parser[section]["command"].split()
        assert words[:3] == ["python", "-m", "dimp_ros.evaluation.vot"]
        arguments = vot.build_parser().parse_args(words[3:])
        if TrackerSpec(arguments.tracker).base == "dimp_lite":
            TrackerSpec(arguments.tracker, settings=dict(arguments.set)).check()


def test_real_trax_client_gets_the_same_answers(image: Path) -> None:
    client = pytest.importorskip("trax.client", reason="vot-trax is not installed")
    import subprocess

    from trax.image import FileImage
    from trax.region import Rectangle

    log: list[str] = []  # the library's default, none, is refused by its own C binding
    command = [sys.executable, "-m", "dimp_ros.evaluation.vot", "kcf"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdin and process.stdout
        connection = client.Client((process.stdin.fileno(), process.stdout.fileno()), log=log.append)
        noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
        cv2.imwrite(str(image), noise)
        image = {"color": FileImage.create(str(image))}
        connection.initialize(image, [(Rectangle.create(40, 30, 32, 24), {})], {})
        ((region, _),), _ = connection.frame(image, {}, [])
        assert region.bounds() == pytest.approx((40, 30, 32, 24), abs=1)
        connection.quit()


@pytest.mark.parametrize("said", [b"@@TRAX:hello\n", b"@@TRAX:hello\n@@TRAX:ini", b""], ids=["hello", "half", "none"])
def test_client_that_goes_without_a_quit_ends_the_program(said: bytes) -> None:
    pytest.importorskip("trax", reason="vot-trax is not installed")
    import subprocess

    command = [sys.executable, "-m", "dimp_ros.evaluation.vot", "kcf"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdout.readline()  # the server's hello
        process.stdin.write(said)
        process.stdin.close()
        assert process.wait(60) == 2
        assert b"dimp_ros.evaluation.vot: " in process.stderr.read()
