import pytest
import torch

from showtell.models.packing import Packing


def test_packs_by_step_and_unpacks_where_it_was() -> None:
    packing = Packing.of_widths([3, 2, 2, 0])
    assert packing.running == (3, 3, 1)
    values = torch.arange(2 * 4 * 3).reshape(2, 4, 3)
    packed = packing.pack(values)
    assert packed[0].tolist() == [0, 3, 6, 1, 4, 7, 2]
    assert packed.shape == (2, packing.size)
    unpacked = packing.unpack(packed, fill=-1)
    assert unpacked[0].tolist() == [[0, 1, 2], [3, 4, -1], [6, 7, -1]]


def test_full_is_everything() -> None:
    values = torch.randn(2, 3, 4, 5)
    packing = Packing.full(3, 4)
    torch.testing.assert_close(packing.unpack(packing.pack(values)), values)


def test_refuses_captions_in_another_order() -> None:
    """Slices of the first K_t captions are only right when the longest come first."""
    with pytest.raises(ValueError, match="longest first"):
        Packing.of_widths([2, 3])
