# SPDX-License-Identifier: Apache-2.0
"""LaSOT, GOT-10k and TrackingNet in small copies of their published layouts."""

import pickle

import cv2
import numpy as np
import pytest

from dimp_ros.datasets.got10k import Got10kDataSet
from dimp_ros.datasets.lasot import LasotDataSet
from dimp_ros.datasets.trackingnet import TrackingNetDataSet
from dimp_ros.datasets.video import read_boxes


def write_frames(folder, names):
    """Write images whose brightness says which frame they are: 20 for the first, 40 for the second, ..."""
    folder.mkdir(parents=True)
    for number, name in enumerate(names, 1):
        cv2.imwrite(str(folder / name), np.full((36, 48, 3), 20 * number, np.uint8))


def brightness(clip, index):
    return clip.read(index).mean() / 20 - 1


def write_lasot(root):
    for category, number in (("coin", 1), ("coin", 10), ("kite", 2)):
        folder = root / category / f"{category}-{number}"
        write_frames(folder / "img", [f"{i:08d}.jpg" for i in range(1, 5)])
        (folder / "groundtruth.txt").write_text("".join(f"{number + i},5,10,12\n" for i in range(3)) + "0,0,0,0\n")
        (folder / "full_occlusion.txt").write_text("0,1,0,0")
        (folder / "out_of_view.txt").write_text("0,0,0,1")
    (root / "testing_set.txt").write_text("coin-10\nkite-9\n")
    return root


def test_lasot_leaves_the_test_sequences_out(tmp_path):
    data = LasotDataSet(write_lasot(tmp_path / "LaSOT"))
    assert [clip.name for clip in data.clips()] == ["coin-1", "kite-2"]
    coin = data.clips()[0]
    assert (coin.category, coin.source) == ("coin", "LaSOT")
    assert len(coin) == 4
    assert coin.boxes[0].tolist() == [1, 5, 10, 12]
    assert np.isnan(coin.boxes[[1, 3]]).all()  # occluded, and out of view
    assert coin.boxes[2].tolist() == [3, 5, 10, 12]
    assert coin.visible.tolist() == [1, 0, 1, 0]
    assert [round(brightness(coin, i)) for i in range(4)] == [0, 1, 2, 3]
    assert data.stills() == ()


def test_lasot_takes_a_split_and_flat_folders(tmp_path):
    root = write_lasot(tmp_path / "LaSOT")
    (root / "coin" / "coin-10").rename(root / "coin-10")
    (tmp_path / "mine.txt").write_text("coin-10\n")
    assert [clip.name for clip in LasotDataSet(root, split=tmp_path / "mine.txt").clips()] == ["coin-10"]
    (tmp_path / "mine.txt").write_text("coin-10\nzebra-1\n")
    with pytest.raises(ValueError, match=r"mine\.txt names 1 .*zebra-1.*unpack"):
        LasotDataSet(root, split=tmp_path / "mine.txt")


