"""Certificate authorities and certificates for tests, made with the openssl program.

    ca = Authority(tmp_path, "Test CA")
    pair = ca.issue("a", "DNS:a.example,IP:127.0.0.1")        # pair.cert, pair.key: paths
    old = ca.issue("old", "DNS:a.example", start=-9, end=-2)    # days from now
"""

import datetime
import os
import shutil
import ssl
import subprocess

CONFIG = """
[ca]
default_ca = d
[d]
database = {0}/index
new_certs_dir = {0}
serial = {0}/serial
default_md = sha256
policy = p
unique_subject = no
[p]
commonName = supplied
"""


def openssl(*args):
    done = subprocess.run(["openssl", *map(str, args)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def key_and(*args):
    return ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *args)


class Pair:
    def __init__(self, cert, key, name):
        self.cert, self.key, self.name = str(cert), str(key), name

    @property
    def args(self):
        return ("--tls-cert", self.cert, "--tls-key", self.key)

    def copy_to(self, cert, key):
        """As a careful tool does it: each file appears whole."""
        for source, target in ((self.key, key), (self.cert, cert)):
            shutil.copy(source, f"{target}.new")
            os.replace(f"{target}.new", target)

    def server(self, client_ca=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        if client_ca:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class Authority:
    def __init__(self, folder, name):
        self.dir = os.path.join(folder, name.replace(" ", "-"))
        os.mkdir(self.dir)
        self.cert, self.key, self.config = (os.path.join(self.dir, n) for n in ("ca.pem", "ca.key", "config"))
        with open(self.config, "w", encoding="ascii") as f:
            f.write(CONFIG.format(self.dir))
        open(os.path.join(self.dir, "index"), "w", encoding="ascii").close()
        with open(os.path.join(self.dir, "serial"), "w", encoding="ascii") as f:
            f.write("1000\n")
        openssl(*key_and("-x509", "-keyout", self.key, "-out", self.cert, "-subj", f"/CN={name}", "-days", 30))

    def issue(self, name, san, start=-1, end=20):
        cert, key, csr, ext = (os.path.join(self.dir, f"{name}.{kind}") for kind in ("pem", "key", "csr", "ext"))
        with open(ext, "w", encoding="ascii") as f:
            f.write(f"basicConstraints = critical,CA:FALSE\nsubjectAltName = {san}\n")
        openssl(*key_and("-keyout", key, "-out", csr, "-subj", f"/CN={name}"))
        day = [(datetime.datetime.utcnow() + datetime.timedelta(days=d)).strftime("%Y%m%d%H%M%SZ") for d in (start, end)]
        openssl(
            "ca", "-batch", "-config", self.config, "-cert", self.cert, "-keyfile", self.key, "-in", csr, "-out", cert, "-notext",
            "-extfile", ext, "-startdate", day[0], "-enddate", day[1],
        )
        return Pair(cert, key, name)

    def client(self, pair=None):
        """A context that trusts this authority, with a client certificate or without."""
        context = ssl.create_default_context(cafile=self.cert)
        if pair:
            context.load_cert_chain(pair.cert, pair.key)
        return context
