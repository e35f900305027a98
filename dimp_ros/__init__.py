# SPDX-License-Identifier: Apache-2.0
"""Visual object tracking by Discriminative Model Prediction (DiMP), as a library and as a ROS 2 node."""

import sys
from pkgutil import extend_path

# The interfaces (dimp_ros.msg, dimp_ros.srv) are generated at build time into an install prefix. This finds them
# there also when this file was imported from the source tree, and changes nothing where both lie together.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"]:  # what Python sets while it looks for the module of ``python -m dimp_ros...``
    from dimp_ros.files.program import begin

    begin()
