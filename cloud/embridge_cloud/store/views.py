"""`views.duckdb`: what the store holds, for a person with plain DuckDB, while the cloud process runs.

The hot file cannot be read by a second process, so what it knows is copied: who, what, when, which gaps, which quality.
Samples and clocks are views over the sealed Parquet files themselves. The file is made aside and takes the place of the
last one in one rename; who has the old one open keeps reading that.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import duckdb

from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.rewrite import sync

logger = logging.getLogger(__name__)

NAME = "views.duckdb"

_PLAIN = re.compile(r"[^a-z0-9_]+")
_SESSION_GLOB = "-".join("[0-9a-f]" * n for n in (8, 4, 4, 4, 12))

_EXPORTED = {
    "sessions": """
        SELECT v.*, s.consent_version, make_timestamp_ns(z.sealed_ns) AS sealed_at
        FROM v_sessions v JOIN sessions s USING (session) LEFT JOIN sealed_sessions z USING (session)""",
    "streams": """
        SELECT v.*, s.scale, s.calibrated, x.participant, x.edge
        FROM v_streams v JOIN streams s USING (session, stream) JOIN sessions x USING (session)""",
    "cues": """
        SELECT c.*, s.participant, make_timestamp_ns(c.start_ns) AS started_at, make_timestamp_ns(c.end_ns) AS ended_at
        FROM cues c JOIN sessions s USING (session)""",
    "repetitions": """
        SELECT r.*, s.participant, make_timestamp_ns(r.start_ns) AS started_at, make_timestamp_ns(r.end_ns) AS ended_at
        FROM repetitions r JOIN sessions s USING (session)""",
    "decoded": """
        SELECT e.session, e.seq, s.participant, s.release, body->>'change' AS change, body->>'gesture' AS gesture,
               (body->>'t_ns')::BIGINT AS t_ns, make_timestamp_ns((body->>'t_ns')::BIGINT) AS at,
               (body->>'number')::BIGINT AS number, (body->>'probability')::DOUBLE AS probability,
               (body->>'lasted_s')::DOUBLE AS lasted_s
        FROM events e JOIN sessions s USING (session) WHERE kind = 'decoded'""",
    "gaps": "SELECT session, name AS stream, first, n, seconds, inferred FROM v_gaps",
    "quality": """
        SELECT q.* EXCLUDE (stream), t.name AS stream FROM v_quality q
        JOIN (SELECT session, stream, name FROM streams) t USING (session, stream)""",
    "edges": """
        SELECT edge, online, agent, release, recording, spooled, spooled_bytes,
               make_timestamp_ns(received_ns) AS seen_at FROM edges""",
}

_WINDOWS = """
CREATE MACRO windows_of(length_s, stride_s) AS TABLE
    SELECT session, participant, gesture, repetition, number,
           start_ns + (number * stride_s * 1e9)::BIGINT AS start_ns,
           start_ns + ((number * stride_s + length_s) * 1e9)::BIGINT AS end_ns
    FROM (
        SELECT *, unnest(range(greatest(0,
            1 + floor(((end_ns - start_ns) * 1e-9 - length_s) / stride_s + 1e-9)::BIGINT))) AS number
        FROM repetitions WHERE status = 'accepted'
    );
CREATE VIEW windows AS FROM windows_of(1.0, 0.2);
"""


def write_views(store: HotStore, sealed: Path, path: Path) -> None:
    """Make `path` anew.

    Args:
        store: The open store.
        sealed: Folder of the sealed sessions.
        path: Where to; the file there is replaced.

    Raises:
        StoreError: The database refused; the old file stands.
    """
    part = path.with_name(f".{path.name}.part")
    for left in path.parent.glob(part.name + "*"):
        left.unlink()
    quoted = str(part).replace("'", "''")
    with store.read.snapshot() as connection:
        connection.execute(f"ATTACH '{quoted}' AS people_see")
        try:
            connection.begin()
            for name, sql in _EXPORTED.items():
                connection.execute(f"CREATE TABLE people_see.main.{name} AS {sql}")
            sealed_streams = connection.execute(
                "SELECT DISTINCT name FROM streams JOIN sealed USING (session, stream) ORDER BY name"
            ).fetchall()
            connection.commit()
        finally:
            connection.execute("DETACH people_see")
    made = duckdb.connect(str(part))
    try:
        made.execute(_WINDOWS)
        for view in _over_files(sealed, [name for (name,) in sealed_streams]):
            made.execute(view)
        made.execute("CHECKPOINT")
    finally:
        made.close()
    part.chmod(0o640)
    sync(part)
    # A log somebody's own writing left beside the old file does not belong to the new one.
    path.with_name(path.name + ".wal").unlink(missing_ok=True)
    part.replace(path)


def remove_views(path: Path) -> None:
    """Remove the file, as when somebody in it is erased."""
    for left in [path, path.with_name(path.name + ".wal"), *path.parent.glob(f".{path.name}.part*")]:
        left.unlink(missing_ok=True)


def changes(store: HotStore) -> tuple[object, ...]:
    """Differs when what the views hold may have changed."""
    sql = (
        "SELECT (SELECT count(*) FROM sessions), (SELECT max(received_ns) FROM events), "
        "(SELECT max(received_ns) FROM chunks), (SELECT count(*) FROM sealed_sessions), "
        "(SELECT max(received_ns) FROM edges)"
    )
    return store.read.rows(sql)[0]


def view_name(stream: str) -> str:
    """Name of the view over the samples of streams called `stream`."""
    return "samples_" + _PLAIN.sub("_", stream.lower()).strip("_")


def _over_files(sealed: Path, names: list[str]) -> list[str]:
    """Views over Parquet files, one a stream name; the session is the name of a file's folder."""
    folder = str(sealed / _SESSION_GLOB).replace("'", "''")
    session = "parse_path(filename)[-2]::UUID AS session"
    views, clocks = [], []
    for name in names:
        quoted = name.replace("'", "''")
        files = f"read_parquet('{folder}/{quoted}.parquet', filename = true, union_by_name = true)"
        views.append(
            f"CREATE VIEW {view_name(name)} AS SELECT {session}, * EXCLUDE (filename) FROM {files}"  # noqa: S608
        )
        arrivals = f"read_parquet('{folder}/{quoted}.arrivals.parquet', filename = true)"
        clocks.append(f"SELECT {session}, '{quoted}' AS stream, index, host_ns FROM {arrivals}")  # noqa: S608
    nothing = (
        "SELECT NULL::UUID AS session, ''::VARCHAR AS stream, 0::BIGINT AS index, 0::BIGINT AS host_ns WHERE false"
    )
    return [*views, f"CREATE VIEW clock AS {' UNION ALL '.join(clocks) or nothing}"]
