from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats.cvat import FORMAT
from rtdetrv2_train.errors import UserError

LABELS = ("dog", "cat")
BOX = '<box label="cat" xtl="10.00" ytl="20.00" xbr="30.00" ybr="60.00" occluded="0"/>'
META = "<size>3</size><start_frame>10</start_frame><stop_frame>16</stop_frame><frame_filter>step=3</frame_filter>"


def meta(labels: tuple[str, ...] = LABELS, place: str = "task", more: str = "") -> str:
    listed = "".join(f"<label><name>{name}</name><type>any</type></label>" for name in labels)
    return f"<meta><{place}><name>x</name>{more}<labels>{listed}</labels></{place}></meta>"


def image(shapes: str = BOX, name: str = "a.jpg", number: int = 0, more: str = 'width="100" height="80"') -> str:
    return f'<image id="{number}" name="{name}" {more}>{shapes}</image>'


def write(root: Path, *content: str, head: str | None = None, name: str = "annotations.xml") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ("<version>1.1</version>", meta() if head is None else head, *content)
    path.write_text('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n' + "\n".join(lines) + "\n</annotations>\n")
    return path


def picture(path: Path, width: int = 100, height: int = 80) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (width, height)).save(path)


def track(*frames: tuple[int, int], label: str = "cat", more: str = "") -> str:
    boxes = "".join(
        f'<box frame="{frame}" outside="{outside}" occluded="0" keyframe="1" xtl="{frame}" ytl="1" xbr="50" ybr="9"/>'
        for frame, outside in frames
    )
    return f'<track id="0" label="{label}"{more}>{boxes}</track>'


def read(path: Path) -> AnnotationTable:
    (source,) = FORMAT.find(path)
    FORMAT.state(source)
    return FORMAT.read(source, "auto")


def close(table: AnnotationTable, *boxes: list[float]) -> bool:
    return table.raw_boxes.shape == (len(boxes), 4) and bool(np.abs(table.raw_boxes - boxes).max() < 1e-3)


def test_boxes_and_polygons_are_read(tmp_path: Path) -> None:
    polygon = '<polygon label="dog" points="10.5,20;30,22;20,40.25" source="manual"/>'
    write(tmp_path, image(BOX + polygon))
    table = read(tmp_path)
    assert close(table, [10, 20, 20, 40], [10.5, 20, 19.5, 20.25])
    assert (table.category_ids, table.class_names) == ((1, 2), ("dog", "cat"))
    assert table.raw_labels.tolist() == [1, 0]
    assert (table.file_names.tolist(), table.size(0)) == (["a.jpg"], (80, 100))


def test_a_turned_box_becomes_the_box_around_it(tmp_path: Path) -> None:
    boxes = "".join(BOX.replace("/>", f' rotation="{turn}"/>') for turn in ("90.00", "30.00", "330.00"))
    write(tmp_path, image(boxes))
    width, height = 20 * math.cos(math.pi / 6) + 40 * 0.5, 20 * 0.5 + 40 * math.cos(math.pi / 6)
    around = [20 - width / 2, 40 - height / 2, width, height]
    assert close(read(tmp_path), [0, 30, 40, 20], around, around)


def test_an_ellipse_becomes_the_box_around_it(tmp_path: Path) -> None:
    plain = '<ellipse label="cat" cx="50" cy="40" rx="30" ry="10"/>'
    turned = [plain.replace("/>", f' rotation="{turn}"/>') for turn in (90, 45)]
    write(tmp_path, image("".join((plain, *turned))))
    half = math.sqrt((30**2 + 10**2) / 2)
    assert close(read(tmp_path), [20, 30, 60, 20], [40, 10, 20, 60], [50 - half, 40 - half, 2 * half, 2 * half])


def test_a_mask_becomes_the_box_around_its_pixels(tmp_path: Path) -> None:
    # Rows of 5 pixels: .....  ..#..  ..##.
    mask = '<mask label="cat" rle="7, 1, 4, 2, 1" left="20" top="30" width="5" height="3"/>'
    over_rows = '<mask label="cat" rle="3, 4, 8" left="20" top="30" width="5" height="3"/>'
    bare = '<mask label="cat" left="20" top="30" width="5" height="3"/>'
    write(tmp_path, image(mask + over_rows + bare))
    assert close(read(tmp_path), [22, 31, 2, 2], [20, 30, 5, 2], [20, 30, 5, 3])


