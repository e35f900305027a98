# SPDX-License-Identifier: Apache-2.0
"""Published data sets, each written in a small copy of its layout."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dimp_ros.datasets.video import read_boxes
from dimp_ros.evaluation.layouts.registry import LAYOUTS, load_sequences, read_vatic
from dimp_ros.evaluation.layouts.uav import STARTS
from dimp_ros.evaluation.sequences import VideoSequence


def images(folder: Path, count: int, pattern: str = "{:04d}.jpg", start: int = 1) -> None:
    """Write `count` numbered files; loading a layout looks at names only."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        (folder / pattern.format(number)).touch()


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def absent(sequence: VideoSequence) -> list[bool]:
    return np.isnan(sequence.boxes).all(axis=1).tolist()


def numbers(sequence: VideoSequence) -> list[int]:
    return [int(path.stem) for path in sequence.frames]


def test_otb_separates_by_anything_and_counts_from_1(tmp_path: Path) -> None:
    for name, separator in (("Basketball", ","), ("Bolt", "\t"), ("Coke", "  ")):
        images(tmp_path / name / "img", 2)
        write(tmp_path / name / "groundtruth_rect.txt", *(separator.join(("1", "21", "30", "40")),) * 2)

    sequences = load_sequences(tmp_path)

    assert [sequence.name for sequence in sequences] == ["Basketball", "Bolt", "Coke"]
    for sequence in sequences:
        assert sequence.init_box == (0, 20, 30, 40)  # pixel 1 of MATLAB's image is our interval [0, 1)
        assert sequence.origin == 1 and len(sequence) == 2


def test_otbs_videos_with_two_targets_are_two_sequences(tmp_path: Path) -> None:
    for name, second in (("Jogging", "11,12,13,14"), ("Human4", "")):
        images(tmp_path / name / "img", 1)
        write(tmp_path / name / "groundtruth_rect.1.txt", second)
        write(tmp_path / name / "groundtruth_rect.2.txt", "1,2,3,4")

    sequences = load_sequences(tmp_path)

    assert [(s.name, s.init_box) for s in sequences] == [
        ("Human4", (0, 1, 3, 4)),
        ("Jogging-1", (10, 11, 13, 14)),
        ("Jogging-2", (0, 1, 3, 4)),
    ]


@pytest.mark.parametrize(
    ("name", "total", "first", "last"),
    [
        ("David", 770, 300, 770),
        ("Football1", 81, 1, 74),
        ("Freeman3", 474, 1, 460),
        ("Freeman4", 297, 1, 283),
        ("Diving", 231, 1, 215),
    ],
)
def test_otb_takes_the_annotated_part_of_a_video(tmp_path: Path, name: str, total: int, first: int, last: int) -> None:
    images(tmp_path / name / "img", total)
    write(tmp_path / name / "groundtruth_rect.txt", *["5,5,9,9"] * (last - first + 1))

    (sequence,) = load_sequences(tmp_path)

    assert numbers(sequence) == list(range(first, last + 1))


def test_uav123s_parts_share_a_folder_of_images(tmp_path: Path) -> None:
    images(tmp_path / "data_seq/UAV123/bird1", 1580, "{:06d}.jpg")
    images(tmp_path / "data_seq/UAV123/car1_s", 2, "{:06d}.jpg")
    write(tmp_path / "anno/UAV123/bird1_1.txt", *["10,20,30,40"] * 253)
    write(tmp_path / "anno/UAV123/bird1_2.txt", "10,20,30,40", "NaN,NaN,NaN,NaN", "11,20,30,40")
    write(tmp_path / "anno/UAV123/car1_s.txt", "1,1,5,5", "2,2,5,5")  # a name with a sign, not a part
    write(tmp_path / "anno/UAV20L/bird1.txt", *["10,20,30,40"] * 4)
    (tmp_path / "anno/UAV123/att").mkdir()

    first, second, third = load_sequences(tmp_path)

    assert (first.name, numbers(first)) == ("bird1_1", list(range(1, 254)))
    assert (second.name, numbers(second)) == ("bird1_2", [775, 776, 777])
    assert second.boxes[0].tolist() == [9, 19, 30, 40] and absent(second) == [False, True, False]
    assert (third.name, numbers(third)) == ("car1_s", [1, 2])
    (long,) = load_sequences(tmp_path, layout="uav20l")
    assert (long.name, numbers(long)) == ("bird1", [1, 2, 3, 4])


