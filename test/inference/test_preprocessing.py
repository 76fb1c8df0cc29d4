"""Images and intrinsics on their way into the network, against the official pipeline and against each other."""

import hashlib
from dataclasses import replace

import cv2
import golden_cases
import numpy as np
import pytest
import torch
from pretended_gpu import PretendedGpu

from bevformer_ros import geometry
from bevformer_ros.datasets.keyframe import keyframe_surround_frame
from bevformer_ros.inference import image_plan
from bevformer_ros.inference.device_image import DeviceImage
from bevformer_ros.inference.image_plan import ImagePlan, decoding_reduction, image_from_bev
from bevformer_ros.inference.preprocessing import (
    Preprocessor,
    resize,
    sampling_points,
    undistort_on_device,
)
from bevformer_ros.lens import Lens, project, undistortion_maps
from bevformer_ros.model.config import ImageConfig
from bevformer_ros.types import CameraImage, SurroundFrame

CONFIG = ImageConfig()
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
BEHIND_BEV = geometry.transform_from_rpy((0, 0, 0), (-np.pi / 2, 0, 0))


def padded(plan):
    return tuple(-(-side // 32) * 32 for side in plan.size)


def photo(width, height, seed=0):
    """Noise over smooth structure: hard edges and gradients for the resize."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    return np.clip(image + random.integers(-30, 30, image.shape), 0, 255).astype(np.uint8)


def pinhole(width, height):
    return np.array([[0.8 * width, 0, width / 2 - 3], [0, 0.8 * width, height / 2 + 5], [0, 0, 1]])


def camera(width=1600, height=900, name="CAM_FRONT", seed=0, **changes):
    values = {"image": photo(width, height, seed), "intrinsics": pinhole(width, height), "camera_from_bev": BEHIND_BEV}
    return CameraImage(name, 0, **{**values, **changes})


def surround(*cameras):
    return SurroundFrame(0, cameras, np.eye(4))


def resized(image, plan, kind=torch.uint8):
    """(h, w, 3) of an image (H, W, 3); kind: uint8 as on a CPU, float32 as on a GPU."""
    left, top, right, bottom = plan.crop
    padding = ((max(-top, 0), max(bottom - image.shape[0], 0)), (max(-left, 0), max(right - image.shape[1], 0)), (0, 0))
    image = np.pad(image, padding)[max(top, 0) :, max(left, 0) :][: bottom - top, : right - left]
    return resize(torch.from_numpy(image.copy()).permute(2, 0, 1)[None].to(kind), plan)[0].permute(1, 2, 0).numpy()


def assert_as_pillow_resizes(actual, expected, unchanged=False, what="", share=1e-2):
    """The tolerance that the module states. share: of the values that may be off by one grey level."""
    difference = np.abs(actual.astype(np.float32) - expected)
    assert difference.max() <= (0 if unchanged else 2), what
    assert (difference > 0).mean() <= share, what
    assert (difference > 1).mean() <= 3e-5, what


def assert_projection(actual, expected, what, tolerance=1e-9):
    golden_cases.assert_equal(torch.from_numpy(np.asarray(actual)), expected, what, tolerance)


@pytest.mark.parametrize("path", golden_cases.variants("case4b_preprocessing_synthetic"))
def test_synthetic_golden(path):
    tensors, description = golden_cases.load(path)
    images, cam2img = tensors["inputs.img_uint8_bgr"].numpy(), tensors["inputs.cam2img"].numpy()
    for name, setting in description["notes"].items():
        expected = golden_cases.part(tensors, f"outputs.{name}.")
        plan = ImagePlan.to_height(tuple(setting["crop"]), setting["resize_dims"][1], setting["flip"])
        assert plan.size == tuple(setting["resize_dims"])
        for index, image in enumerate(images):
            # Bytes are resized with weights of few bits: it shows most in the 31 rows of the smallest case.
            for kind, share in ((torch.uint8, 1.3e-2), (torch.float32, 1e-2)):
                actual, pixels = resized(image, plan, kind), expected["uint8"][index].numpy()
                assert_as_pillow_resizes(actual, pixels, what=name, share=share)
            intrinsics = plan.intrinsics(cam2img[index, :3, :3])
            assert_projection(intrinsics, expected["cam2img"][index, :3, :3], name)
            projection = image_from_bev(intrinsics, tensors["inputs.lidar2cam"][index].numpy())
            assert_projection(projection, expected["lidar2img"][index], name)


@pytest.fixture(scope="module")
def keyframe(shared_directory):
    return keyframe_surround_frame(shared_directory / "data" / "nuscenes_frame")


@pytest.mark.parametrize("path", golden_cases.variants("case4"))
def test_real_keyframe_golden(path, keyframe):
    tensors, description = golden_cases.load(path)
    result = Preprocessor(CONFIG, torch.device("cpu"))(keyframe)

    assert result.images.shape == (1, 6, 3, 640, 1600)
    assert result.camera_valid.all()
    golden_cases.assert_equal(
        torch.from_numpy(result.image_from_bev), tensors["outputs.eval.lidar2img"], "lidar2img", 1e-6
    )
    assert_projection(result.intrinsics, tensors["outputs.eval.cam2img"][:, :3, :3], "cam2img")

    raw = description["notes"]["raw_decoded"]
    if hashlib.sha256(keyframe.cameras[0].image.tobytes()).hexdigest() != raw["CAM_FRONT"]["sha256_uint8_bgr"]:
        pytest.skip("this OpenCV decodes the JPEG to other pixels than the reference's did")
    images = result.images[0]
    front = tensors["outputs.eval.CAM_FRONT.uint8_bgr"].float() - torch.tensor(CONFIG.mean)
    assert torch.equal(images[0], front.permute(2, 0, 1))
    golden_cases.assert_equal(images[:, :, 100:132, 700:764], tensors["outputs.eval.crops_float32"], "crops", 1e-6)
    golden_cases.assert_equal(images.double().mean((2, 3)), tensors["outputs.eval.channel_mean"], "mean", 1e-6)


@pytest.mark.parametrize("path", golden_cases.variants("case4"))
def test_real_keyframe_resized_golden(path, keyframe):
    tensors, description = golden_cases.load(path)
    settings = {name: note for name, note in description["notes"].items() if name.startswith("resize")}
    assert settings
    for name, setting in settings.items():
        scale, size, crop, mirror = setting["CropResizeFlipImage_param"]
        expected = golden_cases.part(tensors, f"outputs.{name}.")
        plan = ImagePlan.to_height(tuple(crop), size[1], mirror)
        assert (plan.size, plan.scale) == (tuple(size), pytest.approx(scale))
        for index, entry in enumerate(keyframe.cameras):
            intrinsics = plan.intrinsics(entry.intrinsics)
            assert_projection(intrinsics, expected["cam2img"][index, :3, :3], name)
            projection = image_from_bev(intrinsics, tensors["inputs.lidar2cam"][index].numpy())
            assert_projection(projection, expected["lidar2img"][index], name)
        images = [resized(entry.image, plan) for entry in keyframe.cameras]
        share = np.prod(plan.size) / np.prod(padded(plan))  # the rest of the network's input is zero
        means = [(image.mean((0, 1), dtype=np.float64) - CONFIG.mean) * share for image in images]
        # 1 % of the values may be off by one grey level.
        np.testing.assert_allclose(np.stack(means), expected["channel_mean"].numpy(), rtol=0, atol=0.01, err_msg=name)
        if "CAM_FRONT.uint8_bgr_before_normalise" in expected:
            front = expected["CAM_FRONT.uint8_bgr_before_normalise"].numpy()
            for kind in (torch.uint8, torch.float32):
                assert_as_pillow_resizes(resized(keyframe.cameras[0].image, plan, kind), front, what=name)


@pytest.mark.parametrize(
    ("width", "height", "crop", "size"),
    [
        (1600, 900, (0, 260, 1600, 900), (1600, 640)),
        (1920, 1080, (0, 312, 1920, 1080), (1600, 640)),
        (800, 450, (0, 130, 800, 450), (1600, 640)),
        (1280, 960, (0, 448, 1280, 960), (1600, 640)),  # taller: the crop keeps to the bottom
        (2048, 1536, (0, 716, 2048, 1536), (1598, 640)),  # 819.2 rows do not exist: 820, and two columns of padding
        (1600, 500, (0, 0, 1600, 500), (1600, 500)),  # too low: the lower part of the input stays empty
    ],
)
def test_crop_rule_for_other_image_sizes(width, height, crop, size):
    plan = ImagePlan.for_size(CONFIG, width, height)
    assert (plan.crop, plan.size) == (crop, size)


@pytest.mark.parametrize(("width", "height"), [(1600, 900), (1920, 1080), (640, 480), (2048, 1536), (1600, 500)])
def test_a_point_stays_on_its_pixel(width, height):
    """A bright dot seen through the adapted intrinsics lies where the resized image shows it."""
    image = np.zeros((height, width, 3), np.uint8)
    u, v = round(0.7 * width), round(0.8 * height)
    cv2.circle(image, (u, v), round(0.01 * width), (255, 255, 255), -1)
    intrinsics = pinhole(width, height)
    point = np.linalg.inv(intrinsics) @ (u, v, 1) * 10
    result = Preprocessor(CONFIG, torch.device("cpu"))(surround(camera(image=image, intrinsics=intrinsics)))
    weights = result.images[0, 0, 0] - result.images[0, 0, 0].min()
    weights = torch.where(weights > 128, weights, 0.0).numpy()
    rows, columns = np.indices(weights.shape)
    seen = np.array([(columns * weights).sum(), (rows * weights).sum()]) / weights.sum()
    expected, _ = geometry.project(result.intrinsics[0], point)
    np.testing.assert_allclose(seen, expected, atol=1.0)


def test_image_below_which_nothing_is_left_is_refused():
    config = replace(CONFIG, crop=(0, 160, 1600, 800))
    with pytest.raises(ValueError, match="1600 x 100 has nothing left above the bottom 100 of 900 rows"):
        ImagePlan.for_size(config, 1600, 100)


@pytest.mark.parametrize(
    ("size", "height", "magnification", "reduction"),
    [
        ((1600, 900), 640, 1.0, 1),
        ((1600, 900), 321, 1.0, 1),
        ((1600, 900), 320, 1.0, 2),
        ((1600, 900), 320, 1.1, 1),  # a rectified image that is larger about the middle than its source
        ((3200, 1800), 320, 1.0, 4),
        ((6400, 3600), 160, 1.0, 4),
    ],
)
def test_no_image_is_decoded_smaller_than_the_network_takes_it(size, height, magnification, reduction):
    assert decoding_reduction(ImageConfig(height=height), size, magnification) == reduction


def test_an_image_that_the_preprocessor_refuses_is_decoded_in_full():
    config = ImageConfig(crop=(0, 340, 1600, 820), height=144)
    assert decoding_reduction(config, (1600, 900)) == 2
    assert decoding_reduction(config, (1600, 10)) == 1


def test_missing_camera_is_black_and_marked():
    result = Preprocessor(CONFIG, torch.device("cpu"))(surround(None, camera(800, 450, "CAM_BACK")))
    assert result.camera_valid.tolist() == [[False, True]]
    assert result.images[0, 0].abs().max() == 0
    assert result.images[0, 1].abs().max() > 0
    np.testing.assert_array_equal(result.image_from_bev[0], np.eye(4))


LENS = Lens("plumb_bob", (-0.28, 0.07, 0.0005, -0.0003, 0.0))
DISTORTION = np.array(LENS.coefficients)


def test_undistorted_points_lie_where_the_intrinsics_say():
    """Dots drawn through the distorted model come to lie on their pinhole projections."""
    intrinsics = pinhole(1600, 900)
    points = np.array([[-4.0, 0.5, 10], [3.5, 1.5, 10], [0.5, 2.0, 10]])
    pixels, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), intrinsics, DISTORTION)
    straight, _ = geometry.project(intrinsics, points)
    assert np.abs(pixels[:, 0] - straight).max() > 10
    for pixel, point in zip(pixels[:, 0], points, strict=True):
        image = np.zeros((900, 1600, 3), np.uint8)
        cv2.circle(image, np.round(pixel).astype(int).tolist(), 6, (255, 255, 255), -1)
        entry = camera(image=image, intrinsics=intrinsics, lens=LENS)
        result = Preprocessor(CONFIG, torch.device("cpu"))(surround(entry))
        weights = (result.images[0, 0, 0] - result.images[0, 0, 0].min()).numpy()
        rows, columns = np.indices(weights.shape)
        seen = np.array([(columns * weights).sum(), (rows * weights).sum()]) / weights.sum()
        expected, _ = geometry.project(result.intrinsics[0], point)
        np.testing.assert_allclose(seen, expected, atol=1.0)


def test_a_fisheye_becomes_the_pinhole_of_the_field_of_view():
    """Dots drawn where an equidistant lens has them, up to 55 degrees from its axis, come to lie where the intrinsics
    of the network's input say."""
    fisheye, intrinsics = Lens("equidistant", (0.02, -0.005, 0.0, 0.0)), pinhole(1600, 900)
    intrinsics[[0, 1], [0, 1]] = 400.0
    for angle in np.radians([-55.0, -20.0, 0.0, 40.0]):
        point = np.array([10 * np.sin(angle), 1.5, 10 * np.cos(angle)])
        image = np.zeros((900, 1600, 3), np.uint8)
        center = np.round(project(fisheye, intrinsics, point)).astype(int).tolist()
        cv2.circle(image, center, 6, (255, 255, 255), -1)
        entry = camera(image=image, intrinsics=intrinsics, lens=fisheye, field_of_view_deg=120.0)
        result = Preprocessor(CONFIG, torch.device("cpu"))(surround(entry))
        assert result.intrinsics[0, 0, 0] == pytest.approx(800 / np.tan(np.radians(60)))
        weights = (result.images[0, 0, 0] - result.images[0, 0, 0].min()).numpy()
        rows, columns = np.indices(weights.shape)
        seen = np.array([(columns * weights).sum(), (rows * weights).sum()]) / weights.sum()
        expected, _ = geometry.project(result.intrinsics[0], point)
        np.testing.assert_allclose(seen, expected, atol=1.5)


def test_maps_are_kept_until_the_calibration_changes(monkeypatch):
    made = []

    def noted(*arguments):
        made.append(arguments)
        return undistortion_maps(*arguments)

    monkeypatch.setattr(image_plan, "undistortion_maps", noted)
    preprocess = Preprocessor(CONFIG, torch.device("cpu"))
    entry = camera(320, 180, lens=LENS)
    for _ in range(3):
        preprocess(surround(entry))
    assert len(made) == 1
    preprocess(surround(replace(entry, lens=Lens("plumb_bob", (-0.3, 0.07, 0.0, 0.0)))))
    assert len(made) == 2


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (1280, 720), (2048, 1536), (640, 480), (1600, 900)])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])  # of a CPU, of a GPU
def test_resize_as_pillow_does(width, height, kind):
    pillow = pytest.importorskip("PIL.Image")
    image, plan = photo(width, height), ImagePlan.for_size(CONFIG, width, height)
    expected = pillow.fromarray(image).crop(plan.crop).resize(plan.size, pillow.Resampling.BICUBIC)
    assert_as_pillow_resizes(resized(image, plan, kind), np.asarray(expected), (width, height) == CONFIG.source_size)


