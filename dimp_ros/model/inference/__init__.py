# SPDX-License-Identifier: Apache-2.0
"""The networks as they are run for tracking: fused, packed, restricted to regions."""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
"""The import of OpenVINO would report itself over the network with this package; without it, it has a stub."""
