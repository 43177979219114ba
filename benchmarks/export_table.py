"""Exports a run in every format, sampling and precision, and prints what came out as a table of Markdown.

    python benchmarks/export_table.py runs/r18vd onnx openvino pt2 --folder FOLDER

Each row is a whole `rtdetrv2 export ... verify=ap`: AP of the validation set in PyTorch and in the runtime, differences
of the objects in pixels at 640, the median time of a call with one image, the size of the file.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from rtdetrv2_train import UserError
from rtdetrv2_train.commands.export import export
from rtdetrv2_train.export.formats import FORMATS
from rtdetrv2_train.inference.export_card import ExportCard
from rtdetrv2_train.runs.configuration import composed


def row(run: str, name: str, precision: str, sampling: str, folder: Path, shape: list[str], verify: str) -> str:
    """One line of the table."""
    output = folder / f"{name}-{precision}-{sampling}"
    settings = [f"format={name}", f"precision={precision}", f"sampling={sampling}", f"verify={verify}", *shape]
    with composed("export", [f"run={run}", f"output={output}", *settings]) as config:
        try:
            path = export(config)
        except UserError as error:
            return f"| {name} | {precision} | {sampling} | {error} |"
    facts = ExportCard.read(path).verified
    if not facts:
        return f"| {name} | {precision} | {sampling} | written; does not run on this system |"
    usual = next(iter(facts["objects"].values()))
    precisions = f"{100 * facts['AP_in_pytorch']:.2f} | {100 * facts['AP']:.2f}" if "AP" in facts else "|"
    return (
        f"| {name} | {precision} | {sampling} | {usual['median_pixels']:.1g} | {usual['largest_pixels']:.1g} | "
        f"{precisions} | {facts['milliseconds']:.3g} | {facts['pytorch_milliseconds']:.3g} | {facts['megabytes']:g} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("formats", nargs="+", choices=list(FORMATS))
    parser.add_argument("--folder", type=Path, required=True, help="where the exports go")
    parser.add_argument("--sampling", nargs="+", default=["default", "discrete"])
    parser.add_argument("--precision", nargs="+", help="all that a format can have")
    parser.add_argument("--verify", default="ap", choices=["ap", "images"])
    parser.add_argument("--shape", nargs="*", default=[], help="such as batch=dynamic size=dynamic")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    print("| format | precision | sampling | median px | largest px | AP in PyTorch | AP | ms | ms in PyTorch | MB |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in arguments.formats:
        for precision in arguments.precision or FORMATS[name].precisions:
            for sampling in arguments.sampling:
                line = row(
                    arguments.run, name, precision, sampling, arguments.folder, arguments.shape, arguments.verify
                )
                print(line, flush=True)


if __name__ == "__main__":
    main()
