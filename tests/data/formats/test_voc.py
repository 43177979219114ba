from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats.source import Source
from rtdetrv2_train.data.formats.voc import FORMAT
from rtdetrv2_train.data.images.decode import Exif
from rtdetrv2_train.errors import UserError

HEIGHT, WIDTH = 100, 200
SIZE = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
CHALLENGE = "<folder>VOC2012</folder><source><database>The VOC2012 Database</database></source>"
LABELIMG = "<folder>images</folder><path>/elsewhere/a.jpg</path><source><database>Unknown</database></source>"


def box(left: Any = 10, top: Any = 20, right: Any = 60, bottom: Any = 90) -> str:
    # The order of the challenge's own files, which is not that of other tools.
    return f"<bndbox><xmax>{right}</xmax><xmin>{left}</xmin><ymax>{bottom}</ymax><ymin>{top}</ymin></bndbox>"


def thing(name: str = "cat", bounds: str | None = None, others: str = "<truncated>1</truncated>") -> str:
    return f"<object><name>{name}</name>{others}{box() if bounds is None else bounds}</object>"


def document(*objects: str, filename: str | None = "a.jpg", size: str = SIZE, head: str = LABELIMG) -> str:
    named = "" if filename is None else f"<filename>{filename}</filename>"
    return f"<annotation>\n{head}\n{named}\n{size}\n{''.join(objects)}\n</annotation>"


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def picture(path: Path, size: tuple[int, int] = (HEIGHT, WIDTH), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*size, 3), dtype=np.uint8)).save(path, **options)
    return path


def of(folder: Path, text: str) -> AnnotationTable:
    """The table of one XML file beside its image."""
    picture(folder / "a.jpg")
    write(folder / "a.xml", text)
    return read(folder)


def read(path: Path, part: str = "", exif: Exif = "auto") -> AnnotationTable:
    return FORMAT.read(source_of(path, part), exif)


def source_of(path: Path, part: str = "") -> Source:
    (source,) = [source for source in FORMAT.find(path) if source.part == part]
    return source


def parts(path: Path) -> dict[str, list[str]]:
    """The names of the images of each part."""
    return {source.part: FORMAT.read(source, "auto").file_names.tolist() for source in FORMAT.find(path)}


def devkit(folder: Path, names: dict[str, str] | None = None) -> Path:
    """The layout of the challenge: one image of each class, and lists of images."""
    for name, label in (names or {"2008_000001": "sofa", "2008_000002": "cat"}).items():
        picture(folder / "JPEGImages" / f"{name}.jpg")
        text = document(thing(label), filename=f"{name}.jpg", head=CHALLENGE)
        write(folder / "Annotations" / f"{name}.xml", text)
    lists = folder / "ImageSets" / "Main"
    write(lists / "train.txt", "2008_000001\n")
    write(lists / "val.txt", "2008_000002\n")
    write(lists / "trainval.txt", "2008_000001\n2008_000002\n")
    write(lists / "cat_train.txt", "2008_000001 -1\n")
    write(lists / "cat_val.txt", "2008_000002  1\n")
    return folder


def test_files_of_the_challenge_count_pixels_from_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        table = read(devkit(tmp_path), "train")
    # Columns 10 to 60 counted from 1 are those from 9 to 59 counted from 0, so that the last one ends at 60.
    assert table.raw_boxes.tolist() == [[9, 19, 51, 71]]
    assert table.boxes.tolist() == [[9, 19, 60, 90]]
    assert "corners of boxes count from 1, as in the VOC challenge" in caplog.text


@pytest.mark.parametrize(
    ("head", "left"),
    [
        (LABELIMG, 10),
        ("", 10),
        ("<folder>VOC2007</folder>", 9),
        ("<folder> VOC2012 </folder>", 9),
        ("<source><database>The VOC2007 Database</database></source>", 9),
        ("<folder>my VOC2007</folder><source><database>VOC</database></source>", 10),
    ],
)
def test_other_files_count_from_zero(tmp_path: Path, caplog: pytest.LogCaptureFixture, head: str, left: int) -> None:
    with caplog.at_level(logging.INFO):
        table = of(tmp_path, document(thing(), head=head))
    assert table.raw_boxes.tolist() == [[left, left + 10, 60 - left, 80 - left]]
    assert table.boxes.tolist() == [[left, left + 10, 60, 90]]
    assert f"corners of boxes count from {10 - left}" in caplog.text


