"""Files that travel with the package: shipped specs and templates."""

from pathlib import Path


def asset_folder(name: str) -> Path:
    """`configs` or `templates`: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / name
    return inside if inside.is_dir() else Path(__file__).parent.parent / name
