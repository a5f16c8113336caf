"""Write a file that a command was asked for."""

from pathlib import Path

from hallmark.tasks.common.errors import HallmarkError
from hallmark.tasks.common.files import whole_file


def write(path: Path, content: bytes) -> None:
    """Write a whole file or nothing.

    Raises:
        HallmarkError: it cannot be written.
    """
    try:
        with whole_file(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise HallmarkError(f"{path}: cannot be written: {error.strerror or error}") from error
