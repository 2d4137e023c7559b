"""Downloads against a server on this machine: what is kept, and what each failure is answered with."""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from srq_hw.cli import run
from srq_hw.errors import InputError, RunError
from srq_hw.networks.checkpoint import CHECKPOINT_SUFFIXES
from srq_hw.networks.edsr import EdsrOfficial
from srq_hw.networks.fetch import cache_folder, fetch, fetched_file
from srq_hw.networks.loading import load_network
from srq_hw.networks.registry import NETWORKS
from srq_hw.networks.sources import SourceFile, published_files, source_of

NETWORK = "edsr_baseline_x2"


class Handler(BaseHTTPRequestHandler):
    """/NAME: the file of that name; /missing: 404; /short/NAME: half of what it announces."""

    files: dict[str, bytes] = {}  # noqa: RUF012  (filled once by the fixture)

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        if name not in self.files:
            self.send_error(404)
            return
        content = self.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if "/short/" in self.path else content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def weights() -> bytes:
    torch.manual_seed(1)
    buffer = io.BytesIO()
    torch.save(EdsrOfficial(8, 2, 2).state_dict(), buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    content = weights()
    digest = hashlib.sha256(content).hexdigest()
    other = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, other)
    Handler.files = {
        "plain.pt": content,
        f"right-{digest[:8]}.pt": content,
        "wrong-0123abcd.pt": content,
        "other.pth": other.getvalue(),
        "noise.pth": b"not a checkpoint",
        "EDSR-3ba7b086.pth": content,
    }
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SRQ_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


DIGEST = hashlib.sha256(weights()).hexdigest()


