#!/usr/bin/env bash
# cleanlab gives the best quality to a label around nothing.
#
# Packages: cleanlab 2.9.0, numpy 2.4.6.
# Input:    images with one object that a detector finds with a score of 0.98. In one, a second box is drawn where there is
#           nothing and where nothing is found; in another, the only box is moved by half its size.
# Expected: both images have a lower quality than those with right labels, as the docs say of "imperfect" annotations.
# Seen:     the moved box is noticed (0.43, an issue). The box on nothing has the quality 1.0 of a right image and is no issue:
#           a label that no confident detection touches counts as perfectly placed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 cleanlab==2.9.0
"$folder/bin/python" - <<'PYTHON'
import numpy as np
from cleanlab.object_detection.filter import find_label_issues
from cleanlab.object_detection.rank import get_label_quality_scores

OBJECT, NOTHING, MOVED = [10.0, 10.0, 60.0, 60.0], [200.0, 200.0, 250.0, 250.0], [40.0, 40.0, 90.0, 90.0]
LABELS = [[OBJECT]] * 8 + [[MOVED], [OBJECT, NOTHING]]

labels = [{"bboxes": np.array(boxes), "labels": np.zeros(len(boxes), dtype=int)} for boxes in LABELS]
found = np.array([np.array([[*OBJECT, 0.98]]), np.zeros((0, 5))], dtype=object)  # of two classes
quality = get_label_quality_scores(labels, [found] * len(labels), verbose=False)
is_issue = find_label_issues(labels, [found] * len(labels))
for name, image in (("right", 0), ("moved", 8), ("on nothing", 9)):
    print(f"{name:12} quality {quality[image]:.3f}, {'an issue' if is_issue[image] else 'no issue'}")
assert quality[8] < 0.5 and is_issue[8], "a moved box is not noticed any more"
assert quality[9] == quality[0] == 1 and not is_issue[9], "the behaviour has changed"
PYTHON
