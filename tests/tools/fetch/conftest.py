"""A local web server that can cut off, change and refuse what it serves."""

import hashlib
import http.server
import re
import threading

import pytest

from mlbench_tools.fetch import download


class Site:
    """Files by name, and how they are served."""

    def __init__(self):
        self.files = {}
        self.address = ""
        self.ranges = True
        self.cuts = []  # bytes after which each of the next answers is cut off
        self.status = None  # answered instead of any file
        self.asked = []  # (name, Range header) of every request


def _handler(site):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name, given = self.path[1:], self.headers.get("Range")
            site.asked.append((name, given))
            content = site.files.get(name)
            if content is None or site.status is not None:
                self.send_error(site.status or 404)
                return
            tag = f'"{hashlib.md5(content).hexdigest()}"'
            wanted = re.fullmatch(r"bytes=(\d+)-", given or "")
            start = int(wanted[1]) if wanted and site.ranges else 0
            if self.headers.get("If-Range") not in (None, tag):
                start = 0
            if start and start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", tag)
            self.end_headers()
            body = content[start:]
            self.wfile.write(body[: site.cuts.pop(0)] if site.cuts else body)

        def log_message(self, *_):
            pass

    return Handler


@pytest.fixture
def site(monkeypatch):
    """A web server that a download does not wait for."""
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    site = Site()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(site))
    site.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()
