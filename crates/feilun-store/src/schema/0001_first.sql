-- Words in braces stand for what the two databases call differently: see schema/mod.rs.
-- Ids and digests are bytes, instants microseconds since 1970, yes and no are 1 and 0, JSON is
-- text (it is never looked into by the database).

CREATE TABLE configs (
    hash {bytes} PRIMARY KEY,
    json TEXT NOT NULL,
    created_at {integer} NOT NULL
) {strict};

CREATE TABLE users (
    id {bytes} PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    password_hash TEXT,
    consent {integer},
    created_at {integer} NOT NULL,
    disabled_at {integer}
) {strict};

CREATE TABLE keys (
    id {bytes} PRIMARY KEY,
    hash {bytes} NOT NULL UNIQUE,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    user_id {bytes} REFERENCES users (id) ON DELETE CASCADE,
    consent {integer},
    requests_per_minute {integer},
    tokens_per_minute {integer},
    created_at {integer} NOT NULL,
    expires_at {integer},
    revoked_at {integer}
) {strict};
CREATE INDEX keys_of_user ON keys (user_id);

CREATE TABLE sessions (
    token_hash {bytes} PRIMARY KEY,
    user_id {bytes} NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at {integer} NOT NULL,
    expires_at {integer} NOT NULL
) {strict};
CREATE INDEX sessions_of_user ON sessions (user_id);
CREATE INDEX sessions_by_end ON sessions (expires_at);

-- Turns outlive the accounts and keys that made them, so these are no foreign keys; `forget`
-- removes what is a person's.
CREATE TABLE conversations (
    id {bytes} PRIMARY KEY,
    user_id {bytes},
    end_user TEXT,
    key_id {bytes},
    title TEXT,
    search_title TEXT NOT NULL,
    split TEXT NOT NULL,
    created_at {integer} NOT NULL,
    updated_at {integer} NOT NULL
) {strict};
CREATE INDEX conversations_of_user ON conversations (user_id, updated_at);
CREATE INDEX conversations_of_end_user ON conversations (end_user);
CREATE INDEX conversations_by_age ON conversations (updated_at, id);

CREATE TABLE turns (
    id {bytes} PRIMARY KEY,
    conversation_id {bytes} NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    parent_id {bytes},
    user_id {bytes},
    end_user TEXT,
    key_id {bytes},
    app TEXT,
    model {bytes} NOT NULL,
    adapter {bytes},
    alias TEXT,
    api TEXT NOT NULL,
    request TEXT NOT NULL,
    answer TEXT NOT NULL,
    prompt_tokens {bytes} NOT NULL,
    answer_tokens {bytes} NOT NULL,
    answer_logprobs {bytes} NOT NULL,
    seed {integer},
    sampling TEXT NOT NULL,
    template_hash {bytes},
    config_hash {bytes} NOT NULL REFERENCES configs (hash),
    consent_of_request {integer},
    may_learn {integer} NOT NULL,
    split TEXT NOT NULL,
    finish_reason TEXT NOT NULL,
    received_at {integer} NOT NULL,
    first_token_at {integer},
    finished_at {integer} NOT NULL,
    num_prompt_tokens {integer} NOT NULL,
    num_cached_tokens {integer} NOT NULL,
    num_generated_tokens {integer} NOT NULL,
    error TEXT,
    search_text TEXT NOT NULL
) {strict};
CREATE INDEX turns_of_conversation ON turns (conversation_id, id);
CREATE INDEX turns_of_user ON turns (user_id, id);
CREATE INDEX turns_of_end_user ON turns (end_user);
CREATE INDEX turns_of_key ON turns (key_id, id);
CREATE INDEX turns_of_config ON turns (config_hash);
CREATE INDEX turns_of_model ON turns (model, id);
CREATE INDEX turns_by_age ON turns (received_at);