def test_uav123_at_10_hz_has_every_third_image(tmp_path: Path) -> None:
    images(tmp_path / "data_seq/UAV123_10fps/bird1", 813, "{:06d}.jpg")
    write(tmp_path / "anno/UAV123_10fps/bird1_2.txt", *["10,20,30,40"] * 235)
    write(tmp_path / "anno/UAV123_10fps/bird1_3.txt", *["10,20,30,40"] * 289)

    second, third = load_sequences(tmp_path)

    assert (numbers(second)[0], numbers(second)[-1]) == (259, 493)  # as published
    assert (numbers(third)[0], numbers(third)[-1]) == (525, 813)


def test_uav123s_published_ranges_are_preferred(tmp_path: Path) -> None:
    images(tmp_path / "data_seq/UAV123/bird1", 9, "{:06d}.jpg")
    write(tmp_path / "anno/UAV123/bird1_2.txt", *["10,20,30,40"] * 3)
    write(
        tmp_path / "configSeqs.m",
        "seqUAV20L = {struct('name','bird1_2','path','D:\\UAV123\\bird1\\','startFrame',1,'endFrame',9)};",
        "seqUAV123={struct('name','a','path','D:\\UAV123\\a\\','startFrame',1,'endFrame',3,'nz',6),...",
        "  struct('name','bird1_2','path','D:\\UAV123\\bird1\\','startFrame',5,'endFrame',7,'nz',6)};",
    )

    assert numbers(load_sequences(tmp_path)[0]) == [5, 6, 7]


def test_uav123_table_is_complete() -> None:
    assert sum(map(len, STARTS.values())) == 51
    assert all(starts[0] == 1 and sorted(set(starts)) == list(starts) for starts in STARTS.values())


def test_uav123_says_what_is_missing(tmp_path: Path) -> None:
    images(tmp_path / "data_seq/UAV123/bird1", 776, "{:06d}.jpg")
    write(tmp_path / "anno/UAV123/bird1_2.txt", *["10,20,30,40"] * 3)
    with pytest.raises(ValueError, match="3 boxes from image 775 on, but no 777"):
        load_sequences(tmp_path)
    write(tmp_path / "anno/UAV123/bird1_2.txt", *["10,20,30,40"] * 2)
    write(tmp_path / "anno/UAV123/bird1_4.txt", "10,20,30,40")
    with pytest.raises(ValueError, match=r"bird1_4.*configSeqs\.m"):
        load_sequences(tmp_path)


@pytest.mark.parametrize("start", ["", "airplane", "airplane/airplane-1"])
def test_lasots_hidden_targets_are_absent(tmp_path: Path, start: str) -> None:
    folder = tmp_path / "airplane/airplane-1"
    images(folder / "img", 4, "{:08d}.jpg")
    write(folder / "groundtruth.txt", "367,101,41,16", "1,1,41,16", "370,99,41,16", "0,0,0,0")
    write(folder / "full_occlusion.txt", "0,1,0,0")
    write(folder / "out_of_view.txt", "0,0,0,1")

    (sequence,) = load_sequences(tmp_path / start)

    assert (sequence.name, sequence.init_box, sequence.origin) == ("airplane-1", (366, 100, 41, 16), 1)
    assert absent(sequence) == [False, True, False, True]


def test_lasot_needs_a_flag_for_each_frame(tmp_path: Path) -> None:
    folder = tmp_path / "cat/cat-1"
    images(folder / "img", 2)
    write(folder / "groundtruth.txt", "3,3,4,4", "3,3,4,4")
    write(folder / "out_of_view.txt", "0")
    with pytest.raises(ValueError, match="1 flags for 2 boxes"):
        load_sequences(tmp_path)
    write(folder / "out_of_view.txt", "0,no")
    with pytest.raises(ValueError, match=r"out_of_view\.txt: expected whole numbers"):
        load_sequences(tmp_path)


