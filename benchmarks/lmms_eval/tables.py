"""Made benchmarks as parquet folders in the hub's layout, which both evaluators read."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True)
class Made:
    """A made benchmark.

    Attributes:
        task: himap's name of it.
        split: the hub's name of its split.
        types: column -> type, as the hub has them; the image comes in addition.
        records: rows without their images.
        answers: what the model is made to write, one for each row.
        config: the hub's configuration, empty for the default.
        parts: configuration -> column by whose values the rows are split once more (POPE's `Full`).
    """

    task: str
    split: str
    types: dict[str, str]
    records: list[Record]
    answers: list[str]
    config: str = ""
    parts: tuple[str, str] | None = None

    def part(self, value: str) -> Made:
        """The rows, with their answers, whose parting column has a value; all for an empty one."""
        if not value or self.parts is None:
            return self
        kept = [i for i, record in enumerate(self.records) if record[self.parts[1]] == value]
        rows, answers = [self.records[i] for i in kept], [self.answers[i] for i in kept]
        return replace(self, records=rows, answers=answers)


def write(made: Made, folder: Path) -> None:
    """Write the rows as parquet files, with the README that names configurations and splits."""
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    config = made.config or "default"
    files = {config: {made.split: made.records}}
    if made.parts:
        name, column = made.parts
        values = dict.fromkeys(record[column] for record in made.records)
        files[name] = {v: [r for r in made.records if r[column] == v] for v in values}
    lines = ["---", "configs:"]
    for config, splits in files.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for split, records in splits.items():
            path = folder / config / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            _dataset(made.types, records).to_parquet(path)
            lines += [f"  - split: {split}", f"    path: {path.relative_to(folder)}"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")


def _dataset(types: dict[str, str], records: list[Record]) -> Any:
    import datasets
    import pyarrow as pa

    answer = pa.struct(
        [("answer", pa.string()), ("answer_confidence", pa.string()), ("answer_id", pa.int64())]
    )
    known = {
        "string": pa.string(), "int8": pa.int8(), "int32": pa.int32(), "int64": pa.int64(),
        "strings": pa.list_(pa.string()), "int32s": pa.list_(pa.int32()), "answers": pa.list_(answer),
    }  # fmt: skip
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([*((name, known[kind]) for name, kind in types.items()), ("image", image)])
    rows = [
        {name: record[name] for name in types} | {"image": {"bytes": _png(number), "path": None}}
        for number, record in enumerate(records)
    ]
    return datasets.Dataset(pa.Table.from_pylist(rows, schema=schema)).cast_column("image", datasets.Image())


def _png(number: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, number // 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()
