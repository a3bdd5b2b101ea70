"""An invitation: one text that is given in the place of the key, and lets its bearer chat until it expires, and not join."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)

from swarm.errors import WrongKey
from swarm.wire.authority import Papers

START = "swarm-invitation-1."
"""No key that swarm draws has a dot in it."""


def is_invitation(text: str) -> bool:
    return text.startswith(START)


def write(papers: Papers) -> str:
    """The text that carries these papers: DER, then base64, with dots between."""
    pems = (papers.authority, papers.certificate)
    certificates = [x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER) for pem in pems]
    key = load_pem_private_key(papers.private_key, None).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return START + ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (*certificates, key))


def read(text: str) -> Papers:
    """The papers in an invitation. Raises WrongKey where it is damaged or has expired."""
    try:
        authority, certificate, key = (
            base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in text.removeprefix(START).split(".")
        )
        shown, issuer = x509.load_der_x509_certificate(certificate), x509.load_der_x509_certificate(authority)
        shown.verify_directly_issued_by(issuer)
        issuer.verify_directly_issued_by(issuer)
        private = load_der_private_key(key, None)
        if private.public_key() != shown.public_key():
            raise ValueError("not the certificate's key")
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise WrongKey("the invitation is damaged: copy all of it again from what `swarm key invite` printed") from None
    if shown.not_valid_after_utc < datetime.now(UTC):
        raise WrongKey(f"the invitation was good until {shown.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: ask for a new one")
    return Papers(
        issuer.public_bytes(Encoding.PEM),
        shown.public_bytes(Encoding.PEM),
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
