# SPDX-License-Identifier: Apache-2.0
"""Boxes, cameras, lenses and ranging. numpy only."""
