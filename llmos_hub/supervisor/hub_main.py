"""Starts JupyterHub as ``jupyterhub`` does, a second sooner.

``jsonschema`` takes up ``rfc3987_syntax`` where it is installed, for the formats "iri" and "iri-reference"
alone, which nothing here uses; that package builds a grammar when it is imported: 0.8 s of the Hub's 2.2 s of
imports, and 20 MB. An entry of None in ``sys.modules`` makes the import fail as if it weren't installed.

JupyterHub also imports every spawner, proxy and authenticator that is installed, so that ``--help-all`` can name
their options: with KubeSpawner and its Kubernetes client 55 MB. This Hub imports the ones it uses.
"""

from __future__ import annotations

import os
import sys

from llmos.trust import trust_site


def main() -> None:
    """Run the Hub until it is stopped."""
    trust_site(os.environ)
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # None is how the import system is told
    from jupyterhub.app import JupyterHub
    from traitlets import default

    class Hub(JupyterHub):
        """JupyterHub with the classes it needs."""

        name = "jupyterhub"

        @default("classes")
        def _load_classes(self) -> list[type]:
            from jupyterhub.auth import Authenticator
            from jupyterhub.crypto import CryptKeeper
            from jupyterhub.spawner import Spawner

            return [Spawner, Authenticator, CryptKeeper]

    Hub.launch_instance()


if __name__ == "__main__":
    main()