# One of another size, one distorted, one missing, one a fisheye.
FISHEYE = camera(name="CAM_LEFT", seed=3, lens=Lens("equidistant", (0.02, -0.005, 0.0, 0.0)), field_of_view_deg=60.0)
DIFFERENT = (camera(), camera(1920, 1080, "CAM_BACK", seed=1), camera(seed=2, lens=LENS), None, FISHEYE)


def test_cameras_of_a_set_do_not_touch_each_other():
    preprocess = Preprocessor(CONFIG, torch.device("cpu"))
    for _ in range(2):  # the second time with what the first one kept
        actual = preprocess(surround(*DIFFERENT))
        assert actual.camera_valid.tolist() == [[True, True, True, False, True]]
        for index, entry in enumerate(DIFFERENT):
            if entry is None:
                continue
            alone = Preprocessor(CONFIG, torch.device("cpu"))(surround(entry))
            assert torch.equal(actual.images[0, index], alone.images[0, 0])
            np.testing.assert_array_equal(actual.image_from_bev[index], alone.image_from_bev[0])


@NEEDS_CUDA
def test_a_gpu_prepares_the_same():
    frame = surround(*DIFFERENT)
    expected = Preprocessor(CONFIG, torch.device("cpu"))(frame)
    preprocess = Preprocessor(CONFIG, torch.device("cuda"))
    for _ in range(2):  # the second time with what the first one kept
        actual = preprocess(frame)
        difference = (actual.images.cpu() - expected.images).abs()
        assert difference[0, [0, 1, 3]].max() <= 2.001
        assert difference[0, [2, 4]].max() <= 10
        assert np.array_equal(actual.camera_valid, expected.camera_valid)
        np.testing.assert_array_equal(actual.image_from_bev, expected.image_from_bev)


