"""Delta ADS and Istio's CA on one TLS port, by python3-grpcio and python3-protobuf: an istiod of a few lines.

Shares nothing with the program under test: its messages come from the .proto files beside it. Prints one JSON object
per event; reads one JSON order per line:

  {"order": "set", "kind": "workload" | "service" | "policy", "name": …, "message": JSON form of the message, "aliases": […]}
  {"order": "raw", "kind": …, "name": …, "base64": …}      bytes that need not be a message
  {"order": "remove", "kind": …, "name": …}

  control_plane.py <ca directory> <port> <server chain> <server key>
"""

import base64
import hashlib
import importlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading

import grpc
from google.protobuf import json_format

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "identity-python"))

import authority as ca  # noqa: E402 (needs the path above)

ADDRESS = "type.googleapis.com/istio.workload.Address"
AUTHORIZATION = "type.googleapis.com/istio.security.Authorization"
SHORT = {ADDRESS: "address", AUTHORIZATION: "authorization"}


def compiled(folder):
    """The module that protoc makes of the .proto file here."""
    subprocess.run(["protoc", f"--python_out={folder}", f"-I{HERE}", "mesh.proto"], check=True)
    sys.path.insert(0, folder)
    return importlib.import_module("mesh_pb2")


class Store:
    def __init__(self):
        self.lock = threading.Lock()
        self.resources = {ADDRESS: {}, AUTHORIZATION: {}}
        self.streams = set()

    def change(self, type_url, name, entry):
        """`entry` is (bytes, other keys it is told for), or None."""
        with self.lock:
            if entry is None:
                self.resources[type_url].pop(name, None)
            else:
                self.resources[type_url][name] = entry
            for stream in self.streams:
                stream.changed(type_url, name)


def version_of(type_url, content):
    """istiod gives versions to addresses only."""
    return hashlib.sha256(content).hexdigest()[:16] if type_url == ADDRESS else ""


class Stream:
    """One client: what it watches, and what is to be sent. Everything happens under the lock of the store."""

    def __init__(self, store, pb):
        self.store = store
        self.pb = pb
        self.out = queue.Queue()
        self.watched = {}
        self.nonces = 0

    def received(self, request):
        type_url = request.type_url
        with self.store.lock:
            is_first = type_url not in self.watched
            if is_first:
                is_wildcard = "*" not in request.resource_names_unsubscribe
                self.watched[type_url] = None if is_wildcard else set(request.initial_resource_versions)
                self.begin(type_url, dict(request.initial_resource_versions))
            elif not request.response_nonce and self.watched[type_url] is not None:
                names = [name for name in request.resource_names_subscribe if name != "*"]
                self.watched[type_url].update(names)
                self.send(type_url, names)

    def begin(self, type_url, versions):
        watched = self.watched[type_url]
        known = self.store.resources[type_url]
        wanted = set(known) | set(versions) if watched is None else watched
        fresh = [name for name in wanted if name not in known or self.is_new(type_url, name, versions.get(name))]
        self.send(type_url, sorted(fresh))

    def is_new(self, type_url, name, version):
        current = version_of(type_url, self.store.resources[type_url][name][0])
        return current == "" or current != version

    def changed(self, type_url, name):
        watched = self.watched.get(type_url, set())
        aliases = self.store.resources[type_url].get(name, (b"", []))[1]
        if watched is None or name in watched or watched.intersection(aliases):
            self.send(type_url, [name])

    def found(self, type_url, asked):
        """What has this name or key, and on demand the endpoints of what was found."""
        resources = self.store.resources[type_url]
        keys = {asked}
        if self.watched[type_url] is not None:
            keys |= {name for name, (_, others) in resources.items() if asked in others}
        return [
            (name, content, others) for name, (content, others) in resources.items() if name in keys or keys & set(others)
        ]

    def send(self, type_url, names):
        self.nonces += 1
        response = self.pb.DeltaDiscoveryResponse(type_url=type_url, nonce=str(self.nonces))
        for asked in names:
            found = self.found(type_url, asked)
            if not found:
                response.removed_resources.append(asked)
            for name, content, aliases in found:
                if self.watched[type_url] is not None:
                    self.watched[type_url].add(name)
                resource = response.resources.add(name=name, version=version_of(type_url, content))
                resource.aliases.extend(aliases if self.watched[type_url] is not None else [])
                resource.resource.type_url = type_url
                resource.resource.value = content
        self.out.put(response)


def delta_ads(store, pb):
    def serve(requests, context):
        metadata = dict(context.invocation_metadata())
        ca.say("stream", authorization=metadata.get("authorization"), clusterid=metadata.get("clusterid"))
        if metadata.get("authorization") != "Bearer good.token":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "authentication failure")
        stream = Stream(store, pb)
        with store.lock:
            store.streams.add(stream)

        def read():
            try:
                for request in requests:
                    ca.say("asked", **facts_of(request))
                    stream.received(request)
            except grpc.RpcError:
                pass
            stream.out.put(None)

        threading.Thread(target=read, daemon=True).start()
        try:
            while (response := stream.out.get()) is not None:
                yield response
        finally:
            with store.lock:
                store.streams.discard(stream)

    return grpc.stream_stream_rpc_method_handler(
        serve,
        request_deserializer=pb.DeltaDiscoveryRequest.FromString,
        response_serializer=pb.DeltaDiscoveryResponse.SerializeToString,
    )


def facts_of(request):
    facts = {
        "type": SHORT.get(request.type_url, request.type_url),
        "nonce": request.response_nonce,
        "subscribe": list(request.resource_names_subscribe),
        "unsubscribe": list(request.resource_names_unsubscribe),
        "versions": dict(request.initial_resource_versions),
    }
    if request.HasField("node"):
        facts["node"] = request.node.id
        facts["metadata"] = json_format.MessageToDict(request.node.metadata)
    if request.HasField("error_detail"):
        facts["error"] = request.error_detail.message
    return facts


def content_of(pb, order):
    if order["order"] == "raw":
        return base64.b64decode(order["base64"])
    if order["kind"] == "policy":
        return json_format.ParseDict(order["message"], pb.Authorization()).SerializeToString(deterministic=True)
    address = json_format.ParseDict({order["kind"]: order["message"]}, pb.Address())
    return address.SerializeToString(deterministic=True)


def keys_of(order):
    """Who asks for a service is told its endpoints, too."""
    return order.get("aliases", []) + list(order.get("message", {}).get("services", {}))


def main(folder, port, chain, key):
    with tempfile.TemporaryDirectory() as modules:
        pb = compiled(modules)
    with tempfile.TemporaryDirectory() as modules:
        ca_messages, _ = ca.compiled(modules)
    store = Store()
    server = ca.serve(
        {
            "envoy.service.discovery.v3.AggregatedDiscoveryService": {"DeltaAggregatedResources": delta_ads(store, pb)},
            "istio.v1.auth.IstioCertificateService": ca.istio_ca_methods(ca.Authority(folder), ca_messages),
        }
    )
    ca.listen_tls(server, port, chain, key)
    server.start()
    ca.say("listening")
    for line in sys.stdin:
        order = json.loads(line)
        type_url = AUTHORIZATION if order["kind"] == "policy" else ADDRESS
        entry = None if order["order"] == "remove" else (content_of(pb, order), keys_of(order))
        store.change(type_url, order["name"], entry)
        ca.say("done", name=order["name"])
    server.stop(0)


main(*sys.argv[1:])