def test_both_ways_of_counting_may_be_mixed_and_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "b.xml", document(thing(), filename="b.jpg", head=CHALLENGE))
    table = of(tmp_path, document(thing()))
    assert table.raw_boxes[:, 0].tolist() == [10, 9]
    assert "count from 1 in 1 files, by <database> or <folder> of the VOC challenge, and from 0 in 1" in caplog.text


def test_numbers_may_be_floats_with_blanks(tmp_path: Path) -> None:
    size = "<size><width> 200.0 </width><height>100</height></size>"
    table = of(tmp_path, document(thing("\n cat ", box(" 10.5", "20.25\n", "6e1", 90)), size=size))
    assert table.raw_boxes.tolist() == [[10.5, 20.25, 49.5, 69.75]]
    assert (table.class_names, table.size(0)) == (("cat",), (HEIGHT, WIDTH))


def test_difficult_objects_are_evaluated_as_crowds_and_not_trained_on(tmp_path: Path) -> None:
    flags = ["", "<difficult>0</difficult>", "<difficult>1</difficult>", "<difficult/>", "<difficult> true</difficult>"]
    table = of(tmp_path, document(*(thing(others=flag) for flag in flags)))
    assert table.raw_crowd.tolist() == [False, False, True, False, True]
    assert len(table.boxes) == 3
    assert table.problems == ()


def test_parts_of_an_object_are_not_objects(tmp_path: Path) -> None:
    head = f"<part><name>head</name>{box(1, 2, 3, 4)}</part>"
    table = of(tmp_path, document(thing("person", others=head)))
    assert table.class_names == ("person",)
    assert table.raw_boxes.tolist() == [[10, 20, 50, 70]]


@pytest.mark.parametrize(
    "polygon",
    [
        "<polygon><x1>10</x1><y1>25</y1><x2>60.5</x2><y2>20</y2><x3>30</x3><y3>90</y3></polygon>",
        "<polygon><username>me</username><pt><x>10</x><y>25</y></pt><pt><x>60.5</x><y>20</y></pt>"
        "<pt><x>30</x><y>90</y></pt></polygon>",
    ],
)
def test_an_object_that_has_only_a_polygon_has_the_box_around_it(tmp_path: Path, polygon: str) -> None:
    assert of(tmp_path, document(thing(bounds=polygon))).raw_boxes.tolist() == [[10, 20, 50.5, 70]]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (thing(bounds=""), "object 2 of 'a.xml' has neither a bndbox nor a polygon"),
        (thing(bounds="<polygon><x1>1</x1><y1>2</y1></polygon>"), "has neither a bndbox nor a polygon"),
        (thing(bounds="<bndbox><xmin>1</xmin></bndbox>"), "has '' as ymin, which is no number"),
        (thing(bounds=box(right="wide")), "object 2 of 'a.xml' has 'wide' as xmax, which is no number"),
        (thing(bounds=box(right="nan")), "has 'nan' as xmax, which is no number"),
        (thing(""), "object 2 of 'a.xml' has no name"),
        (thing(others="<difficult>perhaps</difficult>"), "has 'perhaps' as difficult, neither 0 nor 1"),
        (thing(bounds=box(60, 20, 10, 90)), "no width or no height"),
        (thing(bounds=box(10, 20, 10, 90)), "no width or no height"),
        (thing(bounds=box(210, 20, 260, 90)), "lies outside the image (200 x 100)"),
    ],
)
def test_a_broken_object_is_left_out_and_named(tmp_path: Path, broken: str, reason: str) -> None:
    table = of(tmp_path, document(thing(), broken, thing("dog")))
    (problem,) = table.problems
    assert (problem.file_name, problem.annotation_id) == ("a.jpg", 2)
    assert reason in problem.reason
    assert [table.class_names[label] for label in table.labels] == ["cat", "dog"]


def test_boxes_over_the_edge_are_clipped_for_training_only(tmp_path: Path) -> None:
    table = of(tmp_path, document(thing(bounds=box(-5, 20, 205, 101))))
    assert table.raw_boxes.tolist() == [[-5, 20, 210, 81]]
    assert table.boxes.tolist() == [[0, 20, 200, 100]]


def test_an_image_may_have_no_object(tmp_path: Path) -> None:
    write(tmp_path / "b.xml", document(filename="b.jpg"))
    table = of(tmp_path, document(thing()))
    assert table.file_names.tolist() == ["a.jpg", "b.jpg"]
    assert table.image_ids.tolist() == [1, 2]
    assert table.offsets.tolist() == [0, 1, 1]


