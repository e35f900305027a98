# SPDX-License-Identifier: Apache-2.0
"""Networks as functions of tensors: backbones, target classification, overlap prediction, checkpoints."""
