import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode, autoaugment

from mlbench.data import transforms
from mlbench.data.augmentation import Cutout, MultiScaleCrop, RandAugment, RandomResizedCrop, View
from mlbench.data.operations import OPERATIONS
from mlbench.data.transforms import STEPS, train_transform
from mlbench.types import Augmentation, Preprocessing, Settings, SuiteError

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8))
AUGMENTATIONS = {
    "flip": {"p": 0.5},
    "resize": {},
    "random_resized_crop": {"scale": (0.3, 1.0)},
    "multi_scale_crop": {},
    "random_choice_crop": {"resize": 48, "sizes": (48, 40, 32)},
    "rand_augment": {},
    "cutout": {},
}
VIEW = View(size=32, resize=32)


def tensor(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def picture(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


IMAGE = tensor(PICTURE)


def settings(*steps, size=32, resize=None, decoder="turbo", **more):
    return Settings(
        head="gap",
        decoder=decoder,
        image_size=size,
        preprocessing=Preprocessing(resize=resize, **more),
        augmentation=tuple(Augmentation(name=name, options=options) for name, options in steps),
    )


def random(seed=0):
    return np.random.default_rng(seed)


def at_test(chosen, image=IMAGE):
    return transforms.make_view(chosen)(image)


# -------------------------------------------------------------------------------------- decoders
SHAPES = [(1, 1), (1, 50), (300, 7), (61, 43), (480, 333)]


@pytest.mark.parametrize("steps", AUGMENTATIONS.items(), ids=AUGMENTATIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_decoders_draw_alike_and_differ_by_a_grey_level(shape, steps):
    whole = train_transform(settings(steps))
    if steps[0] == "rand_augment":  # equalize may turn one level into many
        steps = ("rand_augment", {"num_ops": 0})
    smooth = np.cumsum(random().integers(-9, 10, (*shape, 3)), 1) + 128
    image = tensor(Image.fromarray(smooth.clip(0, 255).astype(np.uint8)))
    ours, pillows = (train_transform(settings(steps, decoder=d)) for d in ("turbo", "pillow"))
    for seed in range(5):
        assert whole(image, random(seed)).shape == (3, 32, 32)
        difference = ours(image, random(seed)).int() - pillows(image, random(seed)).int()
        assert difference.abs().max() <= (2 if "choice" in steps[0] else 1), "two resizes add up"


def test_decoders_differ_by_two_grey_levels_at_most_when_they_enlarge_bicubically():
    chosen = settings(size=150, interpolation="bicubic")
    pillows = at_test(settings(size=150, interpolation="bicubic", decoder="pillow"))
    assert (at_test(chosen).int() - pillows.int()).abs().max() <= 2


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("name", ["random_resized_crop", "multi_scale_crop", "random_choice_crop"])
def test_a_batch_is_resized_together_as_one_by_one(name, interpolation):
    smooth = [np.cumsum(random(h).integers(-9, 10, (h, w, 3)), 1) + 128 for h, w in SHAPES]
    images = [tensor(Image.fromarray(x.clip(0, 255).astype(np.uint8))) for x in smooth]
    for resize in (None, 80):
        steps = (name, AUGMENTATIONS[name]), ("flip", {})
        for some in (steps, steps[::-1]):
            transform = train_transform(settings(*some, interpolation=interpolation, resize=resize))
            found = transform.batch(images, [random(i) for i in range(len(images))])
            want = torch.stack([transform(image, random(i)) for i, image in enumerate(images)])
            assert found.dtype == torch.uint8 and found.shape == want.shape
            off = (found.int() - want.int()).abs().max()
            assert off <= (1 if interpolation == "bilinear" else 2)


# -------------------------------------------------------------------------------------- test time
@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_squash_is_pillows_resize(name):
    pixels = at_test(settings(size=32, interpolation=name, decoder="pillow"))
    wanted = np.asarray(PICTURE.resize((32, 32), Image.Resampling[name.upper()]))
    assert pixels.dtype == torch.uint8
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), wanted)


def test_the_view_is_cut_from_the_centre():
    pixels = at_test(settings(size=32, resize=40, decoder="pillow")).permute(1, 2, 0).numpy()
    square = np.asarray(PICTURE.resize((40, 40), Image.Resampling.BILINEAR))
    assert np.array_equal(pixels, square[4:36, 4:36])


def test_a_view_larger_than_what_it_is_cut_from_is_refused():
    with pytest.raises(SuiteError, match="resize 224 is smaller than image_size 256"):
        at_test(settings(size=256, resize=224))


# ---------------------------------------------------------------------------------- training time
def test_flip_alone_keeps_the_geometry_of_test_time():
    chosen = settings(("flip", {"p": 1.0}), size=32, resize=40)
    assert torch.equal(train_transform(chosen)(IMAGE, random()).flip(2), at_test(chosen))
    for never in ((), [("flip", {"p": 0.0})]):
        still = train_transform(settings(*never, size=32, resize=40))
        assert torch.equal(still(IMAGE, random()), at_test(chosen))


@pytest.mark.parametrize("name", STEPS)
def test_a_step_depends_on_its_generator_and_on_nothing_else(name):
    transform = train_transform(settings((name, AUGMENTATIONS[name])))
    first = [transform(IMAGE, random(seed)) for seed in range(8)]
    np.random.seed(1)  # noqa: NPY002 - shows that the global state plays no part
    torch.manual_seed(1)
    assert all(torch.equal(a, transform(IMAGE, random(seed))) for seed, a in enumerate(first))
    assert any(not torch.equal(first[0], other) for other in first[1:]) == (name != "resize")
    assert all(image.shape == (3, 32, 32) and image.dtype == torch.uint8 for image in first)


sides = st.integers(1, 2000)
fractions = st.floats(0.01, 1)


@given(
    width=sides,
    height=sides,
    scales=st.lists(fractions, min_size=1, max_size=6),
    distort=st.integers(0, 5),
    seed=st.integers(0, 999),
)
def test_multi_scale_crop_stays_inside(width, height, scales, distort, seed):
    step = MultiScaleCrop(scales=tuple(scales), max_distort=distort)
    left, top, right, bottom = step.box(width, height, random(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    sizes = [max(1, int(min(width, height) * scale)) for scale in scales]
    assert any(
        (right - left, bottom - top) == (w, h) and abs(i - j) <= distort
        for i, w in enumerate(sizes)
        for j, h in enumerate(sizes)
    )


def test_multi_scale_crop_uses_all_thirteen_places():
    step = MultiScaleCrop(scales=(0.5,), max_distort=0)
    boxes = {step.box(80, 80, random(seed))[:2] for seed in range(500)}
    quarters = {(x / 10, y / 10) for x, y in boxes}
    corners_edges_centre = {(x, y) for x in (0, 2, 4) for y in (0, 2, 4)}
    assert quarters == corners_edges_centre | {(1, 1), (1, 3), (3, 1), (3, 3)}


@given(
    width=sides,
    height=sides,
    scale=st.tuples(fractions, fractions).map(sorted).map(tuple),
    ratio=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)).map(sorted).map(tuple),
    seed=st.integers(0, 999),
)
def test_random_resized_crop_stays_inside(width, height, scale, ratio, seed):
    step = RandomResizedCrop(scale=scale, ratio=ratio)
    left, top, right, bottom = step.box(width, height, random(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_a_box_that_fits_no_drawn_aspect_is_the_widest_one_in_the_centre():
    step = RandomResizedCrop(scale=(1, 1))
    assert step.box(1000, 12, random()) == (492, 0, 508, 12)
    assert step.box(12, 1000, random()) == (0, 492, 12, 508)


def test_random_resized_crop_keeps_to_its_areas_and_aspects():
    step = RandomResizedCrop(scale=(0.7, 1.0))
    boxes = np.array([step.box(400, 400, random(seed)) for seed in range(300)])
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert (w * h / 160_000).min() == pytest.approx(0.7, abs=0.03)
    assert (w * h / 160_000).max() > 0.95
    assert np.abs(np.log(w / h)).max() <= np.log(4 / 3) + 0.01


def test_random_choice_crop_uses_every_size_and_reaches_every_edge():
    ramp = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))).convert("RGB")
    image = tensor(ramp)
    transform = train_transform(settings(("random_choice_crop", {"resize": 64, "sizes": (64, 32)})))
    ends = [
        (int(x[0, 0, 0]), int(x[0, 0, -1]))
        for x in (transform(image, random(i)) for i in range(300))
    ]
    assert {round((last - first) / 4 / 31) for first, last in ends} == {1, 2}
    assert min(first for first, _ in ends) == 0
    assert max(first for first, last in ends if last - first < 200) == 128