@pytest.mark.parametrize("size", ["", "<size/>", "<size><width>0</width><height>0</height></size>"])
@pytest.mark.parametrize(("exif", "expected"), [("ignore", (30, 50)), ("auto", (50, 30)), ("apply", (50, 30))])
def test_a_size_that_is_missing_is_that_of_the_image(
    tmp_path: Path, size: str, exif: Exif, expected: tuple[int, int]
) -> None:
    block = Image.Exif()
    block[0x0112] = 6
    picture(tmp_path / "a.jpg", (30, 50), exif=block.tobytes())
    write(tmp_path / "a.xml", document(thing(), size=size))
    assert read(tmp_path, exif=exif).size(0) == expected
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 1 images of .* the first is 'a\.jpg', and the labels give no sizes"):
        read(tmp_path, exif=exif)


def test_a_given_size_needs_no_image(tmp_path: Path) -> None:
    write(tmp_path / "a.xml", document(thing()))
    table = read(tmp_path)
    assert (table.file_names.tolist(), table.size(0)) == (["a.jpg"], (HEIGHT, WIDTH))


@pytest.mark.parametrize(
    ("file", "filename"),
    [
        ("a.jpg", "a.jpg"),
        ("a.jpg", None),
        ("a.jpg", ""),
        ("a.jpg", "a"),
        ("a.png", "a.jpg"),
        ("a.jpg", "IMG_0815.jpg"),
        ("a.JPG", "before/it/was/renamed.png"),
        ("photo.jpg", "photo.jpg"),
        ("photo.jpg", "photo"),
        ("photo.jpg", r"C:\Users\me\photo.jpg"),
        ("Photo.jpg", "photo.JPG"),
        ("A.jpg", "nothing.jpg"),
    ],
)
def test_the_image_is_found_by_the_name_of_its_file_or_by_filename(
    tmp_path: Path, file: str, filename: str | None
) -> None:
    picture(tmp_path / file)
    picture(tmp_path / "other.jpg")
    write(tmp_path / "a.xml", document(thing(), filename=filename))
    write(tmp_path / "other.xml", document(thing(), filename="other.jpg"))
    assert read(tmp_path).file_names.tolist() == [file, "other.jpg"]


def test_a_copied_file_belongs_to_the_image_of_its_own_name(tmp_path: Path) -> None:
    for name in ("a", "a_flipped"):
        picture(tmp_path / f"{name}.jpg")
        write(tmp_path / f"{name}.xml", document(thing(), filename="a.jpg"))
    assert read(tmp_path).file_names.tolist() == ["a.jpg", "a_flipped.jpg"]


def test_two_files_of_one_image_are_an_error(tmp_path: Path) -> None:
    picture(tmp_path / "photo.jpg")
    for name in "ab":
        write(tmp_path / f"{name}.xml", document(thing(), filename="photo.jpg"))
    with pytest.raises(UserError, match=r"'a\.xml' and 'b\.xml' in .* are both of the image 'photo\.jpg'"):
        read(tmp_path)


def test_images_without_a_file_are_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "bc":
        picture(tmp_path / f"{name}.jpg")
    table = of(tmp_path, document(thing()))
    assert table.file_names.tolist() == ["a.jpg"]
    assert "2 images have no XML file and are left out, the first is 'b.jpg'" in caplog.text


@pytest.mark.parametrize("outer", ["", "VOC2012", "VOCdevkit/VOC2007"])
def test_parts_of_the_challenge_are_lists_but_those_of_classes(tmp_path: Path, outer: str) -> None:
    folder = devkit(tmp_path / outer)
    sources = FORMAT.find(tmp_path)
    annotations, images, lists = folder / "Annotations", folder / "JPEGImages", folder / "ImageSets/Main"
    assert sources == [
        Source("voc", annotations, images, "train", lists / "train.txt"),
        Source("voc", annotations, images, "val", lists / "val.txt"),
    ]
    assert parts(tmp_path) == {"train": ["2008_000001.jpg"], "val": ["2008_000002.jpg"]}


def test_trainval_is_trained_on_where_there_is_nothing_else(tmp_path: Path) -> None:
    devkit(tmp_path)
    (tmp_path / "ImageSets/Main/train.txt").unlink()
    (tmp_path / "ImageSets/Main/val.txt").rename(tmp_path / "ImageSets/Main/test.txt")
    assert parts(tmp_path) == {"test": ["2008_000002.jpg"], "train": ["2008_000001.jpg", "2008_000002.jpg"]}


