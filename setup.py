"""Build part that pyproject.toml cannot say: targets/ and calib/ of the checkout become srq_hw/_data/ in a wheel."""

from setuptools import find_namespace_packages, setup

DATA = {"srq_hw._data.targets": "targets", "srq_hw._data.calib": "calib"}

setup(
    packages=[*find_namespace_packages(include=["srq_hw", "srq_hw.*"]), *DATA],
    package_dir=DATA,
)
