# SPDX-License-Identifier: Apache-2.0
"""Photometric augmentation of batches of tensors."""

import cv2
import numpy as np
import pytest
import torch

from dimp_ros.synthetic.photometric import (
    LATTICE_STEP,
    apply_photometric,
    compress,
    concatenate_samples,
    low_resolution,
    motion_blur,
    sample_photometric,
    simulate_camera,
)


@pytest.fixture
def images():
    """Smooth images with some detail, as ``float32 [4, 3, 100, 90]``."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (4, 12, 12, 3)).astype(np.float32)
    large = [cv2.resize(image, (90, 100), interpolation=cv2.INTER_CUBIC).clip(0, 255) for image in coarse]
    return torch.from_numpy(np.stack(large)).permute(0, 3, 1, 2).contiguous()


def quiet(count):
    """Return a look that changes nothing."""
    sample = sample_photometric(np.random.default_rng(0), count)
    zero = np.zeros(count)
    return sample._replace(
        gain=np.ones((count, 3)),
        offset=zero,
        shade=np.zeros((count, 3)),
        blur=np.zeros((count, 2)),
        shrink=zero.astype(int),
        noise=zero,
        quality=zero.astype(int),
        grey=zero.astype(bool),
        lattice=zero.astype(int),
    )


def test_neutral_sample_changes_nothing(images):
    before = images.clone()
    assert torch.equal(apply_photometric(images, quiet(4)), before)
    apply_photometric(images, sample_photometric(np.random.default_rng(1), 4))
    assert torch.equal(images, before)


@pytest.mark.parametrize("quality", [20, 50, 80])
def test_compression_loses_what_jpeg_loses(images, quality):
    ours = compress(images, torch.full((4,), float(quality)))
    for image, ourselves in zip(images, ours, strict=True):
        bgr = np.ascontiguousarray(image.permute(1, 2, 0).numpy()[..., ::-1]).round().astype(np.uint8)
        full_colour = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
        _, data = cv2.imencode(".jpg", bgr, full_colour)
        theirs = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].astype(float)
        difference = np.abs(ourselves.permute(1, 2, 0).numpy() - theirs).mean()
        loss = np.abs(bgr[..., ::-1] - theirs).mean()
        assert difference < max(0.5 * loss, 1.2)


def test_a_motion_blur_smears_along_its_direction():
    image = torch.zeros(2, 3, 31, 31)
    image[:, :, 15, 15] = 100
    across, down = motion_blur(image, torch.tensor([[11.0, 0.0], [11.0, 90.0]]))
    assert float(across.sum()) == pytest.approx(300, rel=1e-3)
    assert int((across[0, 15] > 1).sum()) == 11
    assert int((across[0, :, 15] > 1).sum()) == 1
    torch.testing.assert_close(down, across.transpose(1, 2), atol=1e-3, rtol=0)


def test_a_far_target_loses_detail_and_keeps_its_light(images):
    far = low_resolution(images, 4)
    assert far.shape == images.shape
    assert float(far.mean()) == pytest.approx(float(images.mean()), rel=0.02)
    assert float(far.diff(dim=-1).abs().mean()) < float(images.diff(dim=-1).abs().mean())


def test_frames_of_a_look_do_not_touch_each_other(images):
    sample = quiet(4)._replace(
        quality=np.array([0, 30, 0, 0]),
        blur=np.array([[0.0, 0], [0, 0], [9, 45], [0, 0]]),
        noise=np.array([0, 0, 0, 5.0]),
    )
    changed = apply_photometric(images, sample, torch.Generator().manual_seed(0))
    assert torch.equal(changed[0], images[0])
    assert all(not torch.equal(changed[i], images[i]) for i in (1, 2, 3))
    assert float((changed[3] - images[3]).std()) == pytest.approx(5, rel=0.3)


def test_a_colourless_sequence_is_colourless_in_every_frame(images):
    grey = apply_photometric(images, quiet(4)._replace(grey=np.ones(4, bool)))
    torch.testing.assert_close(grey[:, 0], grey[:, 2])


def test_every_effect_is_drawn_sometimes():
    sample = concatenate_samples([sample_photometric(np.random.default_rng(seed), 6) for seed in range(100)])
    shares = {
        name: float((np.asarray(getattr(sample, name)) > 0).mean()) for name in ("shrink", "noise", "quality", "grey")
    }
    assert all(0.02 < share < 0.4 for share in shares.values()), shares
    assert 0.05 < (sample.shade[:, 2] > 0).mean() < 0.4
    assert 0.05 < (sample.blur[:, 0] > 0).mean() < 0.4
    assert sample.gain.min() > 0.6
    assert sample.gain.max() < 1.4


def test_camera_pixels_across_a_window_equal_frame_pixels():
    scales = np.array([0.1, 0.5, 1.0, 2.0])
    sample = simulate_camera(quiet(4), np.random.default_rng(0), scales, 288, coarse=0.0)
    assert sample.lattice.tolist() == [64, 144, 0, 0]  # no coarser than that


@pytest.mark.parametrize("seed", range(5))
def test_coarse_camera_is_the_same_in_all_frames(seed):
    scales = np.array([1.0, 1.1, 0.9, 1.0, 1.05])
    sample = simulate_camera(quiet(5), np.random.default_rng(seed), scales, 288, coarse=1.0)
    chosen = sample.lattice > 0
    per_pixel = sample.lattice[chosen] / scales[chosen]
    assert chosen.sum() >= 3 and np.ptp(per_pixel) <= 1.2 * LATTICE_STEP  # what rounding leaves
    assert 288 / 4.6 < sample.lattice[chosen].min() and (sample.lattice < 288).all()


def test_coarse_frame_loses_detail_and_has_coarse_noise(images):
    coarse = apply_photometric(
        images, quiet(4)._replace(lattice=np.array([0, 32, 32, 32]), noise=np.array([0, 0, 8.0, 0]))
    )
    assert torch.equal(coarse[0], images[0])
    assert float(coarse[1].mean()) == pytest.approx(float(images[1].mean()), rel=0.02)
    assert float(coarse[1].diff(dim=-1).abs().mean()) < 0.9 * float(images[1].diff(dim=-1).abs().mean())
    grain = coarse[2] - apply_photometric(images, quiet(4)._replace(lattice=np.full(4, 32)))[2]
    assert 2 < float(grain.std()) < 8
    neighbours = (grain[..., 1:] * grain[..., :-1]).mean() / grain.var()
    assert float(neighbours) > 0.5  # as wide as the camera's pixels: three of the window's
