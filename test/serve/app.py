#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A function of kind http for the server's tests: what a path does is below."""
import os
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn

count = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            data = b""
            while True:
                n = int(self.rfile.readline().split(b";")[0], 16)
                data += self.rfile.read(n)
                self.rfile.readline()
                if not n:
                    return data
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reply(self, status, data, fields=()):
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def handle_any(self):
        global count
        count += 1
        path, _, query = self.path.partition("?")
        if path == "/echo":
            self.reply(200, self.body(), [("Content-Type", "application/x-echo")])
        elif path == "/count":
            self.reply(200, b"%d" % count)
        elif path == "/show":
            lines = "%s %s\n" % (self.command, self.path)
            self.reply(200, (lines + str(self.headers)).encode())
        elif path == "/status":
            self.reply(int(query), b"as told", [("X-App", "yes")])
        elif path == "/nocontent":
            self.send_response(204)
            self.end_headers()
        elif path == "/notmodified":
            self.send_response(304)
            self.send_header("ETag", '"x"')
            self.end_headers()
        elif path == "/chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Trailer", "X-Late")
            self.end_headers()
            for i in range(int(query)):
                self.wfile.write(b"5\r\nabcd%d\r\n" % (i % 10))
            self.wfile.write(b"0\r\nX-Late: 1\r\n\r\n")
        elif path == "/untilclose":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"until the end")
            self.close_connection = True
        elif path == "/big":
            n = int(query)
            self.send_response(200)
            self.send_header("Content-Length", str(n))
            self.end_headers()
            piece = bytes(range(256)) * 256
            while n > 0:
                self.wfile.write(piece[:n])
                n -= len(piece)
        elif path == "/sleep":
            time.sleep(float(query))
            self.reply(200, b"slept")
        elif path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"not a hundred")
            self.close_connection = True
        elif path == "/garbage":
            self.wfile.write(b"\x00\x01this is not HTTP\r\n\r\n")
            self.close_connection = True
        elif path == "/nothing":
            self.close_connection = True
        elif path == "/inject":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: a\x01b\r\n\r\nok")
            self.close_connection = True
        elif path == "/two":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                             b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")
        elif path == "/early":
            self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
            self.reply(200, b"later")
        elif path == "/noread":
            self.reply(200, b"didn't look")
            self.close_connection = True
        elif path == "/switch":
            self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
        elif path == "/reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                       b"\x01\0\0\0\0\0\0\0")
            self.connection.close()
            self.close_connection = True
        elif path == "/exit":
            os._exit(int(query))
        elif path == "/say":
            print(query, file=sys.stderr, flush=True)
            self.reply(200, b"said")
        elif path == "/pid":
            self.reply(200, b"%d" % os.getpid())
        else:
            self.reply(404, b"the function's own 404", [("Connection", "X-Private"),
                                                        ("X-Private", "1")])

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = handle_any


class Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True
    request_queue_size = 16

    def handle_error(self, request, client_address):
        pass


Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
