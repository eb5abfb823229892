"""Package metadata; tools are configured in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

VERSION = re.search(r'__version__ = "(.*)"', Path("cat_jax/__init__.py").read_text("utf-8"))[1]

setup(
    name="cat-jax",
    version=VERSION,
    description="Causal attention tuning of language models in JAX",
    long_description=Path("README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["cat_jax*", "pallas_kernels*"]),
    package_data={
        "cat_jax.analysis.pages": ["*.html", "*.css", "*.js"],
        "cat_jax.annotation": ["priors/*.yaml"],
        "cat_jax.annotation.review": ["review.*"],
    },
    install_requires=[
        "jax>=0.10.2",
        "flax>=0.12.8",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "etils[epath]>=1.12",
        "transformers>=5.0",
        "tokenizers>=0.22",
        "safetensors>=0.7",
        "huggingface-hub>=1.0",
        "jinja2>=3.1",
        "grain>=0.2.18",
        "datasets>=5.0",
        "zstandard>=0.25",
        "networkx>=3.4",
        "pyyaml>=6.0",
        "pydantic>=2.10",
        "jaxtyping>=0.3.4",
        "tyro>=1.0",
        "rich>=14.0",
        "tensorboardX>=2.6.5",
        "matplotlib>=3.10",
        "regex>=2025.10.22",
    ],
    extras_require={
        # The compilers of the kernels run on any machine; libtpu and the plugin are of one jax.
        "compilers": [
            "libtpu",
            "jax-cuda13-plugin; python_version >= '3.12'",
            "nvidia-cuda-nvcc; python_version >= '3.12'",
        ],
        "gpu": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
        "annotate": ["openai>=2.0", "json-repair>=0.50"],
        "beam": ["apache-beam>=2.70"],
        "lm-eval": ["lm-eval>=0.4.13"],
        "gcs": ["gcsfs>=2025.3"],
        # tensorflow-datasets imports importlib_resources and does not say so.
        "tfds": ["tensorflow-datasets>=4.9.8", "importlib_resources>=6.4"],
        "wandb": ["wandb>=0.19"],
        "notebook": ["jupyterlab>=4.4", "nbclient>=0.10", "treescope>=0.1.10"],
        "test": [
            "pytest>=9.0",
            "pytest-xdist>=3.8",
            "hypothesis>=6.140",
            "scipy>=1.15",
            "openai>=2.0",
            "json-repair>=0.50",
            "markdown-it-py>=3.0",
            "selenium>=4.30",
            "nbclient>=0.10",
            "ipykernel>=6.29",
            "ruff>=0.14",
            "pyright[nodejs]>=1.1.400",
            # The parity oracles; torch's CPU build has wheels for this Python alone.
            "torch==2.13.0; python_version < '3.12'",
            "peft>=0.19; python_version < '3.12'",
        ],
    },
)
