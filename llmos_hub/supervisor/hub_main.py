"""JupyterHub as started by ``jupyterhub``, but a second faster.

``jsonschema`` imports ``rfc3987_syntax`` if it is installed, only for the formats "iri" and "iri-reference", which
nothing here uses. That package builds a grammar at import: 0.8 s of the Hub's 2.2 s of imports, and 20 MB. None in
``sys.modules`` makes the import fail as if the package weren't installed.

JupyterHub also imports every installed spawner, proxy and authenticator, so that ``--help-all`` can list their options;
KubeSpawner with its Kubernetes client takes 55 MB. This Hub only imports those that it uses.
"""

from __future__ import annotations

import os
import sys

from llmos.trust import trust_site


def main() -> None:
    """Run the Hub until it is stopped."""
    trust_site(os.environ)
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # None makes the import fail
    from jupyterhub.app import JupyterHub
    from traitlets import default

    class Hub(JupyterHub):
        """JupyterHub that loads only the classes it needs."""

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
