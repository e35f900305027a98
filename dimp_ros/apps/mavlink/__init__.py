# SPDX-License-Identifier: Apache-2.0
"""A MAVLink camera: ground stations point at targets and see their state; see docs/mavlink.md."""
