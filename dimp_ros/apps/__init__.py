# SPDX-License-Identifier: Apache-2.0
"""Programs around the tracker: a video source, the demo, and the drawing that they share."""
