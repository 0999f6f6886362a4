"""Numbers of data that stay with their items, whatever a DataLoader does."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.learners.heads import IndexHead, drawn
from unmix.learners.indexed import Indexed
from unmix.networks.mlp import MLP

ROWS = torch.arange(23.0)[:, None]


def seen(dataset, seed=0, **options):
    """Every item's value and number, as a loader gives them."""
    loader = DataLoader(dataset, batch_size=4, generator=torch.Generator().manual_seed(seed), **options)
    return [
        (int(value), int(number))
        for values, numbers in loader
        for value, number in zip(values[:, 0], numbers, strict=True)
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_number_stays_with_its_item_over_epochs_orders_and_workers(workers):
    data = Indexed(TensorDataset(ROWS))
    orders = [seen(data, seed, shuffle=True, num_workers=workers) for seed in range(2)]
    for order in orders:
        assert len(order) == 23 and all(value == number for value, number in order)
    assert sorted(orders[0]) == sorted(orders[1]) and orders[0] != orders[1]


def test_subsets_joined_sets_and_ranks_keep_numbers():
    part = Subset(Indexed(TensorDataset(ROWS)), [4, 20, 7])
    assert seen(part) == [(4, 4), (20, 20), (7, 7)]
    joined = Indexed.joined([TensorDataset(ROWS), TensorDataset(100 + ROWS), TensorDataset(200 + ROWS[:5])])
    numbers = dict(seen(Subset(joined, list(range(0, 51, 5))), shuffle=True))
    assert numbers == {v: v if v < 100 else v - 77 if v < 200 else v - 154 for v in numbers}
    assert joined.datasets[-1].classes == 51 and isinstance(joined, ConcatDataset)
    ranks = [DistributedSampler(joined, 2, rank, shuffle=True) for rank in range(2)]
    both = [item for sampler in ranks for item in seen(joined, sampler=sampler)]
    assert set(both) == set(seen(joined)) and len({number for _, number in both}) == 51
    assert seen(Indexed(Subset(TensorDataset(ROWS), [9, 3]))) == [(9, 0), (3, 1)]


def test_items_of_any_kind_and_places_from_the_end():
    pairs = Indexed(TensorDataset(ROWS, 2 * ROWS))
    assert [float(part) for part in pairs[-1]] == [22.0, 44.0, 22.0] and pairs[-1][-1] == 22
    assert Indexed(["a", "b"])[1] == ("b", 1)
    with pytest.raises(IndexError):
        pairs[23]
    with pytest.raises(UsageError, match="a stream has no numbers"):
        Indexed(type("Endless", (IterableDataset,), {"__iter__": lambda self: iter(())})())


def test_a_loop_of_ones_own_trains_a_head():
    data = Indexed(TensorDataset(torch.randn(30, 5, generator=torch.Generator().manual_seed(0))))
    net = MLP(hidden=()).build((5,), 8)
    draw = torch.Generator().manual_seed(0)
    head = IndexHead(drawn(data.classes, 8, Stream(0)))
    optimiser = torch.optim.AdamW([*net.parameters(), *head.parameters()], lr=0.05)
    losses = []
    for _ in range(20):
        for x, index in DataLoader(data, batch_size=10, shuffle=True, generator=draw):
            loss, excess = head.loss(net(x), index, 0.1, None, Stream(0))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(excess))
    assert losses[-1] < 0.5 * losses[0]
