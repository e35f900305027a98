# SPDX-License-Identifier: Apache-2.0
"""Training: pictures and clips into sequences, sequences into losses, losses into weights."""
