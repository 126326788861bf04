-- Who takes part, and a secret each: what the audit log says of a person can be traced back only while it is kept.
CREATE TABLE people (
    participant VARCHAR PRIMARY KEY,
    secret BLOB NOT NULL,
    added_ns BIGINT NOT NULL
);

-- What a person agreed to; the newest row counts.
CREATE TABLE consents (
    participant VARCHAR NOT NULL,
    seq BIGINT NOT NULL,
    version VARCHAR NOT NULL,
    scopes VARCHAR NOT NULL,
    given_ns BIGINT NOT NULL,
    PRIMARY KEY (participant, seq)
);

-- Who did what when; every row carries the digest of the row before it. Holds no personal data.
CREATE TABLE audit (
    seq BIGINT PRIMARY KEY,
    wall_ns BIGINT NOT NULL,
    actor VARCHAR NOT NULL,
    action VARCHAR NOT NULL,
    subject VARCHAR NOT NULL,
    detail VARCHAR NOT NULL,
    previous VARCHAR NOT NULL,
    digest VARCHAR NOT NULL
);

-- What left the store and where it went.
CREATE TABLE exports (
    export UUID PRIMARY KEY,
    wall_ns BIGINT NOT NULL,
    format VARCHAR NOT NULL,
    path VARCHAR NOT NULL,
    actor VARCHAR NOT NULL
);

CREATE TABLE export_sessions (
    export UUID NOT NULL,
    session UUID NOT NULL,
    participant VARCHAR NOT NULL,
    PRIMARY KEY (export, session)
);
