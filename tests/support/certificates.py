"""Certificates for an etcd with TLS and for its clients, made anew for each test."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_certificates(pki: Path) -> None:
    """ca, s (server, for 127.0.0.1), c (client), and another ca that nobody trusts."""
    pki.mkdir()

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=pki, check=True, capture_output=True, timeout=30)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    for ca in ("ca", "other"):
        openssl("req", "-x509", *curve, "-subj", f"/CN={ca}", "-keyout", f"{ca}-key.pem", "-out", f"{ca}.pem")
    (pki / "s.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n")
    (pki / "c.ext").write_text("extendedKeyUsage=clientAuth\n")
    for name in ("s", "c"):
        # No CN: etcd would take it for a user name.
        openssl("req", "-new", *curve[:-2], "-subj", f"/O={name}", "-keyout", f"{name}-key.pem", "-out", f"{name}.csr")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2"),
            *("-extfile", f"{name}.ext", "-out", f"{name}.pem"),
        )


def server_arguments(pki: Path) -> tuple[str, ...]:
    """Of an etcd that shows the server's certificate, and asks clients for theirs."""
    return (f"--cert-file={pki}/s.pem", f"--key-file={pki}/s-key.pem", f"--trusted-ca-file={pki}/ca.pem", "--client-cert-auth")


def client_files(pki: Path) -> dict[str, str]:
    """What a client needs: certificate authority, certificate, key."""
    return {name: str(pki / f"{stem}.pem") for name, stem in (("ca_file", "ca"), ("cert_file", "c"), ("key_file", "c-key"))}