def got10k(root: Path, split: str, name: str, *lines: str, cover: str | None = None, frames: int = 3) -> None:
    folder = root / split / name
    images(folder, frames, "{:08d}.jpg")
    write(folder / "groundtruth.txt", *lines)
    write(folder / "meta_info.ini", "[METAINFO]", "url: https://example.org/x?v=1", "resolution: (1920, 1080)")
    if cover is not None:
        write(folder / "cover.label", *cover)
        write(folder / "absence.label", *("1" if digit == "0" else "0" for digit in cover))


def test_got10k_validation_split_is_1_based_with_absences(tmp_path: Path) -> None:
    val, box = "GOT-10k_Val_", "347.0000,443.0000,429.0000,272.0000"
    got10k(tmp_path, "val", f"{val}000001", box, "-1.0000,-1.0000,-1.0000,-1.0000", box, cover="804")
    got10k(tmp_path, "val", f"{val}000002", box, box, "350,440,0,10", cover="888")
    got10k(tmp_path, "val", "not_in_the_list", box, box, box, cover="888")
    got10k(tmp_path, "train", "GOT-10k_Train_000001", box, box, box, cover="888")
    write(tmp_path / "val/list.txt", f"{val}000002", f"{val}000001", f"{val}000003")

    second, first = load_sequences(tmp_path)

    assert (first.name, first.init_box, first.origin) == (f"{val}000001", (346, 442, 429, 272), 1)
    assert first.meta["resolution"] == "(1920, 1080)"
    assert absent(first) == [False, True, False]
    assert (second.name, absent(second)) == (f"{val}000002", [False, False, True])
    assert [s.name for s in load_sequences(tmp_path / "train")] == ["GOT-10k_Train_000001"]


def test_got10ks_test_split_withholds_the_truth(tmp_path: Path) -> None:
    got10k(tmp_path, "test", "GOT-10k_Test_000001", "10,20,30,40", frames=5)

    (sequence,) = load_sequences(tmp_path / "test")

    assert sequence.withheld and len(sequence) == 5 and sequence.init_box == (9, 19, 30, 40)

    sorted((tmp_path / "test" / "GOT-10k_Test_000001").glob("*.jpg"))[2].unlink()
    with pytest.raises(ValueError, match="no image 3 between 2 and 4"):
        load_sequences(tmp_path / "test")


def vatic(frame: int, lost: int = 0) -> str:
    return f'0 {100 + frame} 20 {160 + frame} 100 {frame} {int(lost)} 1 0 "gymnast"'


@pytest.mark.parametrize("inner", ["Gymnastics", ""])
def test_nfs_gives_corners_of_every_eighth_frame(tmp_path: Path, inner: str) -> None:
    folder = tmp_path / "Gymnastics"
    images(folder / "30" / inner, 3, "{:05d}.jpg")
    images(folder / "240" / "Gymnastics", 24, "{:05d}.jpg")
    write(folder / "30" / "Gymnastics.txt", *(vatic(frame, lost=frame == 16) for frame in range(24)))

    (sequence,) = load_sequences(tmp_path)

    assert (sequence.name, len(sequence), sequence.origin) == ("Gymnastics", 3, 0)
    assert sequence.boxes[:2].tolist() == [[100, 20, 60, 80], [108, 20, 60, 80]]  # "occluded" is no absence
    assert absent(sequence) == [False, False, True]


def test_nfs_forgives_one_line_too_many_and_no_more(tmp_path: Path) -> None:
    images(tmp_path / "ball/30/ball", 3)
    write(tmp_path / "ball/30/ball.txt", *(vatic(frame) for frame in (0, 2, 1, 3)))
    assert load_sequences(tmp_path)[0].boxes[:, 0].tolist() == [100, 101, 102]  # in order of frames
    write(tmp_path / "ball/30/ball.txt", *(vatic(frame) for frame in range(5)))
    with pytest.raises(ValueError, match="ball: 3 images need boxes of shape"):
        load_sequences(tmp_path)
    write(tmp_path / "ball/30/ball.txt", "1,2,3,4")
    with pytest.raises(ValueError, match=r"ball\.txt, line 1: expected 10 columns"):
        read_vatic(tmp_path / "ball/30/ball.txt")


