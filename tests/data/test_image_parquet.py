"""Published image-parquet layouts, and each way in which a file can be malformed."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amnesiac.data import Samples, load_samples
from amnesiac.errors import DataError
from amnesiac.settings import DataSettings

Write = Callable[..., Path]


def load(path: Path, **settings: object) -> Samples:
    values = {"source": "image-parquet", "path": path, **settings}
    return load_samples(DataSettings.model_validate(values), None, seed=0)


def two_classes(n: int) -> list[int]:
    return [k % 2 for k in range(n)]


@pytest.mark.parametrize("column", ["img", "image"])
def test_one_file(tmp_path: Path, write_parquet: Write, pixels: np.ndarray, column: str) -> None:
    path = write_parquet(tmp_path / "faces 1.parquet", pixels[:10], column, label=two_classes(10))
    samples = load(path)
    assert np.array_equal(samples.images[:, 0], pixels[:10])
    assert samples.labels.tolist() == two_classes(10)
    assert samples.class_names == ("0", "1")
    assert samples.sample_ids[9] == "faces-1-00009"
    assert samples.test is None


def test_limit_across_row_groups_decodes_only_what_it_keeps(
    tmp_path: Path, write_parquet: Write, pixels: np.ndarray
) -> None:
    images = [*pixels[:6], b"not an image", b"not an image"]
    path = write_parquet(tmp_path / "a.parquet", images, label=[0, 0, 0, 0, 0, 1, 1, 1], row_group_size=3)
    samples = load(path, limit=2)
    assert samples.sample_ids == ("a-00000", "a-00005")
    assert np.array_equal(samples.images[:, 0], pixels[[0, 5]])
    with pytest.raises(
        DataError, match=r"a.parquet: row 6: corrupt image \(unknown format\): replace the image, or remove the row"
    ):
        load(path, limit=4)


def test_train_and_test_files_with_ids_subjects_and_names(
    tmp_path: Path, write_parquet: Write, pixels: np.ndarray
) -> None:
    for name, part in (("train-0", slice(0, 4)), ("train-1", slice(4, 8)), ("test", slice(8, 12))):
        rows = range(60)[part]
        write_parquet(
            tmp_path / f"{name}.parquet",
            pixels[part],
            metadata={"kind_names": "cat,dog"},
            kind=two_classes(4),
            sample_id=[f"s{row}" for row in rows],
            who=[row // 3 for row in rows],
        )
    samples = load(tmp_path, label_column="kind", subject_column="who")
    assert samples.sample_ids == tuple(f"s{row}" for row in range(12))
    assert samples.subject_ids == tuple(str(row // 3) for row in range(12))
    assert samples.class_names == ("cat", "dog")
    assert samples.test is not None
    assert samples.test.tolist() == [False] * 8 + [True] * 4
    assert np.array_equal(samples.images[:, 0], pixels[:12])


def test_class_names_of_hugging_face_metadata(tmp_path: Path, write_parquet: Write, pixels: np.ndarray) -> None:
    features = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    assert load(
        write_parquet(tmp_path / "a.parquet", pixels[:4], metadata=metadata, label=[0, 1, 1, 0])
    ).class_names == (
        "no",
        "yes",
    )


def test_text_labels(tmp_path: Path, write_parquet: Write, pixels: np.ndarray) -> None:
    samples = load(write_parquet(tmp_path / "a.parquet", pixels[:3], label=["dog", "cat", "dog"]))
    assert samples.class_names == ("cat", "dog")
    assert samples.labels.tolist() == [1, 0, 1]


def test_text_label_that_is_no_class(tmp_path: Path, write_parquet: Write, pixels: np.ndarray) -> None:
    names = {"label_names": "cat,dog"}
    path = write_parquet(tmp_path / "a.parquet", pixels[:3], metadata=names, label=["dog", "cat", "dgo"])
    with pytest.raises(DataError, match=r"a.parquet: row 2: label 'dgo' isn't among the class names .*: correct it"):
        load(path)


def test_colour_images_keep_their_channels(tmp_path: Path, write_parquet: Write) -> None:
    image = np.zeros((5, 7, 3), np.uint8)
    image[..., 0], image[1, 2, 2] = 200, 90
    samples = load(write_parquet(tmp_path / "a.parquet", [image], label=[0]))
    assert samples.images.shape == (1, 3, 5, 7)
    assert samples.images[0, :, 1, 2].tolist() == [200, 0, 90]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, None, 1], r"a.parquet: row 2: the label is missing \(NaN\)"),
        ([0.0, 1.0, float("nan"), 1.0], r"a.parquet: row 2: the label is missing \(NaN\)"),
        (["x", "y", None, "y"], r"a.parquet: row 2: the label is missing or not text"),
        ([0, 1, -2, 1], r"a.parquet: row 2: label -2 is out of range"),
        ([0, 1, 10**12, 1], r"a.parquet: row 2: label 1000000000000 is out of range: number the classes"),
        ([0, 2, 2, 0], r"image-parquet .*a.parquet: no training sample of class '1' \(label 1\): add samples"),
    ],
)
def test_malformed_labels(
    tmp_path: Path, write_parquet: Write, pixels: np.ndarray, labels: list[object], message: str
) -> None:
    path = write_parquet(tmp_path / "a.parquet", pixels[:4], label=labels)
    with pytest.raises(DataError, match=message):
        load(path)


def test_row_is_counted_in_its_own_file(tmp_path: Path, write_parquet: Write, pixels: np.ndarray) -> None:
    write_parquet(tmp_path / "a.parquet", pixels[:4], metadata={"label_names": "x,y"}, label=two_classes(4))
    write_parquet(tmp_path / "b.parquet", pixels[:2], metadata={"label_names": "x,y"}, label=[0, 5])
    with pytest.raises(DataError, match=r"b.parquet: row 1: label 5 is out of range 0 to 1"):
        load(tmp_path)


def test_class_without_a_sample_though_named(tmp_path: Path, write_parquet: Write, pixels: np.ndarray) -> None:
    path = write_parquet(tmp_path / "a.parquet", pixels[:4], metadata={"label_names": "x,y,z"}, label=two_classes(4))
    with pytest.raises(DataError, match=r"no training sample of class 'z' \(label 2\)"):
        load(path)


def test_duplicate_ids_in_two_files(tmp_path: Path, write_parquet: Write, pixels: np.ndarray) -> None:
    write_parquet(tmp_path / "a.parquet", pixels[:2], label=[0, 1], sample_id=["p", "q"])
    write_parquet(tmp_path / "b.parquet", pixels[:2], label=[0, 1], sample_id=["r", "p"])
    with pytest.raises(DataError, match=r"b.parquet: row 1: sample id 'p' is already used by .*a.parquet: row 0: give"):
        load(tmp_path)


def test_malformed_subjects(tmp_path: Path, write_parquet: Write, pixels: np.ndarray) -> None:
    path = write_parquet(tmp_path / "a.parquet", pixels[:3], label=[0, 1, 0], who=["x", None, "y"], score=[0.5, 1, 2])
    with pytest.raises(DataError, match=r"a.parquet: row 1: subject id '' must be 1 to 64"):
        load(path, subject_column="who")
    with pytest.raises(DataError, match=r"a.parquet: column 'score' is double: save ids as text or integers"):
        load(path, subject_column="score")


def test_missing_columns(tmp_path: Path, write_parquet: Write, pixels: np.ndarray) -> None:
    path = write_parquet(tmp_path / "a.parquet", pixels[:2], fine=[0, 1])
    with pytest.raises(DataError, match=r"a.parquet: column 'label' is missing \(it has \['img', 'fine'\]\): name the"):
        load(path)
    with pytest.raises(DataError, match=r"column 'who' is missing .* data.subject_column"):
        load(path, label_column="fine", subject_column="who")
    pq.write_table(pa.table({"picture": [b"x"], "label": [0]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b.parquet: no image column \(it has \['picture', 'label'\]\): name it img"):
        load(tmp_path / "b.parquet")
    pq.write_table(pa.table({"img": [b"x"], "label": [0]}), tmp_path / "c.parquet")
    with pytest.raises(DataError, match=r"c.parquet: column 'img' is binary: make it a struct of bytes and path"):
        load(tmp_path / "c.parquet")


def test_corrupt_and_missing_images(
    tmp_path: Path, write_parquet: Write, pixels: np.ndarray, encode: Callable[[np.ndarray], bytes]
) -> None:
    whole = encode(pixels[2])
    for bad in (b"", b"GIF89a", whole[: len(whole) // 2], whole[:40] + b"\0" * 40 + whole[80:]):
        path = write_parquet(tmp_path / "a.parquet", [*pixels[:2], bad], label=[0, 1, 1])
        with pytest.raises(DataError, match=r"a.parquet: row 2: corrupt image \(.*\): replace the image"):
            load(path)
    path = write_parquet(tmp_path / "a.parquet", [pixels[0], None, pixels[1]], label=[0, 1, 1])
    with pytest.raises(DataError, match=r"a.parquet: row 1: has no image bytes: embed the image"):
        load(path)


def test_images_of_different_shapes(tmp_path: Path, write_parquet: Write, pixels: np.ndarray) -> None:
    path = write_parquet(tmp_path / "a.parquet", [pixels[0], pixels[1], pixels[2][:20]], label=[0, 1, 1])
    with pytest.raises(
        DataError, match=r"row 2: the image is \[1, 20, 28\] .* row 0 is \[1, 28, 28\]: bring all images"
    ):
        load(path)


def test_sixteen_bit_image(tmp_path: Path, write_parquet: Write, pixels: np.ndarray) -> None:
    path = write_parquet(tmp_path / "a.parquet", [pixels[0].astype(np.uint16) * 256], label=[0])
    with pytest.raises(DataError, match=r"row 0: image mode I;16 has more than 8 bits a channel: convert it"):
        load(path)


def test_files_that_are_no_parquet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no parquet file: name a .parquet file or a folder"):
        load(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(DataError, match=r"a.parquet: can't be read as parquet \(.*\): write or download it again"):
        load(tmp_path)


def test_damaged_page_is_refused(tmp_path: Path, write_parquet: Write, pixels: np.ndarray) -> None:
    path = write_parquet(tmp_path / "a.parquet", pixels[:4], label=two_classes(4))
    data = bytearray(path.read_bytes())
    data[4:60] = b"\xff" * 56  # the first page is the images'
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a.parquet: (can't be read|row \d: corrupt image)"):
        load(path)


def test_stray_file_beside_train_and_test(tmp_path: Path, write_parquet: Write, pixels: np.ndarray) -> None:
    for name in ("train", "test", "validation"):
        write_parquet(tmp_path / f"{name}.parquet", pixels[:2], label=[0, 1])
    with pytest.raises(DataError, match=r"validation.parquet: is neither a train nor a test file .*: rename it"):
        load(tmp_path)


def test_class_names_of_two_files_differ(tmp_path: Path, write_parquet: Write, pixels: np.ndarray) -> None:
    write_parquet(tmp_path / "a.parquet", pixels[:2], metadata={"label_names": "x,y"}, label=[0, 1])
    write_parquet(tmp_path / "b.parquet", pixels[:2], metadata={"label_names": "y,x"}, label=[0, 1])
    with pytest.raises(DataError, match=r"b.parquet: class names in the schema differ from .*a.parquet"):
        load(tmp_path)


def test_broken_hugging_face_metadata(tmp_path: Path, write_parquet: Write, pixels: np.ndarray) -> None:
    path = write_parquet(tmp_path / "a.parquet", pixels[:2], metadata={"huggingface": "{"}, label=[0, 1])
    with pytest.raises(DataError, match="a.parquet: schema metadata 'huggingface' isn't JSON"):
        load(path)


def test_file_without_rows(tmp_path: Path, write_parquet: Write) -> None:
    path = write_parquet(tmp_path / "a.parquet", [], label=pa.array([], pa.int64()))
    with pytest.raises(DataError, match="a.parquet: holds no samples: name a source"):
        load(path)