def test_shapes_without_area_are_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    others = '<points label="cat" points="1,2"/><polyline label="cat" points="1,2;3,4"/>'
    skeleton = '<skeleton label="cat"><points label="1" points="1,2"/></skeleton>'
    write(tmp_path, image(others + skeleton + BOX))
    assert close(read(tmp_path), [10, 20, 20, 40])
    assert "1 of points, 1 of polyline, 1 of skeleton" in caplog.text


@pytest.mark.parametrize("place", ["task", "project", "job"])
def test_labels_are_those_of_a_task_a_project_or_a_job(tmp_path: Path, place: str) -> None:
    write(tmp_path, image(), head=meta(("z", "cat"), place))
    assert read(tmp_path).class_names == ("z", "cat")


def test_labels_of_whole_images_and_points_are_no_classes(tmp_path: Path) -> None:
    head = meta().replace("<type>any</type>", "<type>tag</type>", 1)
    write(tmp_path, image(), head=head)
    assert read(tmp_path).class_names == ("cat",)


def test_without_labels_those_that_are_used_are_in_alphabetical_order(tmp_path: Path) -> None:
    write(tmp_path, image(BOX + BOX.replace("cat", "ant")), head="")
    assert read(tmp_path).class_names == ("ant", "cat")


def test_subsets_are_parts_whose_images_may_have_folders(tmp_path: Path) -> None:
    subsets = "".join(f"<task><subset>{name}</subset></task>" for name in ("Train", "Validation"))
    rows = [image(more=f'width="100" height="80" subset="{name}" task_id="1"') for name in ("Train", "Validation")]
    write(tmp_path, *rows, head=meta(place="project", more=f"<tasks>{subsets}</tasks>"))
    picture(tmp_path / "images" / "Train" / "a.jpg")
    found = {source.part: source for source in FORMAT.find(tmp_path)}
    assert set(found) == {"train", "val"}
    names = {part: FORMAT.read(source, "auto").file_names.tolist() for part, source in found.items()}
    assert names == {"train": ["Train/a.jpg"], "val": ["a.jpg"]}


def test_subsets_that_are_no_parts_do_not_matter(tmp_path: Path) -> None:
    write(tmp_path, image(more='width="100" height="80" subset="default"'), name="train.xml")
    (source,) = FORMAT.find(tmp_path)
    assert (source.part, len(FORMAT.read(source, "auto"))) == ("train", 1)


def test_images_of_another_subset_than_the_parts_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [image(name=f"{name}.jpg", more=f'width="100" height="80" subset="{name}"') for name in ("default", "val")]
    write(tmp_path, *rows)
    table = read(tmp_path)
    assert table.file_names.tolist() == ["val.jpg"]
    assert "subset 'default' is of no known part and is left out" in caplog.text


def test_the_part_may_be_in_the_name_of_the_file_or_its_folder(tmp_path: Path) -> None:
    write(tmp_path, image(), name="train.xml")
    write(tmp_path / "val", image())
    assert {source.part for source in FORMAT.find(tmp_path)} == {"train", "val"}


def test_an_image_that_is_repeated_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, image(number=0), image(number=1), image("", name="b.jpg", number=0))
    table = read(tmp_path)
    assert table.file_names.tolist() == ["a.jpg", "b.jpg"]
    assert table.raw_images.tolist() == [0, 0]
    assert "1 images repeat a name" in caplog.text


