# SPDX-License-Identifier: Apache-2.0
"""Let a simulated drone follow by MAVLink alone: tools/run_drone_demo.py [arguments of the tracker].

The ground station arms, selects GUIDED and draws the box. The MAVLink camera starts the target and passes the
follower's velocities on to the autopilot as setpoints, which the vehicle obeys. Then all is as in `make demo-follow`:
the target moves, is hidden, and at last the tracker is killed. Plot, videos and figures: build/demo-drone.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from ground_station import AUTOPILOT, CAMERA, GUIDED, GroundStation
from loop_film import DRONE, FilmRecorder, Taken, film_frames
from run_loop_demo import run_demo

from dimp_ros.apps.simulator.metrics import LoopRecording
from dimp_ros.apps.simulator.recorder import RETRY_SECONDS, LoopFailed, LoopPlan
from dimp_ros.images.video import VideoWriter
from dimp_ros.ros_utils.spin import Finish

RATE = 8.0


class DroneRecorder(FilmRecorder):
    """Plays the operator, and films the flight."""

    scene = DRONE
    results = (*FilmRecorder.results, "film.mp4")

    def __init__(self, plan: LoopPlan, finish: Finish, station: GroundStation, **node_options: Any) -> None:
        self._station = station
        super().__init__(plan, finish, **node_options)

    def _set_target(self) -> None:
        """Arm, select the mode, and draw a box around the target where it truly is."""
        assert self._truth is not None
        (x, y), (width, height) = self._corner(self._truth.bbox), self._size
        right, bottom = x + self._truth.bbox.size_x, y + self._truth.bbox.size_y
        station = self._station
        for component in (AUTOPILOT, CAMERA):
            station.wait_for(component)
        box = x / width, y / height, right / width, bottom / height
        end = time.monotonic() + self._plan.patience
        for what, order in (
            ("arming", station.arm),
            ("GUIDED", lambda: station.select_mode(GUIDED)),
            ("the box", lambda: station.track(*box)),
        ):
            while (result := order()) != 0:  # as an operator would try again
                if time.monotonic() > end:
                    raise LoopFailed(f"{what} is refused: MAV_RESULT {result}")
                self._pause(RETRY_SECONDS)

    @staticmethod
    def _corner(box: Any) -> tuple[float, float]:
        return box.center.position.x - box.size_x / 2, box.center.position.y - box.size_y / 2

    def write_film(self, taken: list[Taken], recording: LoopRecording) -> None:
        """Write the film, and some of its images."""
        frames = list(film_frames(self.scene, taken, recording, RATE, self._plan.seconds + self._plan.after))
        writer = VideoWriter(self._files.path("film.mp4"), RATE)
        for frame in frames:
            writer.write(frame)
        writer.close()
        self.write_stills(frames)


def main() -> int:
    """Run the demo of the command line."""
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        return 0
    station = GroundStation()
    try:
        return run_demo("drone", sys.argv[1:], lambda plan, finish: DroneRecorder(plan, finish, station), station.port)
    finally:
        station.close()


if __name__ == "__main__":
    sys.exit(main())
