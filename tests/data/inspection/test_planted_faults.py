"""30 faults of 15 kinds in a set of made-up images: all are found, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.planting import made_up, plant
from tests.data.inspection.small_sets import inspected

pytestmark = pytest.mark.slow


def test_planted_faults_are_found_without_false_alarms(tmp_path: Path) -> None:
    planted = made_up(tmp_path / "set")
    planted.write()
    before = inspected(planted.root, tmp_path / "seen")
    assert [each.check for each in before.findings if each.level != "note"] == []
    plant(planted)
    assert len(planted.faults) == 30
    assert len({fault.kind for fault in planted.faults}) == 15
    after = inspected(planted.root, tmp_path / "seen")
    found = set()
    for each in after.findings:
        table = after.parts[each.part]
        for item in each.items(10_000):
            if each.unit == "classes":
                names = {item.note} if item.note else {table.class_names[table.raw_labels[box]] for box in item.boxes}
            else:
                names = {str(table.file_names[item.image]) if item.image >= 0 else item.note.partition(":")[0]}
            found |= {(each.check, each.part, name, each.level) for name in names}
    planted_places = {(check, fault.part, fault.where) for fault in planted.faults for check in fault.checks}
    missed = [
        fault
        for fault in planted.faults
        if not any(each[:3] == (check, fault.part, fault.where) for each in found for check in fault.checks)
    ]
    assert missed == []
    assert [each for each in found if each[3] != "note" and each[:3] not in planted_places] == []
