# SPDX-License-Identifier: Apache-2.0
"""Launch arguments: accepted and refused values, and the program that receives each."""

from __future__ import annotations

import hashlib
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
from helpers.launch_files import launch_file

from dimp_ros.apps.mavlink.settings import MavlinkSettings
from dimp_ros.files.shared_folder import sole_run
from dimp_ros.model.dimp import ARCHITECTURES
from dimp_ros.ros_utils import launch_arguments
from dimp_ros.ros_utils.launch_arguments import Argument, ArgumentError, Program, misspelt, read_arguments

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("tracker", "demo", "follow", "servo", "console", "simulator", "mavlink")
SECRETS = ("token_file", "signing_key_file")
TRACKER = ("tracker", "demo", "follow", "servo")


FILES = {name: launch_file(f"{name}.launch.py") for name in NAMES}


def programs(name: str, **given: str) -> dict[str, Program]:
    """Return the programs that a launch file starts, by executable."""
    file = FILES[name]
    return {one.executable: one for one in file.programs(read_arguments(file.ARGUMENTS, given))}


@pytest.fixture
def footage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder, which is the current one, with the file that the demo plays by default."""
    (tmp_path / "build" / "demo").mkdir(parents=True)
    (tmp_path / "build" / "demo" / "footage.mov").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_launch_file_is_known_here() -> None:
    assert {f"{name}.launch.py" for name in NAMES} == {path.name for path in (ROOT / "launch").glob("*.launch.py")}
    assert set(launch_arguments.MODELS) == set(ARCHITECTURES)


@pytest.mark.parametrize("name", NAMES)
def test_launch_arguments_are_described_and_unique(name: str) -> None:
    arguments = FILES[name].ARGUMENTS
    names = [argument.name for argument in arguments]
    assert len(names) == len(set(names)) and {"namespace", "log_level", "use_sim_time"} <= set(names)
    assert all(argument.description and not argument.description.endswith(".") for argument in arguments)
    files = {argument.name for argument in arguments if argument.name.endswith("_file")}
    assert all(argument.default == "" and argument.file in files for argument in arguments if argument.file)


@pytest.mark.parametrize("name", NAMES)
def test_defaults_override_no_parameter_file(name: str, footage: Path) -> None:
    for program in programs(name).values():
        assert program.parameters == {} and all(Path(file).is_file() for file in program.files)
        assert (program.namespace, program.log_level) == ("", "info")


BAD = [
    *((("demo",), "target", text, "four numbers X,Y,W,H") for text in ("a,b,c,d", "1,2,3", "1,2,0,4", "1,2,nan,4")),
    *((("demo",), "rate", text, "0 .. 1000") for text in ("fast", "-1", "nan", "1001")),
    *((("console",), "port", text, "0 .. 65535") for text in ("http", "65536", "80.5")),
    (("console",), "host", "everywhere", "address of this machine"),
    (("console",), "token_file", "/no/such/token", "no such file"),
    (("console", "mavlink"), "tracker", "my tracker", "topic name"),
    *((("mavlink",), "connection", text, "udpin:HOST:PORT") for text in ("udp:1.2.3.4:5", "tcp:robot", "udpin:h:http")),
    (("mavlink",), "steer", "plane", "vehicle"),
    (("mavlink",), "cmd_vel", "my topic", "topic name"),
    (("mavlink",), "signing_key_file", "/no/such/key", "no such file"),
    *((("mavlink",), "system_id", text, "1 .. 255") for text in ("0", "256", "one")),
    *((("mavlink",), "video_delay", text, "0 .. 60") for text in ("-0.1", "61", "soon", "nan")),
    (("demo",), "video", "/no/such/film.mov", "no such file or folder"),
    (("demo",), "out", __file__, "must be a folder"),
    *((("simulator",), name, "-1", "must lie in") for name in ("speed", "rate", "image_latency", "command_latency")),
    (("simulator",), "mode", "boat", "vehicle, arm"),
    (("simulator",), "path", "spiral", "static, sine"),
    (("simulator",), "camera", "/camera/", "topic name"),
    (("simulator",), "paused", "maybe", "true or false"),
    (("follow", "servo"), "tracker", "perhaps", "true or false"),
    *((TRACKER, "device", text, "cuda:N") for text in ("gpu", "cuda:", "cuda:x", "cpu:1")),
    (TRACKER, "model", "dimp19", "dimp_lite, dimp18, dimp50 or the path"),
    (TRACKER, "image_transport", "theora", "raw, compressed"),
    (TRACKER, "autostart", "2", "true or false"),
    *((TRACKER, name, "/a//b", "topic name") for name in ("camera_info", "depth", "init_detections")),
    *((TRACKER, "image", text, "topic name") for text in ("", "/a b", "camera/", "7up", "/a/7", "a__b", "/bäh")),
    *(((*TRACKER, "console"), "image", text, "another topic for each node") for text in ("~/image", "/{node}/image")),
    *((TRACKER, "camera_info", text, "another topic for each node") for text in ("~/info", "{node}_info")),
    *((NAMES, "namespace", text, "namespace such as") for text in ("3x", "a/", "a b", "~")),
    (NAMES, "log_level", "loud", "debug, info"),
    (NAMES, "use_sim_time", "yes", "true or false"),
]


@pytest.mark.parametrize(
    ("name", "argument", "text", "allowed"), [(name, *rest) for names, *rest in BAD for name in names]
)
def test_bad_value_is_refused_with_name_value_and_range(
    name: str, argument: str, text: str, allowed: str, footage: Path
) -> None:
    with pytest.raises(ArgumentError) as error:
        programs(name, **{argument: text})
    message = str(error.value)
    assert f"argument {argument}:={text}: " in message and allowed in message and "\n" not in message


def test_all_bad_arguments_are_named_in_one_line() -> None:
    with pytest.raises(ArgumentError) as error:
        programs("demo", target="x", rate="y", device="z")
    message = str(error.value)
    assert all(text in message for text in ("argument target:=x:", "; argument rate:=y:", "; argument device:=z:"))
    assert len(message.splitlines()) == 1


FILE_ARGUMENTS = [
    (name, argument.name) for name in NAMES for argument in FILES[name].ARGUMENTS if argument.name.endswith("_file")
]
FILE_CONTENTS = {
    "missing": (None, "no such file"),
    "empty": ("", "no parameters"),
    "without parameters": ("node: {rate: 3}", "no parameters"),
    "a list": ("- 1", "no parameters"),
    "not YAML": ("a: {b: [1,\n", "not valid YAML"),
    "tabs": (
        "/**:\n\tros__parameters: {}",
        "not valid YAML: found character",
    ),
    "binary": (b"\xff\xfe\x00", "not text"),
    "large": ("/**: {ros__parameters: {}}\n" + "# no end\n" * 200_000, "bytes"),
    "deep": ("{a: " * 5000 + "1" + "}" * 5000, "levels deep"),
    "open brackets": ("[" * 20_000, "levels deep"),
    "endless": ("a: &a {b: *a}", "no aliases"),
    "bomb": (
        "a0: &a0 {}\n" + "".join(f"a{i}: &a{i} {{p: *a{i - 1}, q: *a{i - 1}}}\n" for i in range(1, 60)),
        "no aliases",
    ),
}


@pytest.mark.parametrize(("name", "argument"), [pair for pair in FILE_ARGUMENTS if pair[1] not in SECRETS])
@pytest.mark.parametrize("kind", FILE_CONTENTS)
def test_bad_parameter_file_is_refused(name: str, argument: str, kind: str, tmp_path: Path) -> None:
    content, reason = FILE_CONTENTS[kind]
    file = tmp_path / "mine.yaml"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ArgumentError) as error:
        programs(name, **{argument: str(file)})
    message = str(error.value)
    assert message.startswith(f"argument {argument}:={file}: ") and reason in message and "\n" not in message


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "text", ["~nobody_of_this_name/x", "x" * 5000, "x/" * 3000, "a\nb", "a\0b", "\x1b[31m", "\udcff"]
)
def test_odd_text_is_one_line_of_bounded_length(name: str, text: str, footage: Path) -> None:
    for argument in FILES[name].ARGUMENTS:
        try:
            programs(name, **{argument.name: text})
        except ArgumentError as error:
            assert str(error).isprintable() and len(str(error)) <= 1000
            assert str(error).startswith(f"argument {argument.name}:=")


def test_file_that_gives_nothing_yet_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", "/dev/zero", "/proc/kmsg"):
        with pytest.raises(ArgumentError, match="argument params_file:="):
            programs("tracker", params_file=str(path))


@pytest.mark.parametrize(
    ("name", "argument", "program"),
    [("console", "token_file", "console_node"), ("mavlink", "signing_key_file", "mavlink_node")],
)
def test_secret_that_others_may_read_is_refused(name: str, argument: str, program: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a-token-of-some-length")
    file.chmod(0o644)
    with pytest.raises(ArgumentError, match=rf"argument {argument}.*chmod 600"):
        programs(name, **{argument: str(file)})
    file.chmod(0o600)
    assert programs(name, **{argument: str(file)})[program].parameters == {argument: str(file)}


@pytest.mark.parametrize(
    "text", ["\ufeffa-long-passphrase", "a-long\0passphrase", "a-long\npassphrase", "a-l\x1bong-one"]
)
def test_secret_of_characters_that_nobody_sees_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)
    for name, argument in (("console", "token_file"), ("mavlink", "signing_key_file")):
        with pytest.raises(ArgumentError, match=rf"argument {argument}.*printable characters"):
            programs(name, **{argument: str(file)})


def test_a_short_passphrase_for_signing_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.touch(0o600)
    for text, good in (("1234567", False), ("12345678\n", True)):
        file.write_text(text)
        settings = MavlinkSettings(signing_key_file=str(file))
        refused = pytest.raises(ValueError, match="8 characters at least")
        with nullcontext() if good else refused:
            assert settings.signing_key() == hashlib.sha256(b"12345678").digest()


@pytest.mark.parametrize(("text", "value"), [("true", True), ("True", True), ("FALSE", False), ("False", False)])
def test_booleans_are_taken_in_any_case(text: str, value: bool, footage: Path) -> None:
    for name in NAMES:
        for program in programs(name, use_sim_time=text).values():
            assert program.parameters == {"use_sim_time": value}
    assert programs("tracker", autostart=text)["tracker_node"].parameters == {"autostart": value}
    assert ("tracker_node" in programs("follow", tracker=text)) is value
    assert ("tracker_node" in programs("servo", tracker=text)) is value
    assert programs("simulator", paused=text)["simulator_node"].parameters == {"paused": value}


@pytest.mark.parametrize("name", TRACKER)
@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1"])
def test_device_is_taken_by_each_file_with_a_tracker(name: str, device: str, footage: Path) -> None:
    assert programs(name, device=device)["tracker_node"].parameters == {"device": device}


@pytest.mark.parametrize("name", NAMES)
def test_namespace_and_log_level_reach_every_program(name: str, footage: Path) -> None:
    for program in programs(name, namespace="/fleet/robot_2", log_level="DEBUG").values():
        assert (program.namespace, program.log_level) == ("/fleet/robot_2", "debug")


def test_model_file_is_taken_and_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "net.pth").write_bytes(b"")
    (tmp_path / "mine.yaml").write_text("/**: {ros__parameters: {}}")
    program = programs("tracker", model="~/net.pth", params_file="~/mine.yaml")["tracker_node"]
    assert program.parameters == {"model": str(tmp_path / "net.pth")}
    assert program.files == (str(tmp_path / "mine.yaml"),)


def test_image_topic_reaches_the_tracker_with_camera_info() -> None:
    program = programs("tracker", image="/front/image")["tracker_node"]
    assert program.remappings["image"] == "/front/image"
    assert program.remappings["camera_info"] == "/front/camera_info"
    assert programs("tracker", image="image", camera_info="lens")["tracker_node"].remappings["camera_info"] == "lens"


def test_demo_programs_share_the_image_topic(footage: Path) -> None:
    started = programs("demo", target="1,2,3.5,4", rate="15", video=__file__, out="results", image="/cam/raw")
    assert {program.remappings["image"] for program in started.values()} == {"/cam/raw"}
    assert {program.remappings["image"] for program in programs("demo").values()} == {"/demo/image"}
    assert started["demo"].parameters == {"box": [1.0, 2.0, 3.5, 4.0], "out": "results"}
    source = {"video": __file__, "rate": 15.0, "first_frame": 0, "last_frame": -1}
    assert started["video_source"].parameters == source
    ends = {name: program.ends_launch for name, program in started.items()}
    assert ends == {"tracker_node": "failure", "video_source": "failure", "demo": "always"}


def test_demo_without_footage_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match=r"build/demo/footage.mov.*make footage.*video:=FILE target:=X,Y,W,H"):
        programs("demo")
    mine = tmp_path / "mine.yaml"
    mine.write_text("/**/video_source: {ros__parameters: {video: '0'}}")
    assert programs("demo", demo_file=str(mine))["video_source"].files == (str(mine),)


@pytest.mark.parametrize(
    ("name", "node", "argument", "topic"),
    [("follow", "follower", "cmd_vel", "cmd_vel"), ("servo", "servo", "twist", "delta_twist_cmds")],
)
def test_velocities_go_to_the_topic_that_is_given(name: str, node: str, argument: str, topic: str) -> None:
    program = programs(name, image="/front/image", **{argument: "/robot/velocities"})[f"{node}_node"]
    assert program.remappings == {"camera_info": "/front/camera_info", topic: "/robot/velocities"}
    assert program.files == (str(ROOT / "config" / f"{node}.yaml"),) and program.name == node


def test_console_and_simulator_take_their_arguments() -> None:
    console = programs("console", image="/front/image", port="9000", host="0.0.0.0")["console_node"]
    assert console.parameters == {"port": 9000, "host": "0.0.0.0"} and console.remappings == {"image": "/front/image"}
    simulator = programs("simulator", mode="arm", commands="/twist", speed="0.5", rate="20")["simulator_node"]
    assert simulator.files == (str(ROOT / "config" / "simulator_arm.yaml"),)
    assert simulator.parameters == {"speed": 0.5, "rate": 20.0}
    assert simulator.remappings["delta_twist_cmds"] == "/twist"
    with pytest.raises(ValueError, match="circle goes round the camera"):
        programs("simulator", mode="arm", path="circle")
    with pytest.raises(ValueError, match="only a vehicle can have one"):
        programs("simulator", mode="arm", autopilot="px4")


@pytest.mark.parametrize("mode", ["arm", "vehicle", ""])
def test_mode_of_the_simulator_overrides_its_file(mode: str) -> None:
    file = str(ROOT / "config" / "simulator_vehicle.yaml")
    program = programs("simulator", mode=mode, params_file=file)["simulator_node"]
    assert program.files == (file,) and program.parameters == ({"mode": mode} if mode else {})


def test_a_namespace_holds_for_all_topics_that_are_not_given() -> None:
    """Else two robots would share a camera, and one arm's servo would move the other."""
    for name in NAMES:
        topics = [topic for program in programs(name).values() for topic in program.remappings.values()]
        absolute = [topic for topic in topics if topic.startswith("/")]
        assert not absolute or name == "demo", f"{name}: {absolute}"


