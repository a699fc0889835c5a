-- A browser may be logged in with a key, too. Sessions are made anew: people log in again.
DROP TABLE sessions;

CREATE TABLE sessions (
    token_hash {bytes} PRIMARY KEY,
    user_id {bytes} REFERENCES users (id) ON DELETE CASCADE,
    key_id {bytes} REFERENCES keys (id) ON DELETE CASCADE,
    created_at {integer} NOT NULL,
    expires_at {integer} NOT NULL,
    CHECK ((user_id IS NULL) <> (key_id IS NULL))
) {strict};
CREATE INDEX sessions_of_user ON sessions (user_id);
CREATE INDEX sessions_of_key ON sessions (key_id);
CREATE INDEX sessions_by_end ON sessions (expires_at);
