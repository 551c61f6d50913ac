"""Certificates made by the test: a CA of its own, and what it signed."""
import os
import ssl
import subprocess


class Authority:
    """A CA in a folder; its certificate is `.ca`."""

    def __init__(self, folder):
        self.folder = folder
        self.ca = os.path.join(folder, "ca.pem")
        self.key = os.path.join(folder, "ca.key")
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                      "-days", "2", "-subj", "/CN=penstock test CA", "-keyout", self.key, "-out", self.ca)

    def _openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)

    def certificate(self, name="server", alternatives="DNS:localhost,IP:127.0.0.1", days=2):
        """(certificate, key): files of a new one, in place of one of that name. Less than 1 day: it has expired."""
        path = os.path.join(self.folder, name)
        with open(path + ".ext", "w", encoding="ascii") as file:
            file.write(f"subjectAltName={alternatives}\n")
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                      "-subj", f"/CN={name}", "-keyout", path + ".key", "-out", path + ".csr")
        self._openssl("x509", "-req", "-in", path + ".csr", "-CA", self.ca, "-CAkey", self.key, "-CAcreateserial",
                      "-days", str(days), "-extfile", path + ".ext", "-out", path + ".pem")
        return path + ".pem", path + ".key"

    def server_context(self, protocols, name="server"):
        """For a Python server that offers these ALPN protocols."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.certificate(name))
        context.set_alpn_protocols(protocols)
        return context

    def client_context(self, protocols=()):
        context = ssl.create_default_context(cafile=self.ca)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context
