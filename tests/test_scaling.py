from __future__ import annotations

from benchmarks.scaling import ModelCosts, bytes_table, data_table, evaluation_table, time_table
from tests.support import ROOT


def test_the_tables_of_the_documentation_are_those_that_are_computed() -> None:
    text = (ROOT / "docs" / "scaling.md").read_text()
    costs = [ModelCosts.count("r18vd")]
    tables = (bytes_table(costs), time_table(costs, 2), time_table(costs, 16), data_table(costs), evaluation_table())
    for table in tables:
        for line in table:
            assert f"{line}\n" in text
