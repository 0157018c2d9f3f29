"""Plots and pictures as files: SVG, PNG, data: addresses."""

import base64
import io

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image


def to_svg(figure: Figure) -> str:
    """Render a figure as SVG, the same text for the same figure."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "deltavae", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def to_png(picture: Figure | Image.Image) -> bytes:
    """Render a figure (at 144 dots per inch) or an image as PNG."""
    buffer = io.BytesIO()
    if isinstance(picture, Figure):
        picture.savefig(buffer, format="png", dpi=144)
    else:
        picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def to_data_uri(picture: Figure | Image.Image) -> str:
    """Render a figure as SVG or an image as PNG, as a data: address that needs no other file."""
    if isinstance(picture, Figure):
        kind, data = "svg+xml", to_svg(picture).encode()
    else:
        kind, data = "png", to_png(picture)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
