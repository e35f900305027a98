# SPDX-License-Identifier: Apache-2.0
"""The `dimp-track` program: track a target through a video, a folder of images or a recording, without ROS."""
