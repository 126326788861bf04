CREATE TABLE participants (
    id VARCHAR NOT NULL,
    consent_version VARCHAR NOT NULL,
    PRIMARY KEY (id, consent_version)
);

CREATE TABLE sessions (
    session UUID PRIMARY KEY,
    edge VARCHAR NOT NULL,
    participant VARCHAR NOT NULL,
    consent_version VARCHAR NOT NULL,
    side VARCHAR NOT NULL,
    position VARCHAR NOT NULL,
    rotation_deg DOUBLE,
    purpose VARCHAR NOT NULL,
    protocol VARCHAR NOT NULL,
    started_ns BIGINT NOT NULL,
    host_ns BIGINT NOT NULL,
    source VARCHAR NOT NULL,
    release VARCHAR NOT NULL,
    description JSON NOT NULL
);

CREATE TABLE streams (
    session UUID NOT NULL,
    stream INTEGER NOT NULL,
    name VARCHAR NOT NULL,
    modality VARCHAR NOT NULL,
    channels INTEGER NOT NULL,
    rate_hz DOUBLE NOT NULL,
    dtype VARCHAR NOT NULL,
    unit VARCHAR NOT NULL,
    scale DOUBLE NOT NULL,
    calibrated BOOLEAN NOT NULL,
    device VARCHAR NOT NULL,
    PRIMARY KEY (session, stream)
);

-- Payloads as received; `first` counts samples from the start of the stream.
CREATE TABLE chunks (
    session UUID NOT NULL,
    stream INTEGER NOT NULL,
    first BIGINT NOT NULL,
    n BIGINT NOT NULL,
    gap_before BIGINT NOT NULL,
    t0_ns BIGINT NOT NULL,
    crc UINTEGER NOT NULL,
    received_ns BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (session, stream, first)
);

CREATE TABLE events (
    session UUID NOT NULL,
    seq BIGINT NOT NULL,
    kind VARCHAR NOT NULL,
    body JSON NOT NULL,
    received_ns BIGINT NOT NULL,
    PRIMARY KEY (session, seq)
);

CREATE TABLE cues (
    session UUID NOT NULL,
    seq BIGINT NOT NULL,
    gesture VARCHAR NOT NULL,
    repetition BIGINT NOT NULL,
    start_ns BIGINT NOT NULL,
    end_ns BIGINT NOT NULL,
    PRIMARY KEY (session, seq)
);

CREATE TABLE repetitions (
    session UUID NOT NULL,
    seq BIGINT NOT NULL,
    gesture VARCHAR NOT NULL,
    repetition BIGINT NOT NULL,
    start_ns BIGINT NOT NULL,
    end_ns BIGINT NOT NULL,
    status VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    PRIMARY KEY (session, seq)
);

CREATE TABLE session_ends (
    session UUID PRIMARY KEY,
    seq BIGINT NOT NULL,
    ended_ns BIGINT NOT NULL,
    reason VARCHAR NOT NULL
);

CREATE TABLE session_totals (
    session UUID NOT NULL,
    stream INTEGER NOT NULL,
    total BIGINT NOT NULL,
    PRIMARY KEY (session, stream)
);

CREATE TABLE sealed_sessions (
    session UUID PRIMARY KEY,
    path VARCHAR NOT NULL,
    content_hash VARCHAR NOT NULL,
    sealed_ns BIGINT NOT NULL
);

CREATE TABLE sealed (
    session UUID NOT NULL,
    stream INTEGER NOT NULL,
    path VARCHAR NOT NULL,
    sha256 VARCHAR NOT NULL,
    rows BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (session, stream)
);

-- Which samples a sealed session holds, so that a late duplicate is known for what it is.
CREATE TABLE sealed_ranges (
    session UUID NOT NULL,
    stream INTEGER NOT NULL,
    first BIGINT NOT NULL,
    "end" BIGINT NOT NULL,
    PRIMARY KEY (session, stream, first)
);

