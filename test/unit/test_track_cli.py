# SPDX-License-Identifier: Apache-2.0
"""The command `dimp-track`, on small synthetic videos."""

import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from harness.tracker_double import BrightestTracker

from dimp_ros.apps.track import cli as track
from dimp_ros.apps.track.loop import Stopped
from dimp_ros.datasets.video import read_boxes
from dimp_ros.evaluation.metrics import overlap
from dimp_ros.files.outputs import WriteFailed
from dimp_ros.images.video import BgrImage, VideoWriter
from dimp_ros.tracker.config import TrackerConfig
from dimp_ros.tracker.result import TrackResult

WIDTH, HEIGHT, FRAMES = 96, 64, 10
START = (10.0, 20.0, 16.0, 12.0)


def picture(index: int) -> np.ndarray:
    """Show a bright box 4 px further right in each image; it is missing in image 6."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    if index != 6:
        x, y, w, h = (int(value) for value in START)
        image[y : y + h, x + 4 * index : x + 4 * index + w] = 255
    return image


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Write the images as a video."""
    path = tmp_path / "in.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.0, (WIDTH, HEIGHT))
    for index in range(FRAMES):
        writer.write(picture(index))
    writer.release()
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write the images as a folder."""
    (tmp_path / "pictures").mkdir()
    for index in range(FRAMES):
        cv2.imwrite(str(tmp_path / "pictures" / f"{index:03d}.png"), picture(index))
    return tmp_path / "pictures"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command without a display and with the small tracker."""
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)

    def command(*arguments: Any) -> int:
        return track.main([str(item) for item in arguments], lambda model, device: BrightestTracker())

    return command


INIT = "--init=10,20,16,12"


@pytest.mark.parametrize("source", ["video", "folder"])
def test_each_frame_gets_an_entry_with_box_state_and_confidence(
    run: Callable[..., int], tmp_path: Path, source: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(source)

    assert run(path, INIT, "--json", tmp_path / "out.json", "--model", "some_model") == 0

    document = json.loads((tmp_path / "out.json").read_text())
    frames = document.pop("frames")
    fps = {"video": 12.0, "folder": 25.0}[source]
    assert document == {"video": str(path), "model": "some_model", "init_boxes": {"0": list(START)}, "fps": fps}
    assert [entry["frame"] for entry in frames] == list(range(FRAMES))
    for entry in frames[:6] + frames[7:]:
        assert entry["state"] == "TRACKING"
        assert entry["box"] == pytest.approx([10 + 4 * entry["frame"], 20, 16, 12], abs=1)
        assert entry["confidence"] >= 0.9 and entry["ms"] >= 0
    assert (frames[6]["state"], frames[6]["box"], frames[6]["peak"]) == ("LOST", None, None)


def test_start_and_end_select_frames_of_the_video(
    run: Callable[..., int], tmp_path: Path, video: Path, folder: Path
) -> None:
    for source in (video, folder):
        arguments = ["--init=18,20,16,12", "--start", 2, "--end", 5, "--json", tmp_path / "out.json"]
        assert run(source, *arguments) == 0
        frames = json.loads((tmp_path / "out.json").read_text())["frames"]
        assert [entry["frame"] for entry in frames] == [2, 3, 4]
        assert frames[-1]["box"] == pytest.approx([26, 20, 16, 12], abs=1)


def test_the_video_written_shows_the_box_on_every_frame(run: Callable[..., int], tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "out.mp4"

    assert run(folder, INIT, "--out", out) == 0

    capture = cv2.VideoCapture(str(out))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(25)
    for index in range(FRAMES):
        good, image = capture.read()
        assert good and image.shape == (HEIGHT, WIDTH, 3)
        if index != 6:  # the box's left edge is coloured, the image itself is grey
            x = int(START[0]) + 4 * index
            saturation = np.ptp(image[24:30, x - 2 : x + 2].astype(int), axis=-1)
            assert saturation.max() > 40
    assert not capture.read()[0]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["not_there.mp4", INIT], "no such file or folder: not_there.mp4"),
        (["VIDEO"], "give the target as --init x,y,w,h"),
        (["VIDEO", INIT, "--show"], "--show needs a display"),
        (["VIDEO", "--init=200,20,16,12"], "inside the 96 x 64 image"),
        (["VIDEO", INIT, "--start", "5", "--end", "5"], "must be greater than --start"),
        (["VIDEO", INIT, "--start", "50"], "no readable frame 50"),
        (["VIDEO", INIT, "--json", "no_folder/out.json"], "no folder no_folder to write out.json to"),
        (["DAMAGED", INIT], "cannot read the image"),
        (["VIDEO", INIT, "--start", "2s", "--end", "1.5s"], "--end 1.5s must be greater than --start 2s"),
        (["VIDEO", INIT, "--topic", "/image"], "--topic is for bags"),
        (["no_bag", INIT, "--topic", "/image"], "no such file or folder: no_bag"),
        (["VIDEO", INIT, "--copy-images"], "--copy-images writes into the bag of --out-bag"),
        (["VIDEO", INIT, "--out", "name"], "its name should end in .mp4"),
        (["VIDEO", INIT, "--out", "name.png"], "its name should end in .mp4"),
        (["VIDEO", INIT, "--out", "name.ts"], "its name should end in .mp4, or .m4v, .mov, .mkv, .avi"),
    ],
)
def test_a_request_it_cannot_serve_ends_with_2_and_one_line(
    run: Callable[..., int],
    tmp_path: Path,
    video: Path,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    reason: str,
) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "1.png").write_text("not a picture")
    places = {"VIDEO": video, "DAMAGED": tmp_path / "damaged"}

    assert run(*(places.get(item, item) for item in arguments)) == 2

    error = capfd.readouterr().err
    assert error.splitlines()[-1].startswith("dimp-track: ") and reason in error
    assert "Traceback" not in error


