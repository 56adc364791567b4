"""Istio's CA service and the SPIFFE Workload API on python3-grpcio, signing with the openssl command.

Shares nothing with the program under test: its messages come from the .proto files beside it. Prints one JSON object
per event; reads one JSON order per line.

  authority.py istio-ca <ca directory> <port> <server chain> <server key>
  authority.py workload-api <ca directory> <socket> <SPIFFE ID>...
"""

import concurrent.futures
import importlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading

import grpc

HERE = os.path.dirname(os.path.abspath(__file__))
LOCK = threading.Lock()


def say(event, **fields):
    with LOCK:
        print(json.dumps({"event": event, **fields}), flush=True)


def compiled(folder):
    """The modules that protoc makes of the .proto files here."""
    subprocess.run(["protoc", f"--python_out={folder}", f"-I{HERE}", "ca.proto", "workload.proto"], check=True)
    sys.path.insert(0, folder)
    return importlib.import_module("ca_pb2"), importlib.import_module("workload_pb2")


def openssl(*args, given=None):
    done = subprocess.run(["openssl", *args], input=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True)
    return done.stdout


class Authority:
    def __init__(self, folder):
        self.folder = folder

    def path(self, name):
        return os.path.join(self.folder, name)

    def pem(self, name):
        with open(self.path(name), encoding="ascii") as file:
            return file.read()

    def sign(self, csr, identity):
        """A leaf for `identity`, whatever the request names."""
        with tempfile.NamedTemporaryFile("w", suffix=".cnf") as extensions:
            extensions.write(
                f"subjectAltName=critical,URI:{identity}\nkeyUsage=critical,digitalSignature,keyEncipherment\n"
                "extendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=critical,CA:false\n"
            )
            extensions.flush()
            signer = ["-CA", self.path("issuing.pem"), "-CAkey", self.path("issuing-key.pem")]
            serial = ["-set_serial", "0x" + secrets.token_hex(16), "-days", "1"]
            return openssl("x509", "-req", *signer, *serial, "-extfile", extensions.name, given=csr)

    def svid(self, messages, identity):
        """A new key, its certificate with the issuing CA after it, and the root, all DER."""
        key = openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(key)
            file.flush()
            csr = openssl("req", "-new", "-key", file.name, "-subj", "/")
        leaf = der(self.sign(csr, identity))
        return messages.X509SVID(
            spiffe_id=identity,
            x509_svid=leaf + der(self.pem("issuing.pem").encode()),
            x509_svid_key=openssl("pkcs8", "-topk8", "-nocrypt", "-outform", "DER", given=key),
            bundle=der(self.pem("root.pem").encode()),
        )


def der(pem):
    return openssl("x509", "-outform", "DER", given=pem)


def facts_of(csr):
    """What the openssl command says of a request: verified, its subject and its names."""
    text = openssl("req", "-noout", "-verify", "-text", given=csr.encode()).decode()
    lines = [line.strip() for line in text.splitlines()]
    names = lines.index("X509v3 Subject Alternative Name: critical")
    subject = next(line for line in lines if line.startswith("Subject:"))
    return {"subject": subject.removeprefix("Subject:").strip(), "names": lines[names + 1]}


def istio_ca_methods(authority, messages):
    def create_certificate(request, context):
        metadata = dict(context.invocation_metadata())
        identity = request.metadata["ImpersonatedIdentity"]
        say(
            "request",
            identity=identity,
            seconds=request.validity_duration,
            authorization=metadata.get("authorization"),
            clusterid=metadata.get("clusterid"),
            **facts_of(request.csr),
        )
        if metadata.get("authorization") != "Bearer good.token":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "request authenticate failure")
        leaf = authority.sign(request.csr.encode(), identity).decode()
        cert_chain = [leaf, authority.pem("issuing.pem"), authority.pem("root.pem")]
        return messages.IstioCertificateResponse(cert_chain=cert_chain)

    method = grpc.unary_unary_rpc_method_handler(
        create_certificate,
        request_deserializer=messages.IstioCertificateRequest.FromString,
        response_serializer=messages.IstioCertificateResponse.SerializeToString,
    )
    return {"CreateCertificate": method}


def istio_ca(authority, messages, port, chain, key):
    server = serve({"istio.v1.auth.IstioCertificateService": istio_ca_methods(authority, messages)})
    listen_tls(server, port, chain, key)
    return server, {}


def listen_tls(server, port, chain, key):
    with open(key, "rb") as key_file, open(chain, "rb") as chain_file:
        credentials = grpc.ssl_server_credentials([(key_file.read(), chain_file.read())])
    server.add_secure_port(f"localhost:{port}", credentials)


def workload_api(authority, messages, socket, *identities):
    changed = threading.Condition()
    state = {"version": 0, "svids": [authority.svid(messages, identity) for identity in identities]}

    def fetch(_request, context):
        if dict(context.invocation_metadata()).get("workload.spiffe.io") != "true":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing")
        say("stream")
        seen = -1
        while context.is_active():
            with changed:
                changed.wait_for(lambda: state["version"] != seen or not context.is_active(), timeout=1)
                if state["version"] == seen:
                    continue
                seen = state["version"]
                response = messages.X509SVIDResponse(svids=state["svids"])
            yield response

    def rotate(_order):
        svids = [authority.svid(messages, identity) for identity in identities]
        with changed:
            state.update(version=state["version"] + 1, svids=svids)
            changed.notify_all()

    method = grpc.unary_stream_rpc_method_handler(
        fetch,
        request_deserializer=messages.X509SVIDRequest.FromString,
        response_serializer=messages.X509SVIDResponse.SerializeToString,
    )
    server = serve({"SpiffeWorkloadAPI": {"FetchX509SVID": method}})
    server.add_insecure_port(f"unix:{socket}")
    return server, {"rotate": rotate}


def serve(services):
    """A server with these services: name to methods."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=16))
    handlers = [grpc.method_handlers_generic_handler(name, methods) for name, methods in services.items()]
    server.add_generic_rpc_handlers(handlers)
    return server


def main(role, folder, *options):
    with tempfile.TemporaryDirectory() as modules:
        ca_messages, workload_messages = compiled(modules)
    authority = Authority(folder)
    if role == "istio-ca":
        server, orders = istio_ca(authority, ca_messages, *options)
    else:
        server, orders = workload_api(authority, workload_messages, *options)
    server.start()
    say("listening")
    for line in sys.stdin:
        order = json.loads(line)
        orders[order["order"]](order)
        say("done", order=order["order"])
    server.stop(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
