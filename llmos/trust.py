"""Trust in a site's own certificate authorities in addition to the public ones.

Programs read one file with all authorities that they trust, each from its own variable. A site provides only its own;
this module merges them with the public ones into one file at the start of a process, for it and its child processes.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Final

__all__ = ["CA_VARIABLES", "ENV_CA_CERTIFICATES", "ENV_CA_FILE", "trust_site"]

ENV_CA_CERTIFICATES: Final = "LLMOS_CA_CERTIFICATES"
"""Environment variable with the site's certificates, concatenated, in PEM."""
ENV_CA_FILE: Final = "LLMOS_CA_FILE"
"""Environment variable with the path of the merged file."""
CA_VARIABLES: Final = (
    "SSL_CERT_FILE",  # OpenSSL: Python, httpx, uv
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
)

_SYSTEM: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


def trust_site(environ: MutableMapping[str, str]) -> Path | None:
    """Make this process and its child processes trust the authorities in ``LLMOS_CA_CERTIFICATES``.

    Parameters
    ----------
    environ
        ``os.environ``. Each missing variable of `CA_VARIABLES` is set, and ``SSL_CERT_FILE`` in any case.

    Returns
    -------
    Path or None
        The file with the public and the site's authorities; None if the site has none, or if they can't be read, which
        is reported on standard error.
    """
    own = environ.get(ENV_CA_CERTIFICATES, "").strip()
    if not own:
        return None
    made = environ.get(ENV_CA_FILE, "")
    if made and Path(made).is_file():  # made by a parent process
        return Path(made)
    # imported here, because most processes have nothing to do and shouldn't pay for these
    import ssl
    import tempfile

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=own)
    except (ssl.SSLError, ValueError) as error:
        sys.stderr.write(f"{ENV_CA_CERTIFICATES} holds no certificates in PEM and is passed over: {error}\n")
        return None
    with tempfile.NamedTemporaryFile("w", prefix="llmos-ca-", suffix=".pem", delete=False, encoding="utf-8") as file:
        file.write("".join(f"{text.rstrip()}\n" for text in (*_public(environ), own)))
    for name in CA_VARIABLES:
        environ.setdefault(name, file.name)
    environ["SSL_CERT_FILE"] = environ[ENV_CA_FILE] = file.name
    return Path(file.name)


def _public(environ: MutableMapping[str, str]) -> Iterator[str]:
    """Yield the public authorities, from the first file that exists."""
    import ssl

    places = [environ.get("SSL_CERT_FILE", ""), ssl.get_default_verify_paths().cafile or "", *_SYSTEM]
    if found := importlib.util.find_spec("certifi"):
        places += [str(Path(place) / "cacert.pem") for place in found.submodule_search_locations or ()]
    for place in places:
        if place and Path(place).is_file():
            yield Path(place).read_text(encoding="utf-8", errors="replace")
            return
