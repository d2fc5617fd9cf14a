"""Scenes: a few objects of different shapes, colours, sizes and places, sampled from a seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring", "star")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white")
SIZES = ("small", "large")

SIDE = 96
"""Side of the picture in pixels."""

_RADII = {"small": (7.0, 8.5), "large": (11.5, 13.5)}
_MARGIN = 2.0
_MAX_THINGS = 5
_MIN_THINGS = 2


@dataclass(frozen=True)
class Thing:
    """One object: what it is and where its centre lies, in pixels (x to the right, y down)."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float
    angle: float

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """Objects that do not overlap, no two alike in both colour and shape, and a seed for the background."""

    things: tuple[Thing, ...]
    background: int

    @property
    def left_to_right(self) -> tuple[Thing, ...]:
        return tuple(sorted(self.things, key=lambda thing: thing.x))

    @property
    def top_to_bottom(self) -> tuple[Thing, ...]:
        return tuple(sorted(self.things, key=lambda thing: thing.y))


def pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    """One of `options` with equal chances."""
    return options[int(rng.integers(len(options)))]


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene of two to five objects.

    Half of the scenes use only a few colours and shapes, so that counts above one and pairs that share a
    property (the hard negatives) are common.
    """
    colours, shapes = COLOURS, SHAPES
    if rng.random() < 0.5:
        colours = tuple(rng.permutation(COLOURS)[: int(rng.integers(2, 4))].tolist())
        shapes = tuple(rng.permutation(SHAPES)[: int(rng.integers(2, 4))].tolist())
    wanted = int(rng.integers(_MIN_THINGS, _MAX_THINGS + 1))
    wanted = min(wanted, len(colours) * len(shapes))
    things: list[Thing] = []
    while len(things) < wanted:
        thing = _sample_thing(rng, colours, shapes)
        if all(_compatible(thing, other) for other in things):
            things.append(thing)
    return Scene(tuple(things), background=int(rng.integers(2**31)))


def _sample_thing(rng: np.random.Generator, colours: tuple[str, ...], shapes: tuple[str, ...]) -> Thing:
    size = pick(rng, SIZES)
    low, high = _RADII[size]
    radius = low + (high - low) * rng.random()
    room = SIDE - 2 * (radius + _MARGIN)
    return Thing(
        shape=pick(rng, shapes),
        colour=pick(rng, colours),
        size=size,
        x=radius + _MARGIN + room * rng.random(),
        y=radius + _MARGIN + room * rng.random(),
        radius=radius,
        angle=math.radians(15) * (2 * rng.random() - 1),
    )


def _compatible(thing: Thing, other: Thing) -> bool:
    apart = math.hypot(thing.x - other.x, thing.y - other.y)
    return thing.name != other.name and apart > thing.radius + other.radius + 3