def test_misspelt_argument_is_answered_with_the_nearest() -> None:
    arguments = FILES["tracker"].ARGUMENTS
    assert misspelt(arguments, ["modle", "image", "robot_name"]) == [
        "argument modle does not exist; did you mean model?"
    ]


def test_empty_text_is_a_value_where_no_file_decides() -> None:
    words = (Argument("a", "x", "a word", str), Argument("b", "", "a word", str, file="a"))
    assert read_arguments(words, {"a": ""}) == {"a": "", "b": None}


def test_demo_does_not_write_onto_its_video(footage: Path) -> None:
    results = footage / "build" / "demo"
    (results / "annotated.mp4").write_bytes(b"earlier")
    (results / "link").symlink_to("annotated.mp4")
    for video in ("build/demo/annotated.mp4", "build/demo/link", "build/demo", "build"):
        with pytest.raises(ArgumentError, match="argument out:=build/demo: out "):
            programs("demo", video=video, target="1,2,3,4", out="build/demo")
    with pytest.raises(ArgumentError, match=r"annotated\.mp4 would be replaced, but no result\.json"):
        programs("demo", out="build/demo")
    (results / "result.json").write_text('{"rmw": "of an earlier run"}')
    programs("demo", out="build/demo")
    with sole_run(results), pytest.raises(ArgumentError, match="another run writes into build/demo: end it, or give"):
        programs("demo", out="build/demo")
