# SPDX-License-Identifier: Apache-2.0
"""The ROS shell of the tracker: images, requests and parameters in, detections and state out."""
