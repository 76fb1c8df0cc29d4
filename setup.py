"""`pip install .`: the library and the command line, without ROS. colcon builds this package with CMakeLists.txt."""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_namespace_packages, setup

ROOT = Path(__file__).parent
MANIFEST = ElementTree.parse(ROOT / "package.xml").getroot()
# vision_msgs: definitions for bags on a machine without ROS.
SHARED_FOLDERS = ("config", "weights", "msg", "underlay/vision_msgs/msg")
SHARED_FILES = sorted(
    path.relative_to(ROOT)
    for path in (ROOT / "package.xml", *(file for folder in SHARED_FOLDERS for file in (ROOT / folder).rglob("*")))
    if path.is_file()
)

setup(
    name="bevformer_ros",
    version=MANIFEST.findtext("version"),
    description=MANIFEST.findtext("description"),
    license=MANIFEST.findtext("license"),
    python_requires=">=3.10",
    classifiers=[f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 15)],
    packages=find_namespace_packages(include=["bevformer_ros*"]),
    package_data={"bevformer_ros": ["py.typed"]},
    data_files=[(f"share/bevformer_ros/{path.parent}", [str(path)]) for path in SHARED_FILES],
    install_requires=[
        "numpy",
        "opencv-python-headless<5",
        "PyYAML",
        "safetensors",
        "scipy",
        "torch>=2.8",  # the first that brings a Triton (3.4) which compiles our kernels
        "tqdm",
    ],
    extras_require={
        "bags": ["pillow", "rosbags>=0.10"],
        "evaluation": ["motmetrics", "nuscenes-devkit"],
        "backbones": ["timm", "torchvision"],
        "curves": ["matplotlib"],
        "export": ["onnxscript"],
        "onnxruntime": ["onnxruntime", "pillow"],
        "tensorboard": ["tensorboard"],
        "video": ["av"],
        "viewer": ["rerun-sdk"],
    },
    entry_points={"console_scripts": ["bevformer-ros = bevformer_ros.commands.cli:main"]},
)
