"""A proxy in front of the server, which keeps every byte: what a client asked for, and the secrets to search the logs for. It
ends TLS for clients that want https."""

import asyncio
import re
import ssl
import threading

REQUEST = re.compile(rb"^(GET|POST|DELETE|OPTIONS) (\S+) HTTP/1\.1\r$", re.MULTILINE)
# What must appear in no log, wherever it passes: tokens in answers and headers, codes, cookies, the secrets of forms.
SECRETS = re.compile(rb'"(?:access_token|refresh_token|client_secret|registration_access_token)":\s*"([^"]+)"|'
                     rb"(?:^|[?&])(?:code|code_verifier|refresh_token|client_secret|client_assertion|token|form_token|password)"
                     rb"=([^&\s\"]+)|"
                     rb"^authorization: (?:Bearer|Basic) (\S+)\r$|^set-cookie: [^=]+=([^;\s]+)", re.MULTILINE | re.IGNORECASE)


class Tap:
    """Listens on a free port of loopback; `context` ends TLS there."""

    def __init__(self, context=None):
        self.asked, self.answered, self.target = [], [], None
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        start = asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=context)
        self.listener = asyncio.run_coroutine_threadsafe(start, self.loop).result()
        self.port = self.listener.sockets[0].getsockname()[1]

    async def serve(self, reader, writer):
        asked, answered = bytearray(), bytearray()
        self.asked.append(asked)
        self.answered.append(answered)
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self.target)
        await asyncio.gather(pump(reader, to_server, asked), pump(from_server, writer, answered))

    def requests(self):
        """All requests so far, as "METHOD target"; in order within each connection."""
        return [b" ".join(found).decode() for asked in self.asked for found in REQUEST.findall(asked)]

    def secrets(self):
        """Every secret that passed."""
        text = b"\n".join(bytes(part) for part in [*self.asked, *self.answered])
        return {value.decode() for found in SECRETS.findall(text) for value in found if len(value) >= 8}

    def access_tokens(self):
        """Every access token that the server gave out."""
        text = b"\n".join(bytes(part) for part in self.answered)
        return {found.decode() for found in re.findall(rb'"access_token":\s*"([^"]+)"', text)}

    def close(self):
        self.loop.call_soon_threadsafe(self.listener.close)
        self.loop.call_soon_threadsafe(self.loop.stop)


async def pump(source, target, kept):
    """Passes on what comes until the end, which it passes on too."""
    try:
        while part := await source.read(65536):
            kept += part
            target.write(part)
            await target.drain()
    except OSError:
        pass
    target.close()


def tls(directory):
    """Makes an authority and a certificate of it for localhost; returns the context and the authority's file."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.timezone.utc)

    def certificate(name, issuer, key, signer, *extensions):
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=2))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(signer, hashes.SHA256())

    def named(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name = named("Authority of a test")
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    authority = certificate(authority_name, authority_name, authority_key, authority_key,
                            (x509.BasicConstraints(ca=True, path_length=0), True), (usage, True),
                            (x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), False))
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    leaf = certificate(named("localhost"), authority_name, key, authority_key, (names, False), (issued_by, False),
                       (x509.BasicConstraints(ca=False, path_length=None), True))
    pem = serialization.Encoding.PEM
    (directory / "authority.pem").write_bytes(authority.public_bytes(pem))
    chain = directory / "server.pem"
    chain.touch(mode=0o600)
    chain.write_bytes(leaf.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8,
                                                                  serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return context, directory / "authority.pem"
