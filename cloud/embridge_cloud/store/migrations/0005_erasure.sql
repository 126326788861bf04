-- Erasures: the participant's name stands here only until the last of their data is deleted, the salt and the digest
-- until every edge has answered.
CREATE TABLE erasures (
    erasure UUID PRIMARY KEY,
    participant VARCHAR,
    salt BLOB,
    fingerprint BLOB,
    issued_ns BIGINT NOT NULL,
    stage VARCHAR NOT NULL,
    report VARCHAR NOT NULL
);

-- Edges that have yet to say that they have carried an erasure out.
CREATE TABLE erasure_edges (
    erasure UUID NOT NULL,
    edge VARCHAR NOT NULL,
    PRIMARY KEY (erasure, edge)
);

-- Digests of the ids of sessions that were erased: what arrives of them later is not kept.
CREATE TABLE erased_sessions (
    digest VARCHAR PRIMARY KEY,
    erasure UUID NOT NULL
);

CREATE TABLE backups (
    backup UUID PRIMARY KEY,
    path VARCHAR NOT NULL,
    wall_ns BIGINT NOT NULL
);

CREATE TABLE backup_sessions (
    backup UUID NOT NULL,
    session UUID NOT NULL,
    content_hash VARCHAR NOT NULL,
    PRIMARY KEY (backup, session)
);
