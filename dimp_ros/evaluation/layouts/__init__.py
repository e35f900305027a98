# SPDX-License-Identifier: Apache-2.0
"""Readers of published benchmark folder layouts (OTB, UAV123, LaSOT, GOT-10k, NFS)."""
