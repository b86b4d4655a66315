"""The table of a replay, as Parquet or NDJSON. A file appears only when it is complete."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import IO, Any, Final, get_args

from pydantic import AwareDatetime

from racepool.protocol.errors import PoolError
from racepool.protocol.visible import visible_json
from racepool.races.money_row import MoneyRow
from racepool.races.transformed_race import IntervalType

ROW_GROUP: Final = 50_000  # rows; readers can skip whole groups, and larger groups compress no better

SUFFIXES: Final = (".parquet", ".ndjson")


def write_table(path: Path, races: Iterable[Iterable[MoneyRow]]) -> int:
    """Writes all rows, race by race, in the format of the path's suffix.

    Returns:
        How many rows there are.

    Raises:
        PoolError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            count = _write_parquet(file, races) if path.suffix == ".parquet" else write_ndjson(file, races)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise PoolError(f"{path}: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)
    return count


def write_ndjson(file: IO[bytes], races: Iterable[Iterable[MoneyRow]]) -> int:
    """Writes one JSON object on each line; returns how many."""
    count = 0
    for rows in races:
        for row in rows:
            file.write(visible_json(row.model_dump_json()).encode() + b"\n")
            count += 1
    return count


def _write_parquet(file: IO[bytes], races: Iterable[Iterable[MoneyRow]]) -> int:
    import pyarrow as pa  # noqa: PLC0415  # an extra
    from pyarrow import parquet  # noqa: PLC0415

    schema = _schema()
    count = 0
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in _groups(pa.Table.from_pylist([dict(row) for row in rows], schema) for rows in races):
            table = pa.concat_tables(group)
            writer.write_table(table, row_group_size=ROW_GROUP)
            count += table.num_rows
    return count


def _groups(tables: Iterable[Any]) -> Iterator[list[Any]]:
    """Groups the tables of races so that each group fills a row group."""
    group: list[Any] = []
    for table in tables:
        group.append(table)
        if sum(each.num_rows for each in group) >= ROW_GROUP:
            yield group
            group = []
    if group:
        yield group


def _schema() -> Any:  # noqa: ANN401  # pyarrow is imported late
    """The schema of a MoneyRow: a field that may be None is nullable."""
    import pyarrow as pa  # noqa: PLC0415

    kinds = {
        str: pa.string(),
        int: pa.int64(),
        float: pa.float64(),
        bool: pa.bool_(),
        AwareDatetime: pa.timestamp("us", "UTC"),
        IntervalType: pa.string(),
    }
    fields = []
    for name, field in MoneyRow.model_fields.items():
        annotation: Any = field.annotation  # may be a union, which pydantic's types do not say
        options = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
        (kind,) = (kinds[option] for option in options if option is not NoneType)
        fields.append(pa.field(name, kind, nullable=NoneType in options))
    return pa.schema(fields)