CREATE TABLE quarantine (
    id VARCHAR PRIMARY KEY,
    received_ns BIGINT NOT NULL,
    topic VARCHAR NOT NULL,
    edge VARCHAR NOT NULL,
    session UUID,
    stream INTEGER,
    first BIGINT,
    reason VARCHAR NOT NULL,
    detail VARCHAR NOT NULL,
    payload BLOB NOT NULL,
    bytes BIGINT NOT NULL
);

CREATE TABLE edges (
    edge VARCHAR PRIMARY KEY,
    online BOOLEAN NOT NULL,
    agent VARCHAR NOT NULL,
    release VARCHAR NOT NULL,
    recording UUID,
    spooled BIGINT NOT NULL,
    spooled_bytes BIGINT NOT NULL,
    t_ns BIGINT NOT NULL,
    received_ns BIGINT NOT NULL,
    body JSON NOT NULL
);

CREATE VIEW v_streams AS
SELECT
    s.session, s.stream, s.name, s.modality, s.channels, s.rate_hz, s.dtype, s.unit, s.device,
    coalesce(z.rows, h.samples, 0)::BIGINT AS samples,
    (greatest(coalesce(t.total, 0), coalesce(h."end", 0)) - coalesce(z.rows, h.samples, 0))::BIGINT AS missing,
    CASE WHEN z.session IS NOT NULL THEN coalesce(t.total, 0) - z.rows ELSE coalesce(h.declared, 0) END::BIGINT
        AS declared_lost,
    coalesce(h.chunks, 0) AS hot_chunks,
    coalesce(h.bytes, z.bytes, 0)::BIGINT AS bytes,
    z.path AS sealed_path
FROM streams s
LEFT JOIN (
    SELECT session, stream, sum(n) AS samples, max(first + n) AS "end", sum(gap_before) AS declared,
           count(*) AS chunks, sum(bytes) AS bytes
    FROM chunks GROUP BY ALL
) h USING (session, stream)
LEFT JOIN sealed z USING (session, stream)
LEFT JOIN session_totals t USING (session, stream);

CREATE VIEW v_sessions AS
SELECT
    s.session, s.edge, s.participant, s.side, s.position, s.purpose, s.protocol, s.source, s.release,
    CASE WHEN z.session IS NOT NULL THEN 'sealed' WHEN e.session IS NOT NULL THEN 'ended' ELSE 'open' END AS state,
    make_timestamp_ns(s.started_ns) AS started_at,
    make_timestamp_ns(e.ended_ns) AS ended_at,
    e.reason AS end_reason,
    v.streams, v.samples, v.missing, v.declared_lost, v.hot_chunks, v.bytes,
    (SELECT count(*) FROM events x WHERE x.session = s.session) AS events,
    (SELECT count(*) FROM cues c WHERE c.session = s.session) AS cues,
    (SELECT count(*) FROM repetitions r WHERE r.session = s.session AND r.status = 'accepted') AS accepted,
    (SELECT count(*) FROM repetitions r WHERE r.session = s.session AND r.status = 'rejected') AS rejected,
    z.content_hash, z.path AS sealed_path
FROM sessions s
LEFT JOIN session_ends e USING (session)
LEFT JOIN sealed_sessions z USING (session)
LEFT JOIN (
    SELECT session, count(*) AS streams, sum(samples)::BIGINT AS samples, sum(missing)::BIGINT AS missing,
           sum(declared_lost)::BIGINT AS declared_lost, sum(hot_chunks)::BIGINT AS hot_chunks,
           sum(bytes)::BIGINT AS bytes
    FROM v_streams GROUP BY session
) v USING (session);

CREATE VIEW v_quarantine AS
SELECT reason, edge, session, count(*) AS messages, sum(bytes)::BIGINT AS bytes,
       make_timestamp_ns(min(received_ns)) AS first_at, make_timestamp_ns(max(received_ns)) AS last_at
FROM quarantine GROUP BY ALL;