CREATE TABLE feedback (
    id {bytes} PRIMARY KEY,
    turn_id {bytes} NOT NULL REFERENCES turns (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    rating {integer},
    score {real},
    body TEXT,
    preferred_id {bytes} REFERENCES turns (id) ON DELETE CASCADE,
    over_id {bytes} REFERENCES turns (id) ON DELETE CASCADE,
    choice {integer},
    tags TEXT NOT NULL,
    user_id {bytes},
    end_user TEXT,
    key_id {bytes},
    config_hash {bytes} NOT NULL REFERENCES configs (hash),
    created_at {integer} NOT NULL
) {strict};
CREATE INDEX feedback_of_turn ON feedback (turn_id, id);
CREATE INDEX feedback_of_preferred ON feedback (preferred_id);
CREATE INDEX feedback_of_over ON feedback (over_id);
CREATE INDEX feedback_of_user ON feedback (user_id);
CREATE INDEX feedback_of_end_user ON feedback (end_user);

CREATE TABLE events (
    id {bytes} PRIMARY KEY,
    turn_id {bytes} NOT NULL REFERENCES turns (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL,
    user_id {bytes},
    end_user TEXT,
    key_id {bytes},
    config_hash {bytes} NOT NULL REFERENCES configs (hash),
    created_at {integer} NOT NULL
) {strict};
CREATE INDEX events_of_turn ON events (turn_id, id);
CREATE INDEX events_of_user ON events (user_id);
CREATE INDEX events_of_end_user ON events (end_user);

CREATE TABLE models (
    digest {bytes} PRIMARY KEY,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    base {bytes},
    parent {bytes},
    run_id {bytes},
    config_hash {bytes},
    size_bytes {integer} NOT NULL,
    detail TEXT NOT NULL,
    created_at {integer} NOT NULL,
    blocked_at {integer},
    blocked_reason TEXT
) {strict};

CREATE TABLE aliases (
    name TEXT PRIMARY KEY,
    model {bytes} NOT NULL REFERENCES models (digest),
    adapter {bytes} REFERENCES models (digest),
    moved_at {integer} NOT NULL
) {strict};

CREATE TABLE alias_moves (
    id {bytes} PRIMARY KEY,
    alias TEXT NOT NULL,
    from_model {bytes},
    from_adapter {bytes},
    to_model {bytes},
    to_adapter {bytes},
    actor_kind TEXT NOT NULL,
    actor_id {bytes},
    reason TEXT NOT NULL,
    moved_at {integer} NOT NULL
) {strict};
CREATE INDEX moves_of_alias ON alias_moves (alias, id);

CREATE TABLE runs (
    id {bytes} PRIMARY KEY,
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    user_id {bytes},
    key_id {bytes},
    base {bytes},
    result {bytes},
    config_hash {bytes},
    detail TEXT NOT NULL,
    error TEXT,
    created_at {integer} NOT NULL,
    started_at {integer},
    finished_at {integer}
) {strict};
CREATE INDEX runs_by_status ON runs (status, id);

CREATE TABLE run_events (
    id {bytes} PRIMARY KEY,
    run_id {bytes} NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    level TEXT NOT NULL,
    message TEXT NOT NULL,
    data TEXT NOT NULL,
    created_at {integer} NOT NULL
) {strict};
CREATE INDEX events_of_run ON run_events (run_id, id);

CREATE TABLE files (
    id {bytes} PRIMARY KEY,
    purpose TEXT NOT NULL,
    name TEXT NOT NULL,
    size_bytes {integer} NOT NULL,
    digest {bytes} NOT NULL,
    user_id {bytes},
    key_id {bytes},
    created_at {integer} NOT NULL
) {strict};
CREATE INDEX files_of_digest ON files (digest);
CREATE INDEX files_of_user ON files (user_id);

CREATE TABLE audit (
    id {bytes} PRIMARY KEY,
    actor_kind TEXT NOT NULL,
    actor_id {bytes},
    action TEXT NOT NULL,
    object TEXT NOT NULL,
    detail TEXT NOT NULL,
    created_at {integer} NOT NULL
) {strict};
CREATE INDEX audit_of_action ON audit (action, id);
