"""PostgreSQL ends what waits too long, so that a machine that stands still keeps no rows from the others."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from perrin.errors import Unreachable
from perrin_orchestration.store.database import Database


@pytest.fixture
def database(postgres_migrated: str) -> Iterator[Database]:
    made = Database(postgres_migrated, patience=1.0)
    yield made
    made.close()


def test_a_transaction_whose_client_stands_still_is_ended_and_tried_again(database: Database) -> None:
    runs = []

    def work(connection: sa.Connection) -> int:
        runs.append(connection.exec_driver_sql("UPDATE pools SET reason = reason").rowcount)
        if len(runs) == 1:
            time.sleep(2.5)
        return int(connection.exec_driver_sql("SELECT 7").scalar_one())

    database.patience = 60.0
    assert database.write(work) == 7
    assert len(runs) == 2


def test_a_lock_that_somebody_keeps_is_waited_for_so_long_and_no_longer(database: Database) -> None:
    with database.migration() as other:
        other.exec_driver_sql("LOCK TABLE pools IN EXCLUSIVE MODE")
        began = time.monotonic()
        with pytest.raises(Unreachable, match="lock timeout"):
            database.write(lambda connection: connection.exec_driver_sql("UPDATE pools SET reason = reason"))
        assert time.monotonic() - began < 60


def test_a_migration_may_take_its_time(database: Database) -> None:
    with database.migration() as connection:
        time.sleep(2.5)
        assert connection.exec_driver_sql("SELECT 7").scalar_one() == 7


def test_a_server_that_is_gone_without_a_word_is_noticed_in_seconds(database: Database) -> None:
    with database.connection() as connection:
        parameters = connection.connection.driver_connection.info.get_parameters()
    wanted = {"keepalives_idle": "5", "keepalives_interval": "2", "keepalives_count": "3", "tcp_user_timeout": "10000"}
    assert wanted.items() <= parameters.items()


def test_what_the_url_says_of_patience_counts(postgres_migrated: str) -> None:
    url = f"{postgres_migrated}?keepalives_idle=77&options=-c%20work_mem%3D7MB"
    database = Database(url)
    with database.connection() as connection:
        assert connection.connection.driver_connection.info.get_parameters()["keepalives_idle"] == "77"
        assert connection.exec_driver_sql("SHOW work_mem").scalar_one() == "7MB"
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar_one() == "2s"
    database.close()
