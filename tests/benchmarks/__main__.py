"""Run every benchmark of this directory, or those named: ``python -m tests.benchmarks platform gateway``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main(names: list[str]) -> int:
    """Each in a process of its own, so that none warms up the next."""
    known = {path.stem.removeprefix("bench_"): path for path in sorted(HERE.glob("bench_*.py"))}
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f'There is no benchmark "{unknown[0]}". There are: {", ".join(known)}.', file=sys.stderr)
        return 2
    worst = 0
    for name in names or known:
        print(f"\n== {name}", flush=True)
        worst = max(
            worst, subprocess.run([sys.executable, "-m", f"tests.benchmarks.bench_{name}"], check=False).returncode
        )
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
