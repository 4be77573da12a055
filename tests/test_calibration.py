"""Data to run a model on: the forms that it may have, and what is said of others."""

from __future__ import annotations

import numpy as np
import pytest

from flatfold.calibration import digest, read_calibration
from flatfold.errors import InputError
from flatfold.images import MOST_RUNS, Images
from flatfold.proof.network.inputs import InputSpec

IMAGE = InputSpec("x", "float32", (1, 3, 4, 4))
OPEN = InputSpec("x", "float32", ("n", 3, None, None))
PAIR = [InputSpec("x", "float32", (2, 3)), InputSpec("i", "int64", (2,))]

RNG = np.random.default_rng(0)


def samples(count: int, *shape: int) -> np.ndarray:
    return RNG.standard_normal((count, *shape)).astype(np.float32)


@pytest.mark.parametrize("spec", [IMAGE, OPEN])
def test_samples_along_the_first_axis_are_single_runs(spec: InputSpec, tmp_path) -> None:
    data = samples(5, 3, 4, 4)
    np.savez(tmp_path / "named.npz", x=data)
    np.savez(tmp_path / "unnamed.npz", data)
    np.save(tmp_path / "data.npy", data)
    forms = [data, {"x": data}, data.astype(np.float64)]
    forms += [str(tmp_path / name) for name in ("named.npz", "unnamed.npz", "data.npy")]
    for form in forms:
        runs = read_calibration(form, [spec])
        assert len(runs) == 5
        np.testing.assert_array_equal(np.concatenate([feeds["x"] for feeds in runs]), data)
        assert all(feeds["x"].dtype == np.float32 for feeds in runs)


def test_the_batch_of_the_model_is_kept() -> None:
    data = {"x": samples(5, 3), "i": np.arange(5)}
    runs = read_calibration(data, PAIR)
    assert [len(feeds["x"]) for feeds in runs] == [2, 2]  # the fifth has no partner
    np.testing.assert_array_equal(runs[1]["i"], [2, 3])


def test_an_iterable_has_one_run_after_the_other() -> None:
    feeds = ({"x": samples(1, 3, 4, 4)} for _ in range(1000))
    assert len(read_calibration(feeds, [IMAGE])) == MOST_RUNS
    sizes = [samples(1, 3, n, n) for n in (4, 6)]
    assert [run["x"].shape[2] for run in read_calibration(sizes, [OPEN])] == [4, 6]


def test_torch_tensors_are_arrays() -> None:
    torch = pytest.importorskip("torch")
    assert len(read_calibration(torch.zeros(3, 3, 4, 4), [IMAGE])) == 3


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (samples(2, 3, 5, 4), "expected samples of shape"),
        (samples(2, 3), "expected samples of shape"),
        ({"y": samples(2, 3, 4, 4), "z": samples(2)}, "expected arrays for the inputs x"),
        (np.zeros((1, 3, 4, 4), np.int64), "expected float32, found int64"),
        (np.full((1, 3, 4, 4), np.nan, np.float32), "finite"),
        ([], "found none"),
        (7, "found int"),
        ("/nowhere/data.npz", "no such file"),
    ],
)
def test_what_does_not_fit_is_said(data: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_calibration(data, [IMAGE])


def test_files_that_are_no_arrays(tmp_path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"expected an \.npz or \.npy file"):
        read_calibration(path, [IMAGE])
    with pytest.raises(InputError, match="found one array"):
        read_calibration(samples(2, 3), PAIR)
    with pytest.raises(InputError, match="at least 2 samples"):
        read_calibration({"x": samples(1, 3), "i": np.arange(1)}, PAIR)


def test_the_digest_follows_every_number() -> None:
    data = samples(2, 3, 4, 4)
    other = data.copy()
    other[1, 2, 3, 3] = np.nextafter(other[1, 2, 3, 3], np.float32(9))
    one, two, three = (digest(read_calibration(d, [IMAGE])) for d in (data, data.copy(), other))
    assert one == two != three


def photographs(folder, sizes=((8, 12), (12, 8), (8, 8))) -> None:
    image_type = pytest.importorskip("PIL.Image")
    for number, (height, width) in enumerate(sizes):
        pixels = np.full((height, width, 3), (255, 51, 0), np.uint8)
        image_type.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "notes.txt").write_text("no image")


def test_a_folder_of_images_is_a_run_for_each(tmp_path) -> None:
    photographs(tmp_path)
    runs = read_calibration(str(tmp_path), [IMAGE])
    assert [run["x"].shape for run in runs] == [(1, 3, 4, 4)] * 3
    np.testing.assert_allclose(runs[0]["x"][0, :, 1, 1], [1, 0.2, 0], atol=1e-7)
    scaled = Images(tmp_path, mean=(0.5, 0.2, 0.1), std=(0.5, 1, 0.1)).read([IMAGE])
    np.testing.assert_allclose(scaled[1][0, :, 0, 3], [1, 0, -1], atol=1e-6)


def test_images_have_the_layout_and_the_size_of_the_input(tmp_path) -> None:
    photographs(tmp_path)
    last = InputSpec("x", "float32", (1, 5, 6, 1))
    assert read_calibration(tmp_path, [last])[0]["x"].shape == (1, 5, 6, 1)
    (one, *_) = read_calibration(Images(tmp_path, size=(6, 4)), [OPEN])
    assert one["x"].shape == (1, 3, 6, 4)


def test_of_many_images_some_are_taken_evenly(tmp_path) -> None:
    photographs(tmp_path, [(4, 4)] * (MOST_RUNS + 9))
    assert len(read_calibration(tmp_path, [IMAGE])) == MOST_RUNS


def test_what_is_no_image_is_said(tmp_path) -> None:
    with pytest.raises(InputError, match="expected images"):
        read_calibration(tmp_path, [IMAGE])
    photographs(tmp_path)
    with pytest.raises(InputError, match="expected a size"):
        read_calibration(tmp_path, [OPEN])
    with pytest.raises(InputError, match="1 or 3 channels"):
        read_calibration(tmp_path, PAIR)
    with pytest.raises(InputError, match="expected 3 numbers as mean, found 2"):
        Images(tmp_path, mean=(1, 2)).read([IMAGE])
    (tmp_path / "0.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match="expected an image"):
        read_calibration(tmp_path, [IMAGE])
