"""Certificates of the tests: an authority that nobody else trusts, and what it issues, in a folder of one test."""

import base64
import contextlib
import datetime
import hashlib
import ipaddress
import itertools
import os
import ssl
import tempfile

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
KEYS = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA 2048": lambda: rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}
_numbers = itertools.count(1)


def new_certificate(subject, public_key, issuer, issuer_key, days, *extensions):
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder(
        issuer_name=issuer, subject_name=subject, public_key=public_key, serial_number=x509.random_serial_number(),
        not_valid_before=now - datetime.timedelta(days=1), not_valid_after=now + datetime.timedelta(days=days),
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, is_critical)
    return builder.sign(issuer_key, hashes.SHA256())


def named(name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


class Certificate:
    """What was issued, as files: `path` with the whole chain, `key_path`."""

    def __init__(self, folder, certificate, key, chain=(), form="PKCS8"):
        self.certificate, self.key = certificate, key
        number = next(_numbers)
        self.path, self.key_path = (os.path.join(folder, f"{what}-{number}.pem") for what in ("certificate", "key"))
        with open(self.path, "wb") as file:
            for one in (certificate, *chain):
                file.write(one.public_bytes(serialization.Encoding.PEM))
        with open(self.key_path, "wb") as file:
            private = getattr(serialization.PrivateFormat, form)
            file.write(key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))
        self.der = certificate.public_bytes(serialization.Encoding.DER)

    @property
    def expiry_s(self):
        """Seconds since 1970."""
        return int(self.certificate.not_valid_after_utc.timestamp())

    @property
    def key_hash(self):
        """As Chromium wants to be told whom to trust."""
        public = self.key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(hashlib.sha256(public).digest()).decode()

    def installed(self, place):
        """Put where a gateway reads its certificate, `place` being another one, the key first."""
        for ours, theirs in ((self.key_path, place.key_path), (self.path, place.path)):
            with open(ours, "rb") as source, open(theirs + ".new", "wb") as target:
                target.write(source.read())
            os.replace(theirs + ".new", theirs)


class Authority:
    """Issues certificates; `path` is its own."""

    def __init__(self, folder, name="authority of the tests", above=None):
        self.folder, self.above = folder, above
        self.key = KEYS["P-256"]()
        issuer, issuer_key = (above.certificate.subject, above.key) if above else (named(name), self.key)
        self.certificate = new_certificate(
            named(name), self.key.public_key(), issuer, issuer_key, 10, (x509.BasicConstraints(ca=True, path_length=None), True),
        )
        self.path = os.path.join(folder, f"authority-{next(_numbers)}.pem")
        with open(self.path, "wb") as file:
            file.write(self.certificate.public_bytes(serialization.Encoding.PEM))

    @classmethod
    @contextlib.contextmanager
    def here(cls):
        """In a folder that goes with it."""
        with tempfile.TemporaryDirectory() as folder:
            yield cls(folder)

    def issued(self, *names, key="P-256", days=5, form="PKCS8", is_client=False):
        """For these names, and for 127.0.0.1 where there are none."""
        key = KEYS[key]()
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if is_client else ExtendedKeyUsageOID.SERVER_AUTH
        names = [x509.DNSName(name) for name in names] or [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        certificate = new_certificate(
            named(names[0].value), key.public_key(), self.certificate.subject, self.key, days,
            (x509.SubjectAlternativeName(names), False), (x509.ExtendedKeyUsage([usage]), False),
            (x509.BasicConstraints(ca=False, path_length=None), True),
        )
        return Certificate(self.folder, certificate, key, [self.certificate] if self.above else [], form)

    def context(self, version=None, client=None, protocols=(), checks=True):
        """How a client speaks that trusts this authority: one version or any, with a certificate of its own or none.
        Without `checks` it takes whatever it is shown."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if not checks:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_verify_locations(self.path)
        if version:
            context.minimum_version = context.maximum_version = version
        if client:
            context.load_cert_chain(client.path, client.key_path)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context
