"""The table of a replay, in both formats."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from racepool.commands.replay.table import ROW_GROUP, write_ndjson, write_table
from racepool.protocol.errors import PoolError
from racepool.races.money_row import MoneyRow
from racepool.races.previous_amounts import LARGEST_AMOUNT
from racepool.races.transformed_race import MoneyFlowRecord
from tests.commands.replay.building import row

ROWS = [
    row(100, entrant="a"),
    row(LARGEST_AMOUNT - 7, entrant="b", fixed_win_odds=None, race_number=None, meeting_name=None),
    row(300, entrant="c", polling_timestamp=datetime(2025, 7, 17, 0, 14, 0, 123_456, tzinfo=UTC), is_scratched=True),
]


@pytest.mark.parametrize("name", ["day.parquet", "day.ndjson"])
def test_table_holds_every_row_as_it_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / name

    assert write_table(path, [ROWS[:2], [], ROWS[2:]]) == 3
    raw = (
        parquet.read_table(path).to_pylist()
        if path.suffix == ".parquet"
        else [json.loads(line) for line in path.read_text().splitlines()]
    )
    assert [MoneyRow.model_validate(each) for each in raw] == ROWS
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_columns_are_those_of_a_record_and_the_names_with_their_types(tmp_path: Path) -> None:
    write_table(tmp_path / "day.parquet", [ROWS])

    schema = parquet.read_schema(tmp_path / "day.parquet")
    assert schema.names == list(MoneyRow.model_fields)
    assert schema.names[: len(MoneyFlowRecord.model_fields)] == list(MoneyFlowRecord.model_fields)
    assert schema.field("win_pool_amount") == pa.field("win_pool_amount", pa.int64(), nullable=False)
    assert schema.field("polling_timestamp").type == pa.timestamp("us", "UTC")
    assert schema.field("fixed_win_odds") == pa.field("fixed_win_odds", pa.float64(), nullable=True)
    assert schema.field("race_number") == pa.field("race_number", pa.int64(), nullable=True)
    assert schema.field("is_scratched").type == pa.bool_()


def test_day_without_a_record_is_an_empty_table_with_all_columns(tmp_path: Path) -> None:
    assert write_table(tmp_path / "day.parquet", []) == 0
    assert parquet.read_table(tmp_path / "day.parquet").column_names == list(MoneyRow.model_fields)


def test_many_races_share_a_row_group_and_many_rows_do_not(tmp_path: Path) -> None:
    few = [ROWS] * 50
    many = [ROWS * (ROW_GROUP // 2 // len(ROWS) + 1)] * 3

    write_table(tmp_path / "few.parquet", few)
    write_table(tmp_path / "many.parquet", many)

    assert parquet.ParquetFile(tmp_path / "few.parquet").num_row_groups == 1
    assert parquet.ParquetFile(tmp_path / "many.parquet").num_row_groups == 3
    assert parquet.read_table(tmp_path / "many.parquet").num_rows == 3 * len(many[0])


@pytest.mark.parametrize("name", ["day.parquet", "day.ndjson"])
def test_table_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("the old one")

    def torn() -> Iterator[list[MoneyRow]]:
        yield ROWS
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_table(path, torn())

    assert path.read_text() == "the old one"
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_place_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"no/day\.ndjson: No such file or directory"):
        write_table(tmp_path / "no" / "day.ndjson", [ROWS])


def test_lines_go_to_a_stream_alike() -> None:
    stream = BytesIO()

    assert write_ndjson(stream, [ROWS[:1], ROWS[1:]]) == 3
    assert [json.loads(line)["entrant_id"] for line in stream.getvalue().splitlines()] == ["a", "b", "c"]
