"""Download of published weights: verified by digest, tried on the network, then renamed to their final name."""

from __future__ import annotations

import http.client
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from srq_hw.cache import user_cache
from srq_hw.errors import InputError, RunError
from srq_hw.files import beside
from srq_hw.networks.checkpoint import CHECKPOINT_SUFFIXES, build_network, sha256_of
from srq_hw.networks.registry import NETWORKS
from srq_hw.networks.sources import NAMED_DIGEST, source_of
from srq_hw.yamlfile import did_you_mean

Advance = Callable[[int, int], None]

TIMEOUT_SECONDS = 60
CHUNK = 1 << 18
MAX_BYTES = 4 << 30


@dataclass(frozen=True)
class Fetched:
    """A downloaded file. `verified` is the digest prefix it was held against, or None where none is known."""

    network: str
    path: Path
    url: str
    sha256: str
    verified: str | None


def cache_folder(environ: Mapping[str, str] | None = None, platform: str = sys.platform) -> Path:
    """Where fetched weights lie: $SRQ_CACHE, else the platform's cache folder for the user, below it srq-hw/weights."""
    env = os.environ if environ is None else environ
    if env.get("SRQ_CACHE"):
        return Path(env["SRQ_CACHE"])
    return user_cache(env, platform) / "weights"


def fetched_file(network: str) -> Path | None:
    """The file that `fetch` left in the cache folder for a network; None if there is none."""
    places = (cache_folder() / f"{network}{suffix}" for suffix in CHECKPOINT_SUFFIXES)
    return next((path for path in places if path.is_file()), None)


def fetch(
    network: str,
    out: Path | None = None,
    url: str | None = None,
    sha256: str | None = None,
    advance: Advance | None = None,
) -> Fetched:
    """Download a network's weights into folder `out` (default: the cache folder) as NETWORK.<suffix>.

    url: instead of the published address. sha256: first digits the file must have, instead of those in the address's
    file name or in the table. The file is written beside its final name, verified, loaded into the network once, and
    renamed; an interrupted or refused download leaves nothing. InputError for what the user can mend, RunError for a
    failed transfer or a wrong digest.
    """
    info = NETWORKS.get(network)
    if info is None:
        raise InputError(f"network {network!r}: unknown{did_you_mean(network, NETWORKS)}; `srq-hw networks` lists them")
    if info.embedded:
        raise InputError(f"network {network}: its weights come with srq-hw, there is nothing to fetch")
    source = source_of(network)
    address = url or source.url
    if address is None:
        raise InputError(
            f"network {network}: no address is known (origin: {info.origin}); give one with --url, or the file with "
            "--weights where the network is used"
        )
    suffix = _suffix(address)
    allowed = _digests(address, sha256, source.digests)
    folder = cache_folder() if out is None else out
    final = folder / f"{network}{suffix}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror or error}); choose another --out") from error
    try:
        with beside(final, suffix) as place:  # the reader goes by the suffix
            _download(address, place, advance or (lambda done, total: None))
            digest = sha256_of(place)
            verified = next((prefix for prefix in allowed if digest.startswith(prefix)), None)
            if allowed and verified is None:
                raise RunError(
                    f"{address}: SHA-256 begins with {digest[:16]}, wanted {' or '.join(allowed)}; the file was "
                    "damaged on its way or is another one. Nothing was kept"
                )
            try:
                build_network(info, {}, place)
            except InputError as error:
                raise RunError(f"{address}: {str(error).replace(str(place), 'the file')}. Nothing was kept") from error
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error}); choose another --out") from error
    for other in CHECKPOINT_SUFFIXES:  # an older one would be found first
        if other != suffix and out is None:
            final.with_suffix(other).unlink(missing_ok=True)
    return Fetched(network, final, address, digest, verified)


def _suffix(address: str) -> str:
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InputError(f"--url {address}: not an address; allowed are http:// and https://")
    suffix = Path(parts.path).suffix.lower()
    if suffix not in CHECKPOINT_SUFFIXES:
        raise InputError(
            f"--url {address}: names a {suffix or 'file without suffix'}; allowed are {', '.join(CHECKPOINT_SUFFIXES)}"
        )
    return suffix


def _digests(address: str, given: str | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """Prefixes any of which will do; () where nothing is known."""
    if given is not None:
        text = given.lower()
        if not 8 <= len(text) <= 64 or set(text) - set("0123456789abcdef"):
            raise InputError(f"--sha256 {given!r}: wanted 8 to 64 hexadecimal digits")
        return (text,)
    named = NAMED_DIGEST.search(urllib.parse.urlsplit(address).path)
    if named is None:
        return known
    return tuple(digest for digest in known if digest.startswith(named.group(1))) or (named.group(1),)


def _download(address: str, path: Path, advance: Advance) -> None:
    request = urllib.request.Request(address, headers={"User-Agent": "srq-hw"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer, path.open("wb") as file:
            total = int(answer.headers.get("Content-Length") or 0)
            done = 0
            while chunk := _read(answer, address):
                file.write(chunk)
                done += len(chunk)
                if done > MAX_BYTES:
                    raise RunError(f"{address}: more than {MAX_BYTES >> 30} GiB; no weights are that large")
                advance(done, total)
    except urllib.error.HTTPError as error:
        raise RunError(
            f"{address}: the server answers {error.code} {error.reason}; give another address with --url"
        ) from error
    except (urllib.error.URLError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise RunError(f"{address}: no connection ({reason}); check the network or give --url") from error
    if total and done != total:
        raise RunError(f"{address}: cut short, {done} of {total} bytes came; run the command again")


def _read(answer: http.client.HTTPResponse, address: str) -> bytes:
    """A chunk; what the connection raises half-way is no fault of the disk."""
    try:
        return answer.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise RunError(f"{address}: the connection broke ({error}); run the command again") from error
