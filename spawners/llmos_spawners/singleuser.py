"""Starts a notebook server as ``jupyterhub-singleuser`` does, sooner.

``jsonschema`` takes up ``rfc3987_syntax`` where it is installed, for the formats "iri" and "iri-reference"
alone, which a notebook server doesn't use; that package builds a grammar when it is imported, 0.8 s. An entry
of None in ``sys.modules`` makes the import fail as if it weren't installed; kernels are processes of their own
and are not concerned.

And JupyterLab doesn't ask each person anew whether it may look for news outside: ``jupyter/labconfig`` turns that
off.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from llmos.trust import ENV_CA_CERTIFICATES, trust_site

CONFIGURATION = Path(__file__).parent / "jupyter"


def main() -> None:
    """Run the server until it is stopped."""
    trust_site(os.environ)
    os.environ.pop(ENV_CA_CERTIFICATES, None)  # in the file now: nobody needs pages of it in a terminal's environment
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # None is how the import system is told
    paths = [*filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")]), str(CONFIGURATION)]
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(paths)
    from jupyterhub.singleuser import main as singleuser

    singleuser()


if __name__ == "__main__":
    main()
