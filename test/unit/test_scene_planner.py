# SPDX-License-Identifier: Apache-2.0
"""Synthetic sequences: boxes match the rendered target, occlusion flags are true, a seed is reproducible."""

import dataclasses
import os
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from helpers.image_fixtures import write_images
from hypothesis import given
from hypothesis import strategies as st

from dimp_ros.datasets.base import Clip
from dimp_ros.datasets.registry import WeightedDataSet, open_data_sets
from dimp_ros.files import shared_folder
from dimp_ros.geometry.box import Box
from dimp_ros.synthetic import scene_planner as scenes
from dimp_ros.synthetic.image_store import CELLS, Pixels, open_tables
from dimp_ros.synthetic.image_store_writer import build_store, chosen_frames, outline
from dimp_ros.synthetic.motion import KNOTS, apply, bent, compose, invert, similarity
from dimp_ros.synthetic.renderer import SceneRenderer
from dimp_ros.synthetic.scene_planner import SceneConfig, ScenePlanner
from dimp_ros.tracker.crop import SearchWindow, crop
from dimp_ros.training.sampling import CROP_SIZE, box_iou, draw_group, inside_share, render_groups

ALONE = SceneConfig(distractors=0, occluder=0, vanish=0)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Make a store of the small set of images."""
    root = tmp_path_factory.mktemp("scenes")
    write_images(root / "images")
    return build_store(root / "store", open_data_sets([{"kind": "compact", "root": root / "images"}])).folder


@pytest.fixture(scope="module")
def tables(store):
    return open_tables(store)


@pytest.fixture(scope="module")
def renderer(store, tables):
    return SceneRenderer(Pixels(store, tables))


def red_box(image, round_box):
    """Return the box of what is red within 1.5 boxes: nothing else in these images is."""
    around = Box.from_center(*round_box.center, 1.5 * round_box.w, 1.5 * round_box.h).clipped(*image.shape[1::-1])
    x, y = int(around.x), int(around.y)
    part = image[y : int(around.y + around.h), x : int(around.x + around.w)].astype(int)
    found = cv2.boundingRect(((part[..., 0] - part[..., 1:].max(-1)) > 90).astype(np.uint8))
    return torch.tensor((found[0] + x, found[1] + y, found[2], found[3]), dtype=torch.float32)


def test_a_store_holds_every_image_and_target(tables):
    kinds = [image.kind for image in tables.images]
    assert [kinds.count(kind) for kind in ("still", "clip", "background")] == [4, 6, 1]
    assert len(tables.targets) == 4 + 3 + 6
    assert all(target.canvas >= 0 for target in tables.targets)
    assert len(tables.clips) == 1
    assert len(tables.clips[0].images) == 6


def test_the_pixels_of_an_image_of_two_tracks_are_stored_once(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    boxes = np.array([[5.0, 5, 20, 20]] * 2)
    clips = [Clip(f"film#{n}", lambda index: image + np.uint8(index), boxes, np.ones(2)) for n in range(2)]
    data = SimpleNamespace(
        clips=lambda: clips, stills=lambda: (), summary=lambda: "", name="", annotations=(), digest=lambda: "d"
    )
    folder = build_store(tmp_path / "store", [WeightedDataSet(data, 1.0)]).folder
    stored = open_tables(folder)
    assert (folder / "pixels.bin").stat().st_size == 2 * image.size
    pixels = Pixels(folder, stored)
    for clip in stored.clips:
        for index, number in enumerate(clip.images):
            expected = torch.from_numpy((image + np.uint8(index))[..., ::-1].transpose(2, 0, 1).copy())
            assert torch.equal(pixels.image(number), expected)
    copy = shutil.copytree(folder, tmp_path / "copy")  # under a map the file must not shrink
    os.truncate(copy / "pixels.bin", 2 * image.size - 1)
    with pytest.raises(ValueError, match=r"copy/pixels\.bin has 14399 bytes of 14400: delete the store"):
        Pixels(copy, stored)


def test_a_complete_store_is_kept_and_another_choice_is_not(store, tmp_path):
    root = write_images(tmp_path / "images", stills=2)
    data = open_data_sets([{"kind": "compact", "root": root}])
    build_store(tmp_path / "store", data)
    written = (tmp_path / "store" / "tables.json").stat().st_mtime_ns
    build_store(tmp_path / "store", data)
    assert (tmp_path / "store" / "tables.json").stat().st_mtime_ns == written
    build_store(tmp_path / "store", data, clip_frames=3, longest_side=160)
    small = open_tables(tmp_path / "store")
    assert max(max(image.width, image.height) for image in small.images) == 160
    assert len(small.clips[0].images) == 3
    full = open_tables(store).targets[0].box
    assert np.allclose(np.array(small.targets[0].box) * 2, full, atol=4)


def test_a_store_of_other_data_is_replaced_and_maps_keep_the_old(tmp_path):
    def built(name, **more):
        entry = {"kind": "compact", "root": tmp_path / name, **more}
        return build_store(tmp_path / "store", open_data_sets([entry])).folder

    write_images(tmp_path / "images", stills=2)
    folder = built("images")
    old = Pixels(folder, open_tables(folder))
    before = [old.image(i).clone() for i in range(len(old.tables.images))], old.canvases.clone()
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "backup").mkdir()
    for name in files:
        os.link(folder / name, tmp_path / "backup" / name)
    shutil.copytree(tmp_path / "images", tmp_path / "others")
    for path in (tmp_path / "others" / "images").iterdir():  # the same annotations, other images
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[::-1])
    built("others")
    new = Pixels(folder, open_tables(folder))
    assert not torch.equal(new.image(0), before[0][0])
    assert all(torch.equal(old.image(i), image) for i, image in enumerate(before[0]))
    assert torch.equal(old.canvases, before[1])
    assert {path.name: path.read_bytes() for path in (tmp_path / "backup").iterdir()} == files
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)
    assert set(open_tables(built("others", weight=3)).weights.values()) == {3}


def test_a_store_that_a_run_holds_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_folder, "PATIENCE", 0.1)
    data = open_data_sets([{"kind": "compact", "root": write_images(tmp_path / "images", stills=2)}])
    held = build_store(tmp_path / "store", data)
    build_store(tmp_path / "store", data)
    with pytest.raises(ValueError, match="another run uses"):
        build_store(tmp_path / "store", data, longest_side=160)
    del held
    build_store(tmp_path / "store", data, longest_side=160)


def test_images_that_are_left_out_are_not_in_the_store(tmp_path):
    root = write_images(tmp_path / "images")
    data = open_data_sets([{"kind": "compact", "root": root}])
    kept = open_tables(build_store(tmp_path / "store", data, lambda name: name == "still_1").folder)
    assert len(kept.images) == 1
    assert not kept.clips


@pytest.mark.parametrize(("length", "limit"), [(5, 0), (5, 9), (400, 30), (50, 30), (61, 1)])
def test_frames_of_a_clip_are_chosen_near_each_other(length, limit):
    frames = chosen_frames(length, limit)
    assert len(frames) == (min(length, limit) if limit else length)
    assert 0 <= frames[0] <= frames[-1] < length
    assert not limit or length <= limit or frames[-1] - frames[0] <= 60


@pytest.mark.parametrize("mix", [(1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=["pasted", "native", "clip"])
def test_box_of_a_synthetic_frame_encloses_the_target(tables, renderer, mix):
    planner = ScenePlanner(tables, dataclasses.replace(ALONE, mix=mix))
    grounds = [number for number, image in enumerate(tables.images) if image.kind == "background"]
    checked = 0
    for seed in range(12):
        scene = planner.plan(np.random.default_rng(seed), np.linspace(0, 1, 4), clean=4)
        if mix[0]:  # over an image without a red ellipse of its own
            scene = dataclasses.replace(scene, images=np.full(4, grounds[0]))
        frames = renderer.frames(scene).permute(0, 2, 3, 1).numpy()
        for k in range(4):
            box = Box(*scene.boxes[k])
            if scene.visible[k] < 0.98 or min(box.w, box.h) < 25:
                continue
            assert float(box_iou(red_box(frames[k], box), torch.tensor(box))) > 0.85
            checked += 1
    assert checked >= 12


def test_a_hidden_target_is_known_to_be_hidden(tables, renderer):
    """What is red beside the target is taken away, so the share of red in sight is the share that is visible."""
    planner = ScenePlanner(tables, SceneConfig(mix=(1, 0, 0), distractors=0, occluder=1, vanish=0.2))
    seen = []
    for seed in range(40):
        scene = planner.plan(np.random.default_rng(seed), np.linspace(0, 1, 8), clean=4)
        seen.append(scene.visible)
    visible = np.array(seen)
    assert visible[:, 4:].min() < 0.1
    assert (visible[:, 4:] == 0).mean() == pytest.approx(0.2, abs=0.1)
    assert np.median(visible[:, :4]) > 0.95


def test_a_vanished_target_is_not_drawn(tables, renderer):
    planner = ScenePlanner(tables, dataclasses.replace(ALONE, mix=(1, 0, 0), vanish=1.0))
    ground = next(number for number, image in enumerate(tables.images) if image.kind == "background")
    scene = planner.plan(np.random.default_rng(3), np.linspace(0, 1, 4), clean=2)
    frames = renderer.frames(dataclasses.replace(scene, images=np.full(4, ground))).int()
    red = (frames[:, 0] - frames[:, 1:].amax(1) > 90).flatten(1).sum(1)
    assert (red[:2] > 0).all()
    assert (red[2:] == 0).all()
    assert (scene.visible[2:] == 0).all()


def test_distractors_do_not_cover_a_photographed_target(tables):
    planner = ScenePlanner(tables, SceneConfig(mix=(0, 1, 0), distractors=3, near=1.0, occluder=0))
    hidden = 0
    for seed in range(30):
        scene = planner.plan(np.random.default_rng(seed), np.linspace(0, 1, 4), clean=4)
        for layer in scene.layers:
            hidden += int((~layer.shown).sum())
    assert hidden > 0, "some would have covered it"


def test_the_same_seed_makes_the_same_windows(tables, renderer):
    planner = ScenePlanner(tables)
    groups = [draw_group(planner, np.random.default_rng(seed), 2, 2) for seed in (5, 5, 6)]
    first, again, other = (render_groups(renderer, [group], torch.Generator().manual_seed(1)) for group in groups)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (1, 4, 3, CROP_SIZE, CROP_SIZE)


def test_groups_drawn_together_are_those_drawn_alone(tables, renderer):
    """Batching must not mix sequences up."""
    planner = ScenePlanner(tables)
    groups = [draw_group(planner, np.random.default_rng(seed), 2, 2) for seed in range(4)]
    windows = [group.windows for group in groups]
    together = renderer.render([group.scene for group in groups], windows, (96, 96))
    alone = torch.cat([renderer.render([group.scene], [group.windows], (96, 96)) for group in groups])
    torch.testing.assert_close(together, alone, atol=0.05, rtol=0)


def test_the_targets_centre_is_in_every_window(tables):
    planner = ScenePlanner(tables)
    for seed in range(30):
        group = draw_group(planner, np.random.default_rng(seed), 2, 2)
        centres = group.boxes[:, :2] + group.boxes[:, 2:] / 2
        assert (centres > 0).all()
        assert (centres < CROP_SIZE).all()
        assert (group.visible[:2] > 0.7).all()


def test_a_mirrored_group_has_its_boxes_mirrored(tables, renderer):
    planner = ScenePlanner(tables, dataclasses.replace(ALONE, mix=(0, 1, 0)))
    for seed in range(20):
        group = draw_group(planner, np.random.default_rng(seed), 1, 1)
        plain = group._replace(photometric=group.photometric._replace(grey=np.zeros(2, bool)))
        images = render_groups(renderer, [plain])[0].permute(0, 2, 3, 1).numpy()
        box = Box(*(float(v) for v in group.boxes[0]))
        inside = box.x > 0 and box.y > 0 and box.x + box.w < CROP_SIZE and box.y + box.h < CROP_SIZE
        if group.flip and inside and group.visible[0] > 0.98:
            assert float(box_iou(red_box(images[0], box), torch.tensor(box))) > 0.7
            return
    pytest.fail("no mirrored group was drawn")


def test_a_window_is_what_the_tracker_would_cut_from_the_frame(tables, renderer):
    """Training must see what tracking sees: same coordinates, same border, no aliasing."""
    planner = ScenePlanner(tables, dataclasses.replace(ALONE, mix=(0, 1, 0)))
    scene = planner.plan(np.random.default_rng(0), np.linspace(0, 1, 1), clean=1)
    frame = np.ascontiguousarray(renderer.frames(scene)[0].permute(1, 2, 0).numpy())
    for side in (60.0, 150.0, 288.0, 500.0, 900.0):
        window = SearchWindow.around(Box(*scene.boxes[0]).center, side, CROP_SIZE)
        wanted = crop(frame, window).astype(float)
        row = np.array([[window.x, window.y, window.scale]])
        drawn = renderer.render([scene], [row], (CROP_SIZE, CROP_SIZE))[0].permute(1, 2, 0).numpy()
        assert np.abs(drawn - wanted).mean() < 2.5, side


@given(st.integers(0, 2**32 - 1))
def test_transforms_compose_and_invert(seed):
    rng = np.random.default_rng(seed)
    a, b = (
        similarity(
            rng.normal(0, 50, (3, 2)),
            rng.normal(0, 9, 2),
            rng.uniform(0.3, 3, 3),
            rng.normal(0, 60, 3),
            rng.normal(0, 1, 3),
        )
        for _ in range(2)
    )
    points = rng.normal(0, 10, (5, 2))
    assert np.allclose(apply(compose(a, b), points), apply(a, apply(b, points)))
    assert np.allclose(apply(invert(a), apply(a, points)), points)


def test_a_bent_point_is_where_the_field_takes_it_from():
    rng = np.random.default_rng(0)
    field = rng.uniform(-0.05, 0.05, (2, KNOTS, KNOTS, 2))
    assert np.allclose(bent(np.full((3, 2), 0.5), np.zeros((1, KNOTS, KNOTS, 2))), 0.5)
    steady = np.broadcast_to([0.03, -0.02], field.shape).copy()
    assert np.allclose(bent(np.array([[0.5, 0.5]]), steady), [[[0.47, 0.52]]] * 2)


def test_the_outline_of_a_mask_is_tight_under_rotation():
    mask = np.zeros((60, 90), np.uint8)
    cv2.ellipse(mask, (45, 30), (44, 29), 0, 0, 360, 1, -1)
    x, y, w, h = cv2.boundingRect(mask)
    shape = outline(np.ascontiguousarray(mask[y : y + h, x : x + w]))
    turn = similarity(np.zeros((1, 2)), np.zeros(2), np.ones(1), np.array([30.0]), np.zeros(1))
    units = compose(turn, np.array([[[w, 0.0, 0], [0, h, 0]]]))
    placed = apply(units, shape.hull.astype(float))[0]
    rows, columns = np.nonzero(mask[y : y + h, x : x + w])
    corners = np.concatenate([np.stack((columns + i, rows + j), 1) for i in (0, 1) for j in (0, 1)]).astype(float)
    exact = apply(turn, corners)[0]
    assert np.abs(placed.max(0) - exact.max(0)).max() < 0.3
    assert np.abs(placed.min(0) - exact.min(0)).max() < 0.3


def test_images_without_any_target_are_refused(tables):
    empty = dataclasses.replace(tables, targets=[], clips=[])
    with pytest.raises(ValueError, match="these images allow no sequence"):
        ScenePlanner(empty)


def test_a_part_of_an_object_is_a_target_of_its_own(tables):
    """Its box is smaller than the object's, moves with it, and is hidden by what covers it, not by the frame's edge."""
    config = dataclasses.replace(ALONE, mix=(1.0, 0.0, 0.0), bend=0.0, part=1.0)
    planner, times = ScenePlanner(tables, config), np.linspace(0, 1, 4)
    parts = 0
    for seed in range(40):
        scene = planner.plan(np.random.default_rng(seed), times, clean=2)
        (layer,) = scene.layers
        corners = apply(layer.transforms, np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]]))
        whole = (corners.max(1) - corners.min(1)).prod(1)
        ratio = scene.boxes[:, 2:].prod(1) / whole
        centers = scene.boxes[:, :2] + scene.boxes[:, 2:] / 2
        units = apply(invert(layer.transforms), centers[:, None])[:, 0]
        inside = (scene.visible > 0.999) & (ratio < 0.9)
        if inside.all():
            parts += 1
            assert ((ratio > 0.08) & (ratio < 0.6)).all()
            assert np.ptp(units, axis=0) == pytest.approx(0, abs=0.05)  # at the same place of the object
            assert ((units > 0.1) & (units < 0.9)).all()
    assert parts > 10


def test_parts_are_of_the_object_and_only_of_large_ones(tables, monkeypatch):
    smallest = float(np.sqrt(np.median([target.box[2] * target.box[3] for target in tables.targets])))
    monkeypatch.setattr(scenes, "SMALLEST_WHOLE", smallest)
    planner, small, parts = ScenePlanner(tables, dataclasses.replace(ALONE, part=1.0)), 0, 0
    for target in tables.targets:
        whole, part = tables.shape(target), planner.draw_part(np.random.default_rng(1), target)
        if target.box[2] * target.box[3] < smallest**2:
            small += 1
            assert part is None
        elif part is not None:
            parts += 1
            (x0, y0), (x1, y1) = part.hull.min(0), part.hull.max(0)
            assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 and 0.2 < x1 - x0 < 0.8
            inside = part.cells > 0
            assert (part.cells[inside] == whole.cells[inside]).all()
            assert 0.8 < part.cells.sum() / (CELLS**2 * (x1 - x0) * (y1 - y0)) < 1.2
    assert small > 2 and parts > 2


def test_windows_lie_mostly_in_the_frame_where_that_is_wanted(tables):
    def share(inside):
        planner = ScenePlanner(tables, dataclasses.replace(ALONE, mix=(0.5, 0.5, 0.0), inside=inside))
        groups = [draw_group(planner, np.random.default_rng(seed), 2, 2) for seed in range(60)]
        return np.mean([inside_share(group.windows, group.scene) >= 0.6 for group in groups])

    assert share(1.0) == 1.0 > share(0.0)


@pytest.mark.parametrize(
    ("growth", "category", "crowd"), [(1.0, "", True), (1.9, "", True), (2.1, "", False), (1.0, "other", False)]
)
def test_crowd_has_the_same_category_and_similar_size(tables, growth, category, crowd):
    alone = ScenePlanner(tables)
    assert not alone.crowded[0]  # every image has one object
    number = next(n for group in alone.native[0] for n in group)
    target = tables.targets[number]
    x, y, w, h = target.box
    beside = dataclasses.replace(target, box=(x, y, growth * w, growth * h), category=category or target.category)
    planner = ScenePlanner(
        dataclasses.replace(tables, targets=[*tables.targets, beside]),
        dataclasses.replace(ALONE, mix=(0.0, 1.0, 0.0), crowd=1.0),
    )
    found = {n for group in planner.crowded[0] for n in group}
    assert (number in found) is crowd
    if crowd:
        drawn = {int(planner.plan(np.random.default_rng(s), np.linspace(0, 1, 3), 1).images[0]) for s in range(10)}
        assert drawn == {target.image}


@pytest.mark.parametrize(
    ("name", "value"),
    [("mix", value) for value in [(0, 0, 0), (1, 1), (1, -1, 1), (float("nan"), 1, 1), ("1", 1, 1), (True, 1, 1)]]
    + [("distractors", -1), ("distractors", 1_000_000), ("clip_span", -1)]
    + [(name, value) for name in ("near", "inside", "vanish") for value in (-0.1, 1.5, float("nan"))],
)
def test_scenes_that_cannot_be_drawn_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} is .*; it must be"):
        SceneConfig(**{name: value})


def test_images_without_a_usable_sequence_are_an_error(tables, monkeypatch):
    monkeypatch.setattr("dimp_ros.training.sampling.MOST_DRAWS", 30)
    monkeypatch.setattr("dimp_ros.training.sampling.SMALLEST", 1e6)
    with pytest.raises(ValueError, match="none of 30 sequences of these images is usable"):
        draw_group(ScenePlanner(tables, SceneConfig()), np.random.default_rng(0), 2, 2)
