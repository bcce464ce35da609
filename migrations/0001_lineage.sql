-- Lineage: what ran, from what, with what result. The store is the truth; this can be lost without losing a result.
CREATE TABLE runs (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    run        TEXT NOT NULL UNIQUE,
    pipeline   TEXT NOT NULL,
    path       TEXT NOT NULL,
    text       TEXT NOT NULL,
    set_json   TEXT NOT NULL,
    params     TEXT NOT NULL,
    status     TEXT NOT NULL CHECK (status IN ('running', 'done', 'failed', 'refused', 'interrupted')),
    started_ms INTEGER NOT NULL,
    seconds    REAL,
    changed    TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE stages (
    run        TEXT NOT NULL REFERENCES runs (run) ON DELETE CASCADE,
    stage      TEXT NOT NULL,
    position   INTEGER NOT NULL,
    operator   TEXT NOT NULL,
    version    INTEGER NOT NULL,
    status     TEXT NOT NULL CHECK (status IN ('waiting', 'running', 'ran', 'cached', 'failed', 'refused', 'skipped', 'interrupted')),
    key        TEXT,
    components TEXT,
    seconds    REAL,
    summary    TEXT NOT NULL DEFAULT '',
    failure    TEXT,
    attempts   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run, stage)
) STRICT;

CREATE TABLE inputs (
    run        TEXT NOT NULL,
    stage      TEXT NOT NULL,
    port       TEXT NOT NULL,
    position   INTEGER NOT NULL,
    from_stage TEXT NOT NULL,
    from_port  TEXT NOT NULL,
    PRIMARY KEY (run, stage, position),
    FOREIGN KEY (run, stage) REFERENCES stages (run, stage) ON DELETE CASCADE
) STRICT;

CREATE TABLE outputs (
    run      TEXT NOT NULL,
    stage    TEXT NOT NULL,
    port     TEXT NOT NULL,
    position INTEGER NOT NULL DEFAULT 1000,
    kind     TEXT NOT NULL DEFAULT '',
    digest   TEXT,
    PRIMARY KEY (run, stage, port),
    FOREIGN KEY (run, stage) REFERENCES stages (run, stage) ON DELETE CASCADE
) STRICT;
CREATE INDEX outputs_by_digest ON outputs (digest);

CREATE TABLE metrics (
    id    INTEGER PRIMARY KEY,
    run   TEXT NOT NULL,
    stage TEXT NOT NULL,
    name  TEXT NOT NULL,
    step  INTEGER,
    value REAL,
    FOREIGN KEY (run, stage) REFERENCES stages (run, stage) ON DELETE CASCADE
) STRICT;
CREATE INDEX metrics_by_name ON metrics (run, stage, name);

CREATE TABLE events (
    id    INTEGER PRIMARY KEY,
    run   TEXT NOT NULL REFERENCES runs (run) ON DELETE CASCADE,
    at_ms INTEGER NOT NULL,
    json  TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_run ON events (run);

CREATE TABLE published (
    path     TEXT PRIMARY KEY,
    digest   TEXT NOT NULL,
    size     INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ino      INTEGER NOT NULL
) STRICT;
