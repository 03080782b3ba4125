"""A private CA and what it signs, for stores that speak TLS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Certificates:
    """A private CA and a server certificate of its making, in one folder."""

    ca: Path
    certificate: Path
    key: Path
    key_and_certificate: Path


def make_certificates(folder: Path) -> Certificates:
    """Make a CA and a certificate for 127.0.0.1 and localhost in `folder`."""
    made = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key", folder / "both.pem")
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(str(made.ca))
    for number, pem in enumerate(server.cert_chain_pems):
        pem.write_to_path(str(made.certificate), append=number > 0)
    server.private_key_pem.write_to_path(str(made.key))
    server.private_key_and_cert_chain_pem.write_to_path(str(made.key_and_certificate))
    return made