def test_two_years_of_the_challenge_are_not_mixed(tmp_path: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        devkit(tmp_path / "VOCdevkit" / year)
    with pytest.raises(UserError, match=r"holds several sets, 'VOC2007' and 'VOC2012': give the path of one"):
        FORMAT.find(tmp_path)


def test_all_parts_have_the_same_classes_in_alphabetical_order(tmp_path: Path) -> None:
    devkit(tmp_path / "lists", {"2008_000001": "sofa", "2008_000002": "cat", "2008_000003": "bird"})
    for part, label in (("train", "sofa"), ("val", "cat"), ("test", "bird")):
        picture(tmp_path / "folders" / part / "a.jpg")
        write(tmp_path / "folders" / part / "a.xml", document(thing(label)))
        write(tmp_path / "inner/Annotations" / part / "a.xml", document(thing(label)))
        picture(tmp_path / "inner/images" / part / "a.jpg")
    for folder in ("lists", "folders", "inner"):
        for part, label in (("train", 2), ("val", 1)):
            table = read(tmp_path / folder, part)
            assert (table.category_ids, table.class_names) == ((1, 2, 3), ("bird", "cat", "sofa"))
            assert table.labels.tolist() == [label]
    assert read(tmp_path / "inner", "val").path(0) == tmp_path / "inner/images/val/a.jpg"


@pytest.mark.parametrize(
    "line", ["a", "a  1", "a.jpg", "a.xml", "JPEGImages/a.jpg", "/data/VOC/JPEGImages/a.jpg a.xml", "\n\na\n\na"]
)
def test_lists_name_files_in_several_ways(tmp_path: Path, line: str) -> None:
    devkit(tmp_path, {"a": "cat", "b": "dog"})
    for name, text in (("train", line), ("val", "b")):
        write(tmp_path / f"ImageSets/Main/{name}.txt", text)
    assert parts(tmp_path) == {"train": ["a.jpg"], "val": ["b.jpg"]}


def test_names_in_a_list_may_have_blanks_and_dots(tmp_path: Path) -> None:
    devkit(tmp_path, {"image no. 1": "cat", "b": "dog"})
    for name, text in (("train", "image no. 1"), ("val", "b")):
        write(tmp_path / f"ImageSets/Main/{name}.txt", text)
    assert read(tmp_path, "train").file_names.tolist() == ["image no. 1.jpg"]


def test_a_list_that_names_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    devkit(tmp_path)
    write(tmp_path / "ImageSets/Main/train.txt", "2008_000001\n2008_000009\n")
    with pytest.raises(UserError, match=r"train\.txt', line 2: there is no '.*Annotations/2008_000009\.xml'"):
        read(tmp_path, "train")


@pytest.mark.parametrize(
    ("labels", "images"),
    [("Annotations", "JPEGImages"), ("annotations", "images"), ("Annotations", "Images"), ("xmls", "."), (".", ".")],
)
def test_files_may_lie_in_a_folder_of_their_own(tmp_path: Path, labels: str, images: str) -> None:
    picture(tmp_path / images / "a.jpg")
    write(tmp_path / labels / "a.xml", document(thing()))
    assert FORMAT.find(tmp_path) == [Source("voc", tmp_path / labels, tmp_path / images)]
    assert parts(tmp_path) == {"": ["a.jpg"]}
    if labels != ".":
        (source,) = FORMAT.find(tmp_path / labels)
        assert source.annotations == tmp_path / labels
        assert images == "." or source.images == tmp_path / images


def test_folders_of_parts_may_have_folders_of_their_own(tmp_path: Path) -> None:
    picture(tmp_path / "train/images/a.jpg")
    write(tmp_path / "train/annotations/a.xml", document(thing("dog")))
    picture(tmp_path / "valid/b.jpg")
    write(tmp_path / "valid/b.xml", document(thing("cat"), filename="b.jpg"))
    assert parts(tmp_path) == {"train": ["a.jpg"], "val": ["b.jpg"]}
    assert read(tmp_path, "val").class_names == read(tmp_path, "train").class_names == ("cat", "dog")


def test_two_folders_of_the_same_part_are_not_guessed_at(tmp_path: Path) -> None:
    for name in ("train1", "train2"):
        write(tmp_path / name / "a.xml", document(thing()))
    with pytest.raises(UserError, match=r"'.*train1' and '.*train2' are both the part 'train'"):
        FORMAT.find(tmp_path)


def test_what_is_no_voc_set_is_not_found(tmp_path: Path) -> None:
    write(tmp_path / "cvat/annotations.xml", "<?xml version='1.0'?>\n<annotations><image/></annotations>")
    write(tmp_path / "coco/annotations/instances.json", "{}")
    write(tmp_path / "train/a.xml", "<html/>")
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path, *tmp_path.iterdir(), tmp_path / "nowhere", tmp_path / "train/a.xml"):
        assert FORMAT.find(folder) == [], folder


