"""Where data sets lie: the folders that are searched, and verified downloads."""

import contextlib
import hashlib
import http.client
import os
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from deltavae.data.pixels import one_line

VARIABLE = "DELTAVAE_DATA"
_TIMEOUT_SECONDS = 60.0


def data_root(data_dir: Path | None) -> Path:
    """The folder for data sets.

    Args:
        data_dir: The user's choice, which comes first.

    Returns:
        data_dir, else $DELTAVAE_DATA, else a folder in the user's cache.
    """
    if data_dir is not None:
        return data_dir.expanduser()
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE]).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "deltavae"


def find_folder(roots: Sequence[Path], subfolders: Sequence[str], pattern: str) -> Path | None:
    """The first folder with a file of this pattern.

    Args:
        roots: Folders to search, the best first.
        subfolders: Folders below each root to search, "." for the root itself.
        pattern: Glob pattern of a file name.

    Returns:
        The folder, or None.
    """
    for root in roots:
        for subfolder in subfolders:
            folder = root / subfolder
            if folder.is_dir() and any(folder.glob(pattern)):
                return folder
    return None


def download(url: str, sha256: str, instead: str) -> bytes:
    """Fetch a file and check that it is the published one.

    Args:
        url: Address of the file.
        sha256: SHA-256 of the published file, in hexadecimal.
        instead: What the user can do instead, for the error message.

    Returns:
        The file's content.

    Raises:
        ValueError: If the download fails or the content differs from the published one.
    """
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
            content: bytes = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ValueError(f"the download of {url} failed ({one_line(error)}): {instead}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"the download of {url} differs from the published file: {instead}")
    return content


def store(path: Path, content: bytes) -> None:
    """Write a downloaded file under its name in one move, so that no half file is left behind.

    Args:
        path: The file; its folder is made where it is missing.
        content: What to write.

    Raises:
        ValueError: If the file cannot be written.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise ValueError(
            f"{path} cannot be written ({one_line(error)}): set data_dir or ${VARIABLE} to a "
            "folder with room"
        ) from error