@pytest.fixture
def gpu(monkeypatch):
    with PretendedGpu(monkeypatch) as pretended:
        yield pretended


def test_images_on_the_gpu_are_prepared_as_those_of_the_host_are_and_never_leave_it(gpu, monkeypatch):
    frame = surround(*DIFFERENT)
    expected = Preprocessor(CONFIG, torch.device("cuda"))(frame)
    on_gpu = [
        None if entry is None else replace(entry, image=DeviceImage(torch.from_numpy(entry.image)))
        for entry in DIFFERENT
    ]
    monkeypatch.setattr(DeviceImage, "__array__", None)
    gpu.pinned = 0
    actual = Preprocessor(CONFIG, torch.device("cuda"))(surround(*on_gpu))
    assert torch.equal(actual.images, expected.images)
    assert np.array_equal(actual.camera_valid, expected.camera_valid)
    assert gpu.pinned == 0


def test_an_image_on_a_gpu_of_a_network_on_the_cpu():
    expected, actual = (
        Preprocessor(CONFIG, torch.device("cpu"))(surround(replace(camera(lens=LENS), image=image)))
        for image in (photo(1600, 900), DeviceImage(torch.from_numpy(photo(1600, 900))))
    )
    assert torch.equal(actual.images, expected.images)


def test_device_undistorts_like_opencv():
    """Which samples at 32nds of a pixel: a few grey levels on noise."""
    entry = camera(lens=LENS)
    maps = cv2.initUndistortRectifyMap(
        entry.intrinsics, DISTORTION, np.eye(3), entry.intrinsics, (1600, 900), cv2.CV_32FC1
    )
    crop = slice(260, 900), slice(100, 1500)
    expected = cv2.remap(entry.image, *maps, interpolation=cv2.INTER_LINEAR)[crop]
    points = sampling_points(maps, (1600, 900), crop)
    difference = np.abs(undistort_on_device(torch.from_numpy(entry.image), points).numpy() - expected)
    assert difference.max() <= 10
    assert difference.mean() <= 1


