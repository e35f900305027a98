# SPDX-License-Identifier: Apache-2.0
"""Record docs/images/follow.webp: the loop of `make demo-follow` from outside and through its camera, side by side."""

from __future__ import annotations

import sys

from loop_film import FilmRecorder, Taken, film_frames
from PIL import Image as PillowImage
from run_loop_demo import ROOT, run_demo

from dimp_ros.apps.simulator.metrics import LoopRecording

OUT = ROOT / "docs" / "images" / "follow.webp"
SECONDS, RATE = 12.0, 10.0
QUALITY = 58


class FollowFilm(FilmRecorder):
    """Writes an animated WebP."""

    def write_film(self, taken: list[Taken], recording: LoopRecording) -> None:
        """Write the film, and nine of its images beside the demo's results."""
        frames = list(film_frames(self.scene, taken, recording, RATE, SECONDS))
        first, *rest = [PillowImage.fromarray(frame[..., ::-1]) for frame in frames]
        OUT.parent.mkdir(parents=True, exist_ok=True)
        duration = round(1e3 / RATE)
        first.save(OUT, save_all=True, append_images=rest, duration=duration, loop=0, quality=QUALITY, method=4)
        self.write_stills(frames)
        print(f"[film] {len(frames)} images, {OUT.stat().st_size / 1e6:.2f} MB: {OUT}", flush=True)


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        sys.exit(0)
    sys.exit(run_demo("follow", sys.argv[1:], FollowFilm))
