"""An HBONE client made of python3-h2: opens one tunnel to port 15008, acts on orders, reports as JSON lines.

client.py KEY CHAIN ROOTS ADDRESS, orders as JSON lines on stdin:

{"do": "connect", "headers": [[name, value], ...], "data": text?}   a stream; the first is 1, then 3, 5, ...
{"do": "data", "stream": N, "data": text} {"do": "end", "stream": N} {"do": "reset", "stream": N, "code": N}
{"do": "ping", "payload": hex} {"do": "raw", "hex": bytes} {"do": "close"}
"""
import json
import os
import selectors
import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events

KEY, CHAIN, ROOTS, ADDRESS = sys.argv[1:5]
GOAWAY = 7
PING = 6


def tell(**event):
    print(json.dumps(event), flush=True)


def open_tls():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(CHAIN, KEY)
    context.load_verify_locations(ROOTS)
    context.set_alpn_protocols(["h2"])
    tls = context.wrap_socket(socket.create_connection((ADDRESS, 15008), timeout=10))
    names = [value for kind, value in tls.getpeercert().get("subjectAltName", ()) if kind == "URI"]
    tell(event="tls", version=tls.version(), cipher=tls.cipher()[0], alpn=tls.selected_alpn_protocol(), names=names)
    return tls


class Frames:
    """
    Shows the frames that h2 interprets without telling: SETTINGS as sent, GOAWAY, PING. Keeps GOAWAY from h2: it would
    take no frame after one, and streams in flight go on.
    """

    def __init__(self):
        self.rest = b""

    def push(self, data):
        self.rest += data
        for_h2 = b""
        while len(self.rest) >= 9:
            end = 9 + int.from_bytes(self.rest[0:3], "big")
            if len(self.rest) < end:
                break
            frame, self.rest = self.rest[:end], self.rest[end:]
            self.show(frame[3], frame[4], frame[9:])
            for_h2 += b"" if frame[3] == GOAWAY else frame
        return for_h2

    def show(self, kind, flags, payload):
        if kind == 4 and not flags & 1:
            pairs = [payload[at : at + 6] for at in range(0, len(payload), 6)]
            settings = [[int.from_bytes(pair[:2], "big"), int.from_bytes(pair[2:], "big")] for pair in pairs]
            tell(event="settings", settings=settings)
        elif kind == GOAWAY:
            last, code = (int.from_bytes(payload[at : at + 4], "big") for at in (0, 4))
            tell(event="goaway", last=last & 0x7FFFFFFF, code=code, text=payload[8:].decode("latin-1"))
        elif kind == PING:
            tell(event="pong" if flags & 1 else "ping", payload=payload.hex())


class Client:
    def __init__(self, tls):
        self.tls = tls
        self.frames = Frames()
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config=config)
        self.h2.initiate_connection()
        self.orders = b""

    def run(self):
        self.flush()
        os.set_blocking(0, False)
        self.tls.setblocking(False)
        selector = selectors.DefaultSelector()
        selector.register(0, selectors.EVENT_READ)
        selector.register(self.tls, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == 0 and not self.read_orders():
                    return
                if key.fd != 0 and not self.read_socket():
                    tell(event="closed")
                    return

    def flush(self):
        self.write(self.h2.data_to_send())

    def write(self, data):
        self.tls.setblocking(True)
        self.tls.sendall(data)
        self.tls.setblocking(False)

    def read_orders(self):
        data = os.read(0, 65536)
        if not data:
            return False
        self.orders += data
        while b"\n" in self.orders:
            line, self.orders = self.orders.split(b"\n", 1)
            if not self.act(json.loads(line)):
                return False
        return True

    def act(self, order):
        what = order["do"]
        if what == "close":
            return False
        if what == "connect":
            stream = self.h2.get_next_available_stream_id()
            self.h2.send_headers(stream, [tuple(pair) for pair in order["headers"]])
            if "data" in order:
                self.h2.send_data(stream, order["data"].encode())
        elif what == "data":
            self.h2.send_data(order["stream"], order["data"].encode())
        elif what == "end":
            self.h2.end_stream(order["stream"])
        elif what == "reset":
            self.h2.reset_stream(order["stream"], order["code"])
        elif what == "ping":
            self.h2.ping(bytes.fromhex(order["payload"]))
        elif what == "raw":
            self.flush()
            self.write(bytes.fromhex(order["hex"]))
        self.flush()
        return True

    def read_socket(self):
        try:
            data = self.tls.recv(65536)
        except ssl.SSLWantReadError:
            return True
        except OSError as error:
            tell(event="broken", error=repr(error))
            return False
        if not data:
            return False
        try:
            for event in self.h2.receive_data(self.frames.push(data)):
                self.handle(event)
        except h2.exceptions.ProtocolError as error:
            tell(event="broken", error=repr(error))
        self.flush()
        return True

    def handle(self, event):
        if isinstance(event, h2.events.ResponseReceived):
            tell(
                event="response",
                stream=event.stream_id,
                headers=event.headers,
                ended=event.stream_ended is not None,
            )
        elif isinstance(event, h2.events.DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.data:
                tell(event="data", stream=event.stream_id, data=event.data.decode("latin-1"))
        elif isinstance(event, h2.events.StreamEnded):
            tell(event="end", stream=event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            tell(event="reset", stream=event.stream_id, code=int(event.error_code))
        elif isinstance(event, h2.events.WindowUpdated) and event.stream_id == 0:
            tell(event="window", increment=event.delta)


Client(open_tls()).run()