@pytest.mark.parametrize(
    "changes", [{}, {"lens": LENS}, {"field_of_view_deg": 50.0}], ids=["pinhole", "bent", "zoomed"]
)
def test_masks_become_the_mean_colour_and_nothing_else_changes(changes):
    """The mask is where the image, painted white in it, is white: up to the pixels about its edge."""
    mask = ((500.0, 500.0), (900.0, 480.0), (1000.0, 820.0), (450.0, 860.0))
    painted = np.zeros((900, 1600, 3), np.uint8)
    cv2.fillPoly(painted, [np.array(mask, np.int32)], (255, 255, 255))
    preprocess = Preprocessor(ImageConfig(height=320), torch.device("cpu"))
    prepared = [
        preprocess(surround(entry))
        for entry in (camera(**changes), camera(image=painted, **changes), camera(masks=(mask,), **changes))
    ]
    plain, white, masked = (entry.images[0, 0] for entry in prepared)
    inside, outside = (white > 100).all(dim=0), (white < -50).all(dim=0)
    assert inside.sum() > 1000
    assert (masked[:, inside] == 0).all()
    assert torch.equal(masked[:, outside], plain[:, outside])
    assert prepared[0].seen is None and prepared[2].seen is not None
    seen = prepared[2].seen[0, 0]
    assert seen[outside].all() and not seen[inside].any()