def test_a_file_that_is_cut_in_half_is_named_with_its_line(tmp_path: Path) -> None:
    text = document(thing())
    with pytest.raises(UserError, match=r"'.*a\.xml', line 3 is not whole XML \(.+\): replace the file") as raised:
        of(tmp_path, text[: text.index("<size>") - 3])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1 is not whole XML \(no element found"),
        ("<annotations/>", r"it begins with <annotations>, not with <annotation>"),
        ("<?xml version='1.0' encoding='nonsense'?><annotation/>", r"'.*b\.xml'.* is not whole XML \(unknown encoding"),
        (document("<object><name>a&b</name></object>"), "is not whole XML"),
    ],
)
def test_a_file_of_something_else_among_the_others_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "b.xml", text)
    with pytest.raises(UserError, match=message):
        of(tmp_path, document(thing()))


def test_entities_neither_grow_without_end_nor_read_files(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<!DOCTYPE annotation [<!ENTITY e0 "lol">{entities}]>' + document(thing("&e9;"))
    with pytest.raises(UserError, match=r"a\.xml', line \d+ is not whole XML \(limit on input amplification"):
        of(tmp_path, bomb)
    secret = write(tmp_path / "secret", "not to be read")
    text = f'<!DOCTYPE annotation [<!ENTITY x SYSTEM "file://{secret}">]>' + document(thing("&x;"))
    with pytest.raises(UserError, match=r"is not whole XML \(undefined entity &x;"):
        of(tmp_path, text)


def test_other_encodings_are_read(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    text = f"<?xml version='1.0' encoding='ISO-8859-1'?>{document(thing('Bär'))}"
    (tmp_path / "a.xml").write_bytes(text.encode("latin-1"))
    assert read(tmp_path).class_names == ("Bär",)


def test_a_set_without_objects_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has an object with a name: there is nothing to learn"):
        of(tmp_path, document())


CHANGES: dict[str, Callable[[Path], Any]] = {
    "a file is edited": lambda folder: write(folder / "Annotations/2008_000001.xml", document(thing("dog"))),
    "a file of another part is edited": lambda folder: write(
        folder / "Annotations/2008_000002.xml", document(thing("dog"))
    ),
    "a file is removed": lambda folder: (folder / "Annotations/2008_000002.xml").unlink(),
    "an image is renamed": lambda folder: (folder / "JPEGImages/2008_000001.jpg").rename(folder / "JPEGImages/b.jpg"),
    "the list is edited": lambda folder: write(folder / "ImageSets/Main/train.txt", "2008_000002\n"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_state_changes_with_files_lists_and_names_of_images(tmp_path: Path, change: str) -> None:
    source = source_of(devkit(tmp_path), "train")
    for path in tmp_path.rglob("*"):
        os.utime(path, (1, 1))
    before = FORMAT.state(source)
    assert json.loads(json.dumps(before)) == before == FORMAT.state(source)
    CHANGES[change](tmp_path)
    assert FORMAT.state(source) != before


def test_the_state_of_a_folder_changes_with_the_classes_of_the_others(tmp_path: Path) -> None:
    for part in ("train", "val"):
        picture(tmp_path / part / "a.jpg")
        write(tmp_path / part / "a.xml", document(thing()))
    source = source_of(tmp_path, "train")
    before = FORMAT.state(source)
    write(tmp_path / "val/a.xml", document(thing("dog")))
    assert FORMAT.state(source) != before


def test_blood_cells_are_read_as_their_coco_file_has_them(shared_data: Path) -> None:
    folder = shared_data / "bccd"
    table = read(folder, "train")
    coco = json.loads((folder / "annotations/instances_train.json").read_text())
    file_names = {image["id"]: image["file_name"] for image in coco["images"]}
    names = {category["id"]: category["name"] for category in coco["categories"]}
    theirs = sorted(
        (file_names[entry["image_id"]], names[entry["category_id"]], *map(float, entry["bbox"]))
        for entry in coco["annotations"]
    )
    ours = sorted(
        (str(table.file_names[image]), table.class_names[label], *found)
        for image, label, found in zip(table.raw_images, table.raw_labels, table.raw_boxes.tolist(), strict=True)
    )
    assert table.class_names == ("Platelets", "RBC", "WBC")
    assert len(table) == len(coco["images"]) == 205
    assert ours == theirs


def test_files_with_a_suffix_in_upper_case_are_named(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.XML", document(thing()))
    with pytest.raises(UserError, match=r"holds 'a.XML': rename such files to end in .xml"):
        read(tmp_path)
