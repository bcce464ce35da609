#!/usr/bin/env python3
"""Runs a command beside Cloud Storage's XML API, spoken by a server of S3:
    tests/peers/s3.sh moto tests/peers/gcs.py cargo test --release --workspace --locked a_store_elsewhere

No server of Cloud Storage can be installed that lists and keeps preconditions as its XML API does. The two APIs differ
in the names of headers alone for what a store asks: this translates them. It shows what our `gs://` sends and makes of
the answers; it does not show what Google's servers do.
"""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SERVER = urllib.parse.urlsplit(os.environ["AWS_ENDPOINT_URL"])
# Of one connection, or of one server: tokens of Google mean nothing here.
NOT_PASSED_ON = {"authorization", "connection", "content-length", "host", "keep-alive", "transfer-encoding"}
# moto wants a name, and looks at no signature.
SIGNED = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=none"

# Cloud Storage decides one after the other who made an object; moto looks, and then writes.
CREATING = threading.Lock()


def asked(name: str, value: str) -> tuple[str, str]:
    """A header of Cloud Storage, as S3 calls it."""
    lower = name.lower()
    if lower == "x-goog-if-generation-match":
        if value != "0":
            raise ValueError(f"{name}: {value}: only `0`, which is `not there yet`, has a counterpart")
        return "If-None-Match", "*"
    return lower.replace("x-goog-", "x-amz-", 1) if lower.startswith("x-goog-") else name, value


def place(path: str) -> str:
    """A path whose every sign may be escaped, `/` too, as S3 takes it."""
    path, mark, query = path.partition("?")
    return urllib.parse.quote(urllib.parse.unquote(path)) + mark + query


class Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        size = int(self.headers.get("content-length", 0))
        body = self.rfile.read(size)
        given = [(name, value) for name, value in self.headers.items() if name.lower() not in NOT_PASSED_ON]
        try:
            headers = dict(asked(name, value) for name, value in given)
        except ValueError as error:
            self.send_error(501, str(error))
            return
        headers |= {"Authorization": SIGNED, "Content-Length": str(size)}
        server = http.client.HTTPConnection(SERVER.hostname, SERVER.port, timeout=60)
        with CREATING if "If-None-Match" in headers else contextlib.nullcontext():
            server.request(self.command, place(self.path), body, headers)
            answer = server.getresponse()
            data = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in NOT_PASSED_ON:
                self.send_header(name.lower().replace("x-amz-", "x-goog-", 1), value)
        length = answer.getheader("content-length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

    def log_message(self, *_: object) -> None:
        pass


def main() -> int:
    front = ThreadingHTTPServer(("127.0.0.1", 0), Front)
    threading.Thread(target=front.serve_forever, daemon=True).start()
    account = {"gcs_base_url": f"http://127.0.0.1:{front.server_port}", "disable_oauth": True}
    account |= {"client_email": "", "private_key": "", "private_key_id": ""}
    bucket = os.environ["LLMFLOW_TEST_STORE"].replace("s3://", "gs://", 1)
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    env |= {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account), "GOOGLE_ALLOW_HTTP": "true", "LLMFLOW_TEST_STORE": bucket}
    return subprocess.run(sys.argv[1:], env=env, check=False).returncode


sys.exit(main())
