#!/usr/bin/env bash
# Label Studio's package cannot check a task that has annotations.
#
# Packages: label-studio-sdk 2.1.2.
# Input:    a labeling interface for boxes, and a task of one image with one box as its annotation.
# Expected: `LabelInterface.validate_task` gives True for the task, as `validate_annotation` does for its annotation.
# Seen:     it gives True without the annotation. With it, it raises a TypeError: it calls `validate_annotation` without an
#           annotation. With predictions it is the same.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet label-studio-sdk==2.1.2
"$folder/bin/python" - <<'PYTHON'
from label_studio_sdk.label_interface import LabelInterface

INTERFACE = """
<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image"><Label value="cat"/></RectangleLabels>
</View>
"""
VALUE = {"x": 10.0, "y": 20.0, "width": 30.0, "height": 40.0, "rotation": 0, "rectanglelabels": ["cat"]}
REGION = {"id": "1", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": VALUE}
ANNOTATION = {"result": [REGION]}


def checked(task):
    try:
        return interface.validate_task(task)
    except TypeError as error:
        return f"TypeError: {error}"


interface = LabelInterface(INTERFACE)
task = {"data": {"image": "/a.jpg"}}
plain, annotated = checked(task), checked({**task, "annotations": [ANNOTATION]})
predicted = checked({**task, "predictions": [ANNOTATION]})
print(f"the annotation:           {interface.validate_annotation(ANNOTATION)}")
print(f"the task without it:      {plain}")
print(f"the task with it:         {annotated}")
print(f"the task with prediction: {predicted}")
assert plain is True and interface.validate_annotation(ANNOTATION), "valid input is refused"
assert "TypeError" in str(annotated) and "TypeError" in str(predicted), "the behaviour has changed"
PYTHON