def test_lasot_never_trains_on_an_unknown_split(tmp_path):
    root = write_lasot(tmp_path / "LaSOT")
    (root / "testing_set.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"testing_set\.txt is missing.*evaluation toolkit"):
        LasotDataSet(root)
    with pytest.raises(FileNotFoundError, match=r"nowhere.*give the one"):
        LasotDataSet(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="unpack LaSOT"):
        LasotDataSet(tmp_path / "LaSOT" / "coin" / "coin-1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "names nothing.*evaluation toolkit"),
        (b"\xef\xbb\xbf \n\n", "names nothing"),
        (b"coin-10\ncoin/coin-1\n", "line 2: expected the name"),
        (b"kite-9\n\ncoin-10,kite-2", "line 3: expected the name of a sequence, got 'coin-10,kite-2'"),
        (b"Coin-10\nkite-9\n", "line 1: .*'coin-10' is there"),
        (b"<html>\n", "line 1"),
        (b"# of the toolkit\ncoin-10\n", "line 1"),
        ("coin-10\nkite-9\n".encode("utf-16"), "is no text in UTF-8"),
        ("coin-10\nkite-9\n".encode("utf-16-le"), "is no text in UTF-8"),
        ("dr\xe4chen-1\n".encode("latin-1"), "is no text in UTF-8"),
    ],
)
def test_lists_that_name_something_else_are_refused(tmp_path, content, message):
    """Else LaSOT's sequences for testing would be trained on, and GOT-10k's mislabelled ones."""
    root, mine = write_lasot(tmp_path / "LaSOT"), tmp_path / "mine.txt"
    (root / "testing_set.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"testing_set\.txt,? .*{message}"):
        LasotDataSet(root)
    mine.write_bytes(content)
    with pytest.raises(ValueError, match=r"mine\.txt"):
        LasotDataSet(root, split=mine)
    other = write_got10k(tmp_path / "GOT-10k")
    mine.write_bytes(content.replace(b"coin-10", b"GOT-10k_Train_000002"))
    with pytest.raises(ValueError, match=r"mine\.txt"):
        Got10kDataSet(other, exclude=mine)


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbfcoin-10\n", b"coin-10\r\nzebra-1\r\n", b"zebra-1\rcoin-10", b" coin-10 "]
)
def test_lists_of_other_editors_are_read(tmp_path, content):
    root, mine = write_lasot(tmp_path / "LaSOT"), tmp_path / "mine.txt"
    (root / "testing_set.txt").write_bytes(content)
    assert [clip.name for clip in LasotDataSet(root).clips()] == ["coin-1", "kite-2"]
    mine.write_bytes(content.replace(b"coin-10", b"GOT-10k_Train_000002"))
    assert len(Got10kDataSet(write_got10k(tmp_path / "GOT-10k"), exclude=mine).clips()) == 2


def write_got10k(root):
    names = [f"GOT-10k_Train_{i:06d}" for i in (1, 2, 3)]
    for i, name in enumerate(names):
        folder = root / "train" / name
        write_frames(folder, [f"{frame:08d}.jpg" for frame in (1, 2, 3)])
        (folder / "groundtruth.txt").write_text(f"{i}.5000,5.0000,10.0000,12.0000\n" * 3)
        (folder / "absence.label").write_text("0\n0\n1\n")
        (folder / "cover.label").write_text("8\n2\n0\n")
        (folder / "meta_info.ini").write_text("[METAINFO]\nurl: https://example.org\nobject_class: goose\n")
    (root / "train" / "list.txt").write_text("\n".join(names) + "\n")
    return root


def test_got10k_says_how_much_of_the_target_is_in_sight(tmp_path):
    data = Got10kDataSet(write_got10k(tmp_path / "GOT-10k"))
    assert len(data.clips()) == 3
    clip = data.clips()[1]
    assert (clip.name, clip.category) == ("GOT-10k_Train_000002", "goose")
    assert "NC" in clip.licence
    assert clip.boxes[0].tolist() == [1.5, 5, 10, 12]
    assert np.isfinite(clip.boxes[1]).all()  # three quarters are covered, but the box is known
    assert np.isnan(clip.boxes[2]).all()
    assert clip.visible.tolist() == [1, 0.25, 0]
    assert [round(brightness(clip, i)) for i in range(3)] == [0, 1, 2]
    assert [c.name for c in Got10kDataSet(tmp_path / "GOT-10k" / "train").clips()] == [c.name for c in data.clips()]


def test_got10k_leaves_out_what_a_list_names(tmp_path):
    root = write_got10k(tmp_path / "GOT-10k")
    (tmp_path / "bad.txt").write_text("GOT-10k_Train_000002\n")
    names = [clip.name for clip in Got10kDataSet(root, exclude=tmp_path / "bad.txt").clips()]
    assert names == ["GOT-10k_Train_000001", "GOT-10k_Train_000003"]
    (tmp_path / "bad.txt").write_text("2\n")  # numbers: another convention, which would exclude nothing
    with pytest.raises(ValueError, match=r"names no sequence of .*GOT-10k_Train_000001"):
        Got10kDataSet(root, exclude=tmp_path / "bad.txt")


