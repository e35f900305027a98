# SPDX-License-Identifier: Apache-2.0
"""Files that programs read and write, whatever is in them: only regular ones are read, outputs are written whole."""
