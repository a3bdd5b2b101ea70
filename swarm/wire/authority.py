"""The certificate authority that a swarm's key is: whoever holds the key has it, and can issue certificates of that swarm.

Nothing has to be kept or carried: a restarted head, a rig that joins and a client derive the same authority from the key.
Certificates name who shows them and not where, since home machines change their addresses.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

MEMBER = "swarm"
"""The DNS name in a member's certificate, by which servers know one."""
CLIENT = "client.swarm"
"""The DNS name in the certificate of one who may chat and not join."""
_CURVE_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of P-256 (SP 800-186, 3.2.1.3)."""
_SALT = b"swarm certificate authority 1"
_SUBJECT = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm authority")])
# Clocks of home machines are wrong at times: what need not expire is good at any time.
_EVER = (datetime(1990, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
_CLOCKS_DIFFER = timedelta(days=1)


@dataclass(frozen=True)
class Papers:
    """What one process shows, and whose certificates it believes; all of it PEM."""

    authority: bytes
    certificate: bytes
    private_key: bytes

    @cached_property
    def server(self) -> str:
        """The DNS name that servers of this authority show."""
        return server_of(_fingerprint(x509.load_pem_x509_certificate(self.authority).public_key()))


@dataclass(frozen=True)
class Authority:
    """The private key that a swarm's key stands for. Build it with `of`."""

    _key: ec.EllipticCurvePrivateKey

    @staticmethod
    def of(key: str) -> Authority:
        """The authority of a swarm's key, the same everywhere. Takes some 50 ms, so that keys cannot be guessed quickly.

        scrypt (RFC 7914) with N=2^14, r=8; its output becomes a private key as in FIPS 186-5, A.2.1.
        """
        drawn = hashlib.scrypt(key.encode(), salt=_SALT, n=2**14, r=8, p=1, dklen=48)
        return Authority(ec.derive_private_key(int.from_bytes(drawn, "big") % (_CURVE_ORDER - 1) + 1, ec.SECP256R1()))

    @cached_property
    def certificate(self) -> bytes:
        """Signed by itself."""
        public = self._key.public_key()
        builder = _builder(_SUBJECT, public, _EVER).add_extension(x509.BasicConstraints(True, 0), critical=True)
        return _pem(self._signed(builder))

    @property
    def fingerprint(self) -> str:
        """Which authority this is, the same for the same key everywhere: SHA-256 of the public key (its DER), hexadecimal."""
        return _fingerprint(self._key.public_key())

    def member(self, name: str, addresses: Sequence[str] = ()) -> Papers:
        """For a process that holds the key: it may be a server too. It does not expire, since its holder can issue the next.

        Args:
            name: the rig, Worker or client that shows it.
            addresses: for programs that compare names with the address that they dialled (Ray); ours do not.
        """
        names = [x509.DNSName(MEMBER), x509.DNSName(server_of(self.fingerprint)), *map(_at, addresses)]
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._issue(name, names, usages, _EVER)

    def client(self, name: str, until: datetime) -> Papers:
        """For somebody who may chat until then, and not join."""
        since = datetime.now(UTC) - _CLOCKS_DIFFER
        span = (min(since, until - _CLOCKS_DIFFER), until)
        return self._issue(name, [x509.DNSName(CLIENT)], [ExtendedKeyUsageOID.CLIENT_AUTH], span)

    def _issue(
        self, name: str, names: list[x509.GeneralName], usages: list[x509.ObjectIdentifier], span: tuple[datetime, datetime]
    ) -> Papers:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name.encode("ascii", "replace").decode()[:64] or "unnamed")])
        builder = (
            _builder(subject, key.public_key(), span)
            .add_extension(x509.BasicConstraints(False, None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return Papers(self.certificate, _pem(self._signed(builder)), private)

    def _signed(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        # With the issuer's key named, one authority's certificates are foreign to another of the same subject.
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return builder.add_extension(issuer, critical=False).sign(self._key, hashes.SHA256())


def server_of(fingerprint: str) -> str:
    """The DNS name of an authority's servers. A client says it first, so that who belongs to two shows what it means."""
    return f"{fingerprint[:16]}.{MEMBER}"


def short(fingerprint: str) -> str:
    """A fingerprint as people compare it: its first 64 bits, in groups of four digits."""
    return " ".join(fingerprint[i : i + 4] for i in range(0, 16, 4))


def _fingerprint(public: CertificatePublicKeyTypes) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(public.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def _at(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _builder(subject: x509.Name, public: ec.EllipticCurvePublicKey, span: tuple[datetime, datetime]) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_SUBJECT)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(span[0])
        .not_valid_after(span[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
