"""Package dfdc_video: install with `pip install -e . -c constraints.txt`, or let `make` do it."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
# Top-level folders of configs, experiments, data set readers and benchmarks that the wheel carries inside the
# package, so that an installed dfdc_video finds them by name from any folder. In a checkout they stay on top.
FOLDERS = ("configs", "experiments", "datasets", "benchmarks")

setup(
    name="dfdc_video",
    version="0.1.0",
    description="Controlled experiments with spatiotemporal video classifiers, made for deepfake detection",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.13",
    packages=[
        *find_packages(include=["dfdc_video", "dfdc_video.*"]),
        *(f"dfdc_video.{folder}" for folder in FOLDERS),
    ],
    package_dir={f"dfdc_video.{folder}": folder for folder in FOLDERS},
    package_data={
        "dfdc_video": ["report/*.html"],
        # what runs; cards and findings (Markdown) and dated results stay in the repository
        **{f"dfdc_video.{folder}": ["*.py", "*.yaml", "*/*.py", "*/*.yaml"] for folder in FOLDERS},
    },
    entry_points={"console_scripts": ["dfdc-video = dfdc_video.cli:main"]},
    install_requires=[
        # versions that go together: mediapipe 0.10.21 (the last that carries its models) wants numpy 1 and
        # protobuf 4, pyarrow 26 fails on numpy 1; mediapipe also depends on opencv-contrib-python
        "mediapipe==0.10.21",
        "numpy>=1.26,<2",
        "protobuf>=4.25.3,<5",
        "pyarrow>=15,<26",
        "av>=14",
        "decord>=0.6.0",
        "fvcore>=0.1.5",
        "imagehash>=4.3",
        "jinja2>=3.1",
        "lightning>=2.6,<3",
        "matplotlib>=3.8",
        "pandas>=2.2",
        "pytorchvideo==0.1.5",
        "pyyaml>=6",
        "rich>=13",
        "scikit-learn>=1.5",
        "scipy>=1.11",
        "timm>=1.0.20",
        "torch>=2.9,!=2.13.0",
        "torchvision>=0.24",
        "wandb>=0.20",
        "yacs>=0.1.8",
    ],
    extras_require={
        "cluster": ["ray>=2.50"],
        "test": [
            "efficientnet_pytorch>=0.7.1",
            "ray>=2.50",
            "pebble>=5.1",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "filelock>=3.12",
            "build>=1.2",
            "setuptools>=77",
            "wheel",
        ],
        "dev": ["ruff>=0.12", "mypy>=1.15", "pandas-stubs", "types-PyYAML"],
        "docs": ["sphinx>=8,<9", "myst-parser>=4", "furo>=2025.7"],
    },
)
