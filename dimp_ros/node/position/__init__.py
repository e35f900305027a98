# SPDX-License-Identifier: Apache-2.0
"""3D positions of targets from camera_info and depth."""
