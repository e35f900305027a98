# SPDX-License-Identifier: Apache-2.0
"""Weight files: own safetensors and checkpoints of the reference implementation."""
