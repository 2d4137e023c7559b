"""Where the packaged data files (targets, calibration recipes) lie, in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

from srq_hw.errors import InputError
from srq_hw.yamlfile import did_you_mean

#: folder of packaged files -> what one of them is
KINDS = {"targets": "target", "calib": "calibration recipe"}
_PACKAGE = Path(__file__).resolve().parent


def data_folder(kind: str) -> Path:
    """Return the folder of the packaged ``targets`` or ``calib`` files.

    A wheel holds them in ``srq_hw/_data/<kind>`` (see setup.py); a checkout, and so an editable install, holds them at
    its top level.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of data {kind!r}; known: {', '.join(KINDS)}")
    installed = _PACKAGE / "_data" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind


def data_names(kind: str) -> list[str]:
    """Return the sorted names (file names without ``.yaml``) of the packaged files of one kind."""
    return sorted(path.stem for path in data_folder(kind).glob("*.yaml"))


def data_path(kind: str, name: str | Path) -> Path:
    """Return the file that `name` stands for: a packaged file's name, or the path of a user's own file.

    A name is what `data_names` lists. Anything with a folder in it or ending in .yaml or .yml is a path.
    InputError lists the known names, with the nearest one, when nothing fits.
    """
    text = str(name)
    known = data_names(kind)
    if text in known:
        return data_folder(kind) / f"{text}.yaml"
    path = Path(text)
    if path.suffix in (".yaml", ".yml") or path.parent != Path() or "/" in text:
        if path.is_file():
            return path
        what = "is a folder" if path.is_dir() else "no such file"
        raise InputError(
            f"{path}: {what}; give a YAML file, or the name of a packaged {KINDS[kind]}: {', '.join(known)}"
        )
    raise InputError(
        f"{text!r}: no such {KINDS[kind]}{did_you_mean(text, known)}; known: {', '.join(known)}; "
        f"or give the path of your own file (ending in .yaml)"
    )
