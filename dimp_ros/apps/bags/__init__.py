# SPDX-License-Identifier: Apache-2.0
"""Recordings (rosbag2, MCAP, ROS 1 bags) read and written without ROS."""
