# SPDX-License-Identifier: Apache-2.0
"""Training: images and clips into sequences, sequences into losses, losses into weights."""