def test_a_layout_can_be_asked_for_by_name(tmp_path: Path) -> None:
    images(tmp_path / "Both" / "img", 1)
    write(tmp_path / "Both" / "groundtruth.txt", "5,6,7,8")
    write(tmp_path / "Both" / "groundtruth_rect.txt", "5,6,7,8")

    assert load_sequences(tmp_path, layout="otb")[0].init_box == (4, 5, 7, 8)
    assert load_sequences(tmp_path, layout="folder")[0].init_box == (5, 6, 7, 8)
    with pytest.raises(ValueError, match="unknown layout 'vot'; known: otb, lasot, folder"):
        load_sequences(tmp_path, layout="vot")
    with pytest.raises(ValueError, match=r"expected NAME/30/NAME/\*\.jpg"):
        load_sequences(tmp_path, layout="nfs")


def test_every_layout_passes_by_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "something" / "img").mkdir(parents=True)

    assert all(layout.load(tmp_path) == [] for layout in LAYOUTS.values())


def otb(folder: Path) -> list[str]:
    """Write a sequence; return its parts."""
    images(folder / "img", 1)
    write(folder / "groundtruth_rect.txt", "5,6,7,8")
    return ["img", "groundtruth_rect.txt"]


def own(folder: Path) -> list[str]:
    images(folder / "img", 1)
    write(folder / "groundtruth.txt", "5,6,7,8")
    return ["img", "groundtruth.txt"]


def lasot(folder: Path) -> list[str]:
    write(folder / "full_occlusion.txt", "0")
    return [*own(folder), "full_occlusion.txt"]


def got10ks(folder: Path) -> list[str]:
    images(folder, 1)
    write(folder / "groundtruth.txt", "5,6,7,8")
    return ["0001.jpg", "groundtruth.txt"]


def nfs(folder: Path) -> list[str]:
    images(folder / "30" / folder.name, 1)
    write(folder / f"{folder.name}.txt", vatic(1))
    return ["30", f"{folder.name}.txt"]


@pytest.mark.parametrize("make", [otb, own, lasot, got10ks, nfs])
def test_folder_that_lacks_images_or_boxes_is_refused_by_name(
    tmp_path: Path, make: Callable[[Path], list[str]]
) -> None:
    place = tmp_path / "ball" if make is lasot else tmp_path
    for name in ("ball-1", "ball-2"):
        parts = make(place / name)
    (place / "notes" / "more").mkdir(parents=True)
    (place / "notes" / "a.txt").touch()
    assert [sequence.name for sequence in load_sequences(tmp_path)] == ["ball-1", "ball-2"]
    for part in parts:
        (place / "ball-2" / part).rename(tmp_path.parent / f"moved-{tmp_path.name}")
        with pytest.raises(ValueError, match=r"ball-2 has no [^;]*: fetch it again, or leave it out with --only"):
            load_sequences(tmp_path)
        with pytest.raises(ValueError, match=r"ball-2 has no "):
            load_sequences(tmp_path, ["ball-1", "ball-2"])
        assert [sequence.name for sequence in load_sequences(tmp_path, ["ball-1"])] == ["ball-1"]
        (tmp_path.parent / f"moved-{tmp_path.name}").rename(place / "ball-2" / part)


def test_folder_of_another_layout_is_not_left_out_unseen(tmp_path: Path) -> None:
    otb(tmp_path / "a")
    own(tmp_path / "b")
    with pytest.raises(ValueError, match=r"b has no boxes in groundtruth_rect\.txt: "):
        load_sequences(tmp_path)


def test_parts_inside_of_a_sequence_are_no_sequences(tmp_path: Path) -> None:
    own(tmp_path / "img")
    own(tmp_path / "img" / "img")
    assert [sequence.name for sequence in load_sequences(tmp_path)] == ["img"]


@pytest.mark.parametrize("file", ["groundtruth_rect.txt", "groundtruth_rect.2.txt"])
def test_annotations_that_are_a_fifo_are_refused_at_once(tmp_path: Path, file: str) -> None:
    images(tmp_path / "a" / "img", 2)
    write(tmp_path / "a" / "groundtruth_rect.1.txt", *("1 1 9 9",) * 2)
    os.mkfifo(tmp_path / "a" / file)
    with pytest.raises(ValueError, match=r"is a FIFO; only regular files are read"):
        load_sequences(tmp_path)
    for read in (read_boxes, read_vatic):
        with pytest.raises(ValueError, match="is a FIFO"):
            read(tmp_path / "a" / file)