def test_multi_scale_crop_may_squash_first():
    chosen = settings(("multi_scale_crop", {"scales": (1.0,), "resize": 40}), decoder="pillow")
    square = PICTURE.resize((40, 40), Image.Resampling.BILINEAR)
    wanted = np.asarray(square.resize((32, 32), Image.Resampling.BILINEAR))
    assert np.array_equal(train_transform(chosen)(IMAGE, random()).permute(1, 2, 0).numpy(), wanted)


# ------------------------------------------------------------------------------------ distortions
def test_after_resize_a_step_sees_the_pixels_that_the_model_sees():
    white = tensor(Image.new("RGB", (200, 50), "white"))
    painted = ("cutout", {"factor": 0.5, "fill": (0, 0, 0)})

    def shades(*steps):
        transform = train_transform(settings(*steps, size=31))
        return {v for i in range(20) for v in transform(white, random(i)).unique().tolist()}

    assert shades(("resize", {}), painted) == {0, 255}
    assert len(shades(painted)) > 2, "an edge painted before the resize is blurred by it"


def test_cutout_paints_one_box_around_a_random_pixel():
    black = tensor(Image.new("RGB", (60, 40)))
    step = Cutout(factor=0.4, fill=(9, 9, 9))
    masks = [step(black, random(i), VIEW)[0].numpy() == 9 for i in range(500)]
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == len(rows) * len(columns) > 0, "one filled box"
        assert len(rows) == np.ptp(rows) + 1 and len(columns) == np.ptp(columns) + 1
    assert max(mask.sum() for mask in masks) == 16 * 24
    assert min(mask.sum() for mask in masks) < 0.5 * 16 * 24, "a part may lie outside"
    assert np.all(np.any(masks, axis=0)), "it reaches every pixel"


