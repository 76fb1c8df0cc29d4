import argparse

import pytest

from bevformer_ros.commands.options import image_size


@pytest.mark.parametrize("text", ["", "800", "x450", "800x0", "800x450x3"])
def test_image_size_refuses(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected WIDTHxHEIGHT"):
        image_size(text)


def test_image_size():
    assert image_size("800x450") == (800, 450)
