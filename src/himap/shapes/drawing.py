"""Pixels of a scene: anti-aliased shapes on a dull, textured background. numpy only, so that every machine
draws the same picture."""

from __future__ import annotations

import numpy as np

from himap.shapes.scene import COLOURS, SHAPES, SIDE, Scene, Thing

RGB = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 225),
    "yellow": (235, 215, 50),
    "purple": (150, 50, 190),
    "orange": (240, 135, 30),
    "cyan": (60, 205, 215),
    "white": (240, 240, 240),
}
_JITTER = 12.0


def draw(scene: Scene) -> np.ndarray:
    """The picture of a scene, uint8 [96, 96, 3]."""
    rng = np.random.default_rng(scene.background)
    canvas = _background(rng)
    for thing in scene.things:
        rows, columns = _box(thing)
        alpha = coverage(thing)[rows, columns, None]
        colour = np.array(RGB[thing.colour]) + _JITTER * (2 * rng.random(3) - 1)
        canvas[rows, columns] = alpha * colour + (1 - alpha) * canvas[rows, columns]
    canvas += 8.0 * (rng.random((SIDE, SIDE, 1)) - 0.5)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def coverage(thing: Thing) -> np.ndarray:
    """Share of each pixel that a thing covers, float [96, 96] in [0, 1]."""
    rows, columns = _box(thing)
    y = np.arange(rows.start, rows.stop)[:, None] + 0.5 - thing.y
    x = np.arange(columns.start, columns.stop)[None, :] + 0.5 - thing.x
    cos, sin = np.cos(thing.angle), np.sin(thing.angle)
    distance = _signed_distance(thing.shape, x * cos + y * sin, y * cos - x * sin, thing.radius)
    full = np.zeros((SIDE, SIDE))
    full[rows, columns] = np.clip(0.5 - distance, 0, 1)
    return full


def patch_labels(scene: Scene, patch: int) -> np.ndarray:
    """Which thing each patch shows, int [side / patch, side / patch]; -1 is background.

    A patch belongs to the thing that covers most of it, if that is at least an eighth of the patch.
    """
    side = SIDE // patch
    shares = [coverage(thing).reshape(side, patch, side, patch).mean(axis=(1, 3)) for thing in scene.things]
    stacked = np.stack(shares)
    return np.where(stacked.max(axis=0) >= 1 / 8, stacked.argmax(axis=0), -1)


def _box(thing: Thing) -> tuple[slice, slice]:
    """Rows and columns that a thing can touch."""
    reach = 1.15 * thing.radius + 1

    def span(centre: float) -> slice:
        return slice(max(int(centre - reach), 0), min(int(centre + reach) + 2, SIDE))

    return span(thing.y), span(thing.x)


def _background(rng: np.random.Generator) -> np.ndarray:
    """Blotches, stripes and a tint, dull enough that no object drowns in them, float [96, 96, 3]."""
    coarse = rng.random((7, 7))
    at = np.linspace(0, 6, SIDE)
    low = np.minimum(at.astype(int), 5)
    weight = at - low
    rows = coarse[low] * (1 - weight)[:, None] + coarse[low + 1] * weight[:, None]
    blotches = rows[:, low] * (1 - weight) + rows[:, low + 1] * weight
    angle, pitch = np.pi * rng.random(), 5 + 10 * rng.random()
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    stripes = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / pitch)
    base = 60 + 40 * rng.random()
    tint = 16 * (rng.random(3) - 0.5)
    return base + tint + (36 * (blotches - 0.5) + 8 * stripes)[..., None]


def _signed_distance(shape: str, u: np.ndarray, v: np.ndarray, r: float) -> np.ndarray:
    """Distance in pixels to a shape's outline, negative inside; (u, v) is centred on the shape, v down."""
    match shape:
        case "circle":
            return np.hypot(u, v) - 0.95 * r
        case "square":
            return np.maximum(np.abs(u), np.abs(v)) - 0.82 * r
        case "diamond":
            return (np.abs(u) * 1.2 + np.abs(v) - 1.1 * r) / np.hypot(1.2, 1)
        case "ring":
            return np.abs(np.hypot(u, v) - 0.75 * r) - 0.25 * r
        case "cross":
            along = np.maximum(np.abs(u) - r, np.abs(v) - 0.3 * r)
            across = np.maximum(np.abs(v) - r, np.abs(u) - 0.3 * r)
            return np.minimum(along, across)
        case "triangle":
            side = (np.abs(u) * 1.75 - (v + r) * 0.98) / np.hypot(1.75, 0.98)
            return np.maximum(side, v - 0.75 * r)
        case "star":
            fifth = 2 * np.pi / 5
            # Angle to the nearest of five tips, the first of them pointing up.
            turn = np.abs((np.arctan2(u, -v) + fifth / 2) % fifth - fifth / 2)
            return np.hypot(u, v) - r * (1.12 - (1.12 - 0.42) * turn / (fifth / 2))
        case _:
            raise ValueError(f"no shape {shape}; the shapes are {', '.join(SHAPES)}")


assert set(RGB) == set(COLOURS)
