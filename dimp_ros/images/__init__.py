# SPDX-License-Identifier: Apache-2.0
"""Images: from message bytes or files to pixel arrays and back. Imports no rclpy."""