def test_a_file_is_verified_kept_and_found(server: str, own_cache: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = fetch(
        NETWORK, url=f"{server}/right-{DIGEST[:8]}.pt", advance=lambda done, total: seen.append((done, total))
    )
    assert (found.path, found.sha256, found.verified) == (own_cache / f"{NETWORK}.pt", DIGEST, DIGEST[:8])
    assert found.path.read_bytes() == weights()
    assert seen[-1] == (len(weights()), len(weights()))
    assert [path.name for path in own_cache.iterdir()] == [f"{NETWORK}.pt"]
    assert fetched_file(NETWORK) == found.path
    net = load_network(NETWORK)
    assert (net.weights_sha256, net.source) == (DIGEST, str(found.path))


def test_a_digest_may_be_given_and_another_folder(server: str, own_cache: Path, tmp_path: Path) -> None:
    found = fetch(NETWORK, tmp_path / "here", f"{server}/plain.pt", DIGEST.upper())
    assert (found.path, found.verified) == (tmp_path / "here" / f"{NETWORK}.pt", DIGEST)
    assert not own_cache.exists()


def test_without_a_known_digest_it_is_said(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["networks", "fetch", "idn_y_x2", "--url", f"{server}/plain.pt"]) == 1  # the weights of another network
    assert "not the weights of idn_y_x2" in capsys.readouterr().err
    assert run(["networks", "fetch", NETWORK, "--url", f"{server}/right-{DIGEST[:8]}.pt", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verified"] == DIGEST[:8]


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("plain.pt", RunError, f"SHA-256 begins with {DIGEST[:16]}, wanted 1bc95232"),
        ("wrong-0123abcd.pt", RunError, "wanted 0123abcd"),
        ("missing.pt", RunError, "the server answers 404 Not Found; give another address with --url"),
        (f"short/right-{DIGEST[:8]}.pt", RunError, "cut short|connection broke"),
        ("plain.zip", InputError, r"names a \.zip; allowed are \.pth, \.pt, \.safetensors"),
        ("plain", InputError, "names a file without suffix"),
    ],
)
def test_a_failed_download_leaves_nothing(
    server: str, own_cache: Path, path: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        fetch(NETWORK, url=f"{server}/{path}")
    assert not own_cache.exists() or not list(own_cache.iterdir())


@pytest.mark.parametrize(("name", "message"), [("other.pth", "not the weights of carn_x2"), ("noise.pth", "damaged")])
def test_a_file_that_does_not_fit_is_not_kept(server: str, own_cache: Path, name: str, message: str) -> None:
    own_cache.mkdir()
    (own_cache / "carn_x2.pth").write_bytes(b"what was there before")
    with pytest.raises(RunError, match=f"{message}.*Nothing was kept") as caught:
        fetch("carn_x2", url=f"{server}/{name}")
    assert ".part" not in str(caught.value)
    assert [path.read_bytes() for path in own_cache.iterdir()] == [b"what was there before"]


def test_an_older_file_of_another_suffix_is_replaced(server: str, own_cache: Path) -> None:
    own_cache.mkdir()
    (own_cache / f"{NETWORK}.pth").write_bytes(b"old")
    fetch(NETWORK, url=f"{server}/right-{DIGEST[:8]}.pt")
    assert [path.name for path in own_cache.iterdir()] == [f"{NETWORK}.pt"]


def test_no_connection() -> None:
    with pytest.raises(RunError, match=r"http://127\.0\.0\.1:9/a\.pt: no connection"):
        fetch(NETWORK, url="http://127.0.0.1:9/a.pt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("edsr",), "network 'edsr': unknown"),
        (("srq_edsr4_24_x2",), "come with srq-hw"),
        (("carn_x2",), "carn_x2: no address is known .*--url"),
        ((NETWORK, None, "file:///etc/passwd.pt"), "not an address; allowed are http:// and https://"),
        ((NETWORK, None, "https:///a.pt"), "not an address"),
        ((NETWORK, None, "http://127.0.0.1:9/a.pt", "abc"), "--sha256 'abc': wanted 8 to 64 hexadecimal digits"),
    ],
)
def test_what_the_user_can_mend(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fetch(*arguments)  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_made(server: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/below: cannot be made"):
        fetch(NETWORK, tmp_path / "file" / "below", f"{server}/right-{DIGEST[:8]}.pt")


def test_networks_without_a_file_say_how_to_get_one() -> None:
    with pytest.raises(InputError, match=f"`srq-hw networks fetch {NETWORK}` or add --weights FILE"):
        load_network(NETWORK)


@pytest.mark.parametrize(
    ("platform", "environ", "folder"),
    [
        ("linux", {"HOME": "/home/u"}, "/home/u/.cache/srq-hw/weights"),
        ("linux", {"HOME": "/home/u", "XDG_CACHE_HOME": "/c"}, "/c/srq-hw/weights"),
        ("linux", {"HOME": "/home/u", "XDG_CACHE_HOME": "c"}, "/home/u/.cache/srq-hw/weights"),
        ("darwin", {"HOME": "/Users/u"}, "/Users/u/Library/Caches/srq-hw/weights"),
        ("win32", {"HOME": "/u", "LOCALAPPDATA": "/u/local"}, "/u/local/srq-hw/weights"),
        ("linux", {"HOME": "/home/u", "SRQ_CACHE": "/mine"}, "/mine"),
    ],
)
def test_cache_folder(platform: str, environ: dict[str, str], folder: str) -> None:
    assert cache_folder(environ, platform) == Path(folder)


def test_the_table_of_sources() -> None:
    assert source_of(NETWORK).url == "https://cv.snu.ac.kr/research/EDSR/models/edsr_baseline_x2-1bc95232.pt"
    assert [digest[:8] for digest in source_of("edsr_x4").digests] == ["4f62e9ef", "76ee1c8f"]
    assert source_of("carn_x2").url is None
    assert str(source_of("msrresnet_x4").url).startswith("https://download.openmmlab.com/")
    names = [item.file for item in published_files()]
    assert len(names) == len(set(names))
    digests = [item.sha256[:8] for item in published_files()]
    assert len(digests) == len(set(digests))
    urls = [item.url for item in published_files() if item.url]
    assert len(urls) == len(set(urls))


@pytest.mark.parametrize("item", published_files(), ids=lambda item: item.file)
def test_every_published_file(item: SourceFile) -> None:
    info = NETWORKS[item.network]
    assert item.naming in {"official", *(layout.name for layout in info.layouts)}
    assert re.fullmatch(r"[0-9a-f]{8,64}", item.sha256)
    stem = Path(item.file).stem
    assert f"x{info.scale}" in stem.lower()
    if "-" in stem:
        assert item.sha256.startswith(stem.rsplit("-", 1)[-1])
    assert Path(item.file).suffix in CHECKPOINT_SUFFIXES
    if item.url:
        assert item.url.rsplit("/", 1)[-1] == item.file
        assert item.sha256 in source_of(item.network).digests


def test_where_a_whole_digest_is_known_all_of_it_counts(server: str, own_cache: Path) -> None:
    known = source_of("edsr_baseline_x2").digests
    whole = next(digest for digest in known if digest.startswith("3ba7b086"))
    assert len(whole) == 64
    with pytest.raises(RunError, match=rf"wanted {whole}; "):
        fetch(NETWORK, url=f"{server}/EDSR-3ba7b086.pth")
    assert not list(own_cache.glob("*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "edsr_x9"}, "network 'edsr_x9' is not known"),
        ({"naming": "Caffe"}, "edsr_x2 has official, BasicSR"),
        ({"sha256": "0edfb8a4"}, "does not begin as the name"),
        ({"url": "https://a/b.pt"}, "does not end in"),
        ({"url": "ftp://a/edsr_x2-0edfb8a3.pt"}, "url"),
    ],
)
def test_a_wrong_entry_is_refused(change: dict[str, str], message: str) -> None:
    entry = {"network": "edsr_x2", "file": "edsr_x2-0edfb8a3.pt", "sha256": "0edfb8a3", "naming": "official"}
    SourceFile.model_validate(entry)
    with pytest.raises(ValueError, match=message):
        SourceFile.model_validate({**entry, **change})


def test_the_list_shows_what_is_there(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    fetch(NETWORK, url=f"{server}/right-{DIGEST[:8]}.pt")
    assert run(["networks", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows.keys() == NETWORKS.keys()
    states = [rows[name]["weights"] for name in ("srq_edsr4_24_x2", NETWORK, "edsr_x2", "carn_x2")]
    assert states == ["embedded", "fetched", "fetch", "a file"]
    assert rows["idn_y_x2"]["channels"] == 1
    assert run(["networks"]) == 0
    assert "idn_rgb_x4" in capsys.readouterr().out
