"""The Triton kernel of ``assignment.py``; importing this needs Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rtdetrv2_train.ops.assignment import HIGH_COST


@triton.jit
def _solve(  # type: ignore[no-untyped-def]
    cost_pointer,
    first_pointer,
    count_pointer,
    pair_pointer,
    column_pointer,
    box_stride,
    set_stride,
    query_stride,
    num_queries,
    num_pairs,
    high_cost,
    BLOCK: tl.constexpr,
) -> None:
    """Rows are what there is less of, boxes or queries; columns are the others, one lane each.

    A row is inserted by a shortest path over reduced costs (Dijkstra) from it to a free column. On the way, ``entered``
    are the columns whose rows have been reached. No dual of a row is stored: that of a matched row is its cost less the
    dual of its column, as its pair is tight.
    """
    image, index = tl.program_id(0), tl.program_id(1)
    first = tl.load(first_pointer + image)
    count = tl.load(count_pointer + image)
    swapped = count > num_queries
    num_rows = tl.where(swapped, num_queries, count)
    num_columns = tl.where(swapped, count, num_queries)
    row_stride = tl.where(swapped, query_stride, box_stride)
    column_stride = tl.where(swapped, box_stride, query_stride)
    base = cost_pointer + first * box_stride + index * set_stride

    column = tl.arange(0, BLOCK)
    exists = column < num_columns
    infinite = tl.full((BLOCK,), float("inf"), tl.float64)
    dual = tl.zeros((BLOCK,), tl.float64)
    row_of = tl.full((BLOCK,), -1, tl.int64)

    new_row = num_rows * 0
    while new_row < num_rows:
        distance = infinite
        before = tl.full((BLOCK,), -1, tl.int64)  # the column whose row a column was reached from; -1: the new row
        entered = column < 0
        row = new_row
        here = new_row * 0 - 1
        travelled = tl.sum(dual * 0.0)
        searching = num_rows > 0
        while searching:
            costs = tl.load(base + row * row_stride + column * column_stride, mask=exists, other=0.0).to(tl.float64)
            costs = tl.where(tl.abs(costs) < float("inf"), costs, high_cost)  # false for NaN, too
            row_dual = tl.sum(tl.where(column == here, costs - dual, 0.0))
            through = travelled + (costs - dual) - row_dual
            shorter = exists & (entered == 0) & (through < distance)
            distance = tl.where(shorter, through, distance)
            before = tl.where(shorter, here, before)
            candidates = tl.where(exists & (entered == 0), distance, float("inf"))
            travelled = tl.min(candidates, 0)
            # of equally near columns a free one ends the search
            rank = tl.where(candidates == travelled, tl.where(row_of < 0, column, column + BLOCK), 2 * BLOCK)
            here = (tl.min(rank, 0) % BLOCK).to(tl.int64)
            row = tl.sum(tl.where(column == here, row_of, 0))
            searching = row >= 0
            entered = entered | ((column == here) & searching)
        dual = tl.where(entered, dual + distance - travelled, dual)
        tracing = num_rows > 0
        while tracing:
            previous = tl.sum(tl.where(column == here, before, 0))
            moved = tl.sum(tl.where(column == previous, row_of, 0))
            row_of = tl.where(column == here, tl.where(previous < 0, new_row, moved), row_of)
            here = previous
            tracing = previous >= 0
        new_row += 1

    target = column_pointer + index * num_pairs + tl.load(pair_pointer + image) + row_of
    tl.store(target, column.to(tl.int64), mask=row_of >= 0)


def launch(cost_NGQ: Tensor, first_B: Tensor, count_B: Tensor, pair_B: Tensor, column_GK: Tensor, most: int) -> None:
    """Write for every row of every problem its column.

    Args:
        cost_NGQ: ``[N, G, Q]``.
        first_B: int64 ``[B]``, the first box of each image.
        count_B: int64 ``[B]``, its number of boxes.
        pair_B: int64 ``[B]``, the first of its pairs.
        column_GK: int64 ``[G, K]``, written.
        most: largest number of boxes of an image.
    """
    num_sets, num_queries = cost_NGQ.shape[1:]
    block = max(triton.next_power_of_2(max(most, num_queries)), 32)
    grid = (len(first_B), num_sets)
    strides = cost_NGQ.stride()
    # one warp up to 1,024 columns: its reductions need no shared memory
    warps = max(block // 1024, 1)
    with torch.cuda.device_of(cost_NGQ):
        _solve[grid](
            cost_NGQ,
            first_B,
            count_B,
            pair_B,
            column_GK,
            *strides,
            num_queries,
            column_GK.shape[1],
            HIGH_COST,
            BLOCK=block,
            num_warps=warps,
        )
