"""A TLS proxy in front of a platform, like that of a site: another configurable-http-proxy with a certificate."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from llmos_hub.supervisor.binaries import find_node, find_proxy
from llmos_hub.supervisor.ports import find_free_port
from tests.support.people import wait_until

__all__ = ["tls_proxy"]


def _certificate(directory: Path) -> tuple[Path, Path]:
    """Write a key and a self-signed certificate for localhost, valid for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private, public = directory / "tls.key", directory / "tls.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return private, public


@contextmanager
def tls_proxy(target: str, directory: Path) -> Iterator[tuple[str, ssl.SSLContext]]:
    """Run a proxy in front of `target`; yield its URL and a context that trusts its certificate."""
    private, public = _certificate(directory)
    port, api_port = find_free_port(), find_free_port()
    command = [
        *(find_node(), find_proxy(), "--ip", "127.0.0.1", "--port", str(port), "--api-port", str(api_port)),
        *("--ssl-key", str(private), "--ssl-cert", str(public), "--default-target", target, "--log-level", "warn"),
    ]
    url, trust = f"https://localhost:{port}", ssl.create_default_context(cafile=str(public))
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: _answers(url, trust), 30, "the TLS proxy answers")
            yield url, trust
        finally:
            process.terminate()


def _answers(url: str, trust: ssl.SSLContext) -> bool:
    try:
        return httpx.get(f"{url}/_chp_healthz", verify=trust, timeout=30).status_code == 200
    except httpx.HTTPError:
        return False
