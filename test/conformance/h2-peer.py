"""HBONE peer built on python3-h2 (an HTTP/2 stack of its own): `h2-peer.py server|client PORT CERT KEY CA`.

Server: prints "port N", serves one connection, echoes each CONNECT stream, half-closes when the peer does.
Client: opens one CONNECT with baggage and forwarded, sends a body, ends its half, reads the echo.
Both print one JSON line with everything they saw: settings, windows, headers, status, body hash.
"""

import hashlib
import json
import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events
import h2.settings

BODY = bytes(i * 31 % 251 for i in range(3_000_000))
NAMES = {code.value: code.name for code in h2.settings.SettingCodes}


def context(role, cert, key, ca):
    side = ssl.PROTOCOL_TLS_SERVER if role == "server" else ssl.PROTOCOL_TLS_CLIENT
    made = ssl.SSLContext(side)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_cert_chain(cert, key)
    made.load_verify_locations(ca)
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    made.set_alpn_protocols(["h2"])
    return made


class Peer:
    def __init__(self, role, tls):
        self.tls = tls
        self.role = role
        # Its header checks do not know CONNECT: they ask for :path and :scheme. The test compares every header itself.
        config = h2.config.H2Configuration(
            client_side=role == "client",
            header_encoding="utf-8",
            validate_inbound_headers=False,
            validate_outbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config=config)
        self.pending = {}
        self.ending = set()
        self.ended = set()
        self.seen = {
            "alpn": tls.selected_alpn_protocol(),
            "settings": {},
            "windowUpdates": [],
            "requests": [],
            "responses": [],
            "received": {},
            "resets": [],
            "goaways": [],
            "pings": 0,
        }
        self.hashes = {}

    def run(self):
        self.h2.initiate_connection()
        self.flush()
        if self.role == "client":
            self.request()
        while True:
            data = self.tls.recv(65536)
            if not data:
                break
            for event in self.h2.receive_data(data):
                self.handle(event)
            self.pump()
            if self.role == "client" and 1 in self.ended:
                self.h2.close_connection()
                self.flush()
                break
        self.seen["received"] = {str(k): [n, h.hexdigest()] for k, (n, h) in self.hashes.items()}
        print(json.dumps(self.seen), flush=True)

    def request(self):
        headers = [
            (":method", "CONNECT"),
            (":authority", "10.0.0.1:80"),
            ("baggage", "k8s.namespace.name=default"),
            ("forwarded", 'for="10.0.0.9:1234"'),
        ]
        self.h2.send_headers(1, headers)
        self.flush()

    def handle(self, event):
        kind = type(event).__name__
        if kind == "RemoteSettingsChanged":
            for code, change in event.changed_settings.items():
                self.seen["settings"][NAMES.get(int(code), str(int(code)))] = change.new_value
        elif kind == "WindowUpdated":
            self.seen["windowUpdates"].append([event.stream_id or 0, event.delta])
        elif kind == "RequestReceived":
            self.seen["requests"].append(event.headers)
            self.h2.send_headers(event.stream_id, [(":status", "200"), ("baggage", "x=1")])
        elif kind == "ResponseReceived":
            self.seen["responses"].append(event.headers)
            self.queue(1, BODY)
            self.ending.add(1)
        elif kind == "DataReceived":
            count, digest = self.hashes.get(event.stream_id, (0, hashlib.sha256()))
            digest.update(event.data)
            self.hashes[event.stream_id] = (count + len(event.data), digest)
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if self.role == "server":
                self.queue(event.stream_id, event.data)
        elif kind == "StreamEnded":
            self.ended.add(event.stream_id)
            if self.role == "server":
                self.ending.add(event.stream_id)
        elif kind == "StreamReset":
            self.seen["resets"].append([event.stream_id, int(event.error_code)])
        elif kind == "ConnectionTerminated":
            self.seen["goaways"].append([event.last_stream_id, int(event.error_code)])
        elif kind == "PingReceived":
            self.seen["pings"] += 1

    def queue(self, stream_id, data):
        self.pending[stream_id] = self.pending.get(stream_id, b"") + data

    def pump(self):
        for stream_id in list(self.pending):
            data = self.pending[stream_id]
            while data:
                room = min(self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size)
                if room <= 0:
                    break
                self.h2.send_data(stream_id, data[:room])
                data = data[room:]
            self.pending[stream_id] = data
        for stream_id in list(self.ending):
            if not self.pending.get(stream_id):
                self.ending.discard(stream_id)
                self.h2.end_stream(stream_id)
        self.flush()

    def flush(self):
        self.tls.sendall(self.h2.data_to_send())


def main():
    role, port, cert, key, ca = sys.argv[1:]
    made = context(role, cert, key, ca)
    if role == "client":
        raw = socket.create_connection(("127.0.0.1", int(port)))
        Peer(role, made.wrap_socket(raw)).run()
        return
    listener = socket.create_server(("127.0.0.1", int(port)))
    print("port", listener.getsockname()[1], flush=True)
    raw, _ = listener.accept()
    Peer(role, made.wrap_socket(raw, server_side=True)).run()


main()
