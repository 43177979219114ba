"""Two real processes under gloo, each with a part of the images and one image in common."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.types import Detections
from tests.evaluation.coco_objects import as_ground_truth

ROOT = Path(__file__).resolve().parents[2]
IMAGES = [2**60 + k for k in range(5)]
TRUTH = {
    "images": [{"id": i} for i in IMAGES],
    "categories": [{"id": 4, "name": "a"}, {"id": 2, "name": "b"}],
    "annotations": [
        {"id": k, "image_id": i, "category_id": (4, 2)[k % 2], "bbox": [10 * k, 5, 60, 50], "area": 3000, "iscrowd": 0}
        for k, i in enumerate(IMAGES)
    ],
}
# The numbers of detections differ from image to image, so that the ranks' tensors differ in length.
FOUND = {
    image: {
        "labels": [k % 2] + [0] * k,
        "boxes": [[10.0 * k + 1, 5.0, 10.0 * k + 60, 55.0]] + [[200.0, 200.0, 240.0, 240.0 + k]] * k,
        "scores": [0.9 - 0.1 * k] + [0.3] * k,
    }
    for k, image in enumerate(IMAGES)
}

PROCESS = """
import datetime, json, sys
import torch.distributed as dist
rank, folder = int(sys.argv[1]), sys.argv[2]
case = json.load(open(folder + "/case.json"))
import torch
from rtdetrv2_train.types import Detections
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from tests.evaluation.coco_objects import as_ground_truth
dist.init_process_group("gloo", init_method="file://" + folder + "/rendezvous", rank=rank, world_size=2,
                        timeout=datetime.timedelta(seconds=60))
evaluator = CocoEvaluator(as_ground_truth(case["truth"]), [4, 2])
for image, found in case["of_rank"][rank]:
    evaluator.update(Detections(torch.tensor([found["labels"]]), torch.tensor([found["boxes"]]),
                                torch.tensor([found["scores"]])), torch.tensor([image]))
evaluator.gather()
evaluator.gather()
if rank == 0:
    evaluator.compute().save(folder + "/metrics.json")
else:
    assert not len(evaluator.boxes_found().found_scores)
dist.destroy_process_group()
"""


def one_process() -> dict[str, object]:
    evaluator = CocoEvaluator(as_ground_truth(TRUTH), [4, 2])
    for image, found in FOUND.items():
        labels, boxes, scores = (torch.tensor([found[key]]) for key in ("labels", "boxes", "scores"))
        evaluator.update(Detections(labels, boxes, scores), torch.tensor([image]))
    # Outside torch.distributed there is nothing to exchange.
    evaluator.gather()
    return evaluator.compute().as_dict()


@pytest.mark.slow
@pytest.mark.parametrize("split", ["shared image", "one rank has nothing"])
def test_the_first_of_two_gloo_processes_computes_what_one_does(tmp_path: Path, split: str) -> None:
    # On the image in common the second rank differs: were it counted twice, or the wrong one kept, AP would fall.
    noise = {"labels": [1, 1], "boxes": [[0.0, 0.0, 5.0, 5.0]] * 2, "scores": [0.99, 0.98]}
    found = list(FOUND.items())
    of_rank = [found[:3], [(IMAGES[2], noise), *found[3:]]] if split == "shared image" else [found, []]
    (tmp_path / "case.json").write_text(json.dumps({"truth": TRUTH, "of_rank": of_rank}))
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": loopback, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), str(tmp_path)],
            env=environment,
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
    expected = one_process()
    assert expected["AP"] > 0.3
    assert json.loads((tmp_path / "metrics.json").read_text()) == expected
