from setuptools import setup

setup(
    name="message_filters",
    version="0.1.0",
    packages=["message_filters"],
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/message_filters"]),
        ("share/message_filters", ["package.xml"]),
    ],
    license="Apache-2.0",
)
