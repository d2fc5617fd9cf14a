"""Image features kept on disk: what a model's vision tower made of an image is computed once for all runs."""

from himap.features.cache import FeatureCache, open_cache

__all__ = ["FeatureCache", "open_cache"]
