from setuptools import setup

setup(
    name="cv_bridge",
    version="0.1.0",
    packages=["cv_bridge"],
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/cv_bridge"]),
        ("share/cv_bridge", ["package.xml"]),
    ],
    license="Apache-2.0",
)