@pytest.mark.parametrize("box", ["1,2,3", "1,2,3,0", "1,2,-3,4", "1,2,nan,4", "a,b,c,d", "1,2,inf,4"])
def test_invalid_box_is_refused_before_anything_is_loaded(
    run: Callable[..., int], video: Path, capsys: pytest.CaptureFixture[str], box: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        run(video, f"--init={box}")
    assert stop.value.code == 2
    assert "give x,y,w,h in pixels" in capsys.readouterr().err


def test_image_of_another_size_is_scaled_into_the_video(run: Callable[..., int], tmp_path: Path, folder: Path) -> None:
    large = cv2.resize(picture(3), None, fx=2, fy=3, interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(str(folder / "003.png"), large)

    assert run(folder, INIT, "--out", tmp_path / "out.mp4") == 0

    capture = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    frames = [capture.read()[1] for _ in range(FRAMES)]
    assert {frame.shape for frame in frames} == {(HEIGHT, WIDTH, 3)}
    x, y, w, h = (22 * 2 * WIDTH // 288, 20 * 3 * HEIGHT // 192, 16 * 2 // 3, 12)
    assert frames[3][y : y + h, x + 3 : x + w - 3].mean() > 128
    assert frames[3][:, WIDTH * 2 // 3 + 2 : -1][20:50].max() < 40  # the rest is black, not stretched


def test_several_targets_are_followed_under_their_names(
    run: Callable[..., int], tmp_path: Path, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    assert (
        run(video, "--init=ball=10,20,16,12", "--init", "50,40,10,10", "--json", out, "--out", tmp_path / "o.mp4") == 0
    )

    document = json.loads(out.read_text())
    assert document["init_boxes"] == {"ball": list(START), "1": [50.0, 40.0, 10.0, 10.0]}
    assert [(entry["frame"], entry["id"]) for entry in document["frames"][:4]] == [
        (0, "ball"),
        (0, "1"),
        (1, "ball"),
        (1, "1"),
    ]
    assert document["frames"][5]["box"] == [50.0, 40.0, 10.0, 10.0]
    assert "ball in 9, 1 in 10" in capsys.readouterr().out

    assert run(video, "--init=a=10,20,16,12", "--init=a=1,2,8,9") == 2
    assert "two targets are called 'a'" in capsys.readouterr().err


def test_point_starts_the_box_that_is_found_there(run: Callable[..., int], tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "out.json"
    assert run(folder, "--point=dot=12,22", "--json", out) == 0
    document = json.loads(out.read_text())
    assert document["init_boxes"] == {"dot": list(START)} and document["frames"][0]["id"] == "dot"


@pytest.mark.parametrize("point", ["80,60", "200,20"])
def test_point_without_an_object_ends_with_2(
    run: Callable[..., int], folder: Path, capsys: pytest.CaptureFixture[str], point: str
) -> None:
    assert run(folder, "--point", point) == 2
    assert f"point ({point.replace(',', ', ')})" in capsys.readouterr().err


def test_start_and_end_can_be_seconds(run: Callable[..., int], tmp_path: Path, video: Path) -> None:
    arguments = ["--init=22,20,16,12", "--start", "0.25s", "--end", "0.5s", "--json", tmp_path / "out.json"]
    assert run(video, *arguments) == 0
    frames = json.loads((tmp_path / "out.json").read_text())["frames"]
    assert [entry["frame"] for entry in frames] == [3, 4, 5]  # 12 frames a second


def test_with_a_display_and_no_box_the_person_draws_one(
    run: Callable[..., int], tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    monkeypatch.setattr(track, "has_display", lambda: True)
    monkeypatch.setattr(cv2, "selectROI", lambda name, image, **_: shown.append(image) or tuple(map(int, START)))
    monkeypatch.setattr(cv2, "destroyWindow", lambda name: None)

    assert run(folder, "--json", tmp_path / "out.json") == 0
    assert np.array_equal(shown[0], picture(0)) and len(shown) == 1
    assert json.loads((tmp_path / "out.json").read_text())["init_boxes"] == {"0": list(START)}

    monkeypatch.setattr(cv2, "selectROI", lambda name, image, **_: (0, 0, 0, 0))
    assert run(folder) == 2


def test_ctrl_c_keeps_what_was_tracked_so_far(
    run: Callable[..., int], tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = BrightestTracker.update_all

    def interrupted(self: BrightestTracker, image: Any, only: Any = None) -> dict[str, TrackResult]:
        if np.array_equal(image.region(0, 0, WIDTH, HEIGHT), picture(4)):
            raise KeyboardInterrupt
        return update(self, image)

    monkeypatch.setattr(BrightestTracker, "update_all", interrupted)

    assert run(folder, INIT, "--json", tmp_path / "out.json") == 0
    assert len(json.loads((tmp_path / "out.json").read_text())["frames"]) == 4


def test_tracker_config_is_given_to_the_tracker_or_refused(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    tracker, path = BrightestTracker(), tmp_path / "settings.yaml"
    tracker.config = TrackerConfig(crop_size=256)
    arguments = [str(folder), INIT, "--end", "2", "--tracker-config", str(path)]
    path.write_text("best_boxes: 2")
    assert track.main(arguments, lambda model, device: tracker) == 0
    assert tracker.config == TrackerConfig(crop_size=256, best_boxes=2)
    path.write_text("best_boxes: 200")
    assert track.main(arguments, lambda model, device: tracker) == 2
    assert "best_boxes is 200" in capsys.readouterr().err


def test_real_tracker_works_in_the_command(tmp_path: Path, video: Path) -> None:
    from dimp_ros.tracker import DimpTracker

    def random_weights(model: str, device: str) -> DimpTracker:
        return DimpTracker(model, device, weights="random")

    arguments = [str(video), INIT, "--end", "4", "--device", "cpu", "--out", str(tmp_path / "out.mp4")]
    assert track.main([*arguments, "--json", str(tmp_path / "out.json")], random_weights) == 0
    frames = json.loads((tmp_path / "out.json").read_text())["frames"]
    assert len(frames) == 4 and frames[0]["box"] == list(START)
    assert all((entry["box"] is None) == (entry["state"] == "LOST") for entry in frames)

    assert track.main([str(video), "--init=500,20,16,12", "--device", "cpu"], random_weights) == 2


SEQUENCE = Path(__file__).parents[3] / "shared" / "data" / "sequences" / "otb_MountainBike"
WEIGHTS = Path(track.__file__).parents[2] / "weights" / "dimp_lite.safetensors"


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="the weights of dimp_lite are not there")
@pytest.mark.skipif(not SEQUENCE.is_dir(), reason="no ../shared/data with real sequences")
def test_the_shipped_tracker_follows_a_real_target(tmp_path: Path) -> None:
    box = ",".join((SEQUENCE / "groundtruth.txt").read_text().split()[0].split(","))
    arguments = ["--init", box, "--end", "30", "--device", "cpu", "--json", str(tmp_path / "out.json")]

    assert track.main([str(SEQUENCE / "img"), *arguments]) == 0

    frames = json.loads((tmp_path / "out.json").read_text())["frames"]
    truth = read_boxes(SEQUENCE / "groundtruth.txt")[:30]
    assert {entry["state"] for entry in frames} == {"TRACKING"}
    assert overlap([entry["box"] for entry in frames], truth).mean() > 0.5


@pytest.mark.parametrize("option", ["--json", "--out"])
@pytest.mark.parametrize("target", ["VIDEO", "LINK", "HARD", "FOLDER/000.png", "WEIGHTS"])
def test_output_onto_an_input_or_the_weights_is_refused(
    run: Callable[..., int], tmp_path: Path, video: Path, folder: Path, target: str, option: str
) -> None:
    places = {"VIDEO": video, "LINK": tmp_path / "link", "HARD": tmp_path / "hard.mp4", "WEIGHTS": tmp_path / "w.pth"}
    places["FOLDER/000.png"] = folder / "000.png"
    places["LINK"].symlink_to(video)
    places["HARD"].hardlink_to(video)
    places["WEIGHTS"].write_text("weights")
    before = places[target].read_bytes()
    source = folder if target.startswith("FOLDER") else video

    assert run(source, INIT, option, places[target], "--model", places["WEIGHTS"]) == 2
    assert places[target].read_bytes() == before and not list(tmp_path.rglob(".*"))


def test_outputs_under_one_name_and_shipped_weights_are_refused(
    run: Callable[..., int], tmp_path: Path, video: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(video, INIT, "--json", tmp_path / "x.mp4", "--out", tmp_path / "X.mp4") == 2
    assert run(video, INIT, "--json", track.SHIPPED_WEIGHTS / "dimp_lite.safetensors") == 2
    assert run(video, INIT, "--out", "/dev/null") == 2
    error = capfd.readouterr().err
    assert "are both" in error and "lies inside of the weights" in error and "no regular file" in error


def test_output_that_cannot_be_written_costs_no_other(
    run: Callable[..., int], tmp_path: Path, video: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mp4"
    assert run(video, INIT, "--json", "/dev/full", "--out", out) == 1
    assert "cannot write to /dev/full: No space left" in capfd.readouterr().err
    assert cv2.VideoCapture(str(out)).get(cv2.CAP_PROP_FRAME_COUNT) == FRAMES


def test_limited_file_size_is_reported_and_leaves_no_half_video(
    run: Callable[..., int], tmp_path: Path, video: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, log = tmp_path / "out.mp4", tmp_path / "out.json"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, before[1]))
    try:
        status = run(video, INIT, "--json", log, "--out", out, "--end", "8")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 1 and "could not be finished: of 8 images 0 can be read back" in capfd.readouterr().err
    assert not out.exists() and len(json.loads(log.read_text())["frames"]) == 8


def test_sigterm_keeps_what_was_tracked(tmp_path: Path, run: Callable[..., int], folder: Path) -> None:
    class Terminated(BrightestTracker):
        def update_all(self, image: Any, only: Any = None) -> dict[str, TrackResult]:
            os.kill(os.getpid(), signal.SIGTERM)
            return super().update_all(image, only)

    out = tmp_path / "o.json"
    arguments = [str(folder), INIT, "--json", str(out)]
    assert track.main(arguments, lambda model, device: Terminated()) == 0
    assert json.loads(out.read_text())["frames"] and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Handle SIGINT: a shell's background jobs, and what they start, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_before_the_first_frame_ends_with_130(
    tmp_path: Path, folder: Path, capfd: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    class Terminated(BrightestTracker):
        def init(self, *arguments: Any, **options: Any) -> TrackResult:
            os.kill(os.getpid(), number)
            return super().init(*arguments, **options)

    def loaded(model: str, device: str) -> BrightestTracker:
        os.kill(os.getpid(), number)
        return BrightestTracker()

    out = tmp_path / "o.json"
    for make in (loaded, lambda model, device: Terminated()):
        assert track.main([str(folder), INIT, "--json", str(out)], make) == 130
        assert "before the first frame" in capfd.readouterr().err and not out.exists()


@pytest.mark.usefixtures("interruptible")
def test_signals_while_the_results_are_written_do_not_cost_them(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path, text: str) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        path.write_text(text)

    monkeypatch.setattr(track, "write_text", interrupted)
    out = tmp_path / "o.json"
    assert track.main([str(folder), INIT, "--json", str(out)], lambda model, device: BrightestTracker()) == 0
    assert json.loads(out.read_text())["frames"] and signal.getsignal(signal.SIGINT) == signal.default_int_handler


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("frame", [1, 4])
def test_signal_between_two_outputs_leaves_the_frame_in_both(
    tmp_path: Path, run: Callable[..., int], folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, frame: int
) -> None:
    write = VideoWriter.write

    def interrupted(self: VideoWriter, image: BgrImage) -> None:
        calls.append(frame)
        if len(calls) == frame:
            os.kill(os.getpid(), number)
        write(self, image)

    calls: list[int] = []
    monkeypatch.setattr(VideoWriter, "write", interrupted)
    log, out = tmp_path / "o.json", tmp_path / "o.mp4"
    assert run(folder, INIT, "--json", log, "--out", out) == 0
    assert len(json.loads(log.read_text())["frames"]) == frame
    assert cv2.VideoCapture(str(out)).get(cv2.CAP_PROP_FRAME_COUNT) == frame


@pytest.mark.parametrize("error", [WriteFailed("full"), Stopped(), cv2.error("bad"), KeyError("x")])
def test_output_that_stops_the_run_costs_no_other_its_frame(
    tmp_path: Path, run: Callable[..., int], folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(self: VideoWriter, image: BgrImage) -> None:
        raise error

    monkeypatch.setattr(VideoWriter, "write", failing)
    log = tmp_path / "o.json"
    assert run(folder, INIT, "--json", log, "--out", tmp_path / "o.mp4") == (not isinstance(error, Stopped))
    assert len(json.loads(log.read_text())["frames"]) == 1
