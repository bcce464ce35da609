"""S3 servers on this machine: moto, which keeps nothing and checks no signature, and s3s-fs, which does both."""

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from project import Project

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
MOTO = Path(os.environ.get("LLMFLOW_MOTO_VENV", CACHE / "llmflow-moto-5.2.5")) / "bin/moto_server"
S3S = Path(os.environ.get("LLMFLOW_TOOLS", CACHE / "llmflow-tools")) / "bin/s3s-fs"
BUCKET = "llmflow-faults"
SECRET = "the-secret-of-the-tests"


def has_moto() -> bool:
    return MOTO.exists()


def has_s3s() -> bool:
    return S3S.exists()


def moto(port: int):
    return serving([MOTO, "-H", "127.0.0.1", "-p", str(port)], port)


def s3s(port: int, folder: Path):
    """What it is given lies in `folder`, and is there again when it is started again."""
    (folder / BUCKET).mkdir(parents=True, exist_ok=True)
    return serving([S3S, "--host", "127.0.0.1", "--port", str(port), "--access-key", "test", "--secret-key", SECRET, folder], port)


@contextmanager
def serving(words: list, port: int) -> Iterator[subprocess.Popen]:
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield server
    finally:
        server.kill()
        server.wait()


def s3_environment(port: int) -> dict[str, str]:
    endpoint = f"http://127.0.0.1:{port}"
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
    return keys | {"AWS_ENDPOINT": endpoint, "AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def on_s3(project: Project) -> Project:
    file = project.folder / "small.yaml"
    file.write_text(file.read_text().replace("seed: 7\n", f'seed: 7\nstore: "s3://{BUCKET}/shared"\n'))
    return project


def make_bucket(port: int) -> None:
    """Of moto, which lets anybody."""
    words = urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
    urllib.request.urlopen(words, timeout=10).read()
