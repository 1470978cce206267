"""A site's own certificate authority: a process and its children trust it in addition to the public ones."""

import datetime as dt
import http.server
import ipaddress
import os
import ssl
import subprocess
import sys
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from llmos.trust import CA_VARIABLES, ENV_CA_CERTIFICATES, ENV_CA_FILE, trust_site


def certificate(name, issuer=None, *, key, signed_by):
    """Make a certificate for 127.0.0.1, or that of an authority."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signed_by.public_key())
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(address, critical=False)
    )
    return made.sign(signed_by, hashes.SHA256())


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Yield an authority's certificate, and the URL of a server with a certificate of it."""
    directory = tmp_path_factory.mktemp("site")
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = certificate("The Site", key=authority, signed_by=authority)
    leaf = certificate("server", root.subject, key=own, signed_by=authority)
    pem = serialization.Encoding.PEM
    plain = own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "server.pem").write_bytes(plain + leaf.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem")
    handler = type("Handler", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield root.public_bytes(pem).decode(), f"https://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


ASK = """
import os, sys
from llmos.trust import trust_site
trust_site(os.environ)
import httpx, urllib.request
print(httpx.get(sys.argv[1]).status_code, urllib.request.urlopen(sys.argv[1]).status)
import subprocess
print(subprocess.run([sys.executable, "-c", "import requests, sys; print(requests.get(sys.argv[1]).status_code)", sys.argv[1]],
                     capture_output=True, text=True).stdout)
"""


def test_a_server_that_the_site_has_signed_for_is_trusted_by_a_process_and_its_children(site):
    authority, url = site
    clean = {name: value for name, value in os.environ.items() if name not in CA_VARIABLES}
    command = [sys.executable, "-c", ASK, url]
    done = subprocess.run(
        command, env={**clean, ENV_CA_CERTIFICATES: authority}, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["200", "200", "200"], done.stderr
    refused = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
    assert "CERTIFICATE_VERIFY_FAILED" in refused.stderr


def test_the_public_authorities_stay_and_the_sites_own_variables_too(site, tmp_path):
    authority, _ = site
    public = tmp_path / "public.pem"
    public.write_text("# the public ones")
    environ = {ENV_CA_CERTIFICATES: authority, "SSL_CERT_FILE": str(public), "PIP_CERT": "/theirs"}
    path = trust_site(environ)
    assert path.read_text() == f"# the public ones\n{authority.strip()}\n"
    assert environ["PIP_CERT"] == "/theirs"
    assert {environ[name] for name in CA_VARIABLES if name != "PIP_CERT"} == {str(path)} == {environ[ENV_CA_FILE]}
    before = dict(environ)
    assert trust_site(environ) == path  # like in a child process
    assert environ == before
    path.unlink()


def test_without_a_sites_own_nothing_changes():
    environ = {"A": "b"}
    assert trust_site(environ) is None
    assert environ == {"A": "b"}


def test_what_is_no_certificate_is_passed_over_and_said(capsys):
    environ = {ENV_CA_CERTIFICATES: "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----"}
    before = dict(environ)
    assert trust_site(environ) is None
    assert environ == before
    assert "LLMOS_CA_CERTIFICATES holds no certificates in PEM" in capsys.readouterr().err
