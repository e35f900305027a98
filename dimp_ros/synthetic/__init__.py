# SPDX-License-Identifier: Apache-2.0
"""Synthetic sequences: scenes of moving cut-outs rendered from annotated images."""