def test_cutout_happens_as_often_as_asked_and_draws_its_colour():
    black = tensor(Image.new("RGB", (8, 8)))
    step = Cutout(p=0.25, factor=1.0)
    colours = [tuple(step(black, random(i), VIEW)[:, 4, 4].tolist()) for i in range(400)]
    painted = [colour for colour in colours if colour != (0, 0, 0)]
    assert 60 < len(painted) < 140
    assert len(set(painted)) > 50


def torchvisions(name, magnitude, sign):
    """The operation as torchvision has it."""
    known = autoaugment.RandAugment()._augmentation_space(31, (PICTURE.height, PICTURE.width))
    wanted = "".join(word.title() for word in name.split("_"))
    strengths, signed = known[wanted]
    strength = float(strengths[magnitude]) if strengths.ndim else 0.0
    strength *= sign if signed else 1
    return autoaugment._apply_op(
        PICTURE, wanted, strength, InterpolationMode.NEAREST, [128, 128, 128]
    )


@pytest.mark.parametrize("magnitude", [1, 9, 17, 30])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_torchvisions(name, magnitude):
    ours = [OPERATIONS[name](IMAGE, s * magnitude / 30, (128, 128, 128)) for s in (1, -1)]
    theirs = [torchvisions(name, magnitude, sign) for sign in (1, -1)]
    assert [picture(image).tobytes() for image in ours] in (
        [image.tobytes() for image in theirs],
        [image.tobytes() for image in theirs[::-1]],
    )


def distorted(image, strength):
    """Everything that one operation can make of a picture."""
    made = [
        operation(image, s * strength, (128, 128, 128))
        for operation in OPERATIONS.values()
        for s in (1, -1)
    ]
    return {one.numpy().tobytes(): one for one in made}


def test_rand_augment_draws_every_operation_in_both_directions():
    step = RandAugment(num_ops=1, magnitude=20)
    drawn = {step(IMAGE, random(seed), VIEW).numpy().tobytes() for seed in range(500)}
    assert drawn == set(distorted(IMAGE, 20 / 30))


def test_rand_augment_applies_as_many_operations_as_asked():
    assert RandAugment(num_ops=0)(IMAGE, random(), VIEW) is IMAGE
    small = IMAGE[:, :9, :12]
    once = distorted(small, 0.5)
    twice = {pixels for image in once.values() for pixels in distorted(image, 0.5)}
    step = RandAugment(num_ops=2, magnitude=15)
    drawn = {step(small, random(seed), VIEW).numpy().tobytes() for seed in range(200)}
    assert drawn <= twice
    assert len(drawn - set(once)) > 50


# ------------------------------------------------------------------------------------ wrong input
@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([("flipp", {})], r"unknown augmentation step 'flipp'; did you mean flip\?"),
        ([("flip", {"q": 1})], "augmentation step 'flip': unknown option 'q'; known: p"),
        ([("flip", {"p": 1.5})], "'flip': p = 1.5: .*less than or equal to 1"),
        ([("random_resized_crop", {"scale": (0.9, 0.5)})], "must not be above the second"),
        ([("random_choice_crop", {"resize": 64, "sizes": (65,)})], "does not fit into resize 64"),
        ([("resize", {}), ("multi_scale_crop", {})], r"crops twice \(Resize, MultiScaleCrop\)"),
    ],
)
def test_a_wrong_step_is_named(steps, message):
    with pytest.raises(SuiteError, match=message):
        train_transform(settings(*steps))
