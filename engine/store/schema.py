"""The tables, as a list of migrations; `PRAGMA user_version` counts how many of them a file has had."""

# Each entry is one migration: statements run one by one inside a single transaction together with the version bump.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE voices (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            name_key TEXT NOT NULL,
            created REAL NOT NULL,
            last_used REAL,
            median_f0_hz REAL NOT NULL,
            f0_low_hz REAL NOT NULL,
            f0_high_hz REAL NOT NULL,
            seconds REAL NOT NULL,
            quality TEXT NOT NULL CHECK (quality IN ('good', 'poor')),
            messages TEXT NOT NULL,
            consent TEXT NOT NULL,
            colour TEXT NOT NULL,
            notes TEXT NOT NULL,
            origin TEXT NOT NULL,
            model_id TEXT NOT NULL,
            tensors_file TEXT NOT NULL,
            tensors_size INTEGER NOT NULL,
            picture_file TEXT,
            similarity REAL,
            previous TEXT,
            deleted REAL
        ) STRICT""",
        "CREATE UNIQUE INDEX voices_by_name ON voices (name_key) WHERE deleted IS NULL",
        """CREATE TABLE recordings (
            id INTEGER PRIMARY KEY,
            voice_id TEXT NOT NULL REFERENCES voices (id) ON DELETE CASCADE,
            position INTEGER NOT NULL,
            source_name TEXT NOT NULL,
            seconds REAL NOT NULL,
            voiced_seconds REAL NOT NULL,
            original_file TEXT NOT NULL,
            original_size INTEGER NOT NULL,
            processed_file TEXT NOT NULL,
            processed_size INTEGER NOT NULL,
            assessment TEXT NOT NULL,
            UNIQUE (voice_id, position)
        ) STRICT""",
        """CREATE TABLE renders (
            id TEXT PRIMARY KEY,
            created REAL NOT NULL,
            source TEXT NOT NULL,
            destination TEXT NOT NULL,
            voice_id TEXT,
            voice_name TEXT NOT NULL,
            preset TEXT NOT NULL,
            stems_folder TEXT,
            options TEXT NOT NULL,
            report TEXT NOT NULL
        ) STRICT""",
        "CREATE INDEX renders_by_time ON renders (created)",
        """CREATE TABLE jobs (
            id TEXT PRIMARY KEY,
            kind TEXT NOT NULL,
            title TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'failed', 'cancelled')),
            created REAL NOT NULL,
            finished REAL,
            parameters TEXT NOT NULL,
            error TEXT NOT NULL
        ) STRICT""",
        "CREATE INDEX jobs_by_time ON jobs (created)",
        "CREATE TABLE settings_versions (id INTEGER PRIMARY KEY, created REAL NOT NULL, saved TEXT NOT NULL) STRICT",
        "CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    ),
)

# Every column that names a file of the store, for the garbage pass; `previous` is JSON and read apart.
FILE_COLUMNS: tuple[tuple[str, str], ...] = (
    ("voices", "tensors_file"),
    ("voices", "picture_file"),
    ("recordings", "original_file"),
    ("recordings", "processed_file"),
)
