# SPDX-License-Identifier: Apache-2.0
"""One-pass evaluation of trackers on annotated sequences, with OpenCV's trackers as baselines in the same run.

Sequences given to this package are for measuring only: nothing of them is ever used to train a network, to tune a
constant or to choose a default. Training data lives elsewhere (``dimp_ros.training``) and must not overlap with them.

Boxes are ``(x, y, w, h)`` in float pixels, (x, y) the top-left corner, 0-based. Importing this package imports neither
torch nor rclpy.
"""

from dimp_ros.evaluation.layouts.registry import load_sequences
from dimp_ros.evaluation.metrics import center_error, overlap, precision, success_auc, success_curve
from dimp_ros.evaluation.runner import SequenceResult, run_pairs, run_sequence
from dimp_ros.evaluation.sequences import VideoSequence
from dimp_ros.evaluation.tracker_api import BaselineUnavailable, BenchmarkTracker, Prediction
from dimp_ros.evaluation.trackers import TrackerSpec

__all__ = [
    "BenchmarkTracker",
    "BaselineUnavailable",
    "Prediction",
    "VideoSequence",
    "SequenceResult",
    "TrackerSpec",
    "center_error",
    "load_sequences",
    "overlap",
    "precision",
    "run_pairs",
    "run_sequence",
    "success_auc",
    "success_curve",
]
