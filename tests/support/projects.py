"""Folders of other people's projects, in which every command has to work."""

from pathlib import Path

NAMES = ("flows", "tasks", "hallmark", "torch", "mlflow", "pickle")
"""Packages of a Prefect project, and some named like Hallmark, a library and a module of the standard library."""


def foreign(folder: Path) -> Path:
    """Create a project whose packages cannot be imported, with its own folder for Prefect; return the folder."""
    for name in NAMES:
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "__init__.py").write_text(f"raise RuntimeError('the package {name} of another project')\n")
    (folder / "prefect.toml").write_text('home = "theirs"\n')
    return folder


def files(folder: Path) -> set[str]:
    """Return the paths of all files and folders, relative to `folder`."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
