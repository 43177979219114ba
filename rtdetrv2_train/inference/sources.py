"""Images to predict on: files, folders, patterns, lists, videos, cameras."""

from __future__ import annotations

import glob
import logging
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2

from rtdetrv2_train.data.images.decode import ImageArray, Reading, UnreadableImageError, as_bytes, read_image
from rtdetrv2_train.errors import UserError

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jp2"}
IMAGE_SUFFIXES |= {".avif", ".heic", ".heif"}
_ARRAY = ".npy"
VIDEO_SUFFIXES = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"}
# What systems and programs leave in folders of images, besides names that begin with a dot.
_LEFTOVERS = {"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir"}
_READERS = 2
_AHEAD = 16
_USUAL_RATE = 25.0
_UPRIGHT = Reading("apply")


@dataclass(frozen=True, eq=False)
class Frame:
    """One image, or one picture of a video.

    Attributes:
        name: path relative to the folder that was given; of a video ``name/000012``.
        image: uint8 ``[H, W, C]``, RGB unless `Reading` asks for other channels; None where it cannot be read.
        problem: why it cannot be read.
    """

    name: str
    image: ImageArray | None
    problem: str = ""


@dataclass(frozen=True)
class Source:
    """Something that gives frames.

    Attributes:
        files: the images, and their names in what is written; empty for a video.
        video: a video's path or a camera's number.
        reading: how images are read.
        sizes: annotated (height, width) of images by name, which then decide whether EXIF turns them.
    """

    files: tuple[tuple[Path, str], ...] = ()
    video: Path | int | None = None
    reading: Reading = _UPRIGHT
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of frames; 0 where only the end will tell."""
        if self.video is None:
            return len(self.files)
        if isinstance(self.video, int):
            return 0
        capture = _opened(self.video)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        return max(count, 0)

    @property
    def frames_per_second(self) -> float:
        """Of a video."""
        assert self.video is not None
        capture = _opened(self.video)
        rate = float(capture.get(cv2.CAP_PROP_FPS))
        capture.release()
        return rate if 0 < rate < 1_000 else _USUAL_RATE

    def __iter__(self) -> Iterator[Frame]:
        """The frames in order; images are read ahead."""
        return self._images() if self.video is None else _pictures(self.video)

    def without_arrays(self) -> Source:
        """The same without ``.npy`` files, which are no images to a model of RGB.

        Raises:
            UserError: if nothing is left.
        """
        kept = tuple((path, name) for path, name in self.files if path.suffix.lower() != _ARRAY)
        if not kept:
            raise UserError(f"source= has no image in it but {_ARRAY} files, which are for models of other channels")
        if len(kept) < len(self.files):
            log.warning("%d %s files are passed over: the model is one of RGB", len(self.files) - len(kept), _ARRAY)
        return replace(self, files=kept)

    def _images(self) -> Iterator[Frame]:
        waiting: deque[Future[Frame]] = deque()
        ahead = _READERS if self.reading.large else _AHEAD
        with ThreadPoolExecutor(_READERS) as readers:
            for path, name in self.files:
                waiting.append(readers.submit(self._read, path, name))
                if len(waiting) == ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _read(self, path: Path, name: str) -> Frame:
        annotated = self.sizes.get(name)
        reading = replace(self.reading, exif="auto") if annotated else self.reading
        try:
            return Frame(name, read_image(path, reading, annotated))
        except UnreadableImageError as error:
            return Frame(name, None, str(error))


def open_source(source: str | Path | int | Iterable[str | Path] | Source | None, arrays: bool = False) -> Source:
    """Find out what a source is.

    Args:
        source: an image; a folder, searched with all below it; a pattern such as ``photos/*.png``; a ``.txt`` file with
            one image path a line; a video; the number of a camera; ``-`` for image paths on standard input; a pipe of
            such paths; or, in Python, the paths themselves. Standard input, pipes and iterators are read once.
        arrays: whether ``.npy`` files in a folder are images too.

    Raises:
        UserError: if there is no such thing, or nothing in it.
    """
    if isinstance(source, Source):
        return source
    if source is None or source == "":
        raise UserError(
            "nothing to predict on: give source= an image, a folder, a pattern, a list in a .txt file, a video, the "
            "number of a camera, or - for paths on standard input"
        )
    if not isinstance(source, str | Path | int):
        return _listed(map(str, source), Path(), "the source")
    text = str(source)
    path = Path(text)
    if text.isdigit() and not path.exists():
        _opened(int(text)).release()
        return Source(video=int(text))
    if text == "-":
        return _listed(_lines(sys.stdin.read()), Path(), "standard input")
    if path.is_dir():
        return Source(tuple((p, p.relative_to(path).as_posix()) for p in _images_in(path, arrays)))
    if path.is_fifo():
        return _listed(_lines(path.read_text(encoding="utf-8")), Path(), f"'{path}'")
    if path.is_file():
        if path.suffix.lower() in VIDEO_SUFFIXES:
            _opened(path).release()
            return Source(video=path)
        if path.suffix.lower() == ".txt":
            return _listed(_lines(path.read_text(encoding="utf-8")), path.parent, f"'{path}'")
        return Source(((path, path.name),))
    # Not Path.glob, which takes no absolute patterns.
    files = sorted(Path(match) for match in glob.glob(text, recursive=True) if Path(match).is_file())  # noqa: PTH207
    if not files:
        raise UserError(f"there is no source '{text}': give an image, a folder, a pattern, a .txt list or a video")
    return Source(_named(files))


def _images_in(folder: Path, arrays: bool) -> list[Path]:
    """All images below a folder; hidden files and leftovers of other programs are passed over, other files named."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    files = [path for path in files if not any(map(_is_leftover, path.relative_to(folder).parts))]
    suffixes = IMAGE_SUFFIXES | ({_ARRAY} if arrays else set())
    images = [path for path in files if path.suffix.lower() in suffixes]
    if not images:
        raise UserError(f"the folder '{folder}' has no image in it ({', '.join(sorted(suffixes))})")
    if others := [path.relative_to(folder).as_posix() for path in files if path.suffix.lower() not in suffixes]:
        named = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        log.warning("%d files in '%s' are no images and are passed over: %s", len(others), folder, named)
    return images


def _is_leftover(name: str) -> bool:
    return name.startswith(".") or name in _LEFTOVERS


def _lines(text: str) -> list[str]:
    """Of a list of paths, which ``find -print0`` ends with a NUL each."""
    return text.replace("\0", "\n").splitlines()


def _listed(lines: Iterable[str], folder: Path, origin: str) -> Source:
    """Paths as they stand, or relative to the list's folder."""
    paths = [Path(line.strip()) for line in lines if line.strip()]
    if not paths:
        raise UserError(f"{origin} names no image: give one path a line")
    return Source(_named([path if path.exists() else folder / path for path in paths]))


def _named(files: list[Path]) -> tuple[tuple[Path, str], ...]:
    """File names; where two are the same, with their folders, so that neither overwrites the other."""
    names = [path.name for path in files]
    if len(set(names)) < len(names):
        names = ["/".join(part for part in path.parts if part not in ("/", "..", ".")) for path in files]
    return tuple(zip(files, names, strict=True))


def _pictures(video: Path | int) -> Iterator[Frame]:
    capture = _opened(video)
    name = f"camera_{video}" if isinstance(video, int) else video.stem
    number = 0
    try:
        while True:
            there, picture = capture.read()
            if not there:
                return
            yield Frame(f"{name}/{number:06d}", as_bytes(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)))
            number += 1
    finally:
        capture.release()


def _opened(video: Path | int) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(video if isinstance(video, int) else str(video))
    if not capture.isOpened():
        what = f"camera {video}" if isinstance(video, int) else f"the video '{video}'"
        raise UserError(f"{what} cannot be opened: check that it is there and of a kind that OpenCV can read")
    return capture
