"""Pretrained weights from a server that plays the hub: first from there, then from the cache."""

import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save

from mlbench.store import Store
from mlbench_plugins.datasets.synthetic import Synthetic

MODEL = "test_vit.r160_in1k"
"""timm's small model for tests; here with random weights."""
SIZES = "dataset_options={train_images: 24, test_images: 40, size: 32}"
TRACKS = {
    "probe": ("--plugins", f"gap,timm:{MODEL}", "--epochs", "1"),
    "zero_shot": ("--plugins", f"zero_shot,tower:{MODEL}", "--words", "texts.npz"),
}


class Hub(BaseHTTPRequestHandler):
    """Has one file of one repository, as the hub answers for it."""

    protocol_version = "HTTP/1.1"
    content, asked = b"", []

    def answer(self):
        path = f"/timm/{MODEL}/resolve/main/model.safetensors"
        self.asked.append((self.command, self.path))
        body = {"/": b"the hub", path: self.content}.get(self.path)
        self.send_response(404 if body is None else 200)
        for name, value in {
            "Content-Length": str(len(body or b"")),
            "ETag": '"0123456789abcdef"',
            "X-Repo-Commit": "c" * 40,
            **({} if body else {"X-Error-Code": "EntryNotFound"}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if body and self.command == "GET":
            self.wfile.write(body)

    do_GET = do_HEAD = answer  # noqa: N815 - the names that the server calls

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    torch.manual_seed(0)
    Hub.content = save(timm.create_model(MODEL).state_dict())
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def run(folder, hub, track, where, hub_cache="hub", **variables):
    """A run in a process of its own, as the hub's client reads its variables when imported."""
    port = hub.server_address[1]
    command = (sys.executable, "-m", "mlbench", "run", "--track", track, *TRACKS[track])
    command += ("--image-size", "64", "--weights", "default", "--set", SIZES)
    command += ("--set", "measure=false", "--results", where)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | {
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "HF_HOME": str(folder / hub_cache),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MLBENCH_CACHE": str(folder / "cache" / where),
    }
    return subprocess.run(
        command, cwd=folder, env=environment | variables, capture_output=True, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("track", TRACKS)
def test_weights_come_from_the_hub_then_from_its_cache_or_are_refused(track, tmp_path, hub):
    names = Synthetic.names
    vectors = np.random.default_rng(0).normal(size=(len(names), 1000)).astype(np.float32)
    np.savez(tmp_path / "texts.npz", names=np.array(names), vectors=vectors)
    Hub.asked.clear()
    online = run(tmp_path, hub, track, "online")
    assert online.returncode == 0, online.stderr
    assert ("GET", f"/timm/{MODEL}/resolve/main/model.safetensors") in Hub.asked
    Hub.asked.clear()
    offline = run(tmp_path, hub, track, "offline", HF_HUB_OFFLINE="1")
    assert offline.returncode == 0 and not Hub.asked, offline.stderr
    (first,), (second,) = (Store(tmp_path / name).records() for name in ("online", "offline"))
    assert first.scores == second.scores and first.pretraining.data == "ImageNet-1k"
    hub.shutdown()
    hub.server_close()
    for variables in ({}, {"HF_HUB_OFFLINE": "1"}):
        gone = run(tmp_path, hub, track, "gone", hub_cache="empty", **variables)
        said = " ".join((gone.stdout + gone.stderr).split())
        assert gone.returncode == 1 and "Traceback" not in said
        assert f"the weights of {MODEL} cannot be downloaded" in said and "--weights FILE" in said
