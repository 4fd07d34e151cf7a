"""The tiles that the backward pass of cut cross-entropy handles: every pair that is kept, once."""

import pytest
import torch

from kernels.linear_cross_entropy.triton_plan import every_tile, kept_tiles

ROWS = 4


def pairs(plan, n, groups_are_rows, tiles=3, groups=1):
    """(block of classes, row) of every entry of every chunk, and what its group is."""
    found = []
    for chunk in plan.chunks(tiles, groups):
        starts = (chunk.starts - chunk.starts[chunk.first]).tolist()
        for group in range(chunk.first, chunk.first + chunk.groups):
            for t in range(starts[group], starts[group + 1]):
                block, rows = int(chunk.blocks[t]), chunk.rows[t]
                listed = rows if chunk.listed else torch.arange(ROWS) + ROWS * int(rows)
                assert group == (int(rows) if groups_are_rows else block)
                found += [(block, int(row)) for row in listed if row < n]
    return found


def kept(blocks, n, share, seed=0):
    return torch.rand(blocks, n, generator=torch.Generator().manual_seed(seed)) < share


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (7, 22), (30, 9)])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("at_once", [(1, 1), (3, 1), (5, 2), (1000, 1)])
def test_what_is_kept_is_handled_once(shape, share, at_once):
    wanted = kept(*shape, share)
    n = shape[1]
    plans = kept_tiles(wanted, ROWS)
    expected = sorted(map(tuple, wanted.nonzero().tolist()))
    found = pairs(plans.by_class, n, False, *at_once)
    if plans.by_class.listed:
        assert sorted(found) == expected
        assert plans.by_row is None
    else:
        assert set(expected) <= set(found)
        assert set(expected) <= set(pairs(plans.by_row, n, True, *at_once))


def test_pieces_are_the_whole():
    plan = kept_tiles(kept(9, 50, 0.2), ROWS).by_class
    pieces = list(plan.pieces(4))
    assert [len(piece.blocks) for piece in pieces[:-1]] == [4] * (len(pieces) - 1)
    assert torch.equal(torch.cat([piece.rows for piece in pieces]), plan.rows)
    assert torch.equal(torch.cat([piece.blocks for piece in pieces]), plan.blocks)


def test_lists_where_little_is_kept():
    assert kept_tiles(kept(20, 40, 0.1), ROWS).by_class.listed
    assert not kept_tiles(kept(20, 40, 0.9), ROWS).by_class.listed


def test_every_tile():
    plans = every_tile(3, 5, torch.device("cpu"))
    everything = {(block, row) for block in range(5) for row in range(10)}
    for plan, by_row in ((plans.by_class, False), (plans.by_row, True)):
        found = pairs(plan, 10, by_row)
        assert set(found) == everything
        assert len(found) == len(everything)


def test_chunks_hold_as_many_tiles_as_asked():
    plan = every_tile(4, 9, torch.device("cpu")).by_class
    assert [chunk.groups for chunk in plan.chunks(8, 1)] == [2, 2, 2, 2, 1]
    assert [chunk.groups for chunk in plan.chunks(1, 3)] == [3, 3, 3]
