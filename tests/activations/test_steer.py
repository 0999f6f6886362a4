from __future__ import annotations

import pytest
import torch

from unmix.activations.steer import added, coded, random_directions, remembered
from unmix.core.errors import UsageError
from unmix.core.seeds import Stream


def test_a_code_is_set_and_the_rest_of_the_row_stays() -> None:
    h = torch.tensor([[1.0, 2.0], [0.0, 5.0]])
    direction = torch.tensor([1.0, 0.0])

    def code(rows):
        return rows[:, 0]

    assert coded(direction, code, 0)(h).tolist() == [[0.0, 2.0], [0.0, 5.0]]
    assert coded(direction, code, 7)(h).tolist() == [[7.0, 2.0], [7.0, 5.0]]
    assert added(direction, -2)(h).tolist() == [[-1.0, 2.0], [-2.0, 5.0]]
    assert h.tolist() == [[1.0, 2.0], [0.0, 5.0]]


def test_the_last_answer_is_given_again_for_equal_rows_only() -> None:
    asked = []

    def code(rows):
        asked.append(len(rows))
        return rows[:, 0] * 2

    again = remembered(code)
    one, two = torch.ones(3, 2), torch.zeros(3, 2)
    assert again(one).tolist() == [2, 2, 2] and again(one.clone()).tolist() == [2, 2, 2] and asked == [3]
    assert again(two).tolist() == [0, 0, 0] and again(two[:2]).tolist() == [0, 0] and asked == [3, 3, 2]


def test_random_directions_have_the_length_and_are_named() -> None:
    direction = torch.tensor([3.0, 4.0, 0.0])
    drawn = random_directions(direction, 50, Stream(0))
    assert torch.allclose(drawn.norm(dim=1), torch.full((50,), 5.0), atol=1e-5)
    assert torch.equal(drawn, random_directions(direction, 50, Stream(0)))
    assert not torch.equal(drawn, random_directions(direction, 50, Stream(1)))
    with pytest.raises(UsageError, match="not zero"):
        random_directions(torch.zeros(3), 2, Stream(0))