def test_damaged_annotations_are_named_when_they_are_used(tmp_path):
    root = write_got10k(tmp_path / "GOT-10k")
    first, second, third = (root / "train" / f"GOT-10k_Train_{i:06d}" for i in (1, 2, 3))
    (first / "groundtruth.txt").unlink()
    (second / "groundtruth.txt").write_text("1,2,3,4\n1,2,three,4\n")
    (third / "cover.label").write_text("8\n")
    clips = Got10kDataSet(root).clips()
    with pytest.raises(FileNotFoundError, match=r"000001.groundtruth\.txt is missing.*again"):
        clips[0]
    with pytest.raises(ValueError, match=r"000002.groundtruth\.txt: expected x,y,w,h.*three"):
        clips[1]
    with pytest.raises(ValueError, match=r"000003.cover\.label holds 1 flags for 3 boxes"):
        clips[-1]
    with pytest.raises(IndexError):
        clips[3]
    (second / "groundtruth.txt").write_text("1,2,3\n")
    with pytest.raises(ValueError, match="line 1: expected 4 numbers"):
        clips[1]


def write_trackingnet(root):
    for part, names in ((0, ["aa_0", "-b_1"]), (3, ["cc_2"])):
        folder = root / f"TRAIN_{part}"
        (folder / "anno").mkdir(parents=True)
        for name in names:
            write_frames(folder / "frames" / name, [f"{i}.jpg" for i in range(11)])
            (folder / "anno" / f"{name}.txt").write_text("".join(f"{i}.25,4.0,20.0,10.0\n" for i in range(11)))
    return root


def test_trackingnet_counts_frames_from_zero(tmp_path):
    root = write_trackingnet(tmp_path / "TrackingNet")
    data = TrackingNetDataSet(root)
    assert [clip.name for clip in data.clips()] == ["-b_1", "aa_0", "cc_2"]
    clip = data.clips()[1]
    assert len(clip) == 11
    assert clip.boxes[10].tolist() == [10.25, 4, 20, 10]  # not the one that sorts after 1
    assert round(brightness(clip, 10)) == 10
    assert (clip.visible == 1).all()
    assert [c.name for c in TrackingNetDataSet(root, parts=[3]).clips()] == ["cc_2"]
    assert round(brightness(pickle.loads(pickle.dumps(data)).clips()[0], 2)) == 2  # another process can use it


def test_trackingnet_names_what_is_missing(tmp_path):
    root = write_trackingnet(tmp_path / "TrackingNet")
    with pytest.raises(FileNotFoundError, match="TRAIN_1 lacks anno"):
        TrackingNetDataSet(root, parts=[0, 1])
    with pytest.raises(ValueError, match=r"parts \[12\].*0..11"):
        TrackingNetDataSet(root, parts=[12])
    with pytest.raises(ValueError, match="at least one of"):
        TrackingNetDataSet(root / "TRAIN_0")
    (root / "TRAIN_3" / "anno" / "dd_9.txt").write_text("1,2,3,4\n")
    with pytest.raises(FileNotFoundError, match="frames lacks 1 of 2 clips, the first is 'dd_9'"):
        TrackingNetDataSet(root)


@pytest.mark.parametrize("line", ["20,40,-30,30", "20,40,30,-1", "1e308,40,30,30", "20,-2e6,30,30", "0,0,nan,1e300"])
def test_damaged_box_is_refused_with_its_line(tmp_path, line):
    path = tmp_path / "groundtruth.txt"
    path.write_text(f"1,2,3,4\n5,6,7,8\n{line}\n")
    with pytest.raises(ValueError, match=r"groundtruth\.txt, line 3: expected sides above 0"):
        read_boxes(path)


def test_an_empty_line_between_boxes_is_damage_and_one_at_the_end_is_none(tmp_path):
    path = tmp_path / "groundtruth.txt"
    path.write_bytes(b"\xef\xbb\xbf1,2,3,4\r\n5,6,7,8\r\n\r\n \n")
    assert read_boxes(path).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    path.write_text("1,2,3,4\n\n5,6,7,8\n")
    with pytest.raises(ValueError, match="line 2: expected 4 numbers"):
        read_boxes(path)


@pytest.mark.parametrize("line", ["nan,nan,nan,nan", "0,0,0,0", "-1,-1,-1,-1", "5,5,0,7", "inf,1,2,3"])
def test_absent_target_has_no_box(tmp_path, line):
    path = tmp_path / "groundtruth.txt"
    path.write_text(f"1,2,3,4\n{line}\n")
    boxes = read_boxes(path)
    assert np.isnan(boxes[1]).all() and boxes[0].tolist() == [1, 2, 3, 4]
