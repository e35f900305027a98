# SPDX-License-Identifier: Apache-2.0
"""How well the confidence predicts that a box is right; calibration of its mapping."""
