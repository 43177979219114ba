"""Pretrained backbones compute what they computed where they come from."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request

import pytest
import torch
from torch import Tensor, nn

from rtdetrv2_train.checkpoints import download
from rtdetrv2_train.checkpoints.pretrained_backbones import AUTHORS_BACKBONES, from_timm, load_pretrained_backbone
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.model.backbones.resnet import ResNetVD, ResNetVDConfig
from tests.support import REFERENCE

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def resnet(depth: int, blocks: tuple[int, ...] | None = None, **options: Any) -> ResNetVD:
    return ResNetVD(ResNetVDConfig(blocks or BLOCKS[depth], bottleneck=depth >= 50, **options))


def randomised(model: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("running_var", "bn1.weight", "norm.weight")):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith(("running_mean", "bias")):
                tensor.normal_(0, 0.1)
    return model.eval()


@pytest.fixture
def timm() -> Any:
    return pytest.importorskip("timm")


@pytest.mark.parametrize(("depth", "frozen"), [(18, False), (50, True)])
def test_timm_weights_give_timm_features(depth: int, frozen: bool, timm: Any, tmp_path: Path) -> None:
    theirs = randomised(timm.create_model(f"resnet{depth}d", features_only=True, out_indices=(2, 3, 4)))
    path = tmp_path / "timm.pth"
    torch.save(theirs.state_dict(), path)
    ours = resnet(depth, freeze_batchnorm=frozen).eval()
    line = load_pretrained_backbone(ours, str(path))
    assert line.endswith(f"pretrained tensors from {path}")
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for expected, actual in zip(theirs(images), ours(images), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(("depth", "model"), [(18, "r18vd"), (34, "r34vd"), (50, "r50vd"), (101, "r101vd")])
def test_every_name_and_shape_of_the_reference_is_produced_from_timm(depth: int, model: str, timm: Any) -> None:
    with torch.device("meta"):
        weights = timm.create_model(f"resnet{depth}d").state_dict()
    produced = {name: list(tensor.shape) for name, tensor in from_timm(weights).items()}
    reference = json.loads((REFERENCE / f"{model}.json").read_text())["state_dict"]
    prefix = "backbone."
    expected = {name.removeprefix(prefix): shape for name, shape in reference.items() if name.startswith(prefix)}
    counter = "num_batches_tracked"
    assert {k: v for k, v in produced.items() if counter not in k} == {
        k: v for k, v in expected.items() if counter not in k
    }


def test_timm_is_asked_for_the_pretrained_model(timm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, asked = timm.create_model("resnet18d"), []

    def create_model(name: str, pretrained: bool) -> nn.Module:
        asked.append((name, pretrained))
        return theirs

    monkeypatch.setattr(timm, "create_model", create_model)
    ours = resnet(18)
    load_pretrained_backbone(ours, "timm:resnet18d.ra2_in1k")
    assert asked == [("resnet18d.ra2_in1k", True)]
    assert torch.equal(ours.state_dict()["conv1.conv1_2.conv.weight"], theirs.state_dict()["conv1.3.weight"])


def test_a_timm_that_cannot_fetch_is_one_line_with_the_ways_out(timm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(name: str, pretrained: bool) -> nn.Module:
        raise FileNotFoundError("no connection\nsecond line")

    monkeypatch.setattr(timm, "create_model", create_model)
    with pytest.raises(UserError, match=r"timm:resnet18d could not be fetched.*no connection") as caught:
        load_pretrained_backbone(resnet(18, width=8), "timm:resnet18d")
    message = str(caught.value)
    assert "\n" not in message
    for way in ("pip install timm", "model.pretrained=/path/file.pth", "model.pretrained=null"):
        assert way in message


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which it is served; torch's cache is a folder of the test."""
    served = tmp_path / "served"
    served.mkdir()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Keep the test's output clean."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Quiet(*args, directory=str(served)))
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield served, f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    httpd.server_close()


def weights_of(backbone: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in backbone.state_dict().items()}


def test_an_address_is_fetched_once_and_kept(server: tuple[Path, str]) -> None:
    served, address = server
    released = randomised(resnet(18, width=8))
    torch.save(released.state_dict(), served / "released.pth")
    for _ in range(2):
        backbone = resnet(18, width=8)
        load_pretrained_backbone(backbone, f"{address}/released.pth")
        expected = weights_of(released)
        assert all(torch.equal(tensor, expected[name]) for name, tensor in weights_of(backbone).items())
        (served / "released.pth").unlink(missing_ok=True)


