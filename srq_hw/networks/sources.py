"""sources.yaml: the published files of weights, their addresses and digests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

from pydantic import BaseModel, ConfigDict, Field, model_validator

from srq_hw.networks.registry import NETWORKS
from srq_hw.yamlfile import load_model

#: digits of a SHA-256 at the end of a file name, as torch.hub puts them there
NAMED_DIGEST = re.compile(r"-([0-9a-f]{8,64})\.[A-Za-z]+$")
OWN_NAMING = "official"


class SourceFile(BaseModel):
    """One published file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: str
    file: str
    naming: str
    sha256: str = Field(pattern=r"^[0-9a-f]{8,64}$")
    url: str | None = Field(default=None, pattern=r"^https?://\S+$")

    @model_validator(mode="after")
    def _agrees(self) -> SourceFile:
        if self.network not in NETWORKS:
            raise ValueError(f"network {self.network!r} is not known")
        namings = [OWN_NAMING, *(layout.name for layout in NETWORKS[self.network].layouts)]
        if self.naming not in namings:
            raise ValueError(f"naming {self.naming!r}; {self.network} has {', '.join(namings)}")
        named = NAMED_DIGEST.search(self.file)
        if named and not self.sha256.startswith(named.group(1)):
            raise ValueError(f"sha256 {self.sha256!r} does not begin as the name {self.file} says")
        if self.url and not self.url.endswith(f"/{self.file}"):
            raise ValueError(f"url {self.url} does not end in {self.file}")
        return self


class Sources(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(alias="schema", ge=1, le=1)
    files: list[SourceFile]


@dataclass(frozen=True)
class Source:
    """What is known of a network's published weights: address (None: none), digests any of which a file may have."""

    url: str | None
    digests: tuple[str, ...]


@cache
def published_files() -> tuple[SourceFile, ...]:
    """The packaged table."""
    with as_file(files("srq_hw.networks") / "sources.yaml") as path:
        return tuple(load_model(Sources, path).files)


def source_of(network: str) -> Source:
    """Address of the first file that has one, and the digests of all files of a network."""
    found = [item for item in published_files() if item.network == network]
    url = next((item.url for item in found if item.url), None)
    return Source(url, tuple(item.sha256 for item in found))
