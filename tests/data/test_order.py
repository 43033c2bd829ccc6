"""The order of an epoch is a function of (seed, epoch)."""

import subprocess
import sys

import numpy as np
import pytest

from mltool.data.order import epoch_order


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_an_order_holds_every_position_once(count):
    assert sorted(epoch_order(42, 3, count).tolist()) == list(range(count))


def test_the_same_seed_and_epoch_give_the_same_order_in_any_process():
    code = "from mltool.data.order import epoch_order; print(epoch_order(42, 7, 20).tolist())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert other.stdout.strip() == str(epoch_order(42, 7, 20).tolist())


def test_an_order_does_not_depend_on_the_orders_drawn_before():
    late = epoch_order(42, 9, 50)
    for epoch in range(9):
        epoch_order(42, epoch, 50)
    assert np.array_equal(epoch_order(42, 9, 50), late)


def test_seeds_and_epochs_give_different_orders():
    orders = {tuple(epoch_order(seed, epoch, 50).tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