def test_a_missing_address_is_one_line_with_the_ways_out(server: tuple[Path, str]) -> None:
    with pytest.raises(UserError, match=r"none\.pth could not be fetched \(HTTP Error 404.*timm:.*null") as caught:
        load_pretrained_backbone(resnet(18, width=8), f"{server[1]}/none.pth")
    assert "\n" not in str(caught.value)


def test_an_address_that_cannot_be_reached_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(request: Request, timeout: float) -> None:
        raise ConnectionRefusedError("connection refused")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(download, "urlopen", refuse)
    for name, url in AUTHORS_BACKBONES.items():
        with pytest.raises(UserError, match=r"could not be fetched \(connection refused\)") as caught:
            load_pretrained_backbone(resnet(18, width=8), name)
        assert str(caught.value).startswith(url)


@pytest.mark.parametrize(
    ("depth", "name"), [(18, "resnet18d"), (34, "resnet34d"), (50, "resnet50d"), (101, "resnet101d")]
)
def test_the_way_out_names_the_backbone_of_timm_that_fits(depth: int, name: str) -> None:
    with pytest.raises(UserError, match="could not be fetched") as caught:
        load_pretrained_backbone(resnet(depth, width=8), "http://127.0.0.1:9/w.pth")
    assert f"timm:{name} " in str(caught.value)


def test_no_backbone_of_timm_is_proposed_where_none_fits() -> None:
    with pytest.raises(UserError, match="could not be fetched") as caught:
        load_pretrained_backbone(resnet(18, width=8, blocks=(1, 1, 1, 1)), "http://127.0.0.1:9/w.pth")
    assert "timm" not in str(caught.value)


def test_a_download_that_is_cut_short_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly these"
        thread = threading.Thread(target=lambda: _answer(server, answer))
        thread.start()
        with pytest.raises(UserError, match="lost 90 bytes before the end"):
            load_pretrained_backbone(resnet(18, width=8), f"http://127.0.0.1:{server.getsockname()[1]}/w.pth")
        thread.join()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def _answer(server: socket.socket, answer: bytes) -> None:
    connection, _ = server.accept()
    connection.recv(1000)
    connection.sendall(answer)
    connection.close()


def test_a_hub_that_does_not_answer_is_not_asked_again(
    timm: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"waits {seconds} s to try again"))
    with pytest.raises(UserError, match="timm:resnet18d could not be fetched"):
        load_pretrained_backbone(resnet(18), "timm:resnet18d")
    assert hub.constants.HF_HUB_OFFLINE is False


def test_frozen_norms_take_weights_that_count_batches(tmp_path: Path) -> None:
    released = randomised(resnet(18, width=8))
    torch.save({"model": released.state_dict()}, tmp_path / "w.pth")
    frozen = resnet(18, width=8, freeze_batchnorm=True, freeze_stem=True).eval()
    load_pretrained_backbone(frozen, str(tmp_path / "w.pth"))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for expected, actual in zip(released(images), frozen(images), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"width": 16}, r"is \[8, 3, 3, 3\] there and \[4, 3, 3, 3\] here"),
        ({"blocks": (2, 2, 2, 3)}, r"blocks\.2.*is \[64, 64, 3, 3\] there and missing here"),
        ({"blocks": (2, 2, 2, 1)}, r"is missing there and \[64, 64, 3, 3\] here"),
    ],
)
def test_weights_of_another_backbone_are_refused_and_nothing_is_loaded(
    options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    torch.save(resnet(18, **{"width": 8, **options}).state_dict(), tmp_path / "w.pth")
    backbone = resnet(18, width=8)
    before = weights_of(backbone)
    with pytest.raises(UserError, match=rf"belong to another backbone: .*{reason}.*null"):
        load_pretrained_backbone(backbone, str(tmp_path / "w.pth"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_weights_that_are_no_backbone_and_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    torch.save({"embedding.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="belong to another backbone"):
        load_pretrained_backbone(resnet(18, width=8), str(tmp_path / "w.pth"))
    with pytest.raises(UserError, match=r"none\.pth' does not exist"):
        load_pretrained_backbone(resnet(18, width=8), str(tmp_path / "none.pth"))
