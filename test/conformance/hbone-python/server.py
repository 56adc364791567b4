"""Port 15008 played by python3-h2: serves every tunnel on all addresses and reports what it sees as JSON lines.

server.py KEY CHAIN ROOTS [option=value ...]

Options: status=N answers every CONNECT with N (default 200); silent=1 answers none; maxstreams=N announces a limit;
reset=CODE resets a stream when its first data came; goaway=1 says GOAWAY after the first CONNECT was answered;
window=1 never gives flow-control credit back.
"""
import json
import socket
import ssl
import sys
import threading

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

KEY, CHAIN, ROOTS = sys.argv[1:4]
OPTIONS = dict(argument.split("=", 1) for argument in sys.argv[4:])
LOCK = threading.Lock()


def tell(**event):
    with LOCK:
        print(json.dumps(event), flush=True)


def tls_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(CHAIN, KEY)
    context.load_verify_locations(ROOTS)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.sni_callback = lambda sock, name, _context: setattr(sock, "asked_for", name)
    return context


def settings_of(frames):
    """The SETTINGS of the peer as sent: number to value, in order. h2 itself keeps only the result."""
    seen = []
    while len(frames) >= 9:
        length = int.from_bytes(frames[0:3], "big")
        kind, flags = frames[3], frames[4]
        payload = frames[9 : 9 + length]
        if kind == 4 and not flags & 1:
            for at in range(0, length, 6):
                seen.append([int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big")])
        frames = frames[9 + length :]
    return seen


class Session:
    def __init__(self, number, tls):
        self.number = number
        self.tls = tls
        self.first = b""
        config = h2.config.H2Configuration(
            client_side=False,
            header_encoding="utf-8",
            validate_inbound_headers=False,  # It knows no plain CONNECT, which has no :path.
        )
        self.h2 = h2.connection.H2Connection(config=config)
        if "maxstreams" in OPTIONS:
            limit = {h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: int(OPTIONS["maxstreams"])}
            self.h2.local_settings = h2.settings.Settings(client=False, initial_values=limit)
        self.h2.initiate_connection()

    def serve(self):
        try:
            self.flush()
            while True:
                data = self.tls.recv(65536)
                if not data:
                    break
                self.first += data if len(self.first) < 4096 else b""
                for event in self.h2.receive_data(data):
                    self.handle(event)
                self.flush()
        except Exception as error:  # Whatever it is, the test must hear of it.
            tell(event="broken", session=self.number, error=repr(error))
        tell(event="closed", session=self.number)
        self.tls.close()

    def flush(self):
        self.tls.sendall(self.h2.data_to_send())

    def handle(self, event):
        session = self.number
        if isinstance(event, h2.events.RemoteSettingsChanged):
            tell(event="settings", session=session, settings=settings_of(self.first[24:]))
        elif isinstance(event, h2.events.WindowUpdated) and event.stream_id == 0:
            tell(event="window", session=session, increment=event.delta)
        elif isinstance(event, h2.events.RequestReceived):
            ended = event.stream_ended is not None
            tell(event="request", session=session, stream=event.stream_id, headers=event.headers, ended=ended)
            self.answer(event.stream_id)
        elif isinstance(event, h2.events.DataReceived):
            self.data(event)
        elif isinstance(event, h2.events.StreamEnded):
            tell(event="end", session=session, stream=event.stream_id)
            self.h2.end_stream(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            tell(event="reset", session=session, stream=event.stream_id, code=int(event.error_code))
        elif isinstance(event, h2.events.PingReceived):
            tell(event="ping", session=session, payload=event.ping_data.hex())
        elif isinstance(event, h2.events.ConnectionTerminated):
            tell(event="goaway", session=session, code=int(event.error_code))

    def answer(self, stream):
        if "silent" in OPTIONS:
            return
        status = OPTIONS.get("status", "200")
        self.h2.send_headers(stream, [(":status", status)], end_stream=status != "200")
        if "goaway" in OPTIONS and self.number == 1:
            # Not close_connection: h2 would refuse to carry on, and streams in flight must.
            frame = (2**31 - 1).to_bytes(4, "big") + bytes(4)
            self.flush()
            self.tls.sendall(len(frame).to_bytes(3, "big") + bytes([7, 0]) + bytes(4) + frame)

    def data(self, event):
        stream = event.stream_id
        if not event.data:
            return
        tell(event="data", session=self.number, stream=stream, data=event.data.decode("latin-1"))
        if "reset" in OPTIONS:
            self.h2.reset_stream(stream, int(OPTIONS["reset"]))
            return
        if "window" not in OPTIONS:
            self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
        self.h2.send_data(stream, b"python:" + event.data)


def accepted(number, raw, context):
    try:
        tls = context.wrap_socket(raw, server_side=True)
    except (OSError, ssl.SSLError) as error:
        tell(event="refused", session=number, error=str(error))
        return
    names = [value for kind, value in tls.getpeercert().get("subjectAltName", ()) if kind == "URI"]
    tell(
        event="tls",
        session=number,
        version=tls.version(),
        cipher=tls.cipher()[0],
        alpn=tls.selected_alpn_protocol(),
        sni=getattr(tls, "asked_for", None),
        names=names,
        resumed=tls.session_reused,
    )
    Session(number, tls).serve()


def main():
    listener = socket.create_server(("0.0.0.0", 15008), backlog=64)
    context = tls_context()
    tell(event="listening")
    number = 0
    while True:
        raw, _ = listener.accept()
        number += 1
        threading.Thread(target=accepted, args=(number, raw, context), daemon=True).start()


main()