def test_sizes_that_are_missing_are_those_of_the_images(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg", 64, 48)
    write(tmp_path, image(more=""))
    assert read(tmp_path).size(0) == (48, 64)


def test_tracks_are_boxes_in_frames_but_where_they_are_outside(tmp_path: Path) -> None:
    for frame in (10, 13, 16, 19):
        picture(tmp_path / "images" / f"frame_{frame:06d}.png")
    write(tmp_path, track((10, 0), (13, 1)), track((10, 0), label="dog"), head=meta(more=META))
    table = read(tmp_path)
    assert table.file_names.tolist() == ["frame_000010.png", "frame_000013.png", "frame_000016.png"]
    assert close(table, [10, 1, 40, 8], [10, 1, 40, 8])
    assert (table.raw_labels.tolist(), np.diff(table.offsets).tolist()) == ([1, 0], [2, 0, 0])


def test_frames_have_the_size_of_the_video(tmp_path: Path) -> None:
    size = "<original_size><width>640</width><height>480</height></original_size>"
    picture(tmp_path / "images" / "frame_000010.png")
    write(tmp_path, track((10, 0), (13, 0)), head=meta(more=META + size))
    table = read(tmp_path)
    assert [table.size(0), table.size(1)] == [(480, 640), (480, 640)]
    assert table.file_names.tolist()[1] == "frame_000013.png"  # missing, which is for others to say


def test_images_of_a_task_are_frames_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        picture(tmp_path / "images" / f"{name}.jpg")
    write(tmp_path, track((13, 0)), head=meta(more=META))
    table = read(tmp_path)
    assert table.file_names.tolist() == ["a.jpg", "b.jpg", "c.jpg"]
    assert table.raw_images.tolist() == [1]


def test_frames_that_begin_with_one_are_refused(tmp_path: Path) -> None:
    for frame in (1, 2, 3):
        picture(tmp_path / "images" / f"frame_{frame:06d}.png")
    frames = "<start_frame>0</start_frame><stop_frame>2</stop_frame>"
    write(tmp_path, track((0, 0)), head=meta(more=frames))
    with pytest.raises(UserError, match=r"begin with 1, and those of '.*' with 0: extract them again with 'ffmpeg"):
        read(tmp_path)


def test_a_video_without_frames_is_refused(tmp_path: Path) -> None:
    write(tmp_path, track((10, 0)), head=meta(more=META))
    with pytest.raises(UserError, match=r"has no frames of '.*annotations\.xml': export from CVAT with 'Save images'"):
        read(tmp_path)


def test_tracks_of_several_tasks_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "frame_000010.png")
    write(tmp_path, track((10, 0), more=' task_id="1"'), track((10, 0), more=' task_id="2"'))
    with pytest.raises(UserError, match="has tracks of 2 tasks"):
        read(tmp_path)


def test_corners_in_the_other_order_are_swapped(tmp_path: Path) -> None:
    write(tmp_path, image('<box label="cat" xtl="30" ytl="60" xbr="10" ybr="20"/>'))
    assert close(read(tmp_path), [10, 20, 20, 40])


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ('<box label="cat" xtl="nan" ytl="1" xbr="2" ybr="3"/>', "box of 'cat': xtl 'nan' is not a finite number"),
        ('<box label="cat" ytl="1" xbr="2" ybr="3"/>', "box of 'cat': xtl None is not a finite number"),
        ('<polygon label="cat" points="1,2;3"/>', "polygon of 'cat': points '1,2;3' are not pairs of finite numbers"),
        ('<polygon label="cat" points="1,2;3,4"/>', "polygon of 'cat': a polygon needs 3 points, and has 2"),
        (
            '<mask label="cat" rle="1,9" left="0" top="0" width="2" height="2"/>',
            "mask of 'cat': the runs of the mask have 10 pixels, more than 2 x 2",
        ),
        (BOX.replace("cat", "cow"), "unknown label 'cow'"),
    ],
)
def test_a_broken_shape_is_a_problem_of_its_image(tmp_path: Path, shape: str, reason: str) -> None:
    write(tmp_path, image(shape + BOX))
    table = read(tmp_path)
    assert [(problem.file_name, problem.reason) for problem in table.problems] == [("a.jpg", reason)]
    assert len(table.boxes) == 1


def test_a_file_that_is_cut_short_is_named_with_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, image(), image(name="b.jpg"))
    path.write_text(path.read_text()[:-60])
    with pytest.raises(UserError, match=r"annotations\.xml', line 6: it is not XML .*cut short, export it again"):
        read(tmp_path)


def test_a_name_that_leads_out_is_refused(tmp_path: Path) -> None:
    write(tmp_path, image(name="../a.jpg"))
    with pytest.raises(UserError, match=r"image '0' of '.*' has the name '\.\./a\.jpg'"):
        read(tmp_path)


def test_a_file_without_images_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(UserError, match="has no image: export the task from CVAT again"):
        read(tmp_path)


def test_two_files_of_one_part_are_refused(tmp_path: Path) -> None:
    write(tmp_path, image(), name="one.xml")
    write(tmp_path, image(), name="two.xml")
    with pytest.raises(UserError, match=r"has 2 files of CVAT's: 'one\.xml', 'two\.xml'; choose with"):
        FORMAT.find(tmp_path)


def test_other_xml_is_not_taken_for_cvat(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<annotation><object><name>cat</name></object></annotation>")
    (tmp_path / "b.xml").write_text("<annotations><file>x</file></annotations>")
    assert FORMAT.find(tmp_path) == []
    assert FORMAT.find(tmp_path / "a.xml") == []
