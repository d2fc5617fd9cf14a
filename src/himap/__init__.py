"""himap: image-token pruning in multimodal LLMs, configured, evaluated, searched and explained."""

__version__ = "0.1.0"
