-- A band that does not count its samples leaves gaps whose length is an estimate.
ALTER TABLE chunks ADD COLUMN gap_inferred BOOLEAN DEFAULT false;

-- What a sealed session lacks, and whether the length of each gap is an estimate.
CREATE TABLE sealed_gaps (
    session UUID NOT NULL,
    stream INTEGER NOT NULL,
    first BIGINT NOT NULL,
    "end" BIGINT NOT NULL,
    inferred BOOLEAN NOT NULL,
    PRIMARY KEY (session, stream, first)
);

INSERT INTO sealed_gaps
SELECT session, stream, first, "end", false
FROM (
    SELECT session, stream, "end" AS first,
           coalesce(lead(first) OVER (PARTITION BY session, stream ORDER BY first, "end"), total) AS "end"
    FROM (
        SELECT session, stream, first, "end" FROM sealed_ranges
        UNION ALL
        SELECT session, stream, 0, 0 FROM sealed
    ) LEFT JOIN session_totals USING (session, stream)
)
WHERE "end" > first;

CREATE VIEW v_gaps AS
SELECT session, stream, s.name, g.first, (g."end" - g.first)::BIGINT AS n, (g."end" - g.first) / s.rate_hz AS seconds,
       g.inferred
FROM (
    SELECT session, stream, first - gap_before AS first, first AS "end", coalesce(gap_inferred, false) AS inferred
    FROM chunks WHERE gap_before > 0
    UNION ALL
    SELECT session, stream, first, "end", inferred FROM sealed_gaps
) g
JOIN streams s USING (session, stream);

CREATE OR REPLACE VIEW v_streams AS
SELECT
    s.session, s.stream, s.name, s.modality, s.channels, s.rate_hz, s.dtype, s.unit, s.device,
    coalesce(z.rows, h.samples, 0)::BIGINT AS samples,
    (greatest(coalesce(t.total, 0), coalesce(h."end", 0)) - coalesce(z.rows, h.samples, 0))::BIGINT AS missing,
    CASE WHEN z.session IS NOT NULL THEN coalesce(t.total, 0) - z.rows ELSE coalesce(h.declared, 0) END::BIGINT
        AS declared_lost,
    coalesce(h.inferred, g.inferred, 0)::BIGINT AS inferred_lost,
    coalesce(h.chunks, 0) AS hot_chunks,
    coalesce(h.bytes, z.bytes, 0)::BIGINT AS bytes,
    z.path AS sealed_path
FROM streams s
LEFT JOIN (
    SELECT session, stream, sum(n) AS samples, max(first + n) AS "end", sum(gap_before) AS declared,
           coalesce(sum(gap_before) FILTER (WHERE gap_inferred), 0) AS inferred, count(*) AS chunks, sum(bytes) AS bytes
    FROM chunks GROUP BY ALL
) h USING (session, stream)
LEFT JOIN sealed z USING (session, stream)
LEFT JOIN (
    SELECT session, stream, sum("end" - first) FILTER (WHERE inferred) AS inferred FROM sealed_gaps GROUP BY ALL
) g USING (session, stream)
LEFT JOIN session_totals t USING (session, stream);

-- What the devices of a session went through, as the edge saw it.
CREATE VIEW v_bands AS
SELECT session, seq, make_timestamp_ns((body->>'t_ns')::BIGINT) AS entered_at,
       ((body->>'t_ns')::BIGINT - s.started_ns) / 1e9 AS seconds,
       body->'band'->>'stream' AS stream, body->'band'->>'kind' AS kind, body->'band'->>'address' AS address,
       body->'band'->>'phase' AS phase, body->'band'->>'reason' AS reason, body->'band'->>'action' AS action,
       (body->'band'->>'battery')::INTEGER AS battery, (body->'band'->>'rssi_dbm')::INTEGER AS rssi_dbm,
       (body->'band'->>'connects')::BIGINT AS connects, (body->'band'->>'received')::BIGINT AS received,
       (body->'band'->>'lost')::BIGINT AS lost, (body->'band'->>'garbage')::BIGINT AS garbage
FROM events JOIN sessions s USING (session) WHERE kind = 'band';
