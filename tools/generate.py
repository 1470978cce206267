"""Writes all files that are made from other code: ``python -m tools.generate``; ``--check`` fails if one is stale."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tools import admission, chart_schema, crds, reference, unasync

ROOT = Path(__file__).parent.parent
GENERATORS = (unasync, reference, crds, admission, chart_schema)
"""Modules whose ``files()`` returns the text of each file that they make."""


def generated() -> dict[Path, str | None]:
    """Return the text of each generated file by its path; None for a file that nothing makes any more."""
    wanted: dict[Path, str | None] = {}
    for generator in GENERATORS:
        wanted |= generator.files()
    for folder, pattern in ((unasync.TARGET, "*.py"), (crds.TARGET, "*.yaml")):
        wanted |= {path: None for path in folder.glob(pattern) if path not in wanted}
    return wanted


def stale() -> dict[Path, str | None]:
    """Return the generated files whose content isn't what would be generated now."""
    return {path: text for path, text in generated().items() if _read(path) != text}


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def main() -> int:
    """Write the stale files, or name them with ``--check``."""
    os.environ["COLUMNS"] = "100"  # argparse wraps help to the terminal otherwise
    found = stale()
    if "--check" in sys.argv[1:]:
        for path in found:
            sys.stderr.write(f"{path.relative_to(ROOT)} is stale. Write it again with: make generate\n")
        return 1 if found else 0
    for path, text in found.items():
        if text is None:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
