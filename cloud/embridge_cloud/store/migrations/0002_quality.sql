-- What the edge saw of every channel while it recorded: one row a window and channel, until the session is sealed.
CREATE TABLE quality (
    session UUID NOT NULL,
    seq BIGINT NOT NULL,
    stream INTEGER NOT NULL,
    channel INTEGER NOT NULL,
    first BIGINT NOT NULL,
    n BIGINT NOT NULL,
    t_ns BIGINT NOT NULL,
    grade VARCHAR NOT NULL,
    loss DOUBLE,
    clipping DOUBLE,
    railed DOUBLE,
    flat_s DOUBLE,
    dropout DOUBLE,
    mains_db DOUBLE,
    snr_db DOUBLE,
    response_db DOUBLE,
    motion_db DOUBLE,
    shape DOUBLE,
    drift DOUBLE,
    bridge DOUBLE,
    floor_uv DOUBLE,
    odd_db DOUBLE,
    reasons VARCHAR NOT NULL,
    PRIMARY KEY (session, seq, channel)
);

-- What is left of it here once the session is sealed; the rows are in its folder.
CREATE TABLE sealed_quality (
    session UUID NOT NULL,
    stream INTEGER NOT NULL,
    channel INTEGER NOT NULL,
    windows BIGINT NOT NULL,
    warn BIGINT NOT NULL,
    bad BIGINT NOT NULL,
    reasons VARCHAR NOT NULL,
    PRIMARY KEY (session, stream, channel)
);

CREATE VIEW v_quality AS
SELECT session, stream, channel, windows, warn, bad,
       CASE WHEN bad >= 0.1 * windows THEN 'bad' WHEN bad + warn >= 0.1 * windows THEN 'warn' ELSE 'good' END AS grade,
       reasons
FROM (
    SELECT session, stream, channel, count(*) AS windows,
           count(*) FILTER (WHERE grade = 'warn') AS warn, count(*) FILTER (WHERE grade = 'bad') AS bad,
           coalesce(arg_max(reasons, t_ns) FILTER (WHERE grade IN ('warn', 'bad')), '') AS reasons
    FROM quality GROUP BY session, stream, channel
    UNION ALL
    SELECT session, stream, channel, windows, warn, bad, reasons FROM sealed_quality
);
