"""Where the packages lie; everything else about the distribution stands in pyproject.toml.

`conf/` and `sweeps/` live at the top of the checkout, where a user edits them, and travel in the wheel as
`himap/conf` (`conf/sweeps` is a link to `sweeps/`). pyproject.toml cannot say both that and "find the rest".
"""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages("src"), "himap.conf"],
    package_dir={"": "src", "himap.conf": "conf"},
    package_data={
        "himap": [
            "py.typed",
            "**/*.json",
            "**/*.jsonl",
            "**/*.safetensors",
            "**/*.txt",
            "**/*.jinja",
            "**/*.md",
        ],
        "himap.conf": ["**/*.yaml"],
    },
)
