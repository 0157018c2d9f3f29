"""Small functions on images that causal networks share: scaling, shifting, coordinates."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor


def scale_image(
    x: UInt8[Tensor, "b c h w"], levels: int, dtype: torch.dtype
) -> Float[Tensor, "b c h w"]:
    """Map the levels 0..levels−1 to [−1, 1].

    Args:
        x: Images.
        levels: Number of levels, at least 2.
        dtype: Floating-point type of the result.

    Returns:
        2x / (levels − 1) − 1.
    """
    return x.to(dtype) * (2.0 / (levels - 1)) - 1.0


def shift_down(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Move every row down by one: row r then holds row r − 1, row 0 holds zeros."""
    return F.pad(x, (0, 0, 1, -1))


def shift_right(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Move every column right by one: column c then holds column c − 1, column 0 holds zeros."""
    return F.pad(x, (1, -1, 0, 0))


def with_coordinates(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_plus_3 h w"]:
    """Append three channels: ones (telling padding from mid-grey), row and column in [−1, 1]."""
    b, _, h, w = x.shape
    rows = torch.linspace(-1.0, 1.0, h, device=x.device, dtype=x.dtype).view(1, 1, h, 1)
    columns = torch.linspace(-1.0, 1.0, w, device=x.device, dtype=x.dtype).view(1, 1, 1, w)
    parts = [x, torch.ones_like(x[:, :1]), rows.expand(b, 1, h, w), columns.expand(b, 1, h, w)]
    return torch.cat(parts, dim=1)


def pixels(h: Float[Tensor, "b c h w"]) -> Float[Tensor, "b p c"]:
    """Lay an image's features out in raster order; a view where channels lie last in memory."""
    return h.flatten(2).transpose(1, 2)


def as_image(
    rows: Float[Tensor, "b p c"], like: Float[Tensor, "b k h w"]
) -> Float[Tensor, "b c h w"]:
    """Invert `pixels` for an image of the size of another."""
    return rows.transpose(1, 2).view(len(rows), -1, *like.shape[2:])
