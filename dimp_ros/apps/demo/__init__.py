# SPDX-License-Identifier: Apache-2.0
"""The demo: a video published as a camera, and a check of what the tracker says about it."""
